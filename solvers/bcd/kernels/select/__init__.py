"""Choosing blocks: largest scores, sums over blocks, pursuit. Numba (`cpu`) and CUDA (`gpu`)."""
