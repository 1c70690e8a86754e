"""Kernels of loops over single coordinates and of blocks, in twins."""
