// Twins of cpu.py. Everything is computed in double precision.
#include "penalties.cuh"

__device__ inline long long first() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline long long stride() { return (long long)gridDim.x * blockDim.x; }

template <class T>
__global__ void survey(const T* alpha, const T* ridge, const T* lo, const T* hi,
                       const T* __restrict__ w, const T* __restrict__ g,
                       const double* __restrict__ L, const T* __restrict__ unit,
                       T* __restrict__ scores, T* __restrict__ violations,
                       T* __restrict__ steepness, long long p) {
  const ElasticBox<T> penalty(alpha, ridge, lo, hi);
  for (long long j = first(); j < p; j += stride()) {
    const double l = L[j], x = w[j], slope = g[j];
    double d = 0.0;
    if (l > 0.0) d = penalty.prox(x - slope / l, 1.0 / l, j) - x;
    double score = 0.5 * l * d * d;
    if (d == 0.0) {
      double pull = hi[j] > x ? -slope : 0.0;
      if (lo[j] < x) pull = vmax(pull, slope);
      score = pull > 0.0 && alpha[j] > 0 ? pull / alpha[j] - 1.0 : -1.0;
    }
    scores[j] = score;
    violations[j] = penalty.distance(x, slope, j) / unit[j];
    // Only a penalty that grows linearly for ever has a conjugate that is infinite somewhere.
    double steep = 0.0;
    if (alpha[j] > 0 && ridge[j] == 0) {
      if (hi[j] == lim<T>::inf()) steep = vmax(steep, -slope);
      if (lo[j] == -lim<T>::inf()) steep = vmax(steep, slope);
    }
    steepness[j] = steep / unit[j];
  }
}

// A thread sums a strip of the rows of one column: neighbours read neighbouring entries.
template <class T>
__global__ void moments_rows(const T* __restrict__ X, const double* __restrict__ s,
                             const double* __restrict__ y, double* __restrict__ parts,
                             long long n, long long p, long long strips) {
  for (long long t = first(); t < strips * p; t += stride()) {
    const long long strip = t / p, j = t % p;
    double a = 0.0, b = 0.0, c = 0.0;
    for (long long i = n * strip / strips; i < n * (strip + 1) / strips; ++i) {
      const double x = X[i * p + j], u = s[i] * x;
      a += u * x, b += u, c += u * y[i];
    }
    parts[t] = a, parts[strips * p + t] = b, parts[2 * strips * p + t] = c;
  }
}

// The three sums of a column are those of a warp.
__device__ inline void put_sums(double a, double b, double c, double* square, double* mean,
                                double* cross, long long j) {
  a = warp_sum(a), b = warp_sum(b), c = warp_sum(c);
  if (threadIdx.x % 32 == 0) square[j] = a, mean[j] = b, cross[j] = c;
}

template <class T>
__global__ void moments_columns(const T* __restrict__ X, const double* __restrict__ s,
                                const double* __restrict__ y, double* __restrict__ square,
                                double* __restrict__ mean, double* __restrict__ cross,
                                long long n, long long p) {
  for (long long j = first() / 32; j < p; j += stride() / 32) {
    double a = 0.0, b = 0.0, c = 0.0;
    for (long long i = threadIdx.x % 32; i < n; i += 32) {
      const double x = X[j * n + i], u = s[i] * x;
      a += u * x, b += u, c += u * y[i];
    }
    put_sums(a, b, c, square, mean, cross, j);
  }
}

template <class T>
__global__ void moments_csc(const int* __restrict__ starts, const int* __restrict__ rows,
                            const T* __restrict__ values, const double* __restrict__ s,
                            const double* __restrict__ y, double* __restrict__ square,
                            double* __restrict__ mean, double* __restrict__ cross, long long p) {
  for (long long j = first() / 32; j < p; j += stride() / 32) {
    double a = 0.0, b = 0.0, c = 0.0;
    for (int k = starts[j] + int(threadIdx.x % 32); k < starts[j + 1]; k += 32) {
      const double x = values[k], u = s[rows[k]] * x;
      a += u * x, b += u, c += u * y[rows[k]];
    }
    put_sums(a, b, c, square, mean, cross, j);
  }
}
