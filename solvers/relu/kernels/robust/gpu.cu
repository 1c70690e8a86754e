// CUDA twins of the kernels in cpu.py; launched by gpu.py. What is computed is double.
#include "common.cuh"

__device__ inline double soft(double x, double t) {
  return copysign(fmax(fabs(x) - t, 0.0), x);
}

// What a thread block knows of the cone it works on; all its threads hold the same.
template <class T>
struct Cone {
  const T* X;
  const unsigned char* signs;
  const double* eps;
  int* index;
  double* weight;
  double *base, *r, *along, *step, *M, *H;
  long long n, d, m;
  double level;

  __device__ double sign(long long k) const { return signs[k] ? 1.0 : -1.0; }

  // base = v + A^T alpha and r = soft(base, (sum of alpha) eps); return the sum, set the length.
  __device__ double gather(const T* v, int p, double* length) {
    double total = 0.0, square = 0.0;
    for (int h = 0; h < p; ++h) total += weight[h];
    for (long long j = threadIdx.x; j < d; j += blockDim.x) {
      double x = v[j];
      for (int h = 0; h < p; ++h) x += sign(index[h]) * weight[h] * X[index[h] * d + j];
      base[j] = x;
      r[j] = x = soft(x, total * eps[j]);
      square += x * x;
    }
    *length = sqrt(block_sum(square));
    return total;
  }

  // M = the active rows where r is not 0, step = the gradient; return its size.
  __device__ double bend(int p, double gap) {
    const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
    for (int h = threadIdx.x / 32; h < p; h += warps) {
      const long long k = index[h];
      double g = 0.0;
      for (long long j = lane; j < d; j += 32) {
        const double row = r[j] != 0.0 ? sign(k) * X[k * d + j] - copysign(eps[j], r[j]) : 0.0;
        M[h * d + j] = row;
        g += row * r[j];
      }
      g = warp_sum(g);
      if (lane == 0) step[h] = g + gap;
    }
    __syncthreads();
    double largest = 0.0;
    for (int h = 0; h < p; ++h) largest = fmax(largest, fabs(step[h]));
    return largest;
  }

