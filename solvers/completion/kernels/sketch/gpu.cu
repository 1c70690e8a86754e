// CUDA twins of the kernels in cpu.py; launched by gpu.py. A block takes a row and its entries, and
// has a piece of `room` in global memory for its matrices and its residual.
#include "common.cuh"

// Unknowns that are minimised over at a time: one for each lane of a warp.
constexpr int SUBSPACE = 32;
// Entries in each column of a sketch.
constexpr int NNZ = 2;

// The system of a row: its entries, and what is added to the Hessian.
template <class T>
struct System {
  const int* idx;
  const T* val;
  const T* weight;
  const T* B;
  const T* offset;
  const T* shared;
  bool weighted, biased, dense;
  long long first, last, k;
  T ridge, lam_bias;

  __device__ T diag(long long q) const { return biased && q == 0 ? lam_bias : ridge; }
  __device__ const T* row(long long p) const { return B + idx[p] * k; }
  __device__ T w(long long p) const { return weighted ? weight[p] : T(1); }
  __device__ T target(long long p) const { return biased ? val[p] - offset[idx[p]] : val[p]; }
  __device__ T added(long long q, long long r) const {
    const T own = q == r ? diag(q) : T(0);
    return dense ? own + shared[q * k + r] : own;
  }

  // Entry q of what is added to the Hessian, times x.
  __device__ T penalty_times(long long q, const T* x) const {
    T total = diag(q) * x[q];
    if (dense) {
      for (long long r = 0; r < k; ++r) total += shared[q * k + r] * x[r];
    }
    return total;
  }
};

// Set e_p to v_p . x less the target, or to the product alone; a warp takes an entry.
template <class T>
__device__ void products(const System<T>& row, const T* x, bool less_target, T* e) {
  const int lane = threadIdx.x % 32;
  __syncthreads();
  for (long long p = row.first + threadIdx.x / 32; p < row.last; p += blockDim.x / 32) {
    const T* v = row.row(p);
    T total = 0;
    for (long long q = lane; q < row.k; q += 32) total += v[q] * x[q];
    total = warp_sum(total);
    if (lane == 0) e[p - row.first] = less_target ? total - row.target(p) : total;
  }
  __syncthreads();
}

// Set out to what is added to the Hessian, times x, plus the weighted sum of e_p v_p.
template <class T>
__device__ void combine(const System<T>& row, const T* x, const T* e, T* out) {
  for (long long q = threadIdx.x; q < row.k; q += blockDim.x) {
    T total = row.penalty_times(q, x);
    for (long long p = row.first; p < row.last; ++p) {
      total += row.w(p) * e[p - row.first] * row.row(p)[q];
    }
    out[q] = total;
  }
  __syncthreads();
}

// The weighted sums of squares of the residual e, and of the values.
template <class T>
struct Squares {
  double misfit = 0, scale = 0;

  __device__ Squares(const System<T>& row, const T* e) {
    for (long long p = row.first + threadIdx.x; p < row.last; p += blockDim.x) {
      const double r = e[p - row.first], target = row.target(p);
      misfit += row.w(p) * r * r;
      scale += row.w(p) * target * target;
    }
    misfit = block_sum(misfit);
    scale = block_sum(scale);
  }
};

template <class T>
__device__ T dot(const T* x, const T* y, long long k) {
  T total = 0;
  for (long long q = threadIdx.x; q < k; q += blockDim.x) total += x[q] * y[q];
  return block_sum(total);
}

// Factorise the lower half of G, of leading dimension ld, in place; tell whether it has full rank.
template <class T>
__device__ bool cholesky(T* G, long long k, long long ld) {
  __syncthreads();
  T top = 0;
  for (long long q = threadIdx.x; q < k; q += blockDim.x) top = vmax(top, G[q * ld + q]);
  const T floor = block_max(top) * T(k) * T(4) * lim<T>::eps();
  for (long long c = 0; c < k; ++c) {
    const T pivot = G[c * ld + c];
    if (!(pivot > floor)) return false;
    const T root = sqrt(pivot);
    __syncthreads();
    for (long long q = c + threadIdx.x; q < k; q += blockDim.x) {
      G[q * ld + c] = q == c ? root : G[q * ld + c] / root;
    }
    __syncthreads();
    const long long left = k - c - 1;
    for (long long t = threadIdx.x; t < left * left; t += blockDim.x) {
      const long long q = c + 1 + t / left, r = c + 1 + t % left;
      if (r <= q) G[q * ld + r] -= G[q * ld + c] * G[r * ld + c];
    }
    __syncthreads();
  }
  return true;
}

