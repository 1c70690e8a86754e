// CUDA twin of the kernel in cpu.py; launched by gpu.py. A warp takes a row and its entries.
#include "common.cuh"

// slope_p = A_i . dB_j + dA_i . B_j and bend_p = dA_i . dB_j for each entry p = (i, j); each row
// gets its weighted sums of slope^2, r bend, slope bend and bend^2.
template <class T>
__global__ void along(const long long* __restrict__ ptr, const int* __restrict__ idx,
                      const T* __restrict__ r, const T* __restrict__ weight, bool weighted,
                      const T* __restrict__ A, const T* __restrict__ B,
                      const T* __restrict__ dA, const T* __restrict__ dB, T* __restrict__ slope,
                      T* __restrict__ bend, double* __restrict__ sums, long long m, long long k) {
  const int lane = threadIdx.x % 32;
  const long long warps = (long long)gridDim.x * (blockDim.x / 32);
  for (long long i = blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32; i < m;
       i += warps) {
    double squares = 0, with_bend = 0, mixed = 0, bent = 0;
    for (long long p = ptr[i]; p < ptr[i + 1]; ++p) {
      const long long j = idx[p];
      T first = 0, second = 0;
      for (long long q = lane; q < k; q += 32) {
        first += A[i * k + q] * dB[j * k + q] + dA[i * k + q] * B[j * k + q];
        second += dA[i * k + q] * dB[j * k + q];
      }
      first = warp_reduce(first, Sum());
      second = warp_reduce(second, Sum());
      if (lane > 0) continue;
      slope[p] = first;
      bend[p] = second;
      const double w = weighted ? weight[p] : T(1);
      squares += w * first * first;
      with_bend += w * r[p] * second;
      mixed += w * first * second;
      bent += w * second * second;
    }
    if (lane > 0) continue;
    sums[4 * i] = squares;
    sums[4 * i + 1] = with_bend;
    sums[4 * i + 2] = mixed;
    sums[4 * i + 3] = bent;
  }
}
