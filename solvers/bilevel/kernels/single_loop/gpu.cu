// Twin of cpu.py. A step is short, so one block takes them all: nothing is launched in between.
#include "common.cuh"

constexpr int SQUARED = 0, LOGISTIC = 1;

template <class T>
__device__ double loss(long long kind, T t, T m) {
  if (kind == SQUARED) return 0.5 * (m - t) * (m - t);
  if (kind == LOGISTIC) return double(vmax(-t * m, T(0))) + log1p(exp(-fabs(double(m))));
  const double room = vmax(T(1) - t * m, T(0));
  return 0.5 * room * room;
}

template <class T>
__device__ T slope(long long kind, T t, T m) {
  if (kind == SQUARED) return m - t;
  if (kind == LOGISTIC) {
    const T e = fexp(-(m < 0 ? -m : m));
    return -t * (t * m < 0 ? T(1) : e) / (T(1) + e);
  }
  return -t * vmax(T(1) - t * m, T(0));
}

template <class T>
__device__ T warp_dot(const T* u, const T* v, long long n) {
  T total = 0;
  for (long long j = threadIdx.x % 32; j < n; j += 32) total += u[j] * v[j];
  return warp_sum(total);
}

// Move towards the gradients and return this thread's part of what an entry of x pulls on.
template <class T>
__device__ T move(const T* work, const T* base, const long long* members, long long from,
                  long long to, long long step, T r, T eta, T sigma, T share, T* y, T* z,
                  long long p) {
  T change = 0;
  for (long long m = from; m < to; m += step) {
    const long long j = members[m];
    const T v = y[j], w = z[j], length = eta / (base[j] + r);
    change += T(0.5) * r * (v - w) * (v + w);
    y[j] = v - length * (share * (work[j] + sigma * work[2 * p + j]) + r * v);
    z[j] = w - length * (share * work[p + j] + r * w);
  }
  return change;
}

template <class T>
__device__ void average(T weight, const T* v, T* mean, long long n) {
  for (long long j = threadIdx.x; j < n; j += blockDim.x) mean[j] += weight * (v[j] - mean[j]);
}

template <class T>
__global__ void single_loop(long long kind, const T* __restrict__ X, const T* __restrict__ t,
                            const T* __restrict__ V, const T* __restrict__ tv,
                            const long long* __restrict__ low, const long long* __restrict__ up,
                            const double* __restrict__ rates,
                            const long long* __restrict__ start,
                            const long long* __restrict__ members, const T* __restrict__ base,
                            const T* __restrict__ lo, const T* __restrict__ hi, bool normalize,
                            T* x, T* D, T* both, T* means, T* work, T* e, T* slopes, double* out,
                            long long steps, long long b, long long p, long long d) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  T *const y = both, *const z = both + p, *const sy = slopes, *const sz = sy + b, *const sf = sz + b;
  const T share = T(1) / T(b);
  // With few entries of x, a warp for each.
  const int lanes = p > 8 * d ? 32 : 1;
  double total = 0;
  for (long long k = 0; k < steps; ++k, low += b, up += b, rates += 6) {
    const T eta = rates[0], sigma = rates[2], forget = rates[3], weight = rates[4];
    for (long long i = warp; i < 2 * b; i += warps) {
      const bool lower = i < b;
      const long long row = lower ? low[i] : up[i - b];
      const T *const features = (lower ? X : V) + row * p, target = (lower ? t : tv)[row];
      const T m = warp_dot(features, y, p);
      if (lower) {
        const T n = warp_dot(features, z, p);
        if (lane == 0) sy[i] = slope(kind, target, m), sz[i] = slope(kind, target, n);
      } else if (lane == 0) {
        sf[i - b] = slope(kind, target, m);
        total += loss(kind, target, m) / b;
      }
    }
    for (long long c = threadIdx.x; c < d; c += blockDim.x) e[c] = fexp(x[c]);
    __syncthreads();
    for (long long j = threadIdx.x; j < p; j += blockDim.x) {
      T gy = 0, gz = 0, fy = 0;
      for (long long i = 0; i < b; ++i) {
        const T v = X[low[i] * p + j];
        gy += sy[i] * v;
        gz += sz[i] * v;
        fy += sf[i] * V[up[i] * p + j];
      }
      work[j] = gy, work[p + j] = gz, work[2 * p + j] = fy;
    }
    __syncthreads();
    double square = 0, largest = 0;
    for (long long c = threadIdx.x / lanes; c < d; c += blockDim.x / lanes) {
      const int first = threadIdx.x % lanes;
      T change = move(work, base, members, start[c] + first, start[c + 1], lanes, e[c], eta, sigma,
                      share, y, z, p);
      if (lanes == 32) change = warp_sum(change);
      if (first == 0) {
        const T now = D[c] + forget * (change / sigma - D[c]);
        D[c] = now;
        square += double(now) * now;
        largest = vmax(largest, fabs(double(now)));
      }
    }
    square = block_sum(square);
    largest = block_max(largest);
    double beta = normalize ? rates[1] / (sqrt(square) + 1e-10) : rates[1];
    beta = vmin(beta, rates[5] / (largest + 1e-300));
    __syncthreads();
    for (long long c = threadIdx.x; c < d; c += blockDim.x) {
      x[c] = vmin(vmax(x[c] - T(beta) * D[c], lo[c]), hi[c]);
    }
    __syncthreads();
    if (weight > 0) {
      average(weight, x, means, d);
      average(weight, y, means + d, p);
      average(weight, z, means + d + p, p);
    }
  }
  total = block_sum(total);
  if (threadIdx.x == 0) *out = total;
}
