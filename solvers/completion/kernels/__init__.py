"""Kernels of matrix completion: Numba (`cpu`) and CUDA (`gpu`) twins."""
