"""The two levels on vectors: checked, counted, in one precision."""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from .._core.arrays import Ingest
from .._core.validation import check_array, describe
from ._coupling import couple
from ._oracle import as_oracle
from ._packing import Packer
from ._result import BilevelResult
from ._sets import check_set


class Look(NamedTuple):
    """One level at one point; `gx` is None where it was not asked for."""

    value: float
    gx: Any
    gy: Any


class Pair(NamedTuple):
    """One level at two points of y; `difference` is the first value less the second.

    An oracle's `pair` tells nothing but the difference: the values are NaN then. Ready-made
    problems also know the difference of gradients in x without cancellation.
    """

    first: Look
    second: Look
    difference: float
    gx: Any = None


class Level:
    """One level as a function of two vectors.

    Vectors are never changed in place by anyone: the last look is kept, and found again by the
    identity of its point.

    An oracle may have a method ``on_vectors(io, x_shapes, y_shapes)``. What it returns, if not
    None, works on the vectors of this class, without a copy: as `problems._ready.Flat`, where
    idx None means all samples and gx may be None unless `with_x`.

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
        if np.ndim(n):
            raise ValueError(
                f"`n_samples` of `{name}` came as {describe(n)}; expected one number: samples of "
                "blocks are for bilevel.bsvrb"
            )
        self.every = None if n is None else np.arange(n)
        if n is not None:
            # The caller's function gets this very array, time and again.
            self.every.flags.writeable = False
        self._seen = []
        on_vectors = getattr(self.oracle, "on_vectors", None)
        self.direct = on_vectors and on_vectors(io, self.px.shapes, self.py.shapes)

    @property
    def pairs(self):
        """Whether two points cost less than twice one."""
        return self.direct is not None or self.oracle.pair is not None

    def look(self, x, y, idx=None, *, with_x=True):
        """Return value and gradients at a point, over all samples or those of `idx`."""
        known = self._recall(x, y, idx)
        if known is None:
            known = self._ask(x, y, idx, with_x)
        if with_x:
            known = self.whole(x, y, known, idx)
        self._keep(x, y, idx, known)
        return known

    def whole(self, x, y, look, idx=None):
        """Return a look with what it lacks."""
        return look if look.gx is not None else look._replace(gx=self._grad_x(x, y, idx))

    def pair(self, x, y, z, idx=None, *, with_x=True):
        """Return both looks, and the difference of values, in one pass if the oracle can."""
        if self.direct is not None:
            self._last(idx)
            pair = self.direct.pair(x, y, z, idx, with_x)
            first, second = pair.first, pair.second
        elif self.oracle.pair is not None:
            theirs = self.px.unpack(x), self.py.unpack(y), self.py.unpack(z)
            difference, *grads = self.oracle.pair(*theirs, *self._last(idx))
            names = ("grad_x", "grad_x", "grad_y", "grad_y")
            packers = (self.px, self.px, self.py, self.py)
            xy, xz, yy, yz = (
                packer.pack(grad, f"`{self.name}`.pair returned {name}")
                for packer, grad, name in zip(packers, grads, names, strict=True)
            )
            first, second = Look(math.nan, xy, yy), Look(math.nan, xz, yz)
            pair = Pair(first, second, self._number(difference))
        else:
            first = self.look(x, y, idx, with_x=with_x)
            second = self.look(x, z, idx, with_x=with_x)
            return Pair(first, second, first.value - second.value)
        for kind in ("n", "n_gy"):
            self.counts[kind] += 2
        self.counts["n_gx"] += 2 * (first.gx is not None)
        if not math.isnan(first.value):
            self._keep(x, y, idx, first)
            self._keep(x, z, idx, second)
        return pair

    def _recall(self, x, y, idx):
        for point, look in self._seen:
            if point[0] is x and point[1] is y and point[2] is idx:
                return look
        return None

    def _keep(self, x, y, idx, look):
        rest = [(p, k) for p, k in self._seen if p[0] is not x or p[1] is not y or p[2] is not idx]
        self._seen = [((x, y, idx), look), *rest[:5]]

    def _ask(self, x, y, idx, with_x):
        if self.direct is not None:
            self._last(idx)
            look = self.direct.look(x, y, idx, with_x)
            for kind, asked in (("n", 1), ("n_gy", 1), ("n_gx", look.gx is not None)):
                self.counts[kind] += asked
            return look
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

    def _grad_x(self, x, y, idx):
        """Return what is missing of a look without it."""
        if self.direct is not None or self.oracle.value_and_grads is not None:
            return self._ask(x, y, idx, True).gx
        self.counts["n_gx"] += 1
        grad_x = self.oracle.grad_x
        gx = grad_x and grad_x(self.px.unpack(x), self.py.unpack(y), *self._last(idx))
        return self.px.pack(gx, f"`{self.name}` returned grad_x")

    def _last(self, idx):
        if self.every is None:
            return ()
        idx = self.every if idx is None else idx
        self.counts["n_samples"] += len(idx)
        return (idx,)

    def _number(self, value):
        try:
            if getattr(value, "shape", ()) != ():
                raise TypeError("an array is no number")
            return float(value)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"`{self.name}` returned a value {value!r:.60}; expected a number"
            ) from error

    def hvp_yy(self, x, y, v, idx=None):
        """Return the product of the second derivative in y with a vector."""
        self.counts["n_hvp"] += 1
        if self.direct is not None:
            self._last(idx)
            return self.direct.hvp_yy(x, y, v, idx)
        theirs = self.px.unpack(x), self.py.unpack(y), self.py.unpack(v)
        product = self.oracle.hvp_yy(*theirs, *self._last(idx))
        return self.py.pack(product, f"`{self.name}`.hvp_yy returned a product")

    def hvp_xy(self, x, y, v, idx=None):
        """Return the product of the mixed derivative, (d, p), with a vector like y."""
        self.counts["n_hvp"] += 1
        if self.direct is not None:
            self._last(idx)
            return self.direct.hvp_xy(x, y, v, idx)
        theirs = self.px.unpack(x), self.py.unpack(y), self.py.unpack(v)
        product = self.oracle.hvp_xy(*theirs, *self._last(idx))
        return self.px.pack(product, f"`{self.name}`.hvp_xy returned a product")

    @property
    def prox(self):
        """Return ``(v, t) -> argmin t phi + |. - v|^2 / 2`` on vectors, or None."""
        if self.oracle.prox_y is None:
            return None
        name = f"`{self.name}`.prox_y returned a point"
        return lambda v, t: self.py.pack(self.oracle.prox_y(self.py.unpack(v), t), name)

    def diagonal(self, x):
        """Return the caller's diagonal close to that of the second derivative, or None."""
        if self.oracle.precond_y is None:
            return None
        if self.direct is not None:
            return self.direct.diagonal(x)
        return self.py.pack(
            self.oracle.precond_y(self.px.unpack(x)),
            f"`{self.name}`.precond_y returned a diagonal",
        )


