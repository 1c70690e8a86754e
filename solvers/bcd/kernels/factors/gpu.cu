// CUDA twins of the kernels in cpu.py; launched by gpu.py. A warp takes a row.
#include "common.cuh"

// A row is left when a sweep lowers its objective by less than this part of the first; cpu.py.
constexpr double RELAXED = 0.05;

template <class T>
__global__ void nonnegative_rows(const T* __restrict__ G, const T* __restrict__ R, T l1,
                                 long long sweeps, T* slopes, T* X, long long n, long long k) {
  const int lane = threadIdx.x % 32;
  const long long warps = (long long)gridDim.x * (blockDim.x / 32);
  for (long long i = blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32; i < n;
       i += warps) {
    T *x = X + i * k, *g = slopes + i * k;
    for (long long q = lane; q < k; q += 32) {
      T total = l1 - R[i * k + q];
      for (long long c = 0; c < k; ++c) total += x[c] * G[c * k + q];
      g[q] = total;
    }
    double start = 0;
    for (long long turn = 0; turn < sweeps; ++turn) {
      double gain = 0;
      for (long long q = 0; q < k; ++q) {
        __syncwarp();  // what the coordinate before changed
        const T bend = G[q * k + q], slope = g[q], old = x[q];
        T d = 0;
        if (bend > 0) {
          d = vmax(-slope / bend, -old);
        } else if (slope > 0) {
          d = -old;  // only the penalty depends on it
        }
        gain -= d * (slope + T(0.5) * d * vmax(bend, T(0)));
        __syncwarp();  // all lanes have read what is changed now
        for (long long c = lane; c < k; c += 32) g[c] += d * G[q * k + c];
        if (lane == 0) x[q] = old + d;
      }
      __syncwarp();
      if (turn == 0) start = gain;
      if (gain <= RELAXED * RELAXED * start) break;
    }
  }
}
