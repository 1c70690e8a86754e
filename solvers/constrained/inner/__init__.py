"""Inner solvers: each factors a saddle-point matrix and solves with it."""

from importlib import import_module

from ..sketches import SKETCHES
from ._saddle import InnerSolve, Saddle

__all__ = ["INNERS", "InnerSolve", "Saddle", "open_inner"]

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
