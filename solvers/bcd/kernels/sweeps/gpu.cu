// Twins of cpu.py. Loops whose steps depend on each other run in one block, whose threads share
// each step; rules compute in double precision.
#include "losses.cuh"
#include "penalties.cuh"

constexpr double SMALL = 1e-5;

struct Min {
  template <class T>
  __device__ T operator()(T a, T b) const {
    return vmin(a, b);
  }
};

__device__ inline long long first() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline long long stride() { return (long long)gridDim.x * blockDim.x; }

__device__ inline void put_sum(double total, double* part) {
  total = block_sum(total);
  if (threadIdx.x == 0) part[blockIdx.x] = total;
}

template <class T, class Loss>
__global__ void loss_change(T field, const T* __restrict__ y, const T* __restrict__ z,
                            const T* __restrict__ dz, double t, const T* __restrict__ s,
                            double* __restrict__ part, long long n) {
  const Loss loss(field);
  double total = 0.0;
  for (long long i = first(); i < n; i += stride()) {
    const double from = z[i], d = t * dz[i], to = from + d;
    total += s[i] * (fabs(d) < SMALL
                         ? 0.5 * d * (loss.derivative(y[i], from) + loss.derivative(y[i], to))
                         : loss.value(y[i], to) - loss.value(y[i], from));
  }
  put_sum(total, part);
}

// A warp for each row.
template <class T>
__global__ void softmax_change(const long long* __restrict__ y, const T* __restrict__ z,
                               const T* __restrict__ dz, double t, const T* __restrict__ s,
                               double* __restrict__ part, long long n, long long C) {
  double total = 0.0;
  for (long long i = first() / 32; i < n; i += stride() / 32) {
    const T *const row = z + i * C, *const step = dz + i * C;
    const double own = step[y[i]];
    double top = lim<double>::lowest(), weight = 0.0, moved = 0.0;
    for (long long k = threadIdx.x % 32; k < C; k += 32) top = vmax(top, double(row[k]));
    top = warp_max(top);
    for (long long k = threadIdx.x % 32; k < C; k += 32) {
      const double e = exp(row[k] - top);
      weight += e;
      moved += e * expm1(t * (step[k] - own));
    }
    weight = warp_sum(weight);
    moved = warp_sum(moved);
    if (threadIdx.x % 32 == 0) total += s[i] * log1p(moved / weight);
  }
  put_sum(total, part);
}

// A warp for each row; two rows may meet in an entry of g.
template <class T, class Index>
__global__ void add_rows(const Index* __restrict__ indptr, const Index* __restrict__ indices,
                         const T* __restrict__ data, const long long* __restrict__ rows,
                         const T* __restrict__ d, T* g, long long count) {
  for (long long k = first() / 32; k < count; k += stride() / 32) {
    const long long j = rows[k];
    for (long long e = indptr[j] + threadIdx.x % 32; e < indptr[j + 1]; e += 32) {
      atomicAdd(&g[indices[e]], d[k] * data[e]);
    }
  }
}

template <class T, class Penalty>
__global__ void block_sweeps(const T* a, const T* b, const T* c, const T* e,
                             const T* __restrict__ H, T* g, T* x, long long sweeps, double tol,
                             double* __restrict__ out, long long tau) {
  const Penalty penalty(a, b, c, e);
  double worst = 0.0;
  for (long long turn = 0; turn < sweeps; ++turn) {
    worst = 0.0;
    for (long long j = 0; j < tau; ++j) {
      __syncthreads();
      const double old = x[j], slope = g[j], L = H[j * tau + j];
      worst = vmax(worst, penalty.distance(old, slope, j));
      if (!(L > 0.0)) continue;
      const T moved = penalty.prox(old - slope / L, 1.0 / L, j);
      const double d = moved - old;
      __syncthreads();
      if (d == 0.0) continue;
      if (threadIdx.x == 0) x[j] = moved;
      for (long long k = threadIdx.x; k < tau; k += blockDim.x) g[k] += d * H[j * tau + k];
    }
    if (worst <= tol) break;
  }
  if (threadIdx.x == 0) *out = worst;
}