  // The row that is furthest below the limit, or -1.
  __device__ long long most_violated(double gap, double limit) {
    __shared__ double lows[32];
    __shared__ long long rows[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    double price = 0.0;
    for (long long j = threadIdx.x; j < d; j += blockDim.x) price += eps[j] * fabs(r[j]);
    price = block_sum(price) - gap;
    double low = limit;
    long long where = -1;
    for (long long k = warp; k < n; k += warps) {
      double s = 0.0;
      for (long long j = lane; j < d; j += 32) s += X[k * d + j] * r[j];
      s = sign(k) * warp_sum(s) - price;
      if (s < low) {
        low = s;
        where = k;
      }
    }
    __syncthreads();  // an earlier call's values are still being read
    if (lane == 0) {
      lows[warp] = low;
      rows[warp] = where;
    }
    __syncthreads();
    for (int o = 0; o < warps; ++o) {
      if (rows[o] >= 0 && (lows[o] < low || where < 0 || (lows[o] == low && rows[o] < where))) {
        low = lows[o];
        where = rows[o];
      }
    }
    return where;
  }

  __device__ bool holds(int p, long long k) const {
    bool found = false;
    for (int h = 0; h < p; ++h) found |= index[h] == k;
    return found;
  }

  // Replace the gradient in step by the Newton step; false if there is none.
  __device__ bool newton(int p) {
    const double lift = level > 0.0 ? 1.0 : 0.0;
    for (int e = threadIdx.x; e < p * p; e += blockDim.x) {
      const int h = e / p, i = e % p;
      if (i > h) continue;
      double s = lift;
      for (long long j = 0; j < d; ++j) s += M[h * d + j] * M[i * d + j];
      H[h * m + i] = s;
    }
    __syncthreads();
    double trace = 0.0;
    for (int h = 0; h < p; ++h) trace += H[h * m + h];
    __syncthreads();
    if (!(trace > 0.0)) return false;
    for (int c = 0; c < p; ++c) {
      for (int h = c + threadIdx.x; h < p; h += blockDim.x) {
        double s = H[h * m + c] + (h == c ? 1e-13 * trace : 0.0);
        for (int j = 0; j < c; ++j) s -= H[h * m + j] * H[c * m + j];
        H[h * m + c] = h == c ? sqrt(fmax(s, 1e-14 * trace)) : s;
      }
      __syncthreads();
      for (int h = c + 1 + threadIdx.x; h < p; h += blockDim.x) H[h * m + c] /= H[c * m + c];
      __syncthreads();
    }
    if (threadIdx.x == 0) {
      for (int h = 0; h < p; ++h) {
        double s = -step[h];
        for (int j = 0; j < h; ++j) s -= H[h * m + j] * step[j];
        step[h] = s / H[h * m + h];
      }
      for (int h = p - 1; h >= 0; --h) {
        double s = step[h];
        for (int j = h + 1; j < p; ++j) s -= H[j * m + h] * step[j];
        step[h] = s / H[h * m + h];
      }
    }
    __syncthreads();
    return true;
  }

  // Go along the step to the lowest point within alpha >= 0; return how many rows are left.
  __device__ int move(int p, double total) {
    __shared__ int left;
    double change = 0.0, far = 1.0;
    for (int h = 0; h < p; ++h) {
      change += step[h];
      if (weight[h] + far * step[h] < 0.0) far = -weight[h] / step[h];
    }
    for (long long j = threadIdx.x; j < d; j += blockDim.x) {
      double x = 0.0;
      for (int h = 0; h < p; ++h) x += sign(index[h]) * step[h] * X[index[h] * d + j];
      along[j] = x;
    }
    __syncthreads();
    double low = 0.0, high = far, t = far;
    for (int turn = 0; turn < 60; ++turn) {
      const double shrink = total + t * change;
      double slope = 0.0, curve = 0.0;
      for (long long j = threadIdx.x; j < d; j += blockDim.x) {
        const double x = base[j] + t * along[j], y = fabs(x) - shrink * eps[j];
        if (y > 0.0) {
          const double direction = (x > 0.0 ? along[j] : -along[j]) - change * eps[j];
          slope += y * direction;
          curve += direction * direction;
        }
      }
      slope = block_sum(slope);
      curve = block_sum(curve);
      if (level > 0.0) {
        slope += (shrink - level) * change;
        curve += change * change;
      }
      if (slope > 0.0) {
        high = t;
      } else {
        low = t;
        if (t == far) break;
      }
      if (high - low <= 1e-12 * far) break;
      if (curve > 0.0) t -= slope / curve;
      if (!(low < t && t < high)) t = 0.5 * (low + high);
    }
    if (low > 0.0) t = low;
    if (threadIdx.x == 0) {
      left = 0;
      for (int h = 0; h < p; ++h) {
        const double a = weight[h] + t * step[h];
        if (a > 1e-15 * (1.0 + fabs(weight[h]))) {
          index[left] = index[h];
          weight[left++] = a;
        }
      }
    }
    __syncthreads();
    const int kept = left;
    __syncthreads();
    return kept;
  }
};

// A thread block takes a cone; see cpu.py for what happens.
template <class T>
__global__ void project(const T* __restrict__ X, const unsigned char* __restrict__ mask,
                        const double* __restrict__ eps, const double* __restrict__ limits,
                        const T* __restrict__ V, T* __restrict__ U, double* __restrict__ norm,
                        int* index, double* weight, int* count, double* work, long long B,
                        long long P, long long n, long long d, long long m) {
  const double level = limits[0], enough = limits[1], tol = limits[2];
  double* room = work + blockIdx.x * ((m + 3) * d + m * (m + 1));
  for (long long b = blockIdx.x; b < B; b += gridDim.x) {
    Cone<T> cone = {X, mask + (b % P) * n, eps, index + b * m, weight + b * m, room, room + d,
                    room + 2 * d, room + 3 * d, room + 3 * d + m, room + 3 * d + m + m * d, n, d,
                    m, level};
    int p = count[b];
    double length = 0.0, total = 0.0;
    for (long long turn = 0; turn < 20 * m; ++turn) {
      total = cone.gather(V + b * d, p, &length);
      const double gap = level > 0.0 ? total - level : 0.0, size = sqrt(length * length + gap * gap);
      if (size <= enough) break;
      long long added = -1;
      if (cone.bend(p, gap) <= tol * size) {
        added = cone.most_violated(gap, -tol * size);
        if (added < 0 || p == m || cone.holds(p, added)) break;
        __syncthreads();
        if (threadIdx.x == 0) {
          cone.index[p] = (int)added;
          cone.weight[p] = 0.0;
        }
        ++p;
        __syncthreads();
        cone.bend(p, gap);
      }
      if (!cone.newton(p)) break;
      p = cone.move(p, total);
      if (added >= 0 && !cone.holds(p, added)) break;
    }
    for (long long j = threadIdx.x; j < d; j += blockDim.x) U[b * d + j] = (T)cone.r[j];
    __syncthreads();
    if (threadIdx.x == 0) {
      count[b] = p;
      norm[b] = level > 0.0 ? level - total : length;
    }
    __syncthreads();
  }
}

// eps^T |soft(q, t eps)|, and how fast it falls as t grows; a warp takes a row.
template <class T>
__device__ double size_of(const T* q, const double* eps, long long d, double t, double* fall) {
  double size = 0.0, rate = 0.0;
  for (long long j = threadIdx.x % 32; j < d; j += 32) {
    const double y = fabs((double)q[j]) - t * eps[j];
    if (y > 0.0) {
      size += eps[j] * y;
      rate += eps[j] * eps[j];
    }
  }
  *fall = warp_sum(rate);
  return warp_sum(size);
}

// The price w; loss 0 is hinge, 1 logistic, 2 squared, as in cpu.py.
template <class T>
__device__ double price_of(long long loss, double m, const double* eps, double scale, double rho,
                           double sigma, const T* q, long long d) {
  double fall, size = size_of(q, eps, d, 0.0, &fall);
  if (loss == 0 && m - size >= 1.0) return 0.0;
  double low = 0.0, high = loss == 0 ? 1.0 : loss == 1 ? scale : m + size;
  double w = loss == 0 ? high : 0.5 * high, before = high;
  for (int turn = 0; turn < 80; ++turn) {
    size = size_of(q, eps, d, w / sigma, &fall);
    double value, slope;
    if (loss == 2) {
      const double left = m - w / rho;
      value = w - fmax(left, 0.0) - size;
      slope = 1.0 + fall / sigma + (left > 0.0 ? 1.0 / rho : 0.0);
    } else {
      const double margin = m + w / rho - size;
      slope = 1.0 / rho + fall / sigma;
      if (loss == 0) {
        value = margin - 1.0;
        if (value <= 0.0 && w >= high) break;
      } else {
        const double chance = 1.0 / (1.0 + exp(scale * margin));
        value = w - scale * chance;
        slope = 1.0 + scale * scale * chance * (1.0 - chance) * slope;
      }
    }
    if (value > 0.0) {
      high = w;
    } else {
      low = w;
    }
    double step = value / slope;
    if (fabs(step) <= 1e-15 * w || value == 0.0) break;
    // Newton while it halves its steps inside of what must hold the root.
    if (!(low < w - step && w - step < high && 2.0 * fabs(step) <= before)) {
      step = w - 0.5 * (low + high);
    }
    w -= step;
    before = fabs(step);
  }
  return w;
}

// A warp takes a row.
template <class T>
__global__ void rows(long long loss, const T* __restrict__ Y, const double* __restrict__ eps,
                     const double* __restrict__ numbers, const T* __restrict__ p0,
                     const T* __restrict__ q0, T* __restrict__ p, T* __restrict__ Q,
                     T* __restrict__ w, long long count, long long d) {
  const double scale = numbers[0], rho = numbers[1], sigma = numbers[2];
  const long long warps = (long long)gridDim.x * (blockDim.x / 32);
  for (long long i = blockIdx.x * (long long)(blockDim.x / 32) + threadIdx.x / 32; i < count;
       i += warps) {
    const T* q = q0 + i * d;
    const double y = Y[i], at = p0[i], m = loss == 2 ? fabs(at - y) : y * at;
    const double price = price_of(loss, m, eps, scale, rho, sigma, q, d);
    if (threadIdx.x % 32 == 0) {
      p[i] = (T)(loss == 2 ? at - copysign(fmin(price / rho, m), at - y) : at + y * price / rho);
      w[i] = (T)price;
    }
    for (long long j = threadIdx.x % 32; j < d; j += 32) {
      Q[i * d + j] = (T)soft((double)q[j], price * eps[j] / sigma);
    }
  }
}
