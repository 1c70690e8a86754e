"""Kernels for many small problems at once; each problem is one thread's or one block's work."""
