// Twin of cpu.py, launched by gpu.py: a block takes one problem after another.
//
// Its stored kernel and vectors are in a strip of device memory that belongs to the block, small
// enough for the cache. Rows are taken by warps and columns by threads, so that sums depend on the
// sizes and the block size alone. Whatever decides about the way is a block's sum or maximum: all
// threads have the same bits and go the same way.
#include "common.cuh"

// As in cpu.py.
constexpr double GATE = 1, LIGHT = 1e-3, REACH = 40, LONGEST_STEP = 20, LOST = 1e20, TINY = 1e-300;

// What a block works with: sizes, weights, the kernel, and vectors over columns (up to `jacobi`)
// and rows.
struct Work {
  long long n, m;
  const double *a, *b;
  double *K, *sums, *c, *v, *c_new, *v_new, *step, *gap, *miss, *x, *r, *z, *p, *q, *jacobi;
  double *rho, *weight, *drift, *rest;
  long long* peaks;

  __device__ Work(double* room, long long* peaks, long long max_n, long long max_m)
      : peaks(peaks) {
    auto next = [&](long long size) {
      double* here = room;
      room += size;
      return here;
    };
    K = next(max_n * max_m);
    sums = next(max_m), c = next(max_m), v = next(max_m), c_new = next(max_m);
    v_new = next(max_m), step = next(max_m), gap = next(max_m), miss = next(max_m);
    x = next(max_m), r = next(max_m), z = next(max_m), p = next(max_m), q = next(max_m);
    jacobi = next(max_m);
    rho = next(max_n), weight = next(max_n), drift = next(max_n), rest = next(max_n);
  }
};

template <class Body>
__device__ void each(long long count, Body body) {
  for (long long k = threadIdx.x; k < count; k += blockDim.x) body(k);
}

// body(i) by the whole warp that row i belongs to.
template <class Body>
__device__ void each_row(long long n, Body body) {
  for (long long i = threadIdx.x / 32; i < n; i += blockDim.x / 32) body(i);
}

template <class Term>
__device__ double total(long long count, Term term) {
  double sum = 0;
  each(count, [&](long long k) { sum += term(k); });
  return block_sum(sum);
}

template <class Term>
__device__ double largest(long long count, Term term) {
  double top = -lim<double>::inf();
  each(count, [&](long long k) { top = vmax(top, term(k)); });
  return block_max(top);
}

template <class Term>
__device__ double row_total(long long m, Term term) {
  double sum = 0;
  for (long long j = threadIdx.x % 32; j < m; j += 32) sum += term(j);
  return warp_sum(sum);
}

__device__ inline double clip(double x, double low, double high) {
  return vmin(vmax(x, low), high);
}

__device__ inline bool matters(const Work& w, long long j, double error) {
  return w.b[j] + w.c[j] >= LIGHT / w.m * error;
}

// Columns of no weight whose sums are far off follow Sinkhorn, not Newton.
__device__ inline bool aside(const Work& w, long long j, double error) {
  return fabs(w.miss[j]) > GATE && !matters(w, j, error);
}

// Row sums for column factors v, and from them the column sums.
__device__ void sweep(const Work& w, const double* v, double* sums) {
  each_row(w.n, [&](long long i) {
    const double sum = row_total(w.m, [&](long long j) { return w.K[i * w.m + j] * v[j]; });
    if (threadIdx.x % 32 == 0) w.rho[i] = sum, w.weight[i] = w.a[i] / sum;
  });
  __syncthreads();
  each(w.m, [&](long long j) {
    double sum = 0;
    for (long long i = 0; i < w.n; ++i) sum += w.K[i * w.m + j] * w.weight[i];
    sums[j] = sum;
  });
  __syncthreads();
}

__device__ void scaled_sweep(const Work& w, const double* log_v, double* v, double* c) {
  each(w.m, [&](long long j) { v[j] = w.b[j] * exp(log_v[j]); });
  __syncthreads();
  sweep(w, v, c);
  each(w.m, [&](long long j) { c[j] *= v[j]; });
  __syncthreads();
}

