// CUDA twins of the kernels in cpu.py; launched by gpu.py. Scores are double.
#include "common.cuh"

using Key = unsigned long long;

// A number whose order as an integer is that of the score; NaN counts as minus infinity.
template <class T>
__device__ Key key_of(T score) {
  const double x = score == score ? double(score) : -lim<double>::inf();
  // Zeros of either sign are equal.
  const Key bits = Key(__double_as_longlong(x == 0.0 ? 0.0 : x));
  return bits >> 63 ? ~bits : bits | (Key(1) << 63);
}

// Count, by the next eight bits, the keys that agree with the bits above; any grid.
template <class T>
__global__ void count_digits(const T* __restrict__ scores, const long long* __restrict__ state,
                             int* __restrict__ counts, long long shift, long long n) {
  __shared__ int seen[256];
  for (int digit = threadIdx.x; digit < 256; digit += blockDim.x) seen[digit] = 0;
  __syncthreads();
  const Key known = Key(state[0]);
  const long long stride = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
    const Key key = key_of(scores[i]);
    const bool same = shift == 56 || (key >> (shift + 8)) == (known >> (shift + 8));
    if (same) atomicAdd(&seen[(key >> shift) & 255], 1);
  }
  __syncthreads();
  for (int digit = threadIdx.x; digit < 256; digit += blockDim.x) {
    if (seen[digit] > 0) atomicAdd(&counts[digit], seen[digit]);
  }
}

// Settle the next digit: above it there are fewer keys than wanted, with it enough. One block.
template <class T>
__global__ void next_digit(long long* __restrict__ state, int* __restrict__ counts,
                           long long shift) {
  if (threadIdx.x == 0) {
    long long wanted = state[1];
    int digit = 255;
    while (digit > 0 && counts[digit] < wanted) wanted -= counts[digit--];
    state[0] = (long long)(Key(state[0]) | (Key(digit) << shift));
    state[1] = wanted;
  }
  __syncthreads();
  for (int digit = threadIdx.x; digit < 256; digit += blockDim.x) counts[digit] = 0;
}

// 1 for scores above the settled key, 0 for those with it, -1 below.
template <class T>
__global__ void compare(const T* __restrict__ scores, const long long* __restrict__ state,
                        signed char* __restrict__ place, long long n) {
  const Key known = Key(state[0]);
  const long long stride = (long long)gridDim.x * blockDim.x;
  for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += stride) {
    const Key key = key_of(scores[i]);
    place[i] = key > known ? 1 : (key == known ? 0 : -1);
  }
}

// A warp adds up a block of unknowns.
template <class T>
__global__ void block_sums(const T* __restrict__ scores, const long long* __restrict__ ptr,
                           const long long* __restrict__ idx, T* __restrict__ out, long long n) {
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const long long first = (long long)blockIdx.x * warps + threadIdx.x / 32;
  for (long long b = first; b < n; b += (long long)gridDim.x * warps) {
    T total = 0;
    for (long long k = ptr[b] + lane; k < ptr[b + 1]; k += 32) total += scores[idx[k]];
    total = warp_sum(total);
    if (lane == 0) out[b] = total;
  }
}

// One after the other, by one thread: each unknown depends on the ones before.
template <class T>
__global__ void best_limit(const T* __restrict__ square, const T* __restrict__ L,
                           const long long* __restrict__ order, T* __restrict__ heap,
                           long long* __restrict__ where, long long n, long long size) {
  if (threadIdx.x != 0) return;
  long long count = 0, last = n - 1;
  T total = 0, best = -1;
  for (long long k = 0; k < n; ++k) {
    const long long i = order[k];
    if (!(L[i] > 0)) continue;
    const T next = square[i];
    long long position = 0;
    if (count < size) {
      position = count++;
      total += next;
      while (position > 0 && heap[(position - 1) / 2] > next) {
        heap[position] = heap[(position - 1) / 2];
        position = (position - 1) / 2;
      }
      heap[position] = next;
    } else if (next > heap[0]) {
      total += next - heap[0];
      while (2 * position + 1 < size) {
        long long child = 2 * position + 1;
        if (child + 1 < size && heap[child + 1] < heap[child]) ++child;
        if (heap[child] >= next) break;
        heap[position] = heap[child];
        position = child;
      }
      heap[position] = next;
    }
    if (count == size && total > best * L[i]) {
      best = total / L[i];
      last = k;
    }
  }
  where[0] = last;
}

struct Least {
  __device__ long long operator()(long long a, long long b) const { return a < b ? a : b; }
};

// One block: a Cholesky factorisation whose pivot is the candidate that gains most.
template <class T>
__global__ void pursue(const T* __restrict__ H, T* __restrict__ rest, T* __restrict__ pivot,
                       T* __restrict__ columns, long long* __restrict__ chosen,
                       T* __restrict__ total, long long c, long long size) {
  T sum = 0;
  for (long long k = 0; k < size; ++k) {
    T most = 0;
    for (long long i = threadIdx.x; i < c; i += blockDim.x) {
      // What is left of a dependent column is rounding.
      if (pivot[i] > T(1e-10) * H[i * c + i]) most = vmax(most, rest[i] * rest[i] / pivot[i]);
    }
    most = block_max(most);
    long long best = c;
    for (long long i = threadIdx.x; i < c && most > 0; i += blockDim.x) {
      const bool sound = pivot[i] > T(1e-10) * H[i * c + i];
      if (sound && rest[i] * rest[i] / pivot[i] == most) best = Least()(best, i);
    }
    best = block_reduce(best, Least());
    if (best == c) {
      if (threadIdx.x == 0) chosen[k] = -1;
      continue;
    }
    const T root = sqrt(pivot[best]), step = rest[best] / root;
    sum += most;
    __syncthreads();  // all threads have read what is changed now
    for (long long i = threadIdx.x; i < c; i += blockDim.x) {
      T entry = H[best * c + i];
      for (long long m = 0; m < k; ++m) entry -= columns[m * c + best] * columns[m * c + i];
      entry /= root;
      columns[k * c + i] = entry;
      rest[i] -= entry * step;
      pivot[i] = i == best ? T(0) : pivot[i] - entry * entry;
    }
    if (threadIdx.x == 0) chosen[k] = best;
    __syncthreads();
  }
  if (threadIdx.x == 0) total[0] = sum;
}
