"""Inner solvers: each factors a saddle-point matrix and solves with it."""

import math
from importlib import import_module

from ..sketches import SKETCHES
from ._saddle import InnerSolve, Saddle

__all__ = ["INNERS", "InnerSolve", "Saddle", "forcing", "open_inner"]

# Name -> module and class; what a class must have is written at `Saddle`.
INNERS = {
    "auto": ("._direct", "Direct"),
    "direct": ("._direct", "Direct"),
    "gmres": ("._gmres", "Gmres"),
    "minres": ("._minres", "Minres"),
    "pcg": ("._pcg", "ProjectedCG"),
    "sketch": ("._sketch", "Sketched"),
    **dict.fromkeys(SKETCHES, ("._sketch", "Sketched")),
}


def open_inner(name, options):
    """Return an inner solver by name."""
    module, cls = INNERS[name]
    return getattr(import_module(module, __package__), cls)(options)


def forcing(options, size):
    """Return the relative residual to ask of an inner solver where F has a length of `size`."""
    if options.tol_inner is not None:
        return options.tol_inner
    if options.theta == "superlinear":
        return min(0.1, math.sqrt(size))
    return 0.1 * options.theta
