"""Numerical solvers that prove their answers."""
