// CUDA twins of the kernels in cpu.py; launched by gpu.py. `mask` (P, n) holds the gates; row r of
// an array with a row for each gate belongs to gate r % P.
#include "common.cuh"

// out_k = sum_i mask_ik (G_0ik - G_1ik); G (c, sides, P, n). A thread takes a sample.
template <class T>
__global__ void masked_sum(const T* __restrict__ G, const unsigned char* __restrict__ mask,
                           T* __restrict__ out, long long c, long long sides, long long P,
                           long long n) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long at = blockIdx.x * (long long)blockDim.x + threadIdx.x; at < c * n; at += step) {
    const long long o = at / n, k = at % n;
    const T* a = G + o * sides * P * n + k;
    const T* b = a + P * n;
    T total = 0;
    for (long long i = 0; i < P; ++i) {
      if (mask[i * n + k]) total += sides == 2 ? a[i * n] - b[i * n] : a[i * n];
    }
    out[at] = total;
  }
}

// out_oik = mask_ik z_ok; z (c, n), out (c, P, n). Blocks of a column of the grid share rows.
template <class T>
__global__ void spread(const T* __restrict__ z, const unsigned char* __restrict__ mask,
                       T* __restrict__ out, long long rows, long long P, long long n) {
  const long long step = (long long)gridDim.x * blockDim.x;
  for (long long r = blockIdx.y; r < rows; r += gridDim.y) {
    for (long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x; k < n; k += step) {
      out[r * n + k] = mask[(r % P) * n + k] ? z[(r / P) * n + k] : T(0);
    }
  }
}

// Each block leaves three sums; all of its threads call.
__device__ inline void leave(double a, double b, double c, long long block, double* sums) {
  a = block_sum(a);
  b = block_sum(b);
  c = block_sum(c);
  if (threadIdx.x > 0) return;
  sums[3 * block] = a;
  sums[3 * block + 1] = b;
  sums[3 * block + 2] = c;
}

// state += relax (sign G - max(state, 0)); G becomes sign |state|. Sums of the squares of
// sign G - S with the new S = max(state, 0), of the change of S, and of sign G - S with the old.
template <class T>
__global__ void advance(T* __restrict__ G, T* __restrict__ state,
                        const unsigned char* __restrict__ mask, T relax,
                        double* __restrict__ sums, long long rows, long long P, long long n) {
  const long long step = (long long)gridDim.x * blockDim.x;
  double left = 0, changed = 0, moved = 0;
  for (long long r = blockIdx.y; r < rows; r += gridDim.y) {
    for (long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x; k < n; k += step) {
      const bool open = mask[(r % P) * n + k];
      const T g = open ? G[r * n + k] : -G[r * n + k], old = state[r * n + k];
      const T before = vmax(old, T(0)), now = old + relax * (g - before);
      const T after = vmax(now, T(0)), size = now < 0 ? -now : now;
      state[r * n + k] = now;
      G[r * n + k] = open ? size : -size;
      left += double(g - after) * (g - after);
      changed += double(after - before) * (after - before);
      moved += double(g - before) * (g - before);
    }
  }
  leave(left, changed, moved, blockIdx.y * (long long)gridDim.x + blockIdx.x, sums);
}

// copy += relax (U - V); V becomes each row of copy moved by t towards zero. A warp takes a row.
// Sums as in `advance`.
template <class T>
__global__ void shrink(const T* __restrict__ U, T* __restrict__ copy, T* __restrict__ V,
                       double t, T relax, double* __restrict__ sums, long long rows,
                       long long d) {
  const int lane = threadIdx.x % 32;
  const long long warps = (long long)gridDim.x * (blockDim.x / 32);
  double left = 0, changed = 0, moved = 0;
  for (long long r = blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32; r < rows;
       r += warps) {
    double square = 0;
    for (long long j = lane; j < d; j += 32) {
      const T now = copy[r * d + j] + relax * (U[r * d + j] - V[r * d + j]);
      copy[r * d + j] = now;
      square += double(now) * now;
    }
    square = warp_sum(square);
    const double keep = square > t * t ? 1.0 - t / sqrt(square) : 0.0;
    for (long long j = lane; j < d; j += 32) {
      const T u = U[r * d + j], before = V[r * d + j], after = T(keep * copy[r * d + j]);
      V[r * d + j] = after;
      left += double(u - after) * (u - after);
      changed += double(after - before) * (after - before);
      moved += double(u - before) * (u - before);
    }
  }
  leave(left, changed, moved, blockIdx.x, sums);
}

// The m that minimise log(1 + exp(-scale m)) + rho / 2 (m - a)^2. A thread takes a number.
template <class T>
__global__ void logistic(const T* __restrict__ a, double scale, const T* __restrict__ rho,
                         double eps, T* __restrict__ out, long long count) {
  const long long stride = (long long)gridDim.x * blockDim.x;
  for (long long k = blockIdx.x * (long long)blockDim.x + threadIdx.x; k < count; k += stride) {
    const double start = a[k], reach = scale / rho[k];
    double low = start, high = start + reach, step = reach, m = start + 0.5 * reach;
    for (int turn = 0; turn < 100; ++turn) {
      const double e = fexp(-scale * (m > 0 ? m : -m)), chance = (m > 0 ? e : 1.0) / (1.0 + e);
      const double g = m - start - reach * chance;
      if (g < 0) low = m;
      else high = m;
      double next = m - g / (1.0 + scale * reach * chance * (1.0 - chance));
      const double far = next > m ? next - m : m - next;
      if (far <= 4.0 * eps * ((start > 0 ? start : -start) + reach)) {
        m = next;
        break;
      }
      if (!(low < next && next < high && far <= 0.5 * step)) next = 0.5 * (low + high);
      step = next > m ? next - m : m - next;
      m = next;
    }
    out[k] = T(m);
  }
}
