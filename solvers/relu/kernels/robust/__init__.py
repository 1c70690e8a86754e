"""Kernels of robust training, in twins."""
