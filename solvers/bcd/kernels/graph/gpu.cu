// CUDA twins of the kernels in cpu.py; launched by gpu.py.
#include "common.cuh"

// First place in [begin, end) whose parent is p or a later node; parents ascend below the roots.
__device__ inline long long lower_bound(const long long* up, long long begin, long long end,
                                        long long p) {
  while (begin < end) {
    const long long middle = (begin + end) / 2;
    if (up[middle] < p) {
      begin = middle + 1;
    } else {
      end = middle;
    }
  }
  return begin;
}

// A forest, level by level; places count from levels[0], `up` from the start of all blocks.
struct Levels {
  const long long *levels, *up;
  long long base;

  __device__ long long start(long long l) const { return levels[l] - base; }
  __device__ long long parent(long long p) const { return up[p] - base; }
  __device__ long long first_child(long long p, long long l) const {
    return lower_bound(up, start(l + 1), start(l + 2), p + base);
  }
};

// One block: nodes of a level side by side, each gathers from its children.
template <class T>
__global__ void factor_forest(const long long* __restrict__ levels, long long number,
                              const long long* __restrict__ up, const T* __restrict__ weight,
                              const double* __restrict__ diagonal, double* pivots,
                              double* factors, long long* sizes, bool* sound) {
  const Levels forest{levels, up, levels[0]};
  int bad = 0;
  for (long long l = number - 1; l >= 0; --l) {
    __syncthreads();  // the level below is done
    for (long long p = forest.start(l) + threadIdx.x; p < forest.start(l + 1); p += blockDim.x) {
      double pivot = pivots[p];
      long long size = 1;
      if (l + 1 < number) {
        const long long end = forest.start(l + 2);
        for (long long q = forest.first_child(p, l); q < end && forest.parent(q) == p; ++q) {
          pivot -= factors[q] * weight[q];
          size += sizes[q];
        }
      }
      if (l > 0) {
        if (!(pivot > 0)) bad = 1;
        factors[p] = weight[p] / pivot;
      } else {
        // Only a root's pivot can vanish; rounding leaves as much as the tree has nodes.
        const double noise = 4.0 * lim<T>::eps() * size * diagonal[p];
        if (!(pivot >= -noise)) bad = 1;
        pivot = pivot <= noise ? 0.0 : pivot;
        factors[p] = 0;
      }
      pivots[p] = pivot;
      sizes[p] = size;
    }
  }
  bad = block_max(bad);
  if (threadIdx.x == 0) *sound = bad == 0;
}

template <class T>
__global__ void solve_forest(const long long* __restrict__ levels, long long number,
                             const long long* __restrict__ up, const double* __restrict__ pivots,
                             const double* __restrict__ factors, T* h, long long columns,
                             double* left) {
  const Levels forest{levels, up, levels[0]};
  for (long long l = number - 2; l >= 0; --l) {
    __syncthreads();  // the level below is done
    const long long size = (forest.start(l + 1) - forest.start(l)) * columns;
    for (long long t = threadIdx.x; t < size; t += blockDim.x) {
      const long long p = forest.start(l) + t / columns, c = t % columns;
      const long long end = forest.start(l + 2);
      for (long long q = forest.first_child(p, l); q < end && forest.parent(q) == p; ++q) {
        h[p * columns + c] -= factors[q] * h[q * columns + c];
      }
    }
  }
  double most = 0;
  for (long long l = 0; l < number; ++l) {
    __syncthreads();  // the level above is done
    const long long size = (forest.start(l + 1) - forest.start(l)) * columns;
    for (long long t = threadIdx.x; t < size; t += blockDim.x) {
      const long long p = forest.start(l) + t / columns, c = t % columns;
      T& value = h[p * columns + c];
      if (l > 0) {
        value = value / pivots[p] - factors[p] * h[forest.parent(p) * columns + c];
      } else if (pivots[p] > 0) {
        value /= pivots[p];
      } else {
        most = vmax(most, (double)abs(value));
        value = 0;
      }
    }
  }
  most = block_max(most);
  if (threadIdx.x == 0) *left = most;
}

template <class T>
__global__ void split_rows(const long long* __restrict__ ptr, const int* __restrict__ idx,
                           const long long* __restrict__ blocks, long long number,
                           long long* __restrict__ low, long long* __restrict__ high,
                           long long m) {
  for (long long p = blockIdx.x * (long long)blockDim.x + threadIdx.x; p < m;
       p += (long long)gridDim.x * blockDim.x) {
    long long b = 0;
    while (b + 1 < number && blocks[b + 1] <= p) ++b;
    long long k = ptr[p];
    while (k < ptr[p + 1] && idx[k] < blocks[b]) ++k;
    low[p] = k;
    while (k < ptr[p + 1] && idx[k] < blocks[b + 1]) ++k;
    high[p] = k;
  }
}

// Set rows `first` to `last` of `out` to their products with x, by some of their entries.
template <class T>
__global__ void row_products(const long long* __restrict__ begin,
                             const long long* __restrict__ end, const int* __restrict__ idx,
                             const T* __restrict__ val, const T* __restrict__ x,
                             T* __restrict__ out, long long first, long long last,
                             long long columns) {
  const long long size = (last - first) * columns;
  for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < size;
       t += (long long)gridDim.x * blockDim.x) {
    const long long p = first + t / columns, c = t % columns;
    T total = 0;
    for (long long k = begin[p]; k < end[p]; ++k) total += val[k] * x[idx[k] * columns + c];
    out[p * columns + c] = total;
  }
}

// The unknowns of one colour, which are not coupled.
template <class T>
__global__ void projected_sweep(const long long* __restrict__ ptr, const int* __restrict__ idx,
                                const T* __restrict__ val, const T* __restrict__ diagonal,
                                const T* __restrict__ b, T lo, T hi,
                                const int* __restrict__ order, long long first, long long last,
                                T* x, long long columns) {
  const long long size = (last - first) * columns;
  for (long long t = blockIdx.x * (long long)blockDim.x + threadIdx.x; t < size;
       t += (long long)gridDim.x * blockDim.x) {
    const long long i = order[first + t / columns], c = t % columns;
    T g = -b[i * columns + c];
    for (long long k = ptr[i]; k < ptr[i + 1]; ++k) g += val[k] * x[idx[k] * columns + c];
    x[i * columns + c] = vmin(vmax(x[i * columns + c] - g / diagonal[i], lo), hi);
  }
}

// The assignments of the points of one colour.
template <class T>
__global__ void assignment_sweep(const long long* __restrict__ ptr, const int* __restrict__ idx,
                                 const T* __restrict__ val, const T* __restrict__ cost, T lam,
                                 T barrier, const int* __restrict__ order, long long first,
                                 long long last, T* Y, long long columns) {
  for (long long t = first + blockIdx.x * (long long)blockDim.x + threadIdx.x; t < last;
       t += (long long)gridDim.x * blockDim.x) {
    const long long i = order[t];
    T* y = Y + i * columns;
    T top = lim<T>::lowest(), total = 0;
    for (long long c = 0; c < columns; ++c) {
      T z = -cost[i * columns + c];
      for (long long k = ptr[i]; k < ptr[i + 1]; ++k) z += lam * val[k] * Y[idx[k] * columns + c];
      y[c] = z;
      top = vmax(top, z);
    }
    for (long long c = 0; c < columns; ++c) {
      y[c] = fexp((y[c] - top) / barrier);
      total += y[c];
    }
    for (long long c = 0; c < columns; ++c) y[c] /= total;
  }
}