// Set the potentials of lost columns so that their sums are exact; tell if there were any.
template <class T>
__device__ bool mend(const Work& w, const T* C, long long ldc, double reg, const double* f,
                     double* h) {
  bool mended = false;
  for (long long j = 0; j < w.m; ++j) {
    if (1 / LOST < w.sums[j] && w.sums[j] < LOST) continue;
    LogSum<double> sum;
    each(w.n, [&](long long i) { sum.add(log(w.a[i]) + (f[i] - C[i * ldc + j]) / reg); });
    sum = block_merge(sum);
    if (threadIdx.x == 0) h[j] = -reg * sum.value();
    mended = true;
  }
  __syncthreads();
  return mended;
}

// Store the kernel for h; set the row potentials and the first column sums, return the error.
template <class T>
__device__ double fill(const Work& w, const T* C, long long ldc, double reg, double* h,
                       double* f) {
  const double scale = 1 / reg;
  for (int attempt = 0; attempt < 2; ++attempt) {
    each_row(w.n, [&](long long i) {
      LogSum<double> sum;
      for (long long j = threadIdx.x % 32; j < w.m; j += 32) {
        sum.add(__dmul_rn(h[j] - C[i * ldc + j], scale), w.b[j]);
      }
      sum = warp_merge(sum);
      for (long long j = threadIdx.x % 32; j < w.m; j += 32) {
        const double z = __dmul_rn(h[j] - C[i * ldc + j], scale);
        w.K[i * w.m + j] = exp(z - sum.top) / sum.total;
      }
      if (threadIdx.x % 32 == 0) f[i] = -reg * sum.value();
    });
    __syncthreads();
    sweep(w, w.b, w.sums);
    if (attempt > 0 || !mend(w, C, ldc, reg, f, h)) break;
  }
  each(w.m, [&](long long j) { w.c[j] = w.b[j] * w.sums[j]; });
  __syncthreads();
  return total(w.m, [&](long long j) { return fabs(w.c[j] - w.b[j]); });
}

// The mismatch of each column; the error, the largest mismatch that matters, the factors' spread.
struct Look {
  double error, worst, spread;

  __device__ Look(const Work& w, const double* log_v) {
    each(w.m, [&](long long j) { w.miss[j] = log(w.b[j] / vmax(w.c[j], TINY)); });
    __syncthreads();
    error = total(w.m, [&](long long j) { return fabs(w.b[j] - w.c[j]); });
    worst = largest_that_matters(w, [&](long long j) { return fabs(w.miss[j]); });
    spread = largest_that_matters(w, [&](long long j) { return log_v[j]; }) +
             largest_that_matters(w, [&](long long j) { return -log_v[j]; });
  }

  template <class Term>
  __device__ double largest_that_matters(const Work& w, Term term) const {
    return largest(w.m, [&](long long j) {
      return matters(w, j, error) ? term(j) : -lim<double>::inf();
    });
  }
};

__device__ void sinkhorn_block(const Work& w, long long n_sinkhorn, const Look& look,
                               double* log_v, long long* counts) {
  for (long long k = 0; k < n_sinkhorn; ++k) {
    each(w.m, [&](long long j) { log_v[j] = clip(log_v[j] + w.miss[j], -60, 60); });
    __syncthreads();
    scaled_sweep(w, log_v, w.v, w.c);
    each(w.m, [&](long long j) { w.miss[j] = log(w.b[j] / vmax(w.c[j], TINY)); });
    __syncthreads();
    if (threadIdx.x == 0) ++counts[0];
    const double worst =
        look.largest_that_matters(w, [&](long long j) { return fabs(w.miss[j]); });
    if (worst < 0.5 * GATE) break;
  }
}

__device__ void find_peaks(const Work& w) {
  each_row(w.n, [&](long long i) {
    double top = lim<double>::lowest();
    long long at = 0x7fffffffffffffffll;
    for (long long j = threadIdx.x % 32; j < w.m; j += 32) {
      const double value = w.K[i * w.m + j] * w.v[j];
      if (value > top) top = value, at = j;
    }
    const double highest = warp_max(top);
    at = top == highest ? at : 0x7fffffffffffffffll;
    const long long peak =
        warp_reduce(at, [](long long k, long long l) { return k < l ? k : l; });
    // The peak's part of the row, as a sum of the others and not as a difference.
    const double others = row_total(w.m, [&](long long j) {
      return j == peak ? 0 : w.K[i * w.m + j] * w.v[j];
    });
    if (threadIdx.x % 32 == 0) w.peaks[i] = peak, w.rest[i] = others / w.rho[i];
  });
  __syncthreads();
}

