"""Oracles that solvers call on their own vectors, and callers on arrays of any kind."""

from dataclasses import dataclass
from typing import Any

from ..._core.arrays import Ingest
from .._oracle import Oracle


class Flat:
    """One level of a ready-made problem, as a function of vectors.

    A subclass has `looks` and `pairs`, which serve several points in one pass over the data, and
    perhaps `hvp_yy`, `hvp_xy` and `diagonal`. Nobody writes to the vectors that it returns.

    Parameters
    ----------
    io : Ingest
        That of the data.
    x_shape, y_shape : tuple of int
    n_samples : int or None
        Number of samples.
    """

    def __init__(self, io, x_shape, y_shape, n_samples=None):
        self.be, self.dtype = io.be, io.dtype
        self.x_shape, self.y_shape, self.n_samples = x_shape, y_shape, n_samples
        self._no_gx = self.xp.zeros(x_shape, self.dtype)
        self._known = None, None

    @property
    def xp(self):
        """The array module."""
        return self.be.xp

    def _of(self, x, compute):
        """Return ``compute(x)``, once for all that is asked about the same vector."""
        known, value = self._known
        if known is not x:
            value = compute(x)
            self._known = x, value
        return value

    def look(self, x, y, idx=None, with_x=True):
        """Return value and gradients at a point."""
        return self.looks([(x, y)], idx, with_x)[0]

    def pair(self, x, y, z, idx=None, with_x=True):
        """Return both points' looks and their differences."""
        return self.pairs([(x, y, z)], idx, with_x)[0]


@dataclass(frozen=True)
class ReadyOracle(Oracle):
    """An `Oracle` of a ready-made problem, which solvers can ask on their own vectors."""

    flat: Any = None

    def on_vectors(self, io, x_shapes, y_shapes):
        """Return the level on vectors, if those of a call are of its kind."""
        flat = self.flat
        if io.be is not flat.be or io.dtype != flat.dtype:
            return None
        for name, found, wanted in (
            ("x0", x_shapes, flat.x_shape),
            ("y0", y_shapes, flat.y_shape),
        ):
            if found != [wanted]:
                came = " and ".join(map(str, found))
                raise ValueError(f"`{name}` came with shape {came}; expected {wanted}")
        return flat


def ready(flat, kind=None):
    """Return the oracle of a level; `kind` is its `_Door`."""
    door = (kind or _Door)(flat)
    more = {
        name: getattr(door, name)
        for name, own in (("hvp_yy", "hvp_yy"), ("hvp_xy", "hvp_xy"), ("precond_y", "diagonal"))
        if hasattr(flat, own)
    }
    return ReadyOracle(
        value_and_grads=door.value_and_grads,
        pair=door.pair,
        n_samples=flat.n_samples,
        flat=flat,
        **more,
    )


class _Door:
    """The caller's side of a level: arrays in the shapes of `x0` and `y0`."""

    def __init__(self, flat):
        self.flat = flat

    def _enter(self, **arrays):
        flat = self.flat
        io = Ingest(dtype=flat.dtype, **arrays)
        if io.be is not flat.be:
            raise TypeError(
                f"`{next(iter(arrays))}` came in memory of {io.be.name}; "
                f"expected {flat.be.name}, where the data are"
            )
        vectors = []
        for name in arrays:
            shape = flat.x_shape if name == "x" else flat.y_shape
            if io.raw(name).shape != shape:
                raise ValueError(
                    f"`{name}` came with shape {io.raw(name).shape}; expected {shape}"
                )
            vectors.append(io[name].reshape(-1))
        return io, *vectors

    def value_and_grads(self, x, y, *idx):
        io, x, y = self._enter(x=x, y=y)
        look = self.flat.look(x, y, *self._batch(idx))
        return look.value, self._x(io, look.gx), self._y(io, look.gy)

    def pair(self, x, y, z, *idx):
        io, x, y, z = self._enter(x=x, y=y, z=z)
        pair = self.flat.pair(x, y, z, *self._batch(idx))
        gx = (self._x(io, look.gx) for look in (pair.first, pair.second))
        gy = (self._y(io, look.gy) for look in (pair.first, pair.second))
        return pair.difference, *gx, *gy

    def hvp_yy(self, x, y, v, *idx):
        io, x, y, v = self._enter(x=x, y=y, v=v)
        return self._y(io, self.flat.hvp_yy(x, y, v, *self._batch(idx)))

    def hvp_xy(self, x, y, v, *idx):
        io, x, y, v = self._enter(x=x, y=y, v=v)
        return self._x(io, self.flat.hvp_xy(x, y, v, *self._batch(idx)))

    def precond_y(self, x):
        io, x = self._enter(x=x)
        return self._y(io, self.flat.diagonal(x))

    def _batch(self, idx):
        """Refuse samples that do not exist: kernels would read whatever is there."""
        n = self.flat.n_samples
        for which in idx if n is not None else ():
            if not len(which) or int(which.min()) < 0 or int(which.max()) >= n:
                raise ValueError(f"`idx` came as {which!r:.60}; expected samples 0 to {n - 1}")
        return idx

    def _x(self, io, v):
        return io.out(v.reshape(self.flat.x_shape))

    def _y(self, io, v):
        return io.out(v.reshape(self.flat.y_shape))
