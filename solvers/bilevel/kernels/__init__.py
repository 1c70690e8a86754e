"""Kernels of bilevel problems, in twins."""
