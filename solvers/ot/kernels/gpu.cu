// Twins of cpu.py, launched by gpu.py.
//
// Rows of a matrix belong to one block each, compressed rows to one warp each. Column sums are
// taken by one thread per column and strip of rows and added up over the strips afterwards, so
// that their bits depend on the shape alone; only compressed rows scatter by atomics, whose order
// shows in the last bits. Sums over a stored kernel are in its type within a thread and in double
// between threads; everything that sees the cost is in double.
#include "common.cuh"

__device__ inline int my_lane() { return threadIdx.x % 32; }

__device__ inline long long my_warp() {
  return blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32;
}

__device__ inline long long all_warps() { return gridDim.x * (long long)(blockDim.x / 32); }

// sums (gridDim.y, m): the sum of term(i, j) over each strip of rows.
template <class Term>
__device__ void strip_sums(long long n, long long m, double* __restrict__ sums, Term term) {
  const long long first = n * blockIdx.y / gridDim.y, last = n * (blockIdx.y + 1ll) / gridDim.y;
  const long long stride = (long long)gridDim.x * blockDim.x;
  for (long long j = blockIdx.x * (long long)blockDim.x + threadIdx.x; j < m; j += stride) {
    double sum = 0;
    long long i = first;
    // Four rows at a time: their entries are on the way together.
    for (; i + 4 <= last; i += 4) {
      sum += (term(i, j) + term(i + 1, j)) + (term(i + 2, j) + term(i + 3, j));
    }
    for (; i < last; ++i) sum += term(i, j);
    sums[blockIdx.y * m + j] = sum;
  }
}

// The index of the largest value that the threads of a block or warp have seen, the smallest one
// if there are several.
template <class T>
struct Peak {
  T top = lim<T>::lowest();
  long long at = 0;

  __device__ void see(T value, long long index) {
    if (value > top) top = value, at = index;
  }
};

struct Min {
  __device__ long long operator()(long long a, long long b) const { return a < b ? a : b; }
};

template <class T, class Reduce>
__device__ long long merged(Peak<T> seen, Reduce reduce) {
  const T top = reduce(seen.top, Max());
  const long long nowhere = 0x7fffffffffffffffll;
  return reduce(seen.top == top ? seen.at : nowhere, Min());
}

struct ByBlock {
  template <class T, class Op>
  __device__ T operator()(T value, Op op) const {
    return block_reduce(value, op);
  }
};

struct ByWarp {
  template <class T, class Op>
  __device__ T operator()(T value, Op op) const {
    return warp_reduce(value, op);
  }
};

// (h - c) / reg, never fused with what follows: where it is large, kernels that round it in two
// ways would disagree about sums and cutoffs.
__device__ inline double exponent(double h, double c, double scale) {
  return __dmul_rn(h - c, scale);
}

// row_pass: the largest exponent of each row, the factor that brings the row's sum to 1, and both
// in one, the shift.
template <class T>
__global__ void row_log_sums(const T* __restrict__ C, long long ldc, const double* __restrict__ h,
                             const double* __restrict__ beta, double scale,
                             double* __restrict__ shift, double* __restrict__ top,
                             double* __restrict__ factor, long long n, long long m) {
  for (long long i = blockIdx.x; i < n; i += gridDim.x) {
    LogSum<double> sum;
    for (long long j = threadIdx.x; j < m; j += blockDim.x) {
      sum.add(exponent(h[j], C[i * ldc + j], scale), beta[j]);
    }
    sum = block_merge(sum);
    if (threadIdx.x == 0) {
      shift[i] = sum.value();
      top[i] = sum.top;
      factor[i] = 1 / sum.total;
    }
  }
}

// row_pass: its column sums, and K if `store`.
template <class T, class S>
__global__ void row_pass_sums(const T* __restrict__ C, long long ldc, const double* __restrict__ h,
                              double scale, const double* __restrict__ top,
                              const double* __restrict__ factor, const double* __restrict__ a,
                              bool store, S* __restrict__ K, long long ldk,
                              double* __restrict__ sums, long long n, long long m) {
  strip_sums(n, m, sums, [=](long long i, long long j) {
    const double x = exp(exponent(h[j], C[i * ldc + j], scale) - top[i]) * factor[i];
    if (store) K[i * ldk + j] = S(x);
    return a[i] * x;
  });
}