@dataclass(frozen=True)
class Bilevel:
    """A checked problem: both levels, both sets and the start, as vectors of one back end.

    `constraints` is the `Coupling` of the lower level, or None.
    """

    upper: Level
    lower: Level
    X: Any
    Y: Any
    x0: Any
    y0: Any
    io: Ingest
    px: Packer
    py: Packer
    constraints: Any = None

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


def pose(upper, lower, x0, y0, X=None, Y=None, constraints=None, eq=None, *, candidate=False):
    """Check the data of a call and return its `Bilevel`.

    A candidate, `x` and `y`, stays where it is; a start is moved into X and Y.
    """
    if all(hasattr(upper, name) for name in ("upper", "lower", "x0", "y0")):
        X = upper.X if X is None else X
        x0 = upper.x0 if x0 is None else x0
        y0 = upper.y0 if y0 is None else y0
        upper, lower = upper.upper, upper.lower
    if isinstance(x0, BilevelResult):
        x0, y0 = x0.x, x0.y if y0 is None else y0
    names = ("x", "y") if candidate else ("x0", "y0")
    px, py = Packer(x0, names[0]), Packer(y0, names[1])
    io = Ingest(**px.given, **py.given)
    for path in (*px.given, *py.given):
        check_array(io, path)
    _check_precision(io, px, py)
    px.bind(io), py.bind(io)
    # What overflows in a function of the caller shows as a value that is not finite.
    with io.device, np.errstate(all="ignore"):
        levels = [Level(o, n, (px, py), io) for o, n in ((upper, "upper"), (lower, "lower"))]
        X, Y = check_set(X, px, "X"), check_set(Y, py, "Y")
        x, y = px.start(), py.start()
        if not candidate:
            x, y = X.enter(x, names[0]), Y.enter(y, names[1])
        problem = Bilevel(*levels, X, Y, x, y, io, px, py)
        for level in levels:
            look = level.look(x, y)
            if not (
                math.isfinite(look.value)
                and bool(io.xp.isfinite(look.gx).all() & io.xp.isfinite(look.gy).all())
            ):
                raise ValueError(
                    f"`{level.name}` is not finite at ({', '.join(names)}); "
                    f"expected a finite {'value' if candidate else 'start'}"
                )
        return replace(problem, constraints=couple(constraints, eq, problem))


def _check_precision(io, px, py):
    floating = {p: io.raw(p).dtype for p in (*px.given, *py.given) if io.raw(p).dtype.kind == "f"}
    for path, dtype in floating.items():
        first, other = next(iter(floating.items()))
        if dtype.itemsize != other.itemsize:
            raise TypeError(
                f"`{path}` came as {dtype.name} and `{first}` as {other.name}; "
                "expected one precision: convert one of them"
            )
