// CUDA twins of the kernels in cpu.py; launched by gpu.py. A block takes a row: its entries come
// by tiles into shared memory, where its Hessian is, too, if there is room.
#include "common.cuh"

// Rows whose condition number is to be expected above this are solved directly.
constexpr double HARD = 14.0;
// Most entries in a tile, and the side of what a thread adds up in registers.
constexpr int TILE = 32, SIDE = 4;

// A row's system, in the precision R that it is solved in. Unknowns are filled up to `width`.
template <class T, class R>
struct Row {
  const int* idx;
  const T* val;
  const T* weight;
  const T* B;
  const T* offset;
  const T* shared;
  bool weighted, biased, dense;
  long long first, last, k, width, tile;
  R ridge, lam_bias;
  R *V, *r;  // a tile of entries, and their residuals

  __device__ R diag(long long q) const { return biased && q == 0 ? lam_bias : ridge; }

  // Entry q of what is added to the Hessian, times x.
  __device__ R penalty_times(long long q, const R* x) const {
    R total = diag(q) * x[q];
    if (dense) {
      for (long long c = 0; c < k; ++c) total += R(shared[q * k + c]) * x[c];
    }
    return total;
  }

  // Fill the tile from entry `start` on, times the roots of the weights; returns their number.
  __device__ long long gather(long long start) const {
    const long long rows = vmin<long long>(last - start, tile);
    __syncthreads();
    for (long long t = threadIdx.x; t < rows * width; t += blockDim.x) {
      const long long n = t / width, q = t % width, p = start + n;
      const R root = weighted ? sqrt(R(weight[p])) : R(1);
      V[t] = q < k ? root * R(B[idx[p] * k + q]) : R(0);
    }
    __syncthreads();
    return rows;
  }

  __device__ R target(long long p) const {
    const R value = biased ? R(val[p]) - R(offset[idx[p]]) : R(val[p]);
    return weighted ? sqrt(R(weight[p])) * value : value;
  }
};

// The weighted sums of squared residuals and of squared values, and of the weights.
struct Sums {
  double misfit = 0, scale = 0, weight = 0;
};

// Add V^T (V x - t) to out, with the targets t or without; add V^T V to G if wanted.
template <class T, class R>
__device__ Sums pass(const Row<T, R>& row, const R* x, bool with_targets, R* out, R* G) {
  Sums sums;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const long long side = row.width / SIDE, tiles = side * (side + 1) / 2;
  for (long long start = row.first; start < row.last; start += row.tile) {
    const long long rows = row.gather(start);
    for (long long n = warp; n < rows; n += warps) {
      R total = 0;
      for (long long q = lane; q < row.width; q += 32) total += row.V[n * row.width + q] * x[q];
      total = warp_sum(total);
      if (lane == 0) row.r[n] = with_targets ? total - row.target(start + n) : total;
    }
    __syncthreads();
    for (long long q = threadIdx.x; q < row.k; q += blockDim.x) {
      R total = 0;
      for (long long n = 0; n < rows; ++n) total += row.r[n] * row.V[n * row.width + q];
      out[q] += total;
    }
    for (long long n = threadIdx.x; n < rows; n += blockDim.x) {
      const double r = row.r[n], t = row.target(start + n);
      sums.misfit += r * r;
      sums.scale += t * t;
      sums.weight += row.weighted ? double(row.weight[start + n]) : 1.0;
    }
    for (long long t = threadIdx.x; G != nullptr && t < tiles; t += blockDim.x) {
      // Tile t of the lower half stands in the block row `a` and column t - a (a + 1) / 2.
      long long a = (long long)((sqrt(8.0 * t + 1.0) - 1.0) / 2.0);
      while (a * (a + 1) / 2 > t) --a;
      while ((a + 1) * (a + 2) / 2 <= t) ++a;
      const R *left = row.V + a * SIDE, *right = row.V + (t - a * (a + 1) / 2) * SIDE;
      R sum[SIDE][SIDE] = {};
      for (long long n = 0; n < rows; ++n) {
        for (int q = 0; q < SIDE; ++q) {
          for (int c = 0; c < SIDE; ++c) {
            sum[q][c] += left[n * row.width + q] * right[n * row.width + c];
          }
        }
      }
      R* at = G + a * SIDE * row.width + (t - a * (a + 1) / 2) * SIDE;
      for (int q = 0; q < SIDE; ++q) {
        for (int c = 0; c < SIDE; ++c) at[q * row.width + c] += sum[q][c];
      }
    }
  }
  __syncthreads();
  return {block_sum(sums.misfit), block_sum(sums.scale), block_sum(sums.weight)};
}

