// CUDA twins of the kernels in cpu.py; launched by gpu.py. A warp takes a row and its entries.
#include "common.cuh"

// out_p = A_i . B_j + a_i + b_j - val_p for each entry p = (i, j).
template <class T>
__global__ void residual(const long long* __restrict__ ptr, const int* __restrict__ idx,
                         const T* __restrict__ val, const T* __restrict__ A,
                         const T* __restrict__ B, const T* __restrict__ a,
                         const T* __restrict__ b, bool biased, T* __restrict__ out, long long m,
                         long long k) {
  const int lane = threadIdx.x % 32;
  const long long warps = (long long)gridDim.x * (blockDim.x / 32);
  for (long long i = blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32; i < m;
       i += warps) {
    for (long long p = ptr[i]; p < ptr[i + 1]; ++p) {
      const long long j = idx[p];
      T total = 0;
      for (long long q = lane; q < k; q += 32) total += A[i * k + q] * B[j * k + q];
      total = warp_sum(total);
      if (lane == 0) out[p] = (biased ? total + (a[i] + b[j]) : total) - val[p];
    }
  }
}

// out = S B for the sparse matrix S with these entries.
template <class T>
__global__ void times(const long long* __restrict__ ptr, const int* __restrict__ idx,
                      const T* __restrict__ val, const T* __restrict__ B, T* __restrict__ out,
                      long long m, long long k) {
  const int lane = threadIdx.x % 32;
  const long long warps = (long long)gridDim.x * (blockDim.x / 32);
  for (long long i = blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32; i < m;
       i += warps) {
    for (long long q = lane; q < k; q += 32) {
      T total = 0;
      for (long long p = ptr[i]; p < ptr[i + 1]; ++p) total += val[p] * B[idx[p] * k + q];
      out[i * k + q] = total;
    }
  }
}
