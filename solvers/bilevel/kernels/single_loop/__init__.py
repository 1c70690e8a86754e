"""Kernels of stochastic loops, in twins."""
