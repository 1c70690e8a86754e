// CUDA twins of the kernels in cpu.py; launched by gpu.py. A block takes tiles of rows: its warps
// form the predictions, its threads the slopes, then the gradients, from rows that are in the L2
// cache by then. Each block adds to a part of its own, so that sums have the same bits every time.
#include "common.cuh"

constexpr int SQUARED = 0, HINGE = 2, SOFTMAX = 3;
constexpr int PAIR = 1, BEND = 2;

__device__ inline double sigmoid(double u) {
  const double e = exp(-fabs(u));
  return (u > 0 ? 1 : e) / (1 + e);
}

__device__ inline double softplus(double u) { return vmax(u, 0.0) + log1p(exp(-fabs(u))); }

// Predictions, and steps or directions, become slopes; entries of M are `stride` apart.
template <class T>
__device__ void one_prediction(int kind, int mode, double t, T* M, long long stride, double* loss,
                               double* change) {
  T* second = M + (mode ? stride : 0);
  const double sign = kind == SQUARED ? 1 : -t;
  const double u = kind == SQUARED ? *M - t : sign * *M, d = sign * *second;
  double slope, value, then, more, bend;
  if (kind == SQUARED) {
    slope = u, value = 0.5 * u * u, then = u + d, more = d * (u + 0.5 * d), bend = 1;
  } else if (kind == HINGE) {
    slope = vmax(1 + u, 0.0), value = 0.5 * slope * slope, then = vmax(1 + u + d, 0.0);
    more = 0.5 * (slope > 0 && then > 0 ? d : then - slope) * (then + slope), bend = slope > 0;
  } else {
    slope = sigmoid(u), value = softplus(u), then = sigmoid(u + d), bend = slope * (1 - slope);
    more = fabs(d) < 0.25 ? log1p(slope * expm1(d)) : softplus(u + d) - value;
  }
  *loss = mode == BEND ? slope * d : value;
  if (mode == PAIR) *change = more;
  *second = T(sign * (mode == BEND ? bend * d : then));
  if (mode != BEND) *M = T(sign * slope);
}

template <class T>
__device__ void softmax(int mode, long long k, long long own, T* M, long long stride, double* loss,
                        double* change) {
  T* second = M + k * stride;
  double top = lim<double>::lowest(), top_moved = top, total = 0, moved = 0, size = 0, mean = 0;
  for (long long c = 0; c < k; ++c) {
    const double z = M[c * stride], d = mode ? double(second[c * stride]) : 0;
    top = vmax(top, z), top_moved = vmax(top_moved, z + d), size = vmax(size, fabs(d));
  }
  for (long long c = 0; c < k; ++c) {
    const double z = M[c * stride], d = mode ? double(second[c * stride]) : 0;
    const double e = exp(z - top);
    total += e, mean += e * (mode == BEND ? d : expm1(vmin(vmax(d, -0.25), 0.25)));
    moved += exp(z + d - top_moved);
  }
  mean /= total;
  const double own_step = mode ? double(second[own * stride]) : 0;
  const double height = top + log(total);
  *loss = mode == BEND ? mean - own_step : height - M[own * stride];
  if (mode == PAIR) {
    *change = (size < 0.25 ? log1p(mean) : top_moved + log(moved) - height) - own_step;
  }
  for (long long c = 0; c < k; ++c) {
    const double z = M[c * stride], d = mode ? double(second[c * stride]) : 0;
    const double share = exp(z - top) / total;
    if (mode == BEND) second[c * stride] = T(share * (d - mean));
    if (mode == PAIR) second[c * stride] = T(exp(z + d - top_moved) / moved - (c == own));
    if (mode != BEND) M[c * stride] = T(share - (c == own));
  }
}

// All families of one row; `row` is its place among the N rows.
template <class T>
__device__ void respond(int kind, int mode, long long k, T t, const T* weights, bool weighted,
                        long long points, T* M, long long stride, long long Q, double* losses,
                        long long N, long long row) {
  const long long step = mode ? 2 * k : k, count = mode == PAIR ? 2 * k : k;
  for (long long f = 0; f < Q / step; ++f) {
    T* m = M + f * step * stride;
    double *loss = losses + (mode == PAIR ? 2 * f : f) * N + row, *change = loss + N;
    if (kind == SOFTMAX) {
      softmax(mode, k, (long long)t, m, stride, loss, change);
    } else {
      one_prediction(kind, mode, double(t), m, stride, loss, change);
    }
    const T factor = weighted ? weights[f * points + row] : T(1);
    for (long long q = 0; q < count; ++q) {
      M[(f * count + q) * stride] = factor * m[(mode == BEND ? k + q : q) * stride];
    }
  }
}

