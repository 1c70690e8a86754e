// CUDA twins of the kernels in cpu.py; launched by gpu.py.
#include "common.cuh"

// out_p = sum_q U_iq s_q V_jq + a_i + b_j for pairs (i, j). A warp takes a pair.
template <class T>
__global__ void entries(const int* __restrict__ rows, const int* __restrict__ cols,
                        const T* __restrict__ U, const T* __restrict__ s,
                        const T* __restrict__ V, const T* __restrict__ a,
                        const T* __restrict__ b, bool biased, T* __restrict__ out,
                        long long count, long long k) {
  const int lane = threadIdx.x % 32;
  const long long warps = (long long)gridDim.x * (blockDim.x / 32);
  for (long long p = blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32; p < count;
       p += warps) {
    const long long i = rows[p], j = cols[p];
    T total = 0;
    for (long long q = lane; q < k; q += 32) total += U[i * k + q] * s[q] * V[j * k + q];
    total = warp_sum(total);
    if (lane == 0) out[p] = biased ? total + (a[i] + b[j]) : total;
  }
}