template <class T, class Loss, class Penalty>
__global__ void sweep_columns(T field, const T* pa, const T* pb, const T* pc, const T* pd,
                              const T* __restrict__ X, const T* __restrict__ y,
                              const T* __restrict__ s, const double* __restrict__ mean,
                              const double* __restrict__ L, const long long* __restrict__ order,
                              T* w, double* c, T* z, T* r, double* __restrict__ out,
                              long long count, long long n) {
  const Loss loss(field);
  const Penalty penalty(pa, pb, pc, pd);
  double worst = 0.0, total = 0.0;
  for (long long i = threadIdx.x; i < n; i += blockDim.x) total += s[i];
  total = block_sum(total);
  for (long long k = 0; k < count; ++k) {
    const long long j = order[k];
    if (!(L[j] > 0.0)) continue;
    const T* const column = X + j * n;
    double g = 0.0;
    for (long long i = threadIdx.x; i < n; i += blockDim.x) g += double(column[i]) * r[i];
    g = block_sum(g) + c[0] * mean[j] * total;
    const double old = w[j];
    worst = vmax(worst, penalty.distance(old, g, j));
    const T moved = penalty.prox(old - g / L[j], 1.0 / L[j], j);
    const double d = moved - old;
    __syncthreads();
    if (d == 0.0) continue;
    if (threadIdx.x == 0) {
      w[j] = moved;
      c[0] -= d * mean[j];
    }
    for (long long i = threadIdx.x; i < n; i += blockDim.x) {
      z[i] += d * column[i];
      r[i] = s[i] * loss.derivative(y[i], z[i]);
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) *out = worst;
}

template <class T, class Index, class Loss, class Penalty>
__global__ void sweep_entries(T field, const T* pa, const T* pb, const T* pc, const T* pd,
                              const Index* __restrict__ indptr, const Index* __restrict__ indices,
                              const T* __restrict__ data, const T* __restrict__ y,
                              const T* __restrict__ s, const double* __restrict__ mean,
                              const double* __restrict__ L, const long long* __restrict__ order,
                              T* w, double* c, T* z, T* r, double* __restrict__ out,
                              long long count, long long n) {
  const Loss loss(field);
  const Penalty penalty(pa, pb, pc, pd);
  double worst = 0.0, total = 0.0;
  for (long long i = threadIdx.x; i < n; i += blockDim.x) total += s[i];
  total = block_sum(total);
  for (long long k = 0; k < count; ++k) {
    const long long j = order[k], end = indptr[j + 1];
    if (!(L[j] > 0.0)) continue;
    double g = 0.0;
    for (long long e = indptr[j] + threadIdx.x; e < end; e += blockDim.x) {
      g += double(data[e]) * r[indices[e]];
    }
    g = block_sum(g) + c[0] * mean[j] * total;
    const double old = w[j];
    worst = vmax(worst, penalty.distance(old, g, j));
    const T moved = penalty.prox(old - g / L[j], 1.0 / L[j], j);
    const double d = moved - old;
    __syncthreads();
    if (d == 0.0) continue;
    if (threadIdx.x == 0) {
      w[j] = moved;
      c[0] -= d * mean[j];
    }
    for (long long e = indptr[j] + threadIdx.x; e < end; e += blockDim.x) {
      const long long i = indices[e];
      z[i] += d * data[e];
      r[i] = s[i] * loss.derivative(y[i], z[i]);
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) *out = worst;
}

// The step of unknown j of a quadratic, by all threads alike.
template <class T, class Penalty>
__device__ T relaxed(const Penalty& penalty, double x, double g, double L, double relax,
                     long long j) {
  double moved = penalty.prox(x - g / L, 1.0 / L, j);
  if (relax != 1.0) moved = penalty.prox(x + relax * (moved - x), 0.0, j);
  return moved;
}

template <class T, class Penalty>
__global__ void sweep_gram(const T* pa, const T* pb, const T* pc, const T* pd,
                           const T* __restrict__ A, double relax,
                           const long long* __restrict__ order, T* x, T* g,
                           double* __restrict__ out, long long count, long long N) {
  const Penalty penalty(pa, pb, pc, pd);
  double worst = 0.0;
  for (long long k = 0; k < count; ++k) {
    __syncthreads();
    const long long j = order[k];
    const double old = x[j], slope = g[j], L = A[j * N + j];
    worst = vmax(worst, penalty.distance(old, slope, j));
    if (!(L > 0.0)) continue;
    const T moved = relaxed<T>(penalty, old, slope, L, relax, j);
    const double d = moved - old;
    __syncthreads();
    if (d == 0.0) continue;
    if (threadIdx.x == 0) x[j] = moved;
    for (long long i = threadIdx.x; i < N; i += blockDim.x) g[i] += d * A[j * N + i];
  }
  if (threadIdx.x == 0) *out = worst;
}

template <class T, class Index, class Penalty>
__global__ void sweep_rows(const T* pa, const T* pb, const T* pc, const T* pd,
                           const Index* __restrict__ indptr, const Index* __restrict__ indices,
                           const T* __restrict__ data, const double* __restrict__ diagonal,
                           double relax, const long long* __restrict__ order, T* x, T* g,
                           double* __restrict__ out, long long count) {
  const Penalty penalty(pa, pb, pc, pd);
  double worst = 0.0;
  for (long long k = 0; k < count; ++k) {
    __syncthreads();
    const long long j = order[k];
    const double old = x[j], slope = g[j], L = diagonal[j];
    worst = vmax(worst, penalty.distance(old, slope, j));
    if (!(L > 0.0)) continue;
    const T moved = relaxed<T>(penalty, old, slope, L, relax, j);
    const double d = moved - old;
    __syncthreads();
    if (d == 0.0) continue;
    if (threadIdx.x == 0) x[j] = moved;
    for (long long e = indptr[j] + threadIdx.x; e < indptr[j + 1]; e += blockDim.x) {
      g[indices[e]] += d * data[e];
    }
  }
  if (threadIdx.x == 0) *out = worst;
}

template <class Penalty>
__device__ double promise(const Penalty& penalty, long long rule, double x, double g, double L,
                          long long j) {
  const double far = penalty.distance(x, g, j);
  if (rule == 0) return far;
  if (rule == 1) return far * far / L;
  const double moved = penalty.prox(x - g / L, 1.0 / L, j), d = moved - x;
  if (rule == 2) return L * d * d;
  const double before = penalty.value(x, j), after = penalty.value(moved, j);
  const double gain = before - after - d * (g + 0.5 * L * d);
  return gain > 1e-13 * vmax(before, after) ? gain : 0.5 * L * d * d;
}

template <class T, class Penalty>
__global__ void greedy_steps(const T* pa, const T* pb, const T* pc, const T* pd,
                             const T* __restrict__ rows, const long long* __restrict__ slot,
                             const double* __restrict__ L, long long rule, long long steps, T* x,
                             T* g, long long* __restrict__ out, long long N) {
  const Penalty penalty(pa, pb, pc, pd);
  long long done = 0, missing = -1;
  for (; done < steps; ++done) {
    double best = 0.0;
    long long mine = N;
    for (long long k = threadIdx.x; k < N; k += blockDim.x) {
      if (!(L[k] > 0.0)) continue;
      const double score = promise(penalty, rule, x[k], g[k], L[k], k);
      if (score > best) {
        best = score;
        mine = k;
      }
    }
    const double top = block_max(best);
    const long long j = block_reduce(top > 0.0 && best == top ? mine : N, Min());
    if (j == N) break;
    if (slot[j] < 0) {
      missing = j;
      break;
    }
    const double old = x[j];
    const T moved = penalty.prox(old - g[j] / L[j], 1.0 / L[j], j);
    const double d = moved - old;
    __syncthreads();
    if (threadIdx.x == 0) x[j] = moved;
    const T* const row = rows + slot[j] * N;
    for (long long k = threadIdx.x; k < N; k += blockDim.x) g[k] += d * row[k];
    __syncthreads();
  }
  if (threadIdx.x == 0) {
    out[0] = done;
    out[1] = missing;
  }
}

// What one multiplier does: whether it stays in sight, and its new value.
struct Hinge {
  double C, above, below, least = 0.0, most = 0.0;

  __device__ Hinge(double C, double above, double below) : C(C), above(above), below(below) {}

  __device__ bool sees(double x, double g) const {
    return !((x <= 0.0 && g > above) || (x >= C && g < below));
  }

  __device__ double step(double x, double g, double square) {
    if (!((x <= 0.0 && g > 0.0) || (x >= C && g < 0.0))) {
      least = vmin(least, g);
      most = vmax(most, g);
    }
    if (square > 0.0) return vmin(vmax(x - g / square, 0.0), C);
    return g < 0.0 ? C : x;
  }
};

template <class T>
__global__ void hinge_sweep(const T* __restrict__ X, const T* __restrict__ y,
                            const double* __restrict__ square, double C, long long* order,
                            long long count, double above, double below, T* x, T* w, double* ends,
                            long long* __restrict__ out, long long p) {
  Hinge hinge(C, above, below);
  long long kept = 0;
  for (long long k = 0; k < count; ++k) {
    __syncthreads();
    const long long i = order[k], other = order[kept];
    const T* const row = X + i * p;
    double g = 0.0;
    for (long long j = threadIdx.x; j < p; j += blockDim.x) g += double(row[j]) * w[j];
    g = y[i] * block_sum(g) - 1.0;
    const double old = x[i];
    if (!hinge.sees(old, g)) continue;
    const T moved = hinge.step(old, g, square[i]);
    const double d = (moved - old) * y[i];
    __syncthreads();
    if (threadIdx.x == 0) {
      order[k] = other;
      order[kept] = i;
      x[i] = moved;
    }
    ++kept;
    if (d == 0.0) continue;
    for (long long j = threadIdx.x; j < p; j += blockDim.x) w[j] += d * row[j];
  }
  if (threadIdx.x == 0) {
    ends[0] = hinge.least;
    ends[1] = hinge.most;
    *out = kept;
  }
}

template <class T, class Index>
__global__ void hinge_sweep_rows(const Index* __restrict__ indptr, const Index* __restrict__ indices,
                                 const T* __restrict__ data, const T* __restrict__ y,
                                 const double* __restrict__ square, double C, long long* order,
                                 long long count, double above, double below, T* x, T* w,
                                 double* ends, long long* __restrict__ out) {
  Hinge hinge(C, above, below);
  long long kept = 0;
  for (long long k = 0; k < count; ++k) {
    __syncthreads();
    const long long i = order[k], other = order[kept], end = indptr[i + 1];
    double g = 0.0;
    for (long long e = indptr[i] + threadIdx.x; e < end; e += blockDim.x) {
      g += double(data[e]) * w[indices[e]];
    }
    g = y[i] * block_sum(g) - 1.0;
    const double old = x[i];
    if (!hinge.sees(old, g)) continue;
    const T moved = hinge.step(old, g, square[i]);
    const double d = (moved - old) * y[i];
    __syncthreads();
    if (threadIdx.x == 0) {
      order[k] = other;
      order[kept] = i;
      x[i] = moved;
    }
    ++kept;
    if (d == 0.0) continue;
    for (long long e = indptr[i] + threadIdx.x; e < end; e += blockDim.x) {
      w[indices[e]] += d * data[e];
    }
  }
  if (threadIdx.x == 0) {
    ends[0] = hinge.least;
    ends[1] = hinge.most;
    *out = kept;
  }
}