// Rows a, ..., a + n - 1 of the N: predictions, slopes, and what they add to G. The weights of the
// points are `points` apart; those of one row serve all points if that is 0.
template <class T>
__device__ void add_tile(const T* X, const long long* rows, const T* t, const T* weights,
                         bool weighted, int kind, int mode, long long k, const T* W, T* M,
                         double* losses, T* G, long long N, long long points, long long a,
                         long long n, long long p, long long Q, long long O, long long tile) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  for (long long i = warp; i < n; i += warps) {
    const T* x = X + rows[a + i] * p;
    for (long long q = 0; q < Q; q += 2) {
      const T *w = W + q * p, *v = W + (q + 1 < Q ? q + 1 : q) * p;
      T wx = 0, vx = 0;
      for (long long j = lane; j < p; j += 32) wx += x[j] * w[j], vx += x[j] * v[j];
      wx = warp_sum(wx), vx = warp_sum(vx);
      if (lane == 0) {
        M[q * tile + i] = wx;
        if (q + 1 < Q) M[(q + 1) * tile + i] = vx;
      }
    }
  }
  __syncthreads();
  for (long long i = threadIdx.x; i < n; i += blockDim.x) {
    respond(kind, mode, k, t[rows[a + i]], weights, weighted, points, M + i, tile, Q, losses, N,
            a + i);
  }
  __syncthreads();
  for (long long j = threadIdx.x; j < p; j += blockDim.x) {
    for (long long o = 0; o < O; o += 2) {
      const long long other = o + 1 < O ? o + 1 : o;
      T g = 0, h = 0;
      for (long long i = 0; i < n; ++i) {
        const T x = X[rows[a + i] * p + j];
        g += M[o * tile + i] * x, h += M[other * tile + i] * x;
      }
      G[o * p + j] += g;
      if (other > o) G[other * p + j] += h;
    }
  }
  __syncthreads();
}

template <class T>
__global__ void dense_pass(const T* __restrict__ X, const long long* __restrict__ rows,
                           const T* __restrict__ t, const T* __restrict__ weights, bool weighted,
                           long long kind, long long mode, long long k,
                           const T* __restrict__ W, T* scratch, double* losses, T* parts,
                           long long N, long long p, long long Q, long long O, long long tile) {
  T *M = scratch + blockIdx.x * Q * tile, *G = parts + blockIdx.x * O * p;
  for (long long a = blockIdx.x * tile; a < N; a += gridDim.x * tile) {
    add_tile(X, rows, t, weights, weighted, int(kind), int(mode), k, W, M, losses, G, N, N, a,
             N - a < tile ? N - a : tile, p, Q, O, tile);
  }
}

// As above, for I blocks of N rows and with vectors of their own: a block of threads takes one.
template <class T>
__global__ void block_pass(const T* __restrict__ X, const long long* __restrict__ rows,
                           const T* __restrict__ t, const T* __restrict__ weights, bool weighted,
                           long long kind, long long mode, long long k,
                           const T* __restrict__ W, T* scratch, double* losses, T* G,
                           long long I, long long N, long long p, long long Q, long long O,
                           long long tile) {
  T* M = scratch + blockIdx.x * Q * tile;
  for (long long i = blockIdx.x; i < I; i += gridDim.x) {
    for (long long a = i * N; a < (i + 1) * N; a += tile) {
      const long long n = (i + 1) * N - a;
      add_tile(X, rows, t, weights, weighted, int(kind), int(mode), k, W + i * Q * p, M, losses,
               G + i * O * p, I * N, 0, a, n < tile ? n : tile, p, Q, O, tile);
    }
  }
}

// A warp takes a row. Rows share columns, and which of them adds first is left to chance: there
// is no other affordable way to scatter.
template <class T, class Index>
__global__ void csr_pass(const Index* __restrict__ indptr,
                         const Index* __restrict__ indices,
                         const T* __restrict__ data, const long long* __restrict__ rows,
                         const T* __restrict__ t, const T* __restrict__ weights, bool weighted,
                         long long kind, long long mode, long long k, const T* __restrict__ W,
                         T* scratch, double* losses, T* G, long long N, long long Q,
                         long long O) {
  const int lane = threadIdx.x % 32;
  const long long warp = blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32;
  T* M = scratch + warp * Q;
  for (long long i = warp; i < N; i += (long long)gridDim.x * (blockDim.x / 32)) {
    const long long first = indptr[rows[i]], last = indptr[rows[i] + 1];
    for (long long q = 0; q < Q; ++q) {
      T m = 0;
      for (long long e = first + lane; e < last; e += 32) m += data[e] * W[indices[e] * Q + q];
      m = warp_sum(m);
      if (lane == 0) M[q] = m;
    }
    if (lane == 0) {
      respond(int(kind), int(mode), k, t[rows[i]], weights, weighted, N, M, 1, Q, losses, N, i);
    }
    __syncwarp();
    for (long long e = first + lane; e < last; e += 32) {
      for (long long o = 0; o < O; ++o) atomicAdd(G + indices[e] * O + o, data[e] * M[o]);
    }
    __syncwarp();
  }
}
