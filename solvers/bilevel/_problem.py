"""The two levels on vectors: checked, counted, in one precision."""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .._core.arrays import Ingest
from .._core.validation import check_array
from ._oracle import as_oracle
from ._packing import Packer
from ._sets import check_set


class Look(NamedTuple):
    """One level at one point; `gx` is None where it was not asked for."""

    value: float
    gx: Any
    gy: Any


class Pair(NamedTuple):
    """One level at (x, y) and (x, z), in one pass.

    Ready-made problems give the differences without cancellation.

    Parameters
    ----------
    value, gx : float, array
        ``g(x, y) - g(x, z)``, and the same of the gradients in x; None where not asked for.
    y, z : Look
        Values and gradients at both points.
    """

    value: float
    gx: Any
    y: Look
    z: Look


class Level:
    """One level as a function of two vectors.

    Vectors are never changed in place by anyone: the last look is kept, and found again by the
    identity of its point.

    Attributes
    ----------
    counts : dict
        Calls of the caller's functions, by kind.
    """

    def __init__(self, oracle, name, packers, io):
        self.oracle, self.name, self.io = as_oracle(oracle, name), name, io
        self.px, self.py = packers
        self.counts = {"n": 0, "n_gx": 0, "n_gy": 0, "n_hvp": 0, "n_samples": 0}
        n = self.oracle.n_samples
        self.every = None if n is None else np.arange(n)
        self._seen = []
        # Ready-made problems work on vectors; nothing is packed or copied on the way.
        flat = getattr(self.oracle, "flat", None)
        shapes = self.px.shapes, self.py.shapes
        self.flat = flat if flat is not None and flat.fits(io, *shapes) else None

    def look(self, x, y, idx=None, *, with_x=True):
        """Return value and gradients at a point, over all samples or those of `idx`."""
        for point, look in self._seen:
            if (
                point[0] is x
                and point[1] is y
                and point[2] is idx
                and (not with_x or look.gx is not None)
            ):
                return look
        look = self._ask(x, y, idx, with_x)
        self._keep(x, y, idx, look)
        return look

    def _keep(self, x, y, idx, look):
        self._seen = [((x, y, idx), look), *self._seen[:3]]

    @property
    def has_pair(self):
        """Tell whether two points cost less than two looks."""
        return self.flat is not None

    def pair(self, x, y, z, idx=None, *, with_x=True):
        """Return both points' looks and their differences, in one pass where that exists."""
        if self.flat is None:
            at_y, at_z = (self.look(x, v, idx, with_x=with_x) for v in (y, z))
            gx = at_y.gx - at_z.gx if with_x else None
            return Pair(at_y.value - at_z.value, gx, at_y, at_z)
        self._count(2, with_x, idx)
        pair = self.flat.pair(x, y, z, idx, with_x)
        self._keep(x, y, idx, pair.y)
        self._keep(x, z, idx, pair.z)
        return pair

    def _count(self, calls, with_x, idx):
        self.counts["n"] += calls
        self.counts["n_gy"] += calls
        self.counts["n_gx"] += calls * with_x
        if self.every is not None:
            self.counts["n_samples"] += calls * len(self.every if idx is None else idx)

    def _ask(self, x, y, idx, with_x):
        if self.flat is not None:
            self._count(1, with_x, idx)
            return self.flat.look(x, y, idx, with_x)
        theirs = self.px.unpack(x), self.py.unpack(y)
        last = self._last(idx)
        self.counts["n"] += 1
        self.counts["n_gy"] += 1
        fun = self.oracle
        if fun.value_and_grads is not None:
            answer = fun.value_and_grads(*theirs, *last)
            if not isinstance(answer, tuple | list) or len(answer) != 3:
                raise TypeError(
                    f"`{self.name}` returned {answer!r:.60}; expected (value, grad_x, grad_y)"
                )
            value, gx, gy = answer
            with_x = True
        else:
            value, gy = fun.value(*theirs, *last), fun.grad_y(*theirs, *last)
            gx = fun.grad_x(*theirs, *last) if with_x and fun.grad_x is not None else None
        self.counts["n_gx"] += with_x
        return Look(
            self._number(value),
            self.px.pack(gx, f"`{self.name}` returned grad_x") if with_x else None,
            self.py.pack(gy, f"`{self.name}` returned grad_y"),
        )

    def _last(self, idx):
        if self.every is None:
            return ()
        idx = self.every if idx is None else idx
        self.counts["n_samples"] += len(idx)
        return (idx,)

    def _number(self, value):
        try:
            return float(value)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"`{self.name}` returned a value {value!r:.60}; expected a number"
            ) from error

    def hvp_yy(self, x, y, v, idx=None):
        """Return the product of the second derivative in y with a vector."""
        self.counts["n_hvp"] += 1
        if self.flat is not None:
            return self.flat.hvp_yy(x, y, v, idx)
        theirs = self.px.unpack(x), self.py.unpack(y), self.py.unpack(v)
        product = self.oracle.hvp_yy(*theirs, *self._last(idx))
        return self.py.pack(product, f"`{self.name}`.hvp_yy returned a product")

    def hvp_xy(self, x, y, v, idx=None):
        """Return the product of the mixed derivative, (d, p), with a vector like y."""
        self.counts["n_hvp"] += 1
        if self.flat is not None:
            return self.flat.hvp_xy(x, y, v, idx)
        theirs = self.px.unpack(x), self.py.unpack(y), self.py.unpack(v)
        product = self.oracle.hvp_xy(*theirs, *self._last(idx))
        return self.px.pack(product, f"`{self.name}`.hvp_xy returned a product")

    def diagonal(self, x):
        """Return the caller's diagonal close to that of the second derivative, or None."""
        if self.oracle.precond_y is None:
            return None
        if self.flat is not None:
            return self.flat.diagonal(x)
        return self.py.pack(
            self.oracle.precond_y(self.px.unpack(x)),
            f"`{self.name}`.precond_y returned a diagonal",
        )


