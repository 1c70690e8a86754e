"""Row systems of non-negative factors: Numba (`cpu`) and CUDA (`gpu`) twins."""