// h_j for the listed columns: a block for each.
template <class T>
__global__ void column_potential(const T* __restrict__ C, long long ldc,
                                 const double* __restrict__ shift, const double* __restrict__ a,
                                 double reg, const long long* __restrict__ columns,
                                 double* __restrict__ h, long long n, long long count) {
  for (long long k = blockIdx.x; k < count; k += gridDim.x) {
    const long long j = columns[k];
    LogSum<double> sum;
    for (long long i = threadIdx.x; i < n; i += blockDim.x) {
      sum.add(log(a[i]) - shift[i] - C[i * ldc + j] / reg);
    }
    sum = block_merge(sum);
    if (threadIdx.x == 0) h[j] = -reg * sum.value();
  }
}

// sparse_row_pass: how many entries of each row have log(beta_j K_ij) above log_cutoff.
template <class T>
__global__ void count_above(const T* __restrict__ C, long long ldc, const double* __restrict__ h,
                            const double* __restrict__ log_beta, double scale,
                            const double* __restrict__ shift, double log_cutoff,
                            long long* __restrict__ counts, long long n, long long m) {
  for (long long i = my_warp(); i < n; i += all_warps()) {
    const double limit = shift[i] + log_cutoff;
    long long count = 0;
    for (long long j = my_lane(); j < m; j += 32) {
      count += exponent(h[j], C[i * ldc + j], scale) + log_beta[j] > limit;
    }
    count = warp_sum(count);
    if (my_lane() == 0) counts[i] = count;
  }
}

// sparse_row_pass: these entries, in ascending order.
template <class T>
__global__ void keep_above(const T* __restrict__ C, long long ldc, const double* __restrict__ h,
                           const double* __restrict__ log_beta, double scale,
                           const double* __restrict__ shift, double log_cutoff,
                           const double* __restrict__ top, const double* __restrict__ factor,
                           const long long* __restrict__ starts, int* __restrict__ indices,
                           double* __restrict__ values, long long n, long long m) {
  const unsigned before_me = (1u << my_lane()) - 1;
  for (long long i = my_warp(); i < n; i += all_warps()) {
    const double limit = shift[i] + log_cutoff;
    long long at = starts[i];
    for (long long first = 0; first < m; first += 32) {
      const long long j = first + my_lane();
      const double z = j < m ? exponent(h[j], C[i * ldc + j], scale) : 0;
      const bool keep = j < m && z + log_beta[j] > limit;
      const unsigned kept = __ballot_sync(FULL_MASK, keep);
      if (keep) {
        const long long k = at + __popc(kept & before_me);
        indices[k] = (int)j;
        values[k] = exp(z - top[i]) * factor[i];
      }
      at += __popc(kept);
    }
  }
}

// sweep: rho = K v, and the weights a / rho.
template <class T>
__global__ void row_dots(const T* __restrict__ K, long long ldk, const T* __restrict__ v,
                         const double* __restrict__ a, double* __restrict__ rho,
                         T* __restrict__ weight, long long n, long long m) {
  for (long long i = blockIdx.x; i < n; i += gridDim.x) {
    T total = 0;
#pragma unroll 4
    for (long long j = threadIdx.x; j < m; j += blockDim.x) total += K[i * ldk + j] * v[j];
    const double sum = block_sum((double)total);
    if (threadIdx.x == 0) {
      rho[i] = sum;
      weight[i] = T(a[i] / sum);
    }
  }
}

template <class T>
__global__ void sweep_sums(const T* __restrict__ K, long long ldk, const T* __restrict__ weight,
                           double* __restrict__ sums, long long n, long long m) {
  strip_sums(n, m, sums, [=](long long i, long long j) { return weight[i] * K[i * ldk + j]; });
}

