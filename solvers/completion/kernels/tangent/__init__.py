"""Kernels on tangent spaces: Numba (`cpu`) and CUDA (`gpu`) twins."""
