"""Kernels of clouds of points, which see each cost for as long as they need it."""