// Solve (S + shift diag(c)) step = gap by conjugate gradients; return their number.
__device__ long long solve(const Work& w, double shift, double tol, long long maxiter) {
  const double mass = total(w.m, [&](long long j) { return w.c[j]; });
  const double excess = total(w.m, [&](long long j) { return w.gap[j]; });
  each(w.m, [&](long long j) {
    w.step[j] = w.p[j] = 0;
    w.r[j] = w.gap[j] - w.c[j] * (excess / mass);
  });
  const double goal = tol * total(w.m, [&](long long j) { return fabs(w.r[j]); });
  double before = 1;
  for (long long k = 0; k < maxiter; ++k) {
    // A thread's entries of r, z and p are its own until the product.
    const double mean =
        total(w.m, [&](long long j) { return w.c[j] * (w.z[j] = w.r[j] / w.jacobi[j]); }) / mass;
    const double rz = total(w.m, [&](long long j) { return w.r[j] * (w.z[j] -= mean); });
    const double ratio = k > 0 ? rz / before : 0;
    each(w.m, [&](long long j) { w.p[j] = w.z[j] + ratio * w.p[j]; });
    __syncthreads();
    each_row(w.n, [&](long long i) {
      const double origin = w.p[w.peaks[i]];
      const double sum = row_total(w.m, [&](long long j) {
        return w.K[i * w.m + j] * (w.v[j] * (w.p[j] - origin));
      });
      if (threadIdx.x % 32 == 0) w.drift[i] = w.weight[i] * (sum / w.rho[i]);
    });
    __syncthreads();
    const double curvature = total(w.m, [&](long long j) {
      double sum = 0;
      for (long long i = 0; i < w.n; ++i) {
        // Two differences: a mean of 1e-12 would get lost when added to the peak's value.
        const double away = w.p[j] - w.p[w.peaks[i]];
        sum += w.K[i * w.m + j] * (w.weight[i] * away - w.drift[i]);
      }
      w.q[j] = w.v[j] * sum + shift * w.c[j] * w.p[j];
      return w.p[j] * w.q[j];
    });
    if (!(rz > 0 && curvature > TINY * rz && curvature < lim<double>::inf())) return k;
    const double alpha = rz / curvature;
    const double norm = total(w.m, [&](long long j) {
      w.step[j] += alpha * w.p[j];
      w.r[j] -= alpha * w.q[j];
      return fabs(w.r[j]);
    });
    if (norm <= goal) return k + 1;
    before = rz;
  }
  return maxiter;
}

// Set the Newton step and the gap it is meant to close.
__device__ void direction(const Work& w, double error, double damping, double tol_inner,
                          long long maxiter_inner, long long* counts) {
  const double shift = clip(damping * error, 1e-11, 0.3);
  const double tol =
      tol_inner > 0 ? tol_inner : vmax(0.1 * sqrt(vmin(1.0, error / 1e-2)), 1e-2);
  const long long most = maxiter_inner > 0 ? maxiter_inner : w.m > 50 ? 2 * w.m : 100;
  find_peaks(w);
  const double fullest = largest(w.n, [&](long long i) {
    return w.K[i * w.m + w.peaks[i]] * w.v[w.peaks[i]] / w.rho[i];
  });
  each(w.m, [&](long long j) {
    // Where no entry has most of its row, the diagonal is about the column sums.
    double sum = fullest < 0.5 ? w.c[j] : 0;
    for (long long i = 0; fullest >= 0.5 && i < w.n; ++i) {
      const double p = w.K[i * w.m + j] * w.v[j];
      sum += w.weight[i] * p * (j == w.peaks[i] ? w.rest[i] : 1 - p / w.rho[i]);
    }
    w.jacobi[j] = sum + shift * w.c[j];
    w.gap[j] = aside(w, j, error) ? 0 : w.b[j] - w.c[j];
  });
  const long long iterations = solve(w, shift, tol, most);
  if (threadIdx.x == 0) counts[2] += iterations;
  each(w.m, [&](long long j) {
    if (aside(w, j, error)) w.step[j] = clip(w.miss[j], -LONGEST_STEP, LONGEST_STEP);
  });
  __syncthreads();
}