// Solve with L, in place.
template <class T>
__device__ void forward(const T* L, T* x, long long k, long long ld) {
  for (long long c = 0; c < k; ++c) {
    __syncthreads();
    if (threadIdx.x == 0) x[c] /= L[c * ld + c];
    __syncthreads();
    for (long long q = c + 1 + threadIdx.x; q < k; q += blockDim.x) x[q] -= L[q * ld + c] * x[c];
  }
  __syncthreads();
}

// Solve with the transpose of L, in place.
template <class T>
__device__ void backward(const T* L, T* x, long long k, long long ld) {
  for (long long c = k - 1; c >= 0; --c) {
    __syncthreads();
    if (threadIdx.x == 0) x[c] /= L[c * ld + c];
    __syncthreads();
    for (long long q = threadIdx.x; q < c; q += blockDim.x) x[q] -= L[c * ld + q] * x[c];
  }
  __syncthreads();
}

// 64 random bits that follow from two numbers (SplitMix64, by G. Steele et al.).
__device__ inline unsigned long long random_bits(unsigned long long seed,
                                                 unsigned long long counter) {
  unsigned long long z = seed + counter * 0x9E3779B97F4A7C15ull;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
  return z ^ (z >> 31);
}

// Set S to a sparse random sign matrix times the row's system; a thread takes columns.
template <class T>
__device__ void sketch(const System<T>& row, unsigned long long seed, T* S, long long s) {
  const unsigned long long part = s / NNZ;
  for (long long q = threadIdx.x; q < row.k; q += blockDim.x) {
    for (long long r = 0; r < s; ++r) S[r * row.k + q] = 0;
    for (long long p = row.first; p < row.last; ++p) {
      const T value = sqrt(row.w(p) / T(NNZ)) * row.row(p)[q];
      for (int c = 0; c < NNZ; ++c) {
        const unsigned long long bits = random_bits(seed, NNZ * p + c);
        const unsigned long long r = c * part + (((bits >> 32) * part) >> 32);
        S[r * row.k + q] += bits & 1 ? value : -value;
      }
    }
  }
  __syncthreads();
}

template <class T>
__global__ void sketch_rows(const long long* __restrict__ ptr, const int* __restrict__ idx,
                            const T* __restrict__ val, const T* __restrict__ weight,
                            const T* __restrict__ B, const T* __restrict__ offset,
                            const T* __restrict__ ridge, T lam_bias, const T* __restrict__ shared,
                            T* __restrict__ A, T* __restrict__ grad, T* __restrict__ left,
                            signed char* __restrict__ state, T eta, long long s,
                            long long most, bool unit, unsigned long long seed, bool weighted,
                            bool biased, bool dense, T* __restrict__ room, long long longest,
                            double* __restrict__ squares, long long* __restrict__ counts,
                            long long m, long long k) {
  T *y = dyn_shared<T>(), *p = y + k;
  T* S = room + blockIdx.x * (s * k + k * k + longest);
  T *G = S + s * k, *e = G + k * k;
  for (long long i = blockIdx.x; i < m; i += gridDim.x) {
    // With more than half as many rows as the system a sketch saves nothing.
    if (ptr[i + 1] - ptr[i] <= 2 * s) continue;
    const System<T> row = {idx,    val,   weight, B,          offset,   shared,   weighted, biased,
                           dense,  ptr[i], ptr[i + 1], k, ridge[i], lam_bias};
    T *x = A + i * k, *g = left + i * k;
    sketch(row, seed, S, s);
    for (long long t = threadIdx.x; t < k * k; t += blockDim.x) {
      const long long q = t / k, r = t % k;
      if (r > q) continue;
      T total = row.added(q, r);
      for (long long n = 0; n < s; ++n) total += S[n * k + q] * S[n * k + r];
      G[t] = total;
    }
    if (!cholesky(G, k, k)) continue;
    products(row, x, true, e);
    const Squares<T> squared(row, e);
    combine(row, x, e, g);
    for (long long q = threadIdx.x; q < k; q += blockDim.x) {
      grad[i * k + q] = y[q] = g[q];
      p[q] = 0;
    }
    forward(G, y, k, k);
    const double goal = double(eta) * eta * squared.scale;
    T rho = dot(y, y, k), before = 1;
    long long step = 0;
    for (; rho > goal && step < most; ++step) {
      backward(G, y, k, k);
      // Directions that are not made conjugate to those before are the gradients themselves.
      const T keep = unit || step == 0 ? T(0) : rho / before;
      for (long long q = threadIdx.x; q < k; q += blockDim.x) p[q] = keep * p[q] - y[q];
      products(row, p, false, e);
      combine(row, p, e, y);
      const T alpha = unit ? T(1) : rho / dot(p, y, k);
      for (long long q = threadIdx.x; q < k; q += blockDim.x) {
        x[q] += alpha * p[q];
        g[q] += alpha * y[q];
        y[q] = g[q];
      }
      forward(G, y, k, k);
      before = rho;
      rho = dot(y, y, k);
    }
    if (threadIdx.x == 0) {
      squares[i] = squared.misfit;
      counts[i] = step;
      state[i] = rho > goal ? 2 : 1;
    }
  }
}

