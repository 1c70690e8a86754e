// CUDA twins of the kernels in cpu.py; launched by gpu.py. A warp takes a row.
#include "common.cuh"

// Cycles of coordinate steps, each with a step on the support, as in cpu.py.
constexpr int TURNS = 60;

// A row's problem: minimise x^T G x / 2 - h^T x over x >= 0; g is the gradient at x.
template <class T>
struct Row {
  T *G, *L, *h, *g, *step, *x;
  long long k;
  int lane;

  __device__ void set_gradient() {
    __syncwarp();
    for (long long q = lane; q < k; q += 32) {
      T total = -h[q];
      for (long long c = 0; c < k; ++c) total += G[q * k + c] * x[c];
      g[q] = total;
    }
    __syncwarp();
  }

  // What one projected step would change an unknown by.
  __device__ T move(long long q) {
    const T diagonal = G[q * k + q];
    return diagonal > 0 ? vmin(x[q], g[q] / diagonal) : T(0);
  }

  // Whether the gradient is zero to rounding, or positive where x is 0.
  __device__ bool solved() {
    T open = 0;
    const T exact = 4 * k * lim<T>::eps();
    for (long long q = lane; q < k; q += 32) {
      T terms = 0;
      for (long long c = 0; c < k; ++c) terms += abs(G[q * k + c]) * x[c];
      if (abs(vmin(G[q * k + q] * x[q], g[q])) > exact * terms) open = 1;
    }
    return warp_max(open) == 0;
  }

  // Minimise over each unknown in turn.
  __device__ void cycle() {
    for (long long q = 0; q < k; ++q) {
      const T diagonal = G[q * k + q];
      const T d = diagonal > 0 ? vmax(-g[q] / diagonal, -x[q]) : T(0);
      __syncwarp();  // all lanes have read what is changed now
      for (long long c = lane; c < k; c += 32) g[c] += d * G[q * k + c];
      if (lane == 0) x[q] += d;
      __syncwarp();
    }
  }

  // Factorise G on the support; tell whether it has full rank there.
  __device__ bool factorise() {
    T top = 0;
    for (long long q = lane; q < k; q += 32) {
      if (x[q] > 0) top = vmax(top, G[q * k + q]);
      for (long long c = 0; c <= q; ++c) L[q * k + c] = G[q * k + c];
    }
    const T floor = 4 * k * lim<T>::eps() * warp_max(top);
    __syncwarp();
    for (long long c = 0; c < k; ++c) {
      if (!(x[c] > 0)) continue;
      const T pivot = L[c * k + c];
      if (!(pivot > floor)) return false;
      const T root = sqrt(pivot);
      __syncwarp();
      for (long long q = c + lane; q < k; q += 32) {
        L[q * k + c] = q == c ? root : L[q * k + c] / root;
      }
      __syncwarp();
      for (long long q = c + 1 + lane; q < k; q += 32) {
        for (long long e = c + 1; e <= q; ++e) L[q * k + e] -= L[q * k + c] * L[e * k + c];
      }
      __syncwarp();
    }
    return true;
  }

  __device__ T value() {
    T total = 0;
    for (long long q = lane; q < k; q += 32) total += x[q] * (g[q] - h[q]);
    return warp_sum(total);
  }

  // Go towards the minimiser over the unknowns that are not 0, and stop those that become 0: all
  // at once if that lowers the objective; otherwise all unknowns stop with the first.
  __device__ void finish() {
    if (!factorise()) return;
    for (long long q = lane; q < k; q += 32) step[q] = x[q] > 0 ? -g[q] : T(0);
    __syncwarp();
    for (long long c = 0; c < k; ++c) {
      if (!(x[c] > 0)) continue;
      const T y = step[c] / L[c * k + c];
      __syncwarp();
      for (long long q = c + lane; q < k; q += 32) {
        if (x[q] > 0) step[q] = q == c ? y : step[q] - L[q * k + c] * y;
      }
      __syncwarp();
    }
    for (long long c = k - 1; c >= 0; --c) {
      if (!(x[c] > 0)) continue;
      const T y = step[c] / L[c * k + c];
      __syncwarp();
      for (long long q = lane; q <= c; q += 32) {
        if (x[q] > 0) step[q] = q == c ? y : step[q] - L[c * k + q] * y;
      }
      __syncwarp();
    }
    // Twice the objective is x . (g - h). The factor's first row has done its duty.
    const T before = value();
    T* old = L;
    T length = 1;
    for (long long q = lane; q < k; q += 32) {
      if (x[q] + step[q] < 0) length = vmin(length, -x[q] / step[q]);
      old[q] = x[q];
      x[q] = vmax(x[q] + step[q], T(0));
    }
    length = -warp_max(-length);
    set_gradient();
    if (length == 1 || value() < before) return;
    __syncwarp();
    for (long long q = lane; q < k; q += 32) {
      const bool stops = old[q] + step[q] < 0 && -old[q] / step[q] <= length;
      x[q] = stops ? T(0) : vmax(old[q] + length * step[q], T(0));
    }
    set_gradient();
  }
};

// Set each A_i >= 0 to its row's minimiser; squares receives how far it was from that.
template <class T>
__global__ void solve_nonnegative(const long long* __restrict__ ptr, const int* __restrict__ idx,
                                  const T* __restrict__ val, const T* __restrict__ weight,
                                  bool weighted, const T* __restrict__ B,
                                  const T* __restrict__ ridge, const T* __restrict__ shared,
                                  bool has_shared, T* __restrict__ A,
                                  double* __restrict__ squares, T* __restrict__ work, long long m,
                                  long long k) {
  const int lane = threadIdx.x % 32;
  const long long warps = (long long)gridDim.x * (blockDim.x / 32);
  const long long warp = blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32;
  T* room = work + warp * (2 * k * k + 3 * k);
  Row<T> row{room,         room + k * k, room + 2 * k * k, room + 2 * k * k + k,
             room + 2 * k * k + 2 * k, nullptr, k, lane};
  for (long long i = warp; i < m; i += warps) {
    row.x = A + i * k;
    __syncwarp();  // the row before is done with its room
    for (long long q = 0; q < k; ++q) {
      for (long long c = lane; c < k; c += 32) {
        T total = has_shared ? shared[q * k + c] : T(0);
        if (q == c) total += ridge[i];
        T right = 0;
        for (long long p = ptr[i]; p < ptr[i + 1]; ++p) {
          const T* v = B + (long long)idx[p] * k;
          const T wv = weighted ? weight[p] * v[q] : v[q];
          total += wv * v[c];
          if (q == c) right += val[p] * wv;
        }
        row.G[q * k + c] = total;
        if (q == c) row.h[q] = right;
      }
    }
    row.set_gradient();
    double violation = 0;
    for (long long q = lane; q < k; q += 32) violation += (double)row.move(q) * row.move(q);
    violation = warp_sum(violation);
    if (lane == 0) squares[i] = violation;
    for (int turn = 0; turn < TURNS; ++turn) {
      row.cycle();
      row.finish();
      if (row.solved()) break;
    }
  }
}
