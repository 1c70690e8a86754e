"""Single entries and best columns of a completed matrix: Numba (`cpu`) and CUDA (`gpu`) twins."""
