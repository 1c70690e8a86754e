// Twins of the rules in losses.py: structs of numbers, called as the public classes. A kernel
// passes one number; losses without a field leave it.
#include "common.cuh"

struct Squared {
  __device__ explicit Squared(double) {}
  __device__ double value(double y, double z) const { return 0.5 * (z - y) * (z - y); }
  __device__ double derivative(double y, double z) const { return z - y; }
  __device__ double curvature(double, double) const { return 1.0; }
};

struct Logistic {
  __device__ explicit Logistic(double) {}

  // Split by sign: the exponential never overflows.
  __device__ double value(double y, double z) const {
    const double m = y * z;
    return vmax(-m, 0.0) + log1p(exp(-fabs(m)));
  }

  __device__ double derivative(double y, double z) const {
    const double e = exp(-fabs(z));
    return -y * ((y * z < 0.0 ? 1.0 : e) / (1.0 + e));
  }

  __device__ double curvature(double, double z) const {
    const double e = exp(-fabs(z));
    return e / ((1.0 + e) * (1.0 + e));
  }
};

struct Huber {
  double delta;

  __device__ explicit Huber(double delta) : delta(delta) {}

  __device__ double value(double y, double z) const {
    const double size = fabs(z - y);
    return size <= delta ? 0.5 * size * size : delta * (size - 0.5 * delta);
  }

  __device__ double derivative(double y, double z) const {
    return vmin(vmax(z - y, -delta), delta);
  }

  __device__ double curvature(double y, double z) const {
    return fabs(z - y) < delta ? 1.0 : 0.0;
  }
};

struct SquaredHinge {
  __device__ explicit SquaredHinge(double) {}

  __device__ double value(double y, double z) const {
    const double gap = vmax(1.0 - y * z, 0.0);
    return 0.5 * gap * gap;
  }

  __device__ double derivative(double y, double z) const { return -y * vmax(1.0 - y * z, 0.0); }
  __device__ double curvature(double y, double z) const { return y * z < 1.0 ? 1.0 : 0.0; }
};

struct Poisson {
  __device__ explicit Poisson(double) {}
  __device__ double value(double y, double z) const { return exp(z) - y * z; }
  __device__ double derivative(double y, double z) const { return exp(z) - y; }
  __device__ double curvature(double, double z) const { return exp(z); }
};
