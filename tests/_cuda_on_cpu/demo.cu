// Small kernels that use each thing the harness offers; its own tests run them.
#include "common.cuh"

// out_i = log sum_j exp(g_j - s C_ij): one block per row, shared memory and shuffles.
template <class T>
__global__ void row_lse(const T* __restrict__ C, long long ldc, const T* __restrict__ g, T s,
                        T* __restrict__ out, long long n, long long m) {
  for (long long i = blockIdx.x; i < n; i += gridDim.x) {
    LogSum<T> sum;
    for (long long j = threadIdx.x; j < m; j += blockDim.x) sum.add(g[j] - s * C[i * ldc + j]);
    sum = block_merge(sum);
    if (threadIdx.x == 0) out[i] = sum.value();
  }
}

// counts_k += number of labels equal to k: atomics in dynamic shared memory, then in global
// memory.
template <class T>
__global__ void weighted_histogram(const int* __restrict__ label, const T* __restrict__ weight,
                                   T* __restrict__ counts, long long n, long long bins) {
  T* own = dyn_shared<T>();
  for (long long k = threadIdx.x; k < bins; k += blockDim.x) own[k] = 0;
  __syncthreads();
  const long long start = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  for (long long i = start; i < n; i += (long long)gridDim.x * blockDim.x) {
    atomicAdd(&own[label[i]], weight[i]);
  }
  __syncthreads();
  for (long long k = threadIdx.x; k < bins; k += blockDim.x) atomicAdd(&counts[k], own[k]);
}

// out (m, n) = transpose of A (n, m), through a tile of static shared memory; two-dimensional.
template <class T>
__global__ void transpose(const T* __restrict__ A, T* __restrict__ out, long long n, long long m) {
  __shared__ T tile[32][33];
  const long long i0 = blockIdx.y * 32ll, j0 = blockIdx.x * 32ll;
  for (long long k = threadIdx.y; k < 32; k += blockDim.y) {
    const long long i = i0 + k, j = j0 + threadIdx.x;
    if (i < n && j < m) tile[k][threadIdx.x] = A[i * m + j];
  }
  __syncthreads();
  for (long long k = threadIdx.y; k < 32; k += blockDim.y) {
    const long long i = i0 + threadIdx.x, j = j0 + k;
    if (i < n && j < m) out[j * n + i] = tile[threadIdx.x][k];
  }
}

// Four rows of out: x moved within groups of eight lanes by each of the shuffles.
template <class T>
__global__ void shuffles(const T* __restrict__ x, T* __restrict__ out) {
  const int lane = threadIdx.x;
  out[lane] = __shfl_sync(FULL_MASK, x[lane], 3, 8);
  out[32 + lane] = __shfl_up_sync(FULL_MASK, x[lane], 2, 8);
  out[64 + lane] = __shfl_down_sync(FULL_MASK, x[lane], 2, 8);
  out[96 + lane] = __shfl_xor_sync(FULL_MASK, x[lane], 5, 8);
}

// How the warp and the block vote on x > limit; only the even lanes take part in the second.
template <class T>
__global__ void votes(const T* __restrict__ x, T limit, unsigned* __restrict__ out) {
  const bool yes = x[threadIdx.x] > limit;
  const unsigned all = __ballot_sync(FULL_MASK, yes);
  unsigned even = 0;
  if (threadIdx.x % 2 == 0) even = __ballot_sync(0x55555555u, yes);
  const int count = __syncthreads_count(yes);
  const bool any = __any_sync(FULL_MASK, yes), every = __all_sync(FULL_MASK, yes);
  if (threadIdx.x % 32 == 0) {
    unsigned* mine = out + threadIdx.x / 32 * 5;
    mine[0] = all, mine[1] = even, mine[2] = count, mine[3] = any, mine[4] = every;
  }
}

template <class T>
struct Twice {
  __device__ T operator()(T x) const { return 2 * x; }
};

// out = map(x): what is done to each entry is a template argument.
template <class T, class Map>
__global__ void apply(const T* __restrict__ x, T* __restrict__ out, long long n) {
  const long long start = blockIdx.x * (long long)blockDim.x + threadIdx.x;
  for (long long i = start; i < n; i += (long long)gridDim.x * blockDim.x) out[i] = Map()(x[i]);
}
