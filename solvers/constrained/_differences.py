"""Derivatives by differences, within the bounds of x.

Steps are ``h = e^(1/3) (1 + |x_i|)`` for central differences, where e is the relative error of
what is differenced, and ``e^(1/2)`` for forward ones. Complex steps have no such error.
"""

from typing import Any, NamedTuple

import numpy as np

SCHEMES = ("2-point", "3-point", "cs")
_POWERS = {"2-point": 1 / 2, "3-point": 1 / 3}
_COMPLEX = 1e-20
# What the certificate expects of differences, relative, in double precision.
_EXPECTED = 1e-7


class Differences(NamedTuple):
    """How to difference a function.

    Parameters
    ----------
    scheme : {"2-point", "3-point", "cs"}
    noise : float
        Relative error of the function.
    lo, up : array (n,)
        Bounds that x stays within; entries of x that they fix are not differenced.
    xp : module
    rel_step : float or array, optional
        In place of the step's first factor.
    """

    scheme: str
    noise: float
    lo: Any
    up: Any
    xp: Any
    rel_step: Any = None

    @property
    def error(self):
        """The relative error that is left in a derivative."""
        if self.scheme == "cs":
            return self.noise
        return self.noise ** (1 / 2 if self.scheme == "2-point" else 2 / 3)

    def jacobian(self, fresh, base, x):
        """Return the derivatives of a function along each axis, (n,) or (m, n).

        Parameters
        ----------
        fresh : callable
            ``fresh(y)`` evaluates the function: a float or a vector. For complex steps, it returns
            the imaginary part.
        base : callable
            ``base()`` returns its value at `x`, where that is known or needed.
        x : array (n,)
        """
        columns = self._complex if self.scheme == "cs" else self._real
        free = self.xp.flatnonzero(self.lo != self.up).tolist()
        columns = dict(zip(free, columns(fresh, base, x, free), strict=True))
        if not columns:
            return self.xp.zeros((*getattr(base(), "shape", ()), len(x)))
        zero = 0.0 * next(iter(columns.values()))
        full = [columns.get(i, zero) for i in range(len(x))]
        return self.xp.asarray(full) if isinstance(zero, float) else self.xp.stack(full, axis=-1)

    def _complex(self, fresh, base, x, free):
        for i in free:
            z = x.astype(np.complex128)
            z[i] += 1j * _COMPLEX
            yield fresh(z) / _COMPLEX

    def _steps(self, x):
        """Return steps (n,) that stay within the bounds, and which of them go both ways."""
        xp, central = self.xp, self.scheme == "3-point"
        factor = self.noise ** _POWERS[self.scheme] if self.rel_step is None else self.rel_step
        h = factor * (1.0 + abs(x))
        below, above = x - self.lo, self.up - x
        inside = (below >= h) & (above >= h) if central else above >= h
        # Next to a bound, towards the other; a quadratic through three points if need be.
        away = xp.where(above >= below, 1.0, -1.0) * xp.minimum(h, xp.maximum(above, below) / 2)
        h = xp.where(inside, h, away)
        # As far as x really moves; what is fixed does not, and divides nothing.
        return xp.where(self.lo == self.up, 1.0, (x + h) - x), inside

    def _real(self, fresh, base, x, free):
        h, inside = (v.tolist() for v in self._steps(x))

        def at(i, step):
            y = x.copy()
            y[i] += step
            return fresh(y)

        for i in free:
            if self.scheme == "2-point":
                yield (at(i, h[i]) - base()) / h[i]
            elif inside[i]:
                yield (at(i, h[i]) - at(i, -h[i])) / (2 * h[i])
            else:
                yield (4 * at(i, h[i]) - 3 * base() - at(i, 2 * h[i])) / (2 * h[i])

    def sparse_jacobian(self, fresh, base, x, pattern, *, be):
        """Return a Jacobian by moving all unknowns of a group at once, as a CSR matrix.

        Parameters
        ----------
        fresh, base, x : object
            As in `jacobian`.
        pattern : Pattern
        be : Backend
        """
        xp, free = self.xp, self.lo != self.up
        data = xp.zeros(len(pattern.rows))
        h, inside = (None, None) if self.scheme == "cs" else self._steps(x)
        for k in range(pattern.n_groups):
            moved = (pattern.groups == k) & free
            entries = xp.flatnonzero(pattern.groups[pattern.columns] == k)
            r, j = pattern.rows[entries], pattern.columns[entries]
            if self.scheme == "cs":
                data[entries] = fresh(x + 1j * _COMPLEX * moved)[r] / _COMPLEX
                continue
            step = xp.where(moved, h, 0.0)
            ahead = fresh(x + step)[r]
            if self.scheme == "2-point":
                data[entries] = (ahead - base()[r]) / h[j]
                continue
            other = fresh(x + xp.where(inside, -step, 2 * step))[r]
            # What one side alone gives is only needed next to a bound.
            one_sided = 0.0 if be.host(inside.all()) else 4 * ahead - 3 * base()[r] - other
            data[entries] = xp.where(inside[j], ahead - other, one_sided) / (2 * h[j])
        return be.sparse.csr_matrix((data, (pattern.rows, pattern.columns)), shape=pattern.shape)


class Pattern(NamedTuple):
    """Where a Jacobian may have entries, and unknowns in groups that share no row.

    Attributes
    ----------
    rows, columns : array of int (nnz,)
    groups : array of int (n,)
        The group of each unknown.
    n_groups : int
        How many groups there are.
    shape : (int, int)
    """

    rows: Any
    columns: Any
    groups: Any
    n_groups: int
    shape: tuple[int, int]


def read_pattern(sparsity, shape, name, *, be):
    """Return a `Pattern` from a matrix, sparse or not, that is zero where the Jacobian is."""
    from scipy.sparse import coo_array

    pattern = coo_array(sparsity)
    if pattern.shape != shape:
        raise ValueError(f"`{name}` came with shape {pattern.shape}; expected {shape}")
    kept = pattern.data != 0
    rows, columns = (index[kept] for index in pattern.coords)
    groups = _groups(rows, columns, shape)
    arrays = (be.xp.asarray(v) for v in (rows, columns, groups))
    return Pattern(*arrays, int(groups.max(initial=-1)) + 1, shape)


def _groups(rows, columns, shape):
    """Return a group for each column, the first in which no other column shares a row of it."""
    taken: list[set[int]] = [set() for _ in range(shape[0])]
    order = np.argsort(columns, kind="stable")
    ends = np.searchsorted(columns[order], np.arange(shape[1] + 1)).tolist()
    rows, groups = rows[order].tolist(), np.zeros(shape[1], dtype=np.int64)
    for j in range(shape[1]):
        own = rows[ends[j] : ends[j + 1]]
        used = set().union(*(taken[r] for r in own))
        groups[j] = next(k for k in range(len(used) + 1) if k not in used)
        for r in own:
            taken[r].add(int(groups[j]))
    return groups


def expected_error(scheme, eps):
    """Return what is to be expected of a derivative by differences, relative."""
    if scheme == "cs":
        return 100 * eps
    return max(_EXPECTED, 10 * eps ** (1 / 2 if scheme == "2-point" else 2 / 3))


def along(gradient, x, v, noise, *, be):
    """Return the derivative of a gradient along `v`, by one central difference."""
    xp = be.xp
    size, length = be.host(xp.linalg.norm(x), xp.linalg.norm(v))
    if length == 0.0:
        return xp.zeros_like(v)
    h = noise ** (1 / 3) * (1.0 + size) / length
    return (gradient(x + h * v) - gradient(x - h * v)) / (2 * h)
