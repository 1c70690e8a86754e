"""Kernels that two families or more use."""
