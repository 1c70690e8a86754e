// CUDA twins of the kernels in cpu.py; launched by gpu.py. Sweeps depend on one another, so one
// block of threads does them; the samples or the gradient are spread over its threads.
#include "common.cuh"

template <class T>
__global__ void block_distances(const long long* __restrict__ ptr, const T* __restrict__ l1,
                                const T* __restrict__ l2, const T* __restrict__ ridge,
                                const T* __restrict__ w, const T* __restrict__ g,
                                T* __restrict__ out, long long blocks) {
  for (long long b = blockIdx.x * (long long)blockDim.x + threadIdx.x; b < blocks;
       b += (long long)gridDim.x * blockDim.x) {
    T size = 0, total = 0;
    for (long long j = ptr[b]; j < ptr[b + 1]; ++j) size += w[j] * w[j];
    size = sqrt(size);
    for (long long j = ptr[b]; j < ptr[b + 1]; ++j) {
      T slope = g[j] + ridge[j] * w[j];
      if (w[j] != 0) {
        slope += (w[j] > 0 ? l1[j] : -l1[j]) + (size > 0 ? l2[b] * (w[j] / size) : T(0));
      } else {
        slope = vmax((slope > 0 ? slope : -slope) - l1[j], T(0));
      }
      total += slope * slope;
    }
    total = sqrt(total);
    out[b] = size > 0 ? total : vmax(total - l2[b], T(0));
  }
}

template <class T>
__global__ void block_bounds(const T* __restrict__ H, const long long* __restrict__ ptr,
                             T* __restrict__ out, long long blocks, long long n) {
  for (long long b = blockIdx.x * (long long)blockDim.x + threadIdx.x; b < blocks;
       b += (long long)gridDim.x * blockDim.x) {
    T largest = 0, square = 0;
    for (long long i = ptr[b]; i < ptr[b + 1]; ++i) {
      T total = 0;
      for (long long j = ptr[b]; j < ptr[b + 1]; ++j) {
        const T h = H[i * n + j];
        total += h > 0 ? h : -h;
        square += h * h;
      }
      largest = vmax(largest, total);
    }
    out[b] = vmin(largest, T(sqrt(square)));
  }
}

// Set `step` to the proximal step of a block that begins at `first`; return its length.
template <class T>
__device__ T move_block(long long first, long long size, const T* l1, T l2, const T* ridge,
                        T bound, const T* slope, const T* w, T* step) {
  const T t = 1 / bound;
  T square = 0;
  for (long long i = 0; i < size; ++i) {
    const T v = w[i] - t * slope[i];
    const T kept = vmax((v > 0 ? v : -v) - t * l1[first + i], T(0));
    step[i] = v > 0 ? kept : -kept;
    square += kept * kept;
  }
  T scale = 1;
  if (l2 > 0) scale = square > 0 ? vmax(1 - t * l2 / T(sqrt(square)), T(0)) : T(0);
  square = 0;
  for (long long i = 0; i < size; ++i) {
    step[i] = step[i] * scale / (1 + t * ridge[first + i]) - w[i];
    square += step[i] * step[i];
  }
  return sqrt(square);
}

// `work` holds three rows of the widest block's size: slope, point and step.
template <class T>
__global__ void block_sweeps(const T* __restrict__ H, const long long* __restrict__ ptr,
                             const T* __restrict__ l1, const T* __restrict__ l2,
                             const T* __restrict__ ridge, const T* __restrict__ bound, T* w, T* g,
                             long long sweeps, T tol, long long blocks, long long n, T* work,
                             long long widest, long long inner) {
  __shared__ T start;
  T *slope = work, *point = work + widest, *step = work + 2 * widest;
  for (long long sweep = 0; sweep < sweeps; ++sweep) {
    T worst = 0;
    for (long long b = 0; b < blocks; ++b) {
      const long long first = ptr[b], size = ptr[b + 1] - first;
      if (!(bound[b] > 0)) continue;
      if (threadIdx.x == 0) {
        for (long long i = 0; i < size; ++i) {
          point[i] = w[first + i];
          slope[i] = g[first + i];
        }
        for (long long k = 0; k < inner; ++k) {
          const T moved =
              bound[b] * move_block(first, size, l1, l2[b], ridge, bound[b], slope, point, step);
          if (k == 0) start = moved;
          for (long long i = 0; i < size; ++i) {
            point[i] += step[i];
            for (long long j = 0; j < size; ++j) slope[j] += H[(first + i) * n + first + j] * step[i];
          }
          if (size == 1 || moved <= T(0.1) * start) break;
        }
        for (long long i = 0; i < size; ++i) {
          step[i] = point[i] - w[first + i];
          w[first + i] = point[i];
        }
      }
      __syncthreads();
      worst = vmax(worst, start);
      for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        T change = 0;
        for (long long i = 0; i < size; ++i) change += step[i] * H[(first + i) * n + j];
        g[j] += change;
      }
      __syncthreads();
    }
    if (worst <= tol) break;
  }
}