// Factorise the lower half of G in place; tell whether it has full rank.
template <class R>
__device__ bool cholesky(R* G, R* diag, long long k, long long width) {
  for (long long q = threadIdx.x; q < k; q += blockDim.x) diag[q] = G[q * width + q];
  __syncthreads();
  for (long long c = 0; c < k; ++c) {
    const R pivot = G[c * width + c];
    if (!(pivot > R(8) * R(k) * lim<R>::eps() * diag[c])) return false;
    const R root = sqrt(pivot);
    __syncthreads();
    for (long long q = c + threadIdx.x; q < k; q += blockDim.x) {
      G[q * width + c] = q == c ? root : G[q * width + c] / root;
    }
    __syncthreads();
    const long long rest = k - c - 1;
    for (long long t = threadIdx.x; t < rest * rest; t += blockDim.x) {
      const long long q = c + 1 + t / rest, r = c + 1 + t % rest;
      if (r <= q) G[q * width + r] -= G[q * width + c] * G[r * width + c];
    }
    __syncthreads();
  }
  return true;
}

// Solve L L^T y = y, in place.
template <class R>
__device__ void substitute(const R* L, R* y, long long k, long long width) {
  for (long long c = 0; c < k; ++c) {
    __syncthreads();
    if (threadIdx.x == 0) y[c] /= L[c * width + c];
    __syncthreads();
    for (long long q = c + 1 + threadIdx.x; q < k; q += blockDim.x) {
      y[q] -= L[q * width + c] * y[c];
    }
  }
  for (long long c = k - 1; c >= 0; --c) {
    __syncthreads();
    if (threadIdx.x == 0) y[c] /= L[c * width + c];
    __syncthreads();
    for (long long q = threadIdx.x; q < c; q += blockDim.x) y[q] -= L[c * width + q] * y[c];
  }
  __syncthreads();
}

template <class R>
__device__ R dot(const R* x, const R* y, long long k) {
  R total = 0;
  for (long long q = threadIdx.x; q < k; q += blockDim.x) total += x[q] * y[q];
  return block_sum(total);
}

// Take CG steps from x, where the gradient is g; return how many.
template <class T, class R>
__device__ long long conjugate(const Row<T, R>& row, const R* metric, R* x, R* g, double goal,
                               long long steps, R* p, R* product) {
  const long long k = row.k;
  for (long long q = threadIdx.x; q < k; q += blockDim.x) p[q] = -g[q] / metric[q];
  R rho = -dot(g, p, k);
  // Past rounding, steps would follow noise.
  goal = vmax(goal, double(rho) * lim<R>::eps() * lim<R>::eps());
  long long step = 0;
  for (; step < steps && rho > goal; ++step) {
    __syncthreads();
    for (long long q = threadIdx.x; q < k; q += blockDim.x) product[q] = row.penalty_times(q, p);
    __syncthreads();
    pass<T, R>(row, p, false, product, nullptr);
    const R curvature = dot(p, product, k);
    if (!(curvature > 0)) break;
    const R alpha = rho / curvature, before = rho;
    R total = 0;
    for (long long q = threadIdx.x; q < k; q += blockDim.x) {
      x[q] += alpha * p[q];
      g[q] += alpha * product[q];
      total += g[q] * g[q] / metric[q];
    }
    rho = block_sum(total);
    for (long long q = threadIdx.x; q < k; q += blockDim.x) {
      p[q] = rho / before * p[q] - g[q] / metric[q];
    }
  }
  __syncthreads();
  return step;
}