// Minimise over the block that begins with the unknown q; e is the residual and stays so. Returns
// the square of the block's gradient, preconditioned by its Hessian.
template <class T>
__device__ T descend(const System<T>& row, const T* L, long long q, T* x, T* e, T* d) {
  __shared__ T part[32][SUBSPACE];
  const long long size = vmin<long long>(SUBSPACE, row.k - q);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  T total = 0;
  if (lane < size) {
    for (long long p = row.first + warp; p < row.last; p += warps) {
      total += row.w(p) * e[p - row.first] * row.row(p)[q + lane];
    }
  }
  part[warp][lane] = total;
  __syncthreads();
  if (warp == 0) {
    total = lane < size ? row.penalty_times(q + lane, x) : T(0);
    for (int other = 0; other < warps; ++other) total += part[other][lane];
    d[lane] = total;
  }
  forward(L + q * SUBSPACE, d, size, SUBSPACE);
  const T square = dot(d, d, size);
  backward(L + q * SUBSPACE, d, size, SUBSPACE);
  if (threadIdx.x < size) x[q + threadIdx.x] -= d[threadIdx.x];
  for (long long p = row.first + threadIdx.x; p < row.last; p += blockDim.x) {
    const T* v = row.row(p) + q;
    T change = 0;
    for (int a = 0; a < size; ++a) change += v[a] * d[a];
    e[p - row.first] -= change;
  }
  __syncthreads();
  return square;
}

// Factorise the blocks on the Hessian's diagonal; tell whether all have full rank.
template <class T>
__device__ bool diagonal_blocks(const System<T>& row, T* L) {
  for (long long q = 0; q < row.k; q += SUBSPACE) {
    const long long size = vmin<long long>(SUBSPACE, row.k - q);
    T* G = L + q * SUBSPACE;
    for (long long t = threadIdx.x; t < size * size; t += blockDim.x) {
      const long long a = t / size, b = t % size;
      if (b > a) continue;
      T total = row.added(q + a, q + b);
      for (long long p = row.first; p < row.last; ++p) {
        const T* v = row.row(p) + q;
        total += row.w(p) * v[a] * v[b];
      }
      G[a * SUBSPACE + b] = total;
    }
    if (!cholesky(G, size, SUBSPACE)) return false;
  }
  return true;
}

template <class T>
__global__ void subspace_rows(const long long* __restrict__ ptr, const int* __restrict__ idx,
                              const T* __restrict__ val, const T* __restrict__ weight,
                              const T* __restrict__ B, const T* __restrict__ offset,
                              const T* __restrict__ ridge, T lam_bias,
                              const T* __restrict__ shared, T* __restrict__ A,
                              T* __restrict__ grad, T* __restrict__ left,
                              signed char* __restrict__ state, T eta, long long most,
                              bool weighted, bool biased, bool dense, T* __restrict__ room,
                              long long longest, double* __restrict__ squares,
                              long long* __restrict__ counts, long long m, long long k) {
  T* d = dyn_shared<T>();
  T* L = room + blockIdx.x * (k * SUBSPACE + longest);
  T* e = L + k * SUBSPACE;
  for (long long i = blockIdx.x; i < m; i += gridDim.x) {
    // With fewer entries than unknowns nothing is saved, nor need the minimiser be unique.
    if (ptr[i + 1] - ptr[i] < k) continue;
    const System<T> row = {idx,    val,   weight, B,          offset,   shared,   weighted, biased,
                           dense,  ptr[i], ptr[i + 1], k, ridge[i], lam_bias};
    T *x = A + i * k, *g = left + i * k;
    if (!diagonal_blocks(row, L)) {
      __syncthreads();  // some threads still read the pivot
      continue;
    }
    products(row, x, true, e);
    const Squares<T> squared(row, e);
    combine(row, x, e, g);
    for (long long q = threadIdx.x; q < k; q += blockDim.x) grad[i * k + q] = g[q];
    __syncthreads();
    const double goal = double(eta) * eta * squared.scale;
    long long step = 0;
    double size = lim<double>::inf();
    for (; step < most && size > goal; ++step) {
      size = 0;
      for (long long q = 0; q < k; q += SUBSPACE) size += descend(row, L, q, x, e, d);
    }
    combine(row, x, e, g);
    if (threadIdx.x == 0) {
      squares[i] = squared.misfit;
      counts[i] = step;
      state[i] = 1;
    }
    __syncthreads();
  }
}
