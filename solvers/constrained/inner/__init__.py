"""Inner solvers: each factors a saddle-point matrix and solves with it."""

import math
from importlib import import_module

from ..sketches import SKETCHES
from ._saddle import InnerSolve, Saddle

__all__ = ["INNERS", "InnerSolve", "Saddle", "forcing", "open_inner"]

# Name -> module and class; what a class must have is written at `Saddle`.
INNERS = {
    "auto": ("._auto", "Auto"),
    "condensed": ("._condensed", "Condensed"),
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


def forcing(options, size, f_scale):
    """Return the relative residual to ask of an inner solver where F has a length of `size`.

    One far below the tolerance, in the unit of the scaled objective, is of no use.
    """
    if options.tol_inner is not None:
        return options.tol_inner
    if options.theta != "superlinear":
        return 0.1 * options.theta
    enough = 0.3 * options.tol * f_scale
    return min(0.1, max(math.sqrt(size), enough / size)) if size else 0.1