// `work` holds two rows of the widest block's size: slope and step.
template <class T>
__global__ void column_sweeps(const T* __restrict__ A, const T* __restrict__ D,
                              const T* __restrict__ Q, const long long* __restrict__ ptr,
                              const T* __restrict__ l1, const T* __restrict__ l2,
                              const T* __restrict__ ridge, const T* __restrict__ bound, T* w, T* R,
                              long long sweeps, T tol, long long blocks, long long n, long long C,
                              bool classes, T* work, long long widest) {
  __shared__ T length;
  T *slope = work, *step = work + widest;
  for (long long sweep = 0; sweep < sweeps; ++sweep) {
    T worst = 0;
    for (long long b = 0; b < blocks; ++b) {
      const long long first = ptr[b], size = ptr[b + 1] - first;
      if (!(bound[b] > 0)) continue;
      for (long long j = 0; j < size; ++j) {
        const T* column = A + (first + j) / C * n;
        T total = 0;
        for (long long i = threadIdx.x; i < n; i += blockDim.x) {
          total += column[i] * R[j % C * n + i];
        }
        total = block_sum(total);
        if (threadIdx.x == 0) slope[j] = total;
      }
      if (threadIdx.x == 0) {
        length = move_block(first, size, l1, l2[b], ridge, bound[b], slope, w + first, step);
        for (long long j = 0; j < size; ++j) w[first + j] += step[j];
      }
      __syncthreads();
      worst = vmax(worst, bound[b] * length);
      const bool moved = length != 0;
      for (long long base = 0; moved && base < size; base += C) {
        const T* column = A + (first + base) / C * n;
        // A thread keeps its samples from one feature to the next.
        for (long long i = threadIdx.x; i < n; i += blockDim.x) {
          T mean = 0;
          for (long long k = 0; classes && k < C; ++k) mean += Q[k * n + i] * step[base + k];
          for (long long k = 0; k < C; ++k) {
            const T share = classes ? Q[k * n + i] : T(1);
            R[k * n + i] += column[i] * D[i] * share * (step[base + k] - mean);
          }
        }
      }
      __syncthreads();
    }
    if (worst <= tol) break;
  }
}

template <class T>
__global__ void sparse_column_sweeps(const int* __restrict__ start, const int* __restrict__ idx,
                                     const T* __restrict__ val, const T* __restrict__ D,
                                     const T* __restrict__ Q, const long long* __restrict__ ptr,
                                     const T* __restrict__ l1, const T* __restrict__ l2,
                                     const T* __restrict__ ridge, const T* __restrict__ bound,
                                     T* w, T* R, long long sweeps, T tol, long long blocks,
                                     long long n, long long C, bool classes, T* work,
                                     long long widest) {
  __shared__ T length;
  T *slope = work, *step = work + widest;
  for (long long sweep = 0; sweep < sweeps; ++sweep) {
    T worst = 0;
    for (long long b = 0; b < blocks; ++b) {
      const long long first = ptr[b], size = ptr[b + 1] - first;
      if (!(bound[b] > 0)) continue;
      for (long long j = 0; j < size; ++j) {
        const long long f = (first + j) / C;
        T total = 0;
        for (long long p = start[f] + threadIdx.x; p < start[f + 1]; p += blockDim.x) {
          total += val[p] * R[j % C * n + idx[p]];
        }
        total = block_sum(total);
        if (threadIdx.x == 0) slope[j] = total;
      }
      if (threadIdx.x == 0) {
        length = move_block(first, size, l1, l2[b], ridge, bound[b], slope, w + first, step);
        for (long long j = 0; j < size; ++j) w[first + j] += step[j];
      }
      __syncthreads();
      worst = vmax(worst, bound[b] * length);
      const bool moved = length != 0;
      for (long long base = 0; moved && base < size; base += C) {
        const long long f = (first + base) / C;
        for (long long p = start[f] + threadIdx.x; p < start[f + 1]; p += blockDim.x) {
          const long long i = idx[p];
          T mean = 0;
          for (long long k = 0; classes && k < C; ++k) mean += Q[k * n + i] * step[base + k];
          for (long long k = 0; k < C; ++k) {
            const T share = classes ? Q[k * n + i] : T(1);
            R[k * n + i] += val[p] * D[i] * share * (step[base + k] - mean);
          }
        }
        __syncthreads();  // another column has other threads for the same samples
      }
      __syncthreads();
    }
    if (worst <= tol) break;
  }
}
