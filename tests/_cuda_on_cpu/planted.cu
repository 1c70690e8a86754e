// One bug in each kernel, all of a kind that a GPU may well let pass; and one kernel without.
#include "common.cuh"

template <class T>
__global__ void correct(const T* x, T* y, long long n) {
  __shared__ T next[256];
  for (long long i = threadIdx.x; i < n; i += blockDim.x) {
    next[threadIdx.x] = x[i];
    __syncthreads();
    y[i] = next[(threadIdx.x + 1) % blockDim.x];
    __syncthreads();
  }
}

template <class T>
__global__ void missing_barrier(const T* x, T* y, long long n) {
  __shared__ T next[256];
  next[threadIdx.x] = 0;
  __syncthreads();
  for (long long i = threadIdx.x; i < n; i += blockDim.x) {
    next[threadIdx.x] = x[i];
    y[i] = next[(threadIdx.x + 1) % blockDim.x];
    __syncthreads();
  }
}

template <class T>
__global__ void missing_trailing_barrier(const T* x, T* y, long long n) {
  __shared__ T next[256];
  for (long long i = threadIdx.x; i < n; i += blockDim.x) {
    next[threadIdx.x] = x[i];
    __syncthreads();
    y[i] = next[(threadIdx.x + 1) % blockDim.x];
  }
}

template <class T>
__global__ void missing_warp_barrier(const T* x, T* y, long long n) {
  __shared__ T next[256];
  next[threadIdx.x] = 0;
  __syncwarp();
  next[threadIdx.x] = x[threadIdx.x];
  y[threadIdx.x] = next[threadIdx.x ^ 1];
}

template <class T>
__global__ void write_after_another_warp_read(const T* x, T* y, long long n) {
  __shared__ T first;
  if (threadIdx.x == 0) first = x[0];
  __syncthreads();
  T twice = first;
  __syncwarp();
  twice += first;
  __syncwarp();
  if (threadIdx.x == 0) first = 1;
  y[threadIdx.x] = twice;
}

template <class T>
__global__ void race_in_dynamic_shared(const T* x, T* y, long long n) {
  T* sum = dyn_shared<T>();
  if (threadIdx.x == 0) *sum = 0;
  __syncthreads();
  *sum += x[threadIdx.x];
  __syncthreads();
  if (threadIdx.x == 0) *y = *sum;
}

template <class T>
__global__ void race_of_blocks(const T* x, T* y, long long n) {
  if (threadIdx.x == 0) y[0] += x[blockIdx.x];
}

template <class T>
__global__ void plain_read_of_atomic(const T* x, T* y, long long n) {
  atomicAdd(y, x[threadIdx.x]);
  y[1 + threadIdx.x] = *y;
}

template <class T>
__global__ void unwritten_shared(const T* x, T* y, long long n) {
  __shared__ T next[256];
  if (threadIdx.x > 0) next[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
  y[threadIdx.x] = next[threadIdx.x];
}

template <class T>
__global__ void divergent_barrier(const T* x, T* y, long long n) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    y[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
  }
}

template <class T>
__global__ void barrier_after_return(const T* x, T* y, long long n) {
  if (threadIdx.x >= 40) return;
  y[threadIdx.x] = x[threadIdx.x];
  __syncthreads();
}

template <class T>
__global__ void divergent_shuffle(const T* x, T* y, long long n) {
  T sum = x[threadIdx.x];
  if (threadIdx.x % 32 < 16) sum += __shfl_xor_sync(FULL_MASK, sum, 1);
  __syncthreads();
  y[threadIdx.x] = sum;
}

template <class T>
__global__ void different_shuffles(const T* x, T* y, long long n) {
  if (threadIdx.x % 2) {
    y[threadIdx.x] = __shfl_xor_sync(FULL_MASK, x[threadIdx.x], 1);
  } else {
    y[threadIdx.x] = __shfl_xor_sync(FULL_MASK, x[threadIdx.x], 2);
  }
}

template <class T>
__global__ void shuffle_after_return(const T* x, T* y, long long n) {
  if (threadIdx.x == 7) return;
  y[threadIdx.x] = __shfl_xor_sync(FULL_MASK, x[threadIdx.x], 1);
}

template <class T>
__global__ void shuffle_from_outside_the_mask(const T* x, T* y, long long n) {
  if (threadIdx.x % 32 < 4) y[threadIdx.x] = __shfl_down_sync(0xfu, x[threadIdx.x], 1);
}

template <class T>
__global__ void read_past_the_end(const T* x, T* y, long long n) {
  for (long long i = threadIdx.x; i < n; i += blockDim.x) y[i] = x[i + 1] - x[i];
}

template <class T>
__global__ void write_before_the_start(const T* x, T* y, long long n) {
  for (long long i = threadIdx.x; i < n; i += blockDim.x) y[i - 1] = x[i];
}

template <class T>
__global__ void read_far_away(const T* x, T* y, long long n) {
  y[threadIdx.x] = x[(1ll << 40) * (threadIdx.x + 1)];
}

template <class T>
__global__ void write_past_dynamic_shared(const T* x, T* y, long long n) {
  dyn_shared<T>()[threadIdx.x + 1] = x[threadIdx.x];
}

template <class T>
__global__ void write_past_static_shared(const T* x, T* y, long long n) {
  __shared__ T few[32];
  few[threadIdx.x] = x[threadIdx.x];
}

template <class T>
__global__ void write_to_const(const T* x, T* y, long long n) {
  const_cast<T*>(x)[threadIdx.x] = y[threadIdx.x];
}

template <class T>
__global__ void overflow_of_int(const T* x, T* y, long long n) {
  const int rows = 70000, row = int(n) * 1000;
  y[threadIdx.x] = x[(rows * row) & 1];
}

template <class T>
__global__ void stack_too_deep(const T* x, T* y, long long n) {
  volatile T large[30000];
  for (int k = 0; k < 30000; ++k) large[k] = x[0];
  y[threadIdx.x] = large[n];
}

template <class T>
__global__ void endless_wait(const T* x, T* y, long long n) {
  while (*(volatile T*)y == 0) {
  }
}
