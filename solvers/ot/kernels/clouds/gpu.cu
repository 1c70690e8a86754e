// Costs between points, for the kernels that see costs; launched by gpu.py.
#include "common.cuh"

struct Squared {
  static __device__ double part(double step) { return step * step; }
  static __device__ double whole(double total) { return total; }
};

struct Euclidean {
  static __device__ double part(double step) { return step * step; }
  static __device__ double whole(double total) { return sqrt(total); }
};

struct CityBlock {
  static __device__ double part(double step) { return fabs(step); }
  static __device__ double whole(double total) { return total; }
};

// out (n, m): factor times the cost between points x (n, d) and y (d, m).
template <class T, class Cost>
__global__ void tile_costs(const T* __restrict__ x, const T* __restrict__ y, T factor,
                           T* __restrict__ out, long long n, long long m, long long d) {
  const long long stride = (long long)gridDim.x * blockDim.x;
  for (long long i = blockIdx.y; i < n; i += gridDim.y) {
    for (long long j = blockIdx.x * (long long)blockDim.x + threadIdx.x; j < m; j += stride) {
      T total = 0;
      for (long long k = 0; k < d; ++k) total += Cost::part(x[i * d + k] - y[k * m + j]);
      out[i * m + j] = factor * Cost::whole(total);
    }
  }
}
