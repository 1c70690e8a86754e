"""Kernels of matrix factorisations."""