@dataclass(frozen=True)
class Bilevel:
    """A checked problem: both levels, both sets and the start, as vectors of one back end."""

    upper: Level
    lower: Level
    X: Any
    Y: Any
    x0: Any
    y0: Any
    io: Ingest
    px: Packer
    py: Packer

    @property
    def eps(self):
        """Relative rounding of the precision."""
        return float(np.finfo(self.io.dtype).eps)

    @property
    def counts(self):
        """Return the calls of the caller's functions so far."""
        upper, lower = self.upper.counts, self.lower.counts
        both = {key: upper[key] + lower[key] for key in ("n_hvp", "n_samples")}
        gradients = {key: lower[key] for key in ("n_gx", "n_gy")}
        return {"n_f": upper["n"], "n_g": lower["n"], **gradients, **both}


def pose(upper, lower, x0, y0, X=None, Y=None):
    """Check the data of a call and return its `Bilevel`."""
    if all(hasattr(upper, name) for name in ("upper", "lower", "x0", "y0")):
        X = upper.X if X is None else X
        x0 = upper.x0 if x0 is None else x0
        y0 = upper.y0 if y0 is None else y0
        upper, lower = upper.upper, upper.lower
    px, py = Packer(x0, "x0"), Packer(y0, "y0")
    io = Ingest(**px.given, **py.given)
    for path in (*px.given, *py.given):
        check_array(io, path)
    px.bind(io), py.bind(io)
    with io.device:
        levels = [Level(o, n, (px, py), io) for o, n in ((upper, "upper"), (lower, "lower"))]
        X, Y = check_set(X, px, "X"), check_set(Y, py, "Y")
        x, y = X.enter(px.start(), "x0"), Y.enter(py.start(), "y0")
        problem = Bilevel(*levels, X, Y, x, y, io, px, py)
        for level in levels:
            look = level.look(x, y)
            if not (
                math.isfinite(look.value)
                and bool(io.xp.isfinite(look.gx).all() & io.xp.isfinite(look.gy).all())
            ):
                raise ValueError(
                    f"`{level.name}` is not finite at (x0, y0); expected a finite start"
                )
    return problem
