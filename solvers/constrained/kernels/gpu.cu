// CUDA twins of the kernels in cpu.py; launched by gpu.py. Where steps follow each other, one block
// of threads takes them all. Compressed rows have ascending columns, each once.
#include "common.cuh"

template <class T>
__global__ void kaczmarz(const T* __restrict__ A, const T* __restrict__ b,
                         const T* __restrict__ inverse, const long long* __restrict__ order, T* x,
                         long long steps, long long n) {
  for (long long step = 0; step < steps; ++step) {
    const long long i = order[step];
    const T* row = A + i * n;
    T dot = 0;
    for (long long j = threadIdx.x; j < n; j += blockDim.x) dot += row[j] * x[j];
    const T factor = (b[i] - block_sum(dot)) * inverse[i];
    // Each thread changes the entries that it alone reads.
    for (long long j = threadIdx.x; j < n; j += blockDim.x) x[j] += factor * row[j];
  }
}

template <class T>
__global__ void kaczmarz_csr(const T* __restrict__ values, const int* __restrict__ columns,
                             const long long* __restrict__ starts, const T* __restrict__ b,
                             const T* __restrict__ inverse, const long long* __restrict__ order,
                             T* x, long long steps) {
  for (long long step = 0; step < steps; ++step) {
    const long long i = order[step], first = starts[i] + threadIdx.x, last = starts[i + 1];
    T dot = 0;
    for (long long p = first; p < last; p += blockDim.x) dot += values[p] * x[columns[p]];
    const T factor = (b[i] - block_sum(dot)) * inverse[i];
    for (long long p = first; p < last; p += blockDim.x) x[columns[p]] += factor * values[p];
    __syncthreads();  // the next row's entries may be other threads'
  }
}

// Solve L L^T y = t in place, by one warp.
template <class T>
__device__ void solve(const T* __restrict__ L, T* t, long long q) {
  const int lane = threadIdx.x;
  for (long long k = 0; k < q; ++k) {
    T dot = 0;
    for (long long j = lane; j < k; j += 32) dot += L[k * q + j] * t[j];
    dot = warp_sum(dot);
    if (lane == 0) t[k] = (t[k] - dot) / L[k * q + k];
    __syncwarp();
  }
  for (long long k = q - 1; k >= 0; --k) {
    const T y = t[k] / L[k * q + k];
    __syncwarp();  // all lanes have read what one of them changes
    for (long long j = lane; j < k; j += 32) t[j] -= y * L[k * q + j];
    if (lane == 0) t[k] = y;
    __syncwarp();
  }
}

// `t` (q,) and `w` (n,) are work space; `w` comes filled with zeros.
template <class T>
__global__ void block_kaczmarz_csr(const T* __restrict__ values, const int* __restrict__ columns,
                                   const long long* __restrict__ starts,
                                   const T* __restrict__ b, const T* __restrict__ scale,
                                   const long long* __restrict__ blocks,
                                   const T* __restrict__ factors,
                                   const long long* __restrict__ order, T z, T eta, T* v, T* x,
                                   T* squares, T* t, T* w, long long steps, long long q,
                                   long long n) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  T* target = z > 0 ? w : x;
  for (long long step = 0; step < steps; ++step) {
    const long long* block = blocks + order[step] * q;
    T square = 0;
    for (long long k = warp; k < q; k += warps) {
      const long long i = block[k];
      T dot = 0;
      for (long long p = starts[i] + lane; p < starts[i + 1]; p += 32) {
        dot += values[p] * x[columns[p]];
      }
      const T found = scale[i] * (b[i] - warp_sum(dot));
      if (lane > 0) continue;
      t[k] = found;
      square += found * found;
    }
    square = block_sum(square);
    if (threadIdx.x == 0) squares[step] = square;
    if (warp == 0) solve(factors + order[step] * q * q, t, q);
    __syncthreads();
    for (long long k = 0; k < q; ++k) {
      const long long i = block[k];
      const T factor = scale[i] * t[k];
      for (long long p = starts[i] + threadIdx.x; p < starts[i + 1]; p += blockDim.x) {
        target[columns[p]] += factor * values[p];
      }
      __syncthreads();  // another row may have an entry in the same column
    }
    if (z > 0) {
      for (long long j = threadIdx.x; j < n; j += blockDim.x) {
        const T moved = w[j];
        v[j] = z * (v[j] + moved);
        x[j] += moved + eta * v[j];
        w[j] = 0;
      }
      __syncthreads();
    }
  }
}

// A thread takes a pair of rows of a block.
template <class T>
__global__ void gram_csr(const T* __restrict__ values, const int* __restrict__ columns,
                         const long long* __restrict__ starts, const T* __restrict__ scale,
                         const long long* __restrict__ blocks, T* __restrict__ gram, long long q,
                         long long size) {
  for (long long e = blockIdx.x * (long long)blockDim.x + threadIdx.x; e < size;
       e += (long long)gridDim.x * blockDim.x) {
    const long long* block = blocks + e / (q * q) * q;
    const long long i = block[e / q % q], j = block[e % q];
    long long p = starts[i], r = starts[j];
    T sum = 0;
    while (p < starts[i + 1] && r < starts[j + 1]) {
      const int left = columns[p], right = columns[r];
      if (left == right) sum += values[p] * values[r];
      p += left <= right;
      r += right <= left;
    }
    gram[e] = scale[i] * scale[j] * sum;
  }
}