template <class T>
__global__ void row_peaks(const T* __restrict__ K, long long ldk, const T* __restrict__ v,
                          long long* __restrict__ peaks, long long n, long long m) {
  for (long long i = blockIdx.x; i < n; i += gridDim.x) {
    Peak<T> seen;
    for (long long j = threadIdx.x; j < m; j += blockDim.x) seen.see(K[i * ldk + j] * v[j], j);
    const long long peak = merged(seen, ByBlock());
    if (threadIdx.x == 0) peaks[i] = peak;
  }
}

// laplacian: the weights a / rho, and these times the mean of x - x_peak by row.
template <class T>
__global__ void row_means(const T* __restrict__ K, long long ldk, const T* __restrict__ v,
                          const double* __restrict__ rho, const double* __restrict__ a,
                          const long long* __restrict__ peaks, const T* __restrict__ x,
                          T* __restrict__ at_peak, T* __restrict__ weight, T* __restrict__ drift,
                          long long n, long long m) {
  for (long long i = blockIdx.x; i < n; i += gridDim.x) {
    const T origin = x[peaks[i]];
    T total = 0;
#pragma unroll 4
    for (long long j = threadIdx.x; j < m; j += blockDim.x) {
      total += K[i * ldk + j] * (v[j] * (x[j] - origin));
    }
    const double sum = block_sum((double)total);
    if (threadIdx.x == 0) {
      at_peak[i] = origin;
      weight[i] = T(a[i] / rho[i]);
      drift[i] = T(a[i] / rho[i] * (sum / rho[i]));
    }
  }
}

template <class T>
__global__ void laplacian_sums(const T* __restrict__ K, long long ldk, const T* __restrict__ x,
                               const T* __restrict__ at_peak, const T* __restrict__ weight,
                               const T* __restrict__ drift, double* __restrict__ sums, long long n,
                               long long m) {
  strip_sums(n, m, sums, [=](long long i, long long j) {
    // Two differences: a mean of 1e-12 would get lost when added to x_peak.
    return K[i * ldk + j] * (weight[i] * (x[j] - at_peak[i]) - drift[i]);
  });
}

// laplacian_diagonal: what a row has outside its peak, as a sum of these entries and not as a
// difference, relative to the whole; and the weights a / rho.
template <class T>
__global__ void rest_of_rows(const T* __restrict__ K, long long ldk, const double* __restrict__ v,
                             const double* __restrict__ rho, const double* __restrict__ a,
                             const long long* __restrict__ peaks, double* __restrict__ rest,
                             double* __restrict__ weight, long long n, long long m) {
  for (long long i = blockIdx.x; i < n; i += gridDim.x) {
    const long long peak = peaks[i];
    double total = 0;
    for (long long j = threadIdx.x; j < m; j += blockDim.x) {
      if (j != peak) total += K[i * ldk + j] * v[j];
    }
    total = block_sum(total);
    if (threadIdx.x == 0) {
      rest[i] = total / rho[i];
      weight[i] = a[i] / rho[i];
    }
  }
}

template <class T>
__global__ void diagonal_sums(const T* __restrict__ K, long long ldk, const double* __restrict__ v,
                              const double* __restrict__ rho, const long long* __restrict__ peaks,
                              const double* __restrict__ rest, const double* __restrict__ weight,
                              double* __restrict__ sums, long long n, long long m) {
  strip_sums(n, m, sums, [=](long long i, long long j) {
    const double p = K[i * ldk + j] * v[j];
    return weight[i] * p * (j == peaks[i] ? rest[i] : 1 - p / rho[i]);
  });
}