// Set the gradient g at x and, if wanted, the lower half of the Hessian G.
template <class T, class R>
__device__ Sums system(const Row<T, R>& row, const R* x, R* g, R* G) {
  __syncthreads();
  for (long long q = threadIdx.x; q < row.k; q += blockDim.x) g[q] = row.penalty_times(q, x);
  for (long long t = threadIdx.x; G != nullptr && t < row.width * row.width; t += blockDim.x) {
    const long long q = t / row.width, c = t % row.width;
    R value = q == c && q < row.k ? row.diag(q) : R(0);
    if (row.dense && q < row.k && c < row.k) value += R(row.shared[q * row.k + c]);
    G[t] = value;
  }
  __syncthreads();
  return pass(row, x, true, g, G);
}

template <class T, class R>
__global__ void solve_rows(const long long* __restrict__ ptr, const int* __restrict__ idx,
                           const T* __restrict__ val, const T* __restrict__ weight,
                           const T* __restrict__ B, const T* __restrict__ offset,
                           const T* __restrict__ ridge, T lam_bias, const T* __restrict__ shared,
                           T* __restrict__ A, T* __restrict__ grad, T* __restrict__ left,
                           const double* __restrict__ mean, double level, double eta,
                           long long steps, bool weighted, bool biased, bool dense, bool fits,
                           bool gram_fits, R* __restrict__ room, long long tile,
                           double* __restrict__ squares, long long* __restrict__ counts,
                           long long m, long long k) {
  const long long width = (k + SIDE - 1) / SIDE * SIDE;
  const long long small = 7 * width + TILE + tile * width;
  R* own = room + (gram_fits ? 0 : blockIdx.x * (small + width * width));
  R* base = fits ? dyn_shared<R>() : own;
  R* G = gram_fits ? dyn_shared<R>() + small : own + (fits ? 0 : small);
  R *x = base, *g = x + width, *metric = g + width, *p = metric + width, *product = p + width;
  R *diag = product + width, *r = diag + width, *V = r + width + TILE;
  double common = 0;
  for (long long q = 0; dense && q < k; ++q) common += double(shared[q * k + q]) / k;
  for (long long i = blockIdx.x; i < m; i += gridDim.x) {
    const Row<T, R> row = {idx,    val,   weight, B,      offset,     shared,
                           weighted, biased, dense, ptr[i], ptr[i + 1], k,
                           width,  tile,  R(ridge[i]), R(lam_bias), V, r};
    const double d = sqrt(double(row.last - row.first)), c = sqrt(double(k));
    const double least = vmax(d - c, 0.0), penalty = double(ridge[i]) + common;
    const bool hard =
        level * (d + c) * (d + c) + penalty > HARD * (level * least * least + penalty);
    const bool direct = steps == 0 || hard;
    __syncthreads();
    for (long long q = threadIdx.x; q < width; q += blockDim.x) {
      x[q] = q < k ? R(A[i * k + q]) : R(0);
      p[q] = product[q] = g[q] = 0;
    }
    const Sums sums = system(row, x, g, direct ? G : (R*)nullptr);
    long long taken = 0;
    for (long long q = threadIdx.x; q < k; q += blockDim.x) {
      grad[i * k + q] = T(g[q]);
      metric[q] = row.diag(q) + R(sums.weight * mean[q]) + (dense ? R(shared[q * k + q]) : R(0));
      p[q] = g[q];
    }
    __syncthreads();
    if (row.first == row.last) {
      for (long long q = threadIdx.x; q < k; q += blockDim.x) x[q] = g[q] = 0;
    } else if (!direct) {
      taken = conjugate(row, metric, x, g, eta * eta * sums.scale, steps, p, product);
    } else if (cholesky(G, diag, k, width)) {
      substitute(G, p, k, width);
      for (long long q = threadIdx.x; q < k; q += blockDim.x) {
        x[q] -= p[q];
        g[q] = 0;
      }
    } else {
      // From zero, conjugate gradients reach the minimiser of smallest norm.
      __syncthreads();
      for (long long q = threadIdx.x; q < k; q += blockDim.x) {
        x[q] = 0;
        metric[q] = 1;
      }
      system(row, x, g, (R*)nullptr);
      conjugate(row, metric, x, g, 0.0, 4 * k, p, product);
    }
    __syncthreads();
    for (long long q = threadIdx.x; q < k; q += blockDim.x) {
      A[i * k + q] = T(x[q]);
      left[i * k + q] = T(g[q]);
    }
    if (threadIdx.x == 0) {
      squares[i] = sums.misfit;
      counts[i] = taken;
    }
  }
}
