"""Kernels for penalties of groups, in twins."""
