// CUDA twins of the kernels in cpu.py; launched by gpu.py. A warp takes a row and its entries.
#include "common.cuh"

// y_p = w_p (A_i . V_j + U_i . B_j) for each entry p = (i, j), and gA_i = sum_p y_p V_j.
template <class T>
__global__ void jac_rows(const long long* __restrict__ ptr, const int* __restrict__ idx,
                         const T* __restrict__ weight, bool weighted, const T* __restrict__ U,
                         const T* __restrict__ V, const T* __restrict__ A,
                         const T* __restrict__ B, T* __restrict__ y, T* __restrict__ gA,
                         long long m, long long k) {
  const int lane = threadIdx.x % 32;
  const long long warps = (long long)gridDim.x * (blockDim.x / 32);
  for (long long i = blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32; i < m;
       i += warps) {
    for (long long q = lane; q < k; q += 32) gA[i * k + q] = 0;
    for (long long p = ptr[i]; p < ptr[i + 1]; ++p) {
      const long long j = idx[p];
      T total = 0;
      for (long long q = lane; q < k; q += 32) {
        total += A[i * k + q] * V[j * k + q] + U[i * k + q] * B[j * k + q];
      }
      total = warp_sum(total);
      if (weighted) total *= weight[p];
      if (lane == 0) y[p] = total;
      for (long long q = lane; q < k; q += 32) gA[i * k + q] += total * V[j * k + q];
    }
  }
}

// gB_j = sum_p y_p U_i for entries by column whose y are in row order.
template <class T, class Index>
__global__ void jac_cols(const long long* __restrict__ ptr, const int* __restrict__ idx,
                         const Index* __restrict__ perm, const T* __restrict__ y,
                         const T* __restrict__ U, T* __restrict__ gB, long long n, long long k) {
  const int lane = threadIdx.x % 32;
  const long long warps = (long long)gridDim.x * (blockDim.x / 32);
  for (long long j = blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32; j < n;
       j += warps) {
    for (long long q = lane; q < k; q += 32) {
      T total = 0;
      for (long long p = ptr[j]; p < ptr[j + 1]; ++p) total += y[perm[p]] * U[idx[p] * k + q];
      gB[j * k + q] = total;
    }
  }
}

// Replace the lower half of a symmetric matrix by its Cholesky factor, whose diagonal holds
// reciprocals, or zero where a pivot drowns in rounding. All threads of a warp work on it.
template <class T>
__device__ void factorise(T* L, long long k) {
  const int lane = threadIdx.x % 32;
  for (long long c = 0; c < k; ++c) {
    const T floor = 4 * k * lim<T>::eps() * L[c * k + c];
    __syncwarp();
    for (long long q = c + lane; q < k; q += 32) {
      T total = L[q * k + c];
      for (long long t = 0; t < c; ++t) total -= L[q * k + t] * L[c * k + t];
      L[q * k + c] = total;
    }
    __syncwarp();
    const T pivot = L[c * k + c], scale = pivot > floor ? 1 / sqrt(pivot) : T(0);
    __syncwarp();
    for (long long q = c + lane; q < k; q += 32) L[q * k + c] = q > c ? L[q * k + c] * scale : scale;
    __syncwarp();
  }
}

// Replace such a factor by its inverse, row by row. Later columns of a row do not read earlier ones.
template <class T>
__device__ void invert(T* L, long long k) {
  const int lane = threadIdx.x % 32;
  for (long long q = 1; q < k; ++q) {
    for (long long first = 0; first < q; first += 32) {
      const long long r = first + lane;
      T total = 0;
      for (long long c = r; c < q; ++c) total -= L[q * k + c] * L[c * k + r];
      __syncwarp();
      if (r < q) L[q * k + r] = total * L[q * k + q];
      __syncwarp();
    }
  }
}

// Replace the lower half L of a matrix by L^T L, and the upper half, too.
template <class T>
__device__ void square(T* L, long long k) {
  const int lane = threadIdx.x % 32;
  for (long long q = 1; q < k; ++q) {
    for (long long r = lane; r < q; r += 32) {
      T total = 0;
      for (long long c = q; c < k; ++c) total += L[c * k + q] * L[c * k + r];
      L[r * k + q] = total;
    }
  }
  __syncwarp();
  for (long long q = lane; q < k; q += 32) {
    T total = 0;
    for (long long c = q; c < k; ++c) total += L[c * k + q] * L[c * k + q];
    L[q * k + q] = total;
  }
  __syncwarp();
  for (long long q = 1; q < k; ++q) {
    for (long long r = lane; r < q; r += 32) L[q * k + r] = L[r * k + q];
  }
}

// out_i = (shared + sum_p w_p V_j V_j^T + diag(ridge_i))^-1.
template <class T>
__global__ void block_inverse(const long long* __restrict__ ptr, const int* __restrict__ idx,
                              const T* __restrict__ weight, bool weighted,
                              const T* __restrict__ V, const T* __restrict__ shared, bool sharing,
                              const T* __restrict__ ridge, T* __restrict__ out, long long m,
                              long long k) {
  const int lane = threadIdx.x % 32;
  const long long warps = (long long)gridDim.x * (blockDim.x / 32);
  for (long long i = blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32; i < m;
       i += warps) {
    T* L = out + i * k * k;
    for (long long q = 0; q < k; ++q) {
      for (long long r = lane; r <= q; r += 32) {
        T total = sharing ? shared[q * k + r] : T(0);
        if (r == q) total += ridge[i * k + q];
        for (long long p = ptr[i]; p < ptr[i + 1]; ++p) {
          const T* v = V + idx[p] * k;
          total += (weighted ? weight[p] : T(1)) * v[q] * v[r];
        }
        L[q * k + r] = total;
      }
    }
    __syncwarp();
    factorise(L, k);
    invert(L, k);
    square(L, k);
  }
}

// out_i = blocks_i x_i: a thread for each entry.
template <class T>
__global__ void block_times(const T* __restrict__ blocks, const T* __restrict__ x,
                            T* __restrict__ out, long long m, long long k) {
  const long long threads = (long long)gridDim.x * blockDim.x;
  for (long long e = blockIdx.x * (long long)blockDim.x + threadIdx.x; e < m * k; e += threads) {
    const T* row = x + e / k * k;
    T total = 0;
    for (long long r = 0; r < k; ++r) total += blocks[e * k + r] * row[r];
    out[e] = total;
  }
}
