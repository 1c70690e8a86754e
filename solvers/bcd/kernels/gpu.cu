// Twins of cpu.py. Rules compute in double precision; sums of a block go to part[blockIdx.x].
#include "losses.cuh"
#include "penalties.cuh"

__device__ inline long long first() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline long long stride() { return (long long)gridDim.x * blockDim.x; }

__device__ inline void put_sum(double total, double* part) {
  total = block_sum(total);
  if (threadIdx.x == 0) part[blockIdx.x] = total;
}

template <class T, class Loss>
__global__ void loss_sum(T field, const T* __restrict__ y, const T* __restrict__ z,
                         const T* __restrict__ s, double* __restrict__ part, long long n) {
  const Loss loss(field);
  double total = 0.0;
  for (long long i = first(); i < n; i += stride()) total += s[i] * loss.value(y[i], z[i]);
  put_sum(total, part);
}

template <class T, class Loss>
__global__ void loss_change(T field, const T* __restrict__ y, const T* __restrict__ z,
                            const T* __restrict__ dz, double t, const T* __restrict__ s,
                            double* __restrict__ part, long long n) {
  const Loss loss(field);
  double total = 0.0;
  for (long long i = first(); i < n; i += stride()) {
    total += s[i] * (loss.value(y[i], z[i] + t * dz[i]) - loss.value(y[i], z[i]));
  }
  put_sum(total, part);
}

template <class T, class Loss>
__global__ void loss_slopes(T field, const T* __restrict__ y, const T* __restrict__ z,
                            const T* __restrict__ s, T* __restrict__ out, long long n) {
  const Loss loss(field);
  for (long long i = first(); i < n; i += stride()) out[i] = s[i] * loss.derivative(y[i], z[i]);
}

template <class T, class Loss>
__global__ void loss_curvatures(T field, const T* __restrict__ y, const T* __restrict__ z,
                                const T* __restrict__ s, T* __restrict__ out, long long n) {
  const Loss loss(field);
  for (long long i = first(); i < n; i += stride()) out[i] = s[i] * loss.curvature(y[i], z[i]);
}

// log(sum(exp)) of a row (C) of z, by a warp.
template <class T>
__device__ double row_log_sum(const T* row, long long C) {
  LogSum<double> sum;
  for (long long k = threadIdx.x % 32; k < C; k += 32) sum.add(row[k]);
  return warp_merge(sum).value();
}

template <class T>
__global__ void softmax_sum(const long long* __restrict__ y, const T* __restrict__ z,
                            const T* __restrict__ s, double* __restrict__ part, long long n,
                            long long C) {
  double total = 0.0;
  for (long long i = first() / 32; i < n; i += stride() / 32) {
    const T* const row = z + i * C;
    const double top = row_log_sum(row, C);
    if (threadIdx.x % 32 == 0) total += s[i] * (top - row[y[i]]);
  }
  put_sum(total, part);
}

template <class T>
__global__ void softmax_slopes(const long long* __restrict__ y, const T* __restrict__ z,
                               const T* __restrict__ s, T* __restrict__ out, long long n,
                               long long C) {
  for (long long i = first() / 32; i < n; i += stride() / 32) {
    const T* const row = z + i * C;
    const double top = row_log_sum(row, C);
    for (long long k = threadIdx.x % 32; k < C; k += 32) {
      out[i * C + k] = s[i] * (exp(row[k] - top) - (k == y[i] ? 1.0 : 0.0));
    }
  }
}

template <class T, class Penalty>
__global__ void penalty_sum(const T* a, const T* b, const T* c, const T* d,
                            const T* __restrict__ w, double* __restrict__ part, long long n) {
  const Penalty penalty(a, b, c, d);
  double total = 0.0;
  for (long long j = first(); j < n; j += stride()) total += penalty.value(w[j], j);
  put_sum(total, part);
}

template <class T, class Penalty>
__global__ void prox_all(const T* a, const T* b, const T* c, const T* d,
                         const T* __restrict__ v, const double* __restrict__ steps,
                         T* __restrict__ out, long long n) {
  const Penalty penalty(a, b, c, d);
  for (long long j = first(); j < n; j += stride()) out[j] = penalty.prox(v[j], steps[j], j);
}

template <class T, class Penalty>
__global__ void distances(const T* a, const T* b, const T* c, const T* d,
                          const T* __restrict__ w, const T* __restrict__ g, T* __restrict__ out,
                          long long n) {
  const Penalty penalty(a, b, c, d);
  for (long long j = first(); j < n; j += stride()) out[j] = penalty.distance(w[j], g[j], j);
}

template <class T, class Penalty>
__global__ void prox_steps(const T* a, const T* b, const T* c, const T* d,
                           const T* __restrict__ w, const T* __restrict__ g,
                           const double* __restrict__ L, T* __restrict__ out, long long n) {
  const Penalty penalty(a, b, c, d);
  for (long long j = first(); j < n; j += stride()) {
    const double l = L[j], x = w[j];
    out[j] = l > 0.0 ? penalty.prox(x - g[j] / l, 1.0 / l, j) - x : 0.0;
  }
}

template <class T, class Penalty>
__global__ void prox_scores(const T* a, const T* b, const T* c, const T* d,
                            const T* __restrict__ w, const T* __restrict__ g,
                            const double* __restrict__ L, T* __restrict__ out, long long n) {
  const Penalty penalty(a, b, c, d);
  for (long long j = first(); j < n; j += stride()) {
    const double l = L[j], x = w[j];
    double score = 0.0;
    if (l > 0.0) {
      const double moved = penalty.prox(x - g[j] / l, 1.0 / l, j), step = moved - x;
      const double before = penalty.value(x, j), after = penalty.value(moved, j);
      const double gain = before - after - step * (g[j] + 0.5 * l * step);
      // Of a short step only this, which is part of every gain, is more than rounding.
      const double least = 0.5 * l * step * step;
      score = gain > 1e-13 * vmax(before, after) ? vmax(gain, 0.0) : least;
    }
    out[j] = score;
  }
}
