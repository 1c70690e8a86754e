"""Passes over all coefficients and all columns: Numba (`cpu`) and CUDA (`gpu`) twins."""
