"""Row systems of large rank, by sketches and by blocks: Numba (`cpu`) and CUDA (`gpu`) twins."""
