"""The caller's functions: called with copies, counted, timed, and cast to arrays of float64."""

import time
from dataclasses import dataclass

import numpy as np

from .._core.arrays import Ingest, is_sparse, kind_of
from .._core.validation import describe
from ._matrices import Operator

_NUMBERS = float, int


_DOUBLE = np.dtype(np.float64)


@dataclass
class Counts:
    """How often the caller's functions ran, and for how long.

    Of several constraints, the one that ran most often counts. Differences count as the values
    or gradients that they are made of.
    """

    nfev: int
    njev: int
    nhev: int
    nhvp: int
    ncev: int
    ncjev: int
    seconds: float


class Caller:
    """Calls functions of the caller in the caller's kind of arrays.

    Parameters
    ----------
    io : Ingest
        The door through which the start came.

    Attributes
    ----------
    seconds : float
        Time spent in the caller's functions.
    nhvp : int
        Products with Hessians.
    """

    # What tells points apart.
    key = staticmethod(np.ndarray.tobytes)

    def __init__(self, io):
        self.io, self.be, self.xp = io, io.be, io.xp
        self.seconds, self.nhvp = 0.0, 0
        self._native = io.kind in ("numpy", "cupy")
        # What needs no look through the door: the rest takes tens of microseconds.
        self._plain = self.xp.ndarray if self._native else None

    def ask(self, function, x, *more):
        """Return ``function(x, *more)`` as the caller's function returned it."""
        x = self.theirs(x)
        began = time.perf_counter()
        try:
            return function(x, *more)
        finally:
            self.seconds += time.perf_counter() - began

    def theirs(self, v):
        """Return a copy in the caller's kind; what a function does to it stays with it."""
        v = v.copy()
        return v if self._native else self.io.out(v)

    def is_ready(self, value, shape):
        """Tell whether a value is an array of the back end as it should be."""
        return type(value) is self._plain and value.dtype is _DOUBLE and value.shape == shape

    def number(self, value, name):
        """Return a value as a float."""
        if isinstance(value, _NUMBERS):
            return float(value)
        value = self._array(value, name)
        if value.size != 1:
            raise ValueError(f"`{name}` returned shape {value.shape}; expected a number")
        return float(self.be.host(value.reshape(())))

    def vector(self, value, length, name):
        """Return a value as a new array (length,)."""
        if self.is_ready(value, (length,)):
            return value.copy()
        v = self.xp.array(self._array(value, name), dtype=np.float64)
        if v.ndim > 1 or (v.size != length and length is not None):
            expected = "a vector" if length is None else f"({length},)"
            raise ValueError(f"`{name}` returned shape {v.shape}; expected {expected}")
        return v.reshape(-1)

    def imaginary(self, value, name):
        """Return the imaginary part of what a function made of complex x, as float64."""
        v = self.xp.asarray(value)
        if v.dtype.kind != "c":
            raise TypeError(
                f"`{name}` returned dtype {v.dtype} for complex x; differences by 'cs' need a "
                "function that takes and returns complex numbers"
            )
        return self.xp.array(v.imag, dtype=np.float64)

    def matrix(self, value, shape, name, *, hessian=False):
        """Return a value as a new dense or CSR matrix, or as an `Operator`."""
        if self.is_ready(value, shape):
            return value.copy()
        if hasattr(value, "matvec"):
            A = self._operator(value, name, hessian)
        elif is_sparse(value):
            A = self.sparse(value, name)
        else:
            A = self.xp.array(self._array(value, name), dtype=np.float64)
            if A.ndim < 2 and A.size == shape[0] * shape[1] and 1 in shape:
                A = A.reshape(shape)
        if tuple(A.shape) != shape:
            raise ValueError(f"`{name}` returned shape {tuple(A.shape)}; expected {shape}")
        return A

    def sparse(self, value, name):
        """Return a sparse matrix as a new one in CSR with sorted entries."""
        on_host = type(value).__module__.startswith("scipy")
        if on_host != (self.be.name == "numpy"):
            raise self._mixed(value, name)
        if value.dtype.kind not in "fiub":
            raise TypeError(f"`{name}` returned dtype {value.dtype}; expected real numbers")
        A = self.be.sparse.csr_matrix(value, dtype=np.float64, copy=True)
        A.sum_duplicates()
        return A

    def _operator(self, value, name, hessian):
        def product(multiply):
            def dot(v):
                self.nhvp += hessian
                began = time.perf_counter()
                try:
                    u = multiply(v.copy())
                finally:
                    self.seconds += time.perf_counter() - began
                return self.xp.asarray(u, dtype=np.float64).reshape(-1)

            return dot

        dot = product(value.matvec)
        return Operator(value.shape, dot, dot if hessian else product(value.rmatvec))

    def _array(self, value, name):
        """Return what a function returned as an array of the back end, not yet cast or copied."""
        if type(value) is self._plain and value.dtype == _DOUBLE:
            return value
        if isinstance(value, _NUMBERS):
            return self.xp.asarray(value)
        if value is None:
            raise TypeError(f"`{name}` returned None; expected numbers")
        try:
            given = Ingest(**{name: value})
        except (TypeError, ValueError) as error:
            message = str(error).replace(f"`{name}` came as", f"`{name}` returned", 1)
            raise type(error)(message) from error
        v = given.raw(name)
        plain = isinstance(value, list | tuple) or not v.ndim
        if given.kind != self.io.kind and not plain:
            raise self._mixed(value, name)
        return self.xp.asarray(v) if plain else v

    def _mixed(self, value, name):
        return TypeError(
            f"`{name}` returned a {kind_of(value)} array ({describe(value)}) for a "
            f"{self.io.kind} array: mixed array namespaces; expected {self.io.kind} arrays"
        )


class OnDevice(Caller):
    """The same for arrays in device memory, which are compared where they are."""

    def key(self, x):
        """Return what tells points apart."""
        return _Place(x, self.be)


class _Place:
    """A point in device memory; different from another if any entry is."""

    __slots__ = ("_be", "_x")

    def __init__(self, x, be):
        self._x, self._be = x.copy(), be

    def __ne__(self, other):
        return other is None or self._be.host((self._x != other._x).any())


class Remembered:
    """A function of x that is evaluated once for the same point twice in a row.

    Parameters
    ----------
    evaluate : callable
    key : callable
        ``key(x)`` tells points apart.
    """

    def __init__(self, evaluate, key):
        self.fresh, self._key = evaluate, key
        self._at = self._value = None

    def __call__(self, x):
        at = self._key(x)
        if at != self._at:
            self._value = self.fresh(x)
            self._at = at
        return self._value