// Move along the Newton step until the dual stops rising; return its length, 0 if it fails.
__device__ double search(const Work& w, double* log_v) {
  const double slope = total(w.m, [&](long long j) { return w.gap[j] * w.step[j]; });
  const double high =
      largest(w.m, [&](long long j) { return w.gap[j] != 0 ? w.step[j] : 0; });
  const double low = largest(w.m, [&](long long j) { return w.gap[j] != 0 ? -w.step[j] : 0; });
  double length = vmin(1.0, LONGEST_STEP / vmax(high + low, 1e-30));
  for (int trial = 0; trial < 10; ++trial) {
    each(w.m, [&](long long j) { w.x[j] = log_v[j] + length * w.step[j]; });
    __syncthreads();
    scaled_sweep(w, w.x, w.v_new, w.c_new);
    const double end = total(w.m, [&](long long j) {
      return w.gap[j] != 0 ? (w.b[j] - w.c_new[j]) * w.step[j] : 0;
    });
    if (end >= -0.5 * slope) {
      each(w.m, [&](long long j) {
        log_v[j] = w.x[j];
        w.v[j] = w.v_new[j];
        w.c[j] = w.c_new[j];
      });
      __syncthreads();
      return length;
    }
    const bool finite = fabs(end) < lim<double>::inf();
    length *= clip(finite ? slope / (slope - end) : 0, 0.1, 0.7);
  }
  // The row sums of the last trial do not belong to the present factors.
  scaled_sweep(w, log_v, w.v, w.c);
  return 0;
}

template <class T>
__global__ void balance(const T* __restrict__ C, long long costs, const double* __restrict__ a,
                        const double* __restrict__ b, const long long* __restrict__ sizes,
                        const double* __restrict__ reg, double* h, const double* __restrict__ tol,
                        const bool* __restrict__ active, long long patience, long long n_sinkhorn,
                        double tol_inner, long long maxiter_inner, double* damping, double* f,
                        double* log_v, double* error, double* left, long long* counts,
                        double* room, long long stride, long long* peaks, long long count,
                        long long n, long long m) {
  Work w(room + blockIdx.x * stride, peaks + blockIdx.x * n, n, m);
  for (long long k = blockIdx.x; k < count; k += gridDim.x) {
    if (!active[k]) continue;
    w.n = sizes[2 * k], w.m = sizes[2 * k + 1], w.a = a + k * n, w.b = b + k * m;
    double *step = log_v + k * m, trust = damping[k];
    const double found =
        fill(w, C + (costs > 1 ? k * n * m : 0), m, reg[k], h + k * m, f + k * n);
    each(w.m, [&](long long j) {
      step[j] = 0;
      w.v[j] = w.b[j];
    });
    __syncthreads();
    double reached = found, before = lim<double>::inf();
    int weak = 0;
    bool quick = true;
    for (long long move = 0; found > tol[k] && move <= patience; ++move) {
      const Look look(w, step);
      reached = look.error;
      // A little further than asked for, because the next pass rounds differently.
      if (reached <= 0.3 * tol[k] || look.spread > REACH || move == patience ||
          !(reached < lim<double>::inf())) {
        break;
      }
      // As long as a few sweeps gain a digit, no Newton step is as cheap.
      quick = quick && reached < 0.35 * before, before = reached;
      if (look.worst > GATE || weak == 2 || quick || maxiter_inner < 0) {
        const bool far = look.worst > GATE || weak == 2;
        sinkhorn_block(w, far ? n_sinkhorn : 1, look, step, counts + 3 * k);
        weak = 0;
        continue;
      }
      direction(w, reached, trust, tol_inner, maxiter_inner, counts + 3 * k);
      const double length = search(w, step);
      if (threadIdx.x == 0) ++counts[3 * k + 1];
      trust = length == 1   ? vmax(trust / 4, 1e-6)
              : length == 0 ? vmin(10 * trust, 1e3)
                            : vmin((length > 0.2 ? 4 : 30) * trust, 1e3);
      weak = length < 0.3 ? weak + 1 : 0;
    }
    if (threadIdx.x == 0) error[k] = found, left[k] = reached, damping[k] = trust;
    __syncthreads();
  }
}
