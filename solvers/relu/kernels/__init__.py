"""Kernels of two-layer ReLU networks, in twins."""
