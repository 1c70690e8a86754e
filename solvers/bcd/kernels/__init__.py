"""Kernels of block coordinate descent, in twins."""
