"""Planted problems, where those who need them to try a solver will look for them."""

from ..datasets import planted_matrix as make_planted

__all__ = ["make_planted"]
