"""The passes of the iterations of `solvers.relu`: Numba (`cpu`) and CUDA (`gpu`) twins."""
