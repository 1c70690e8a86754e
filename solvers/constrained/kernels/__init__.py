"""Kernels of the constrained solvers."""