template <class T>
__global__ void csr_sweep(const long long* __restrict__ starts, const long long* __restrict__ ends,
                          const int* __restrict__ indices, const T* __restrict__ values,
                          const double* __restrict__ v, const double* __restrict__ a,
                          double* __restrict__ rho, double* __restrict__ sums, long long n) {
  for (long long i = my_warp(); i < n; i += all_warps()) {
    const long long first = starts[i] + my_lane(), end = ends[i];
    double total = 0;
    for (long long k = first; k < end; k += 32) total += values[k] * v[indices[k]];
    total = warp_sum(total);
    if (my_lane() == 0) rho[i] = total;
    const double weight = a[i] / total;
    for (long long k = first; k < end; k += 32) atomicAdd(&sums[indices[k]], weight * values[k]);
  }
}

template <class T>
__global__ void csr_row_peaks(const long long* __restrict__ starts,
                              const long long* __restrict__ ends, const int* __restrict__ indices,
                              const T* __restrict__ values, const double* __restrict__ v,
                              long long* __restrict__ peaks, long long n) {
  for (long long i = my_warp(); i < n; i += all_warps()) {
    Peak<double> seen;
    for (long long k = starts[i] + my_lane(); k < ends[i]; k += 32) {
      seen.see(values[k] * v[indices[k]], indices[k]);
    }
    const long long peak = merged(seen, ByWarp());
    if (my_lane() == 0) peaks[i] = peak;
  }
}

template <class T>
__global__ void csr_laplacian(const long long* __restrict__ starts,
                              const long long* __restrict__ ends, const int* __restrict__ indices,
                              const T* __restrict__ values, const double* __restrict__ v,
                              const double* __restrict__ rho, const double* __restrict__ a,
                              const long long* __restrict__ peaks, const double* __restrict__ x,
                              double* __restrict__ sums, long long n) {
  for (long long i = my_warp(); i < n; i += all_warps()) {
    const long long first = starts[i] + my_lane(), end = ends[i];
    const double at_peak = x[peaks[i]];
    double total = 0;
    for (long long k = first; k < end; k += 32) {
      const int j = indices[k];
      total += values[k] * (v[j] * (x[j] - at_peak));
    }
    const double weight = a[i] / rho[i], drift = weight * (warp_sum(total) / rho[i]);
    for (long long k = first; k < end; k += 32) {
      const int j = indices[k];
      atomicAdd(&sums[j], values[k] * (weight * (x[j] - at_peak) - drift));
    }
  }
}

template <class T>
__global__ void csr_laplacian_diagonal(
    const long long* __restrict__ starts, const long long* __restrict__ ends,
    const int* __restrict__ indices, const T* __restrict__ values, const double* __restrict__ v,
    const double* __restrict__ rho, const double* __restrict__ a,
    const long long* __restrict__ peaks, double* __restrict__ sums, long long n) {
  for (long long i = my_warp(); i < n; i += all_warps()) {
    const long long first = starts[i] + my_lane(), end = ends[i], peak = peaks[i];
    double total = 0;
    for (long long k = first; k < end; k += 32) {
      if (indices[k] != peak) total += values[k] * v[indices[k]];
    }
    const double rest = warp_sum(total) / rho[i], weight = a[i] / rho[i];
    for (long long k = first; k < end; k += 32) {
      const int j = indices[k];
      const double p = values[k] * v[j];
      atomicAdd(&sums[j], weight * p * (j == peak ? rest : 1 - p / rho[i]));
    }
  }
}

// W (m, m) is zero before.
template <class T>
__global__ void csr_gram(const long long* __restrict__ starts, const long long* __restrict__ ends,
                         const int* __restrict__ indices, const T* __restrict__ values,
                         const double* __restrict__ v, const double* __restrict__ rho,
                         const double* __restrict__ a, double* __restrict__ W, long long n,
                         long long m) {
  for (long long i = my_warp(); i < n; i += all_warps()) {
    const double weight = a[i] / (rho[i] * rho[i]);
    for (long long k = starts[i]; k < ends[i]; ++k) {
      const long long j = indices[k];
      const double p = weight * values[k] * v[j];
      // Indices ascend within a row, so these are the entries left of the diagonal.
      for (long long l = starts[i] + my_lane(); l < k; l += 32) {
        atomicAdd(&W[j * m + indices[l]], p * values[l] * v[indices[l]]);
      }
    }
  }
}
