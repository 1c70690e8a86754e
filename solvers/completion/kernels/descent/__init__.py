"""The objective along a line: Numba (`cpu`) and CUDA (`gpu`) twins."""
