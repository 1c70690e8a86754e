// Twins of the rules in penalties.py: structs of pointers to the fields, one entry per
// coefficient, called as the public classes. A kernel passes four pointers; penalties with fewer
// fields leave the last ones.
#include "common.cuh"

template <class T>
struct ElasticBox {
  const T *alpha, *ridge, *lo, *hi;

  __device__ ElasticBox(const T* alpha, const T* ridge, const T* lo, const T* hi)
      : alpha(alpha), ridge(ridge), lo(lo), hi(hi) {}

  __device__ double value(double w, long long j) const {
    if (w < lo[j] || w > hi[j]) return lim<double>::inf();
    return alpha[j] * fabs(w) + 0.5 * ridge[j] * w * w;
  }

  __device__ double prox(double v, double step, long long j) const {
    const double size = vmax(fabs(v) - step * alpha[j], 0.0) / (1.0 + step * ridge[j]);
    return vmin(vmax(copysign(size, v), double(lo[j])), double(hi[j]));
  }

  __device__ double distance(double w, double g, long long j) const {
    const double a = alpha[j];
    g += ridge[j] * w;
    // The subdifferential without the bounds is [left, right]; a bound opens one end.
    double right = w >= 0.0 ? a : -a, left = w <= 0.0 ? -a : a;
    if (w <= lo[j]) left = -lim<double>::inf();
    if (w >= hi[j]) right = lim<double>::inf();
    return vmax(vmax(-g - right, g + left), 0.0);
  }
};

template <class T>
struct MCP {
  const T *alpha, *gamma;

  __device__ MCP(const T* alpha, const T* gamma, const T*, const T*)
      : alpha(alpha), gamma(gamma) {}

  __device__ double value(double w, long long j) const {
    const double a = alpha[j], c = gamma[j], size = fabs(w);
    return size <= c * a ? a * size - size * size / (2.0 * c) : 0.5 * c * a * a;
  }

  __device__ double prox(double v, double step, long long j) const {
    const double a = alpha[j], c = gamma[j], size = fabs(v);
    if (size > c * a) return v;
    return copysign(vmax(size - step * a, 0.0) / (1.0 - step / c), v);
  }

  __device__ double distance(double w, double g, long long j) const {
    if (w == 0.0) return vmax(fabs(g) - alpha[j], 0.0);
    return fabs(g + copysign(vmax(alpha[j] - fabs(w) / gamma[j], 0.0), w));
  }
};

template <class T>
struct SCAD {
  const T *alpha, *gamma;

  __device__ SCAD(const T* alpha, const T* gamma, const T*, const T*)
      : alpha(alpha), gamma(gamma) {}

  __device__ double value(double w, long long j) const {
    const double a = alpha[j], c = gamma[j], size = fabs(w);
    if (size <= a) return a * size;
    if (size <= c * a) return (2.0 * c * a * size - size * size - a * a) / (2.0 * (c - 1.0));
    return 0.5 * a * a * (c + 1.0);
  }

  __device__ double prox(double v, double step, long long j) const {
    const double a = alpha[j], c = gamma[j], size = fabs(v);
    if (size <= a * (1.0 + step)) return copysign(vmax(size - step * a, 0.0), v);
    if (size > c * a) return v;
    return ((c - 1.0) * v - copysign(step * c * a, v)) / (c - 1.0 - step);
  }

  __device__ double distance(double w, double g, long long j) const {
    const double a = alpha[j], c = gamma[j], size = fabs(w);
    if (w == 0.0) return vmax(fabs(g) - a, 0.0);
    const double slope = size <= a ? a : vmax(c * a - size, 0.0) / (c - 1.0);
    return fabs(g + copysign(slope, w));
  }
};

template <class T>
struct Lq {
  const T *alpha, *q;

  __device__ Lq(const T* alpha, const T* q, const T*, const T*) : alpha(alpha), q(q) {}

  __device__ double value(double w, long long j) const {
    return alpha[j] * pow(fabs(w), double(q[j]));
  }

  __device__ double prox(double v, double step, long long j) const {
    const double e = q[j], t = step * alpha[j], size = fabs(v);
    if (t == 0.0) return v;
    // Below this the minimiser is zero; above it lies between h and |v|.
    const double h = pow(2.0 * t * (1.0 - e), 1.0 / (2.0 - e));
    if (size <= h + t * e * pow(h, e - 1.0)) return 0.0;
    // Newton's method comes down to the root: the function is convex.
    double w = size;
    for (int k = 0; k < 50; ++k) {
      const double change = (w - size + t * e * pow(w, e - 1.0)) /
                            (1.0 + t * e * (e - 1.0) * pow(w, e - 2.0));
      w -= change;
      if (change <= 1e-15 * w) break;
    }
    return copysign(w, v);
  }

  // Its slope at zero is infinite: zero is stationary whatever g is.
  __device__ double distance(double w, double g, long long j) const {
    if (w == 0.0) return 0.0;
    return fabs(g + copysign(alpha[j] * q[j] * pow(fabs(w), q[j] - 1.0), w));
  }
};
