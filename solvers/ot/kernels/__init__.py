"""Kernels of optimal transport: Numba (`cpu`) and CUDA (`gpu`) twins."""
