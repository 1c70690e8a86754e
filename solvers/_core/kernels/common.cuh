// Ground of all CUDA kernels: shared memory, reductions, log-sum-exp. Blocks are one-dimensional
// and hold a multiple of 32 threads; every thread of a warp (block) calls a warp_ (block_)
// function.

constexpr unsigned FULL_MASK = 0xffffffffu;

// NVRTC offers no <limits>, and neither INFINITY nor NAN.
template <class T>
struct lim;

template <>
struct lim<float> {
  static __device__ constexpr float lowest() { return -3.402823466e+38f; }
  static __device__ constexpr float eps() { return 1.1920929e-7f; }
  static __device__ float inf() { return __int_as_float(0x7f800000); }
};

template <>
struct lim<double> {
  static __device__ constexpr double lowest() { return -1.7976931348623157e+308; }
  static __device__ constexpr double eps() { return 2.220446049250313e-16; }
  static __device__ double inf() { return __longlong_as_double(0x7ff0000000000000ll); }
};

__device__ inline float fexp(float x) { return expf(x); }
__device__ inline double fexp(double x) { return exp(x); }
__device__ inline float flog(float x) { return logf(x); }
__device__ inline double flog(double x) { return log(x); }

// Unlike fmax and fmin these hand a NaN on, as the twins in vmath.py do.
template <class T>
__device__ T vmax(T a, T b) {
  return a > b || a != a ? a : b;
}

template <class T>
__device__ T vmin(T a, T b) {
  return a < b || a != a ? a : b;
}

struct Sum {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return a + b;
  }
};

struct Max {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return vmax(a, b);
  }
};

// The block's dynamic shared memory (the launch's `shared` bytes).
template <class T>
__device__ T* dyn_shared() {
  extern __shared__ double dyn_shared_memory[];
  return reinterpret_cast<T*>(dyn_shared_memory);
}

// Combine the values of a warp's 32 threads; all of them get the same bits.
template <class T, class Op>
__device__ T warp_reduce(T value, Op op) {
  for (int step = 16; step > 0; step /= 2) {
    value = op(value, __shfl_xor_sync(FULL_MASK, value, step));
  }
  return value;
}

// Combine the values of a block's threads, in an order that depends on the block size alone;
// all threads get the same bits.
template <class T, class Op>
__device__ T block_reduce(T value, Op op) {
  __shared__ T part[32];
  value = warp_reduce(value, op);
  __syncthreads();  // an earlier call's values are still being read
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = value;
  __syncthreads();
  value = part[0];
  for (unsigned warp = 1; warp < blockDim.x / 32; ++warp) value = op(value, part[warp]);
  return value;
}

template <class T>
__device__ T warp_sum(T value) {
  return warp_reduce(value, Sum());
}

template <class T>
__device__ T warp_max(T value) {
  return warp_reduce(value, Max());
}

template <class T>
__device__ T block_sum(T value) {
  return block_reduce(value, Sum());
}

template <class T>
__device__ T block_max(T value) {
  return block_reduce(value, Max());
}

// log(sum(weight exp(z))) while the z come in: their running maximum and the total relative to it.
template <class T>
struct LogSum {
  // Finite, so that z = -inf adds exp(-inf) = 0 and not exp(-inf + inf) = NaN.
  T top = lim<T>::lowest();
  T total = 0;

  __device__ void add(T z, T weight = 1) {
    if (z > top) {
      total = total * fexp(top - z) + weight;
      top = z;
    } else {
      total += weight * fexp(z - top);
    }
  }

  __device__ T value() const { return top + flog(total); }
};

// Merge what the threads of a warp or block have seen: one exp each, whatever their number.
template <class T>
__device__ LogSum<T> warp_merge(LogSum<T> seen) {
  const T top = warp_max(seen.top);
  return {top, warp_sum(seen.total * fexp(seen.top - top))};
}

template <class T>
__device__ LogSum<T> block_merge(LogSum<T> seen) {
  const T top = block_max(seen.top);
  return {top, block_sum(seen.total * fexp(seen.top - top))};
}
