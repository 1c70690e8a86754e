// Twins of cpu.py: products with sparse sign matrices and with Hadamard matrices.
#include "common.cuh"

// out_i = scale * sum_p +-A_m over the members m = members[p] of row i, starts[i] <= p <
// starts[i + 1]; a negative member stands for -A_m with m = ~members[p]. A block sums one row in
// some columns, one thread each, with teams of threads that share the members; the block size and
// the number of columns are powers of two.
template <class T>
__global__ void signed_sums(const long long* __restrict__ starts, const int* __restrict__ members,
                            T scale, const T* __restrict__ A, T* __restrict__ out, long long rows,
                            long long d, long long columns) {
  __shared__ T part[1024];
  const int lanes = columns;
  const int lane = threadIdx.x % lanes, team = threadIdx.x / lanes, teams = blockDim.x / lanes;
  const long long tiles = (d + lanes - 1) / lanes;
  for (long long unit = blockIdx.x; unit < rows * tiles; unit += gridDim.x) {
    const long long i = unit / tiles, j = unit % tiles * lanes + lane;
    T sum = 0;
    if (j < d) {
      for (long long p = starts[i] + team; p < starts[i + 1]; p += teams) {
        const int m = members[p];
        sum += m < 0 ? -A[~m * d + j] : A[m * d + j];
      }
    }
    part[threadIdx.x] = sum;
    __syncthreads();
    for (int half = teams / 2; half > 0; half /= 2) {
      if (team < half) part[threadIdx.x] += part[threadIdx.x + half * lanes];
      __syncthreads();
    }
    // Each thread reads its own part only, so it may write the next row's without a barrier.
    if (team == 0 && j < d) out[i * d + j] = scale * part[threadIdx.x];
  }
}

// Multiply each X[h] (size, columns) by the Hadamard matrix of that size, in tiles of 2^log_width
// columns that lie in shared memory; size is a power of two.
template <class T>
__global__ void hadamard_tiles(T* __restrict__ X, long long outer, long long size,
                               long long columns, long long log_width) {
  T* tile = dyn_shared<T>();
  const int shift = log_width, width = 1 << shift, total = size << shift;
  const long long across = (columns + width - 1) / width;
  for (long long unit = blockIdx.x; unit < outer * across; unit += gridDim.x) {
    const long long first = unit % across * width;
    T* const from = X + unit / across * size * columns + first;
    for (int e = threadIdx.x; e < total; e += blockDim.x) {
      const int r = e >> shift, j = e & (width - 1);
      tile[e] = first + j < columns ? from[r * columns + j] : T(0);
    }
    __syncthreads();
    int m = width;
    for (; 4 * m <= total; m *= 4) {
      for (int e = threadIdx.x; e < total / 4; e += blockDim.x) {
        T* const x = tile + ((e & -m) << 2) + (e & (m - 1));
        const T ab = x[0] + x[m], a_b = x[0] - x[m];
        const T cd = x[2 * m] + x[3 * m], c_d = x[2 * m] - x[3 * m];
        x[0] = ab + cd, x[m] = a_b + c_d, x[2 * m] = ab - cd, x[3 * m] = a_b - c_d;
      }
      __syncthreads();
    }
    if (2 * m <= total) {
      for (int e = threadIdx.x; e < m; e += blockDim.x) {
        const T a = tile[e], b = tile[e + m];
        tile[e] = a + b, tile[e + m] = a - b;
      }
      __syncthreads();
    }
    for (int e = threadIdx.x; e < total; e += blockDim.x) {
      const int r = e >> shift, j = e & (width - 1);
      if (first + j < columns) from[r * columns + j] = tile[e];
    }
    // Each thread stored the entries that it loads next, so no barrier is needed here.
  }
}
