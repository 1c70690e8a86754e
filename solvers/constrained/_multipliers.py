r"""Multipliers that explain a gradient best: bounded least squares over every finite side.

Rows and bounds have two sides each, at distances d from the point; what has no side on one hand
is infinitely far from it. Multipliers of rows, y, and of bounds, z, are sought that minimise

.. math:: \|g + G^\top y + z\|^2 + \sum_i (y_i d_i)^2 + \sum_j (z_j d_j)^2,

each at most 0 at a lower and at least 0 at an upper side. There is no threshold for what is
active. The best z for a remainder :math:`r = g + G^\top y` is known, :math:`-r / (1 + d^2)` with
the side whose sign fits, and leaves :math:`r^2 d^2 / (1 + d^2)`. That makes a problem in y alone,
convex and quadratic in pieces, which Newton steps solve.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .._core.arrays import is_sparse
from .._core.backend import get_backend
from ._matrices import columns, is_dense, is_operator

# Singular values of the equilibrated rows, relative to the largest, that count: for the residual,
# and for multipliers that must not grow because two rows are almost the same.
_EXACT, _MILD = 1e-12, 1e-6
_NEWTON, _HALVINGS = 100, 30
# A multiplier times its row, relative to the gradient, that rounding may have left.
_TINY = 1e-13
# Slopes, relative to their largest possible value, that show an optimum; and numbers of unknowns
# and rows for which active sets may look for it where Newton steps end without one.
_FLAT, _SMALL = 1e-7, 300


class Sides(NamedTuple):
    """Distances to the sides of rows and bounds: infinite where none is, 0 for equalities."""

    below: Any
    above: Any
    lo: Any
    up: Any

    @property
    def rows_are_equalities(self):
        """Whether rows have no sides but those that are met with either sign."""
        return not (self.below.any() or self.above.any())

    @property
    def bounded(self):
        """Whether any unknown has a bound."""
        return bool((np.isfinite(self.lo) | np.isfinite(self.up)).any())


class Multipliers(NamedTuple):
    """Best multipliers of rows, and bounded ones, for which almost equal rows count once."""

    exact: Any
    mild: Any

    @property
    def each(self):
        """Those that differ."""
        return (self.exact,) if self.exact is self.mild else (self.exact, self.mild)


def fit(g, G, sides):
    """Return the `Multipliers` of rows for a gradient (n,) and a Jacobian (m, n) on the host."""
    if sides.rows_are_equalities and not sides.bounded:
        system = open_system(G)
        exact = system.solve(-g, _EXACT)
        return Multipliers(exact, system.solve(-g, _MILD) if system.is_delicate else exact)
    lam = _newton(g, G, sides)
    if is_dense(G) and sum(G.shape) <= _SMALL and not _is_optimal(g, G, sides, lam):
        other = _bounded(g, G, sides)
        lam = min(lam, other, key=lambda y: _cost(g, G, sides, y))
    v, p, free, _ = _piece(g, G, sides, lam)
    mild = np.zeros_like(lam)
    if free.any():
        system = open_system(_picked(G, free), v, p[free])
        mild[free] = system.solve(-_below(v * g, 0.0 * p[free]), _MILD)
    return Multipliers(lam, _signed(mild, sides))


def bound_multipliers(r, sides):
    """Return the best multipliers of bounds where rows leave a gradient of r."""
    with np.errstate(over="ignore"):
        return -r / (1 + np.where(r > 0, sides.lo, sides.up) ** 2)


def _newton(g, G, sides):
    """Return the minimiser over y: Newton steps on the piece at hand, with a projected search."""
    lam = np.zeros(G.shape[0])
    cost, reach = _cost(g, G, sides, lam), row_norms(G)
    for _ in range(_NEWTON):
        # From 0 either sign is open; what rounding has left of a multiplier is 0.
        tiny = abs(lam) * reach <= _TINY * np.linalg.norm(g)
        if tiny.any() and _cost(g, G, sides, np.where(tiny, 0.0, lam)) <= cost:
            lam = np.where(tiny, 0.0, lam)
        v, p, free, _ = _piece(g, G, sides, lam)
        if not free.any():
            break
        r = g + G.T @ lam
        step = np.zeros_like(lam)
        system = open_system(_picked(G, free), v, p[free])
        step[free] = system.solve(-_below(v * r, (p * lam)[free]), _EXACT)
        new, new_cost = _searched(g, G, sides, lam, step, cost)
        done = not new_cost < (1 - 1e-9) * cost
        if new_cost < cost:
            lam, cost = new, new_cost
        if done:
            break
    return lam


def _searched(g, G, sides, lam, step, cost):
    """Return the first of shorter and shorter steps that costs less, and its cost."""
    for k in range(_HALVINGS):
        new = _signed(lam + 0.5**k * step, sides)
        new_cost = _cost(g, G, sides, new)
        if new_cost < cost:
            break
    return new, new_cost


def _is_optimal(g, G, sides, lam):
    """Tell whether no multiplier of a row can move to lower the cost visibly."""
    v, p, free, slope = _piece(g, G, sides, lam)
    r = v * (g + G.T @ lam)
    slope = np.where(free, slope + p * p * lam, 0.0)
    size = np.hypot(row_norms(G), p) * math.sqrt(r @ r + (p * lam) @ (p * lam))
    return bool((abs(slope) <= _FLAT * size + 1e-15 * row_norms(G) * np.linalg.norm(g)).all())


def _bounded(g, G, sides):
    """Return the minimiser over y by SciPy's active sets, one column for each finite side."""
    from scipy.optimize import lsq_linear

    m, n = G.shape
    A = np.concatenate([-G, G, -np.eye(n), np.eye(n)]).T
    d = np.concatenate(sides)
    A, d = A[:, np.isfinite(d)], d[np.isfinite(d)]
    A, b = np.concatenate([A, np.diag(d)]), -_below(g, np.zeros(len(d)))
    size = np.linalg.norm(A, axis=0)
    size[size == 0] = 1.0
    y = np.zeros(2 * (m + n))
    found = lsq_linear(A / size, b, bounds=(0, np.inf), method="bvls", tol=1e-15)
    y[np.isfinite(np.concatenate(sides))] = found.x / size
    return y[m : 2 * m] - y[:m]


def _piece(g, G, sides, lam):
    """Return the piece at `lam`: roots of the weights, free rows, and the slope along rows.

    A row is not free where its multiplier is 0 and would take the sign of a side that is not
    there.
    """
    r = g + G.T @ lam
    v = _root_weight(np.where(r > 0, sides.lo, sides.up))
    slope = G @ (v * v * r)
    towards = np.where(lam != 0, lam, -slope)
    p = np.where(towards > 0, sides.above, sides.below)
    free = np.isfinite(p)
    return v, np.where(free, p, 0.0), free, slope


def _cost(g, G, sides, lam):
    r = g + G.T @ lam
    v = _root_weight(np.where(r > 0, sides.lo, sides.up))
    d = np.where(lam > 0, sides.above, sides.below)
    p = np.where(lam == 0, 0.0, d)
    return float(np.sum((v * r) ** 2) + np.sum((p * lam) ** 2))


def _root_weight(d):
    """Return ``d / sqrt(1 + d^2)`` for distances of any size."""
    with np.errstate(divide="ignore", over="ignore"):
        return 1 / np.hypot(1.0, 1 / d)


def _signed(lam, sides):
    wrong = ((lam > 0) & np.isinf(sides.above)) | ((lam < 0) & np.isinf(sides.below))
    return np.where(wrong, 0.0, lam)


def _picked(G, rows):
    if rows.all():
        return G
    return columns(G.T, np.flatnonzero(rows), be=get_backend("numpy")).T


def row_norms(G):
    """Return the Euclidean norms of rows; of an operator, whose rows are not seen, ones."""
    if is_operator(G):
        return np.ones(G.shape[0])
    squares = G.multiply(G).sum(axis=1) if is_sparse(G) else np.einsum("ij,ij->i", G, G)
    return np.sqrt(np.asarray(squares).reshape(-1))


def _below(top, bottom):
    return np.concatenate([top, bottom])


# ---------------------------------------------------------------- linear least squares
def open_system(G, v=None, p=None):
    """Return what minimises ``|diag(v) G^T y - b|^2 + |diag(p) y - b'|^2`` for a Jacobian G.

    Without `v` and `p` there is only ``|G^T y - b|^2``.
    """
    if is_operator(G):
        return _ByProducts(G, v, p)
    return _Sparse(G, v, p) if is_sparse(G) else _Dense(G, v, p)


class _Dense:
    """By singular values of equilibrated columns.

    Attributes
    ----------
    is_delicate : bool
        Whether it matters which singular values count.
    """

    def __init__(self, G, v, p):
        A = G.T
        if v is not None:
            A = np.concatenate([v[:, None] * A, np.diag(p)])
        long = np.sqrt(np.einsum("ij,ij->j", A, A))
        self._scale = np.where(long > 0, long, 1.0)
        self._U, self._s, self._Vt = np.linalg.svd(A / self._scale, full_matrices=False)
        self.is_delicate = bool(self._s.min(initial=np.inf) <= _MILD * self._s.max(initial=0.0))

    def solve(self, b, rcond=_EXACT):
        """Return the shortest minimiser of singular values above `rcond` times the largest."""
        keep = self._s > rcond * self._s.max(initial=0.0)
        along = (self._U.T @ b)[keep] / self._s[keep]
        return (along @ self._Vt[keep]) / self._scale


class _Sparse:
    """By one factorisation of the quasi-definite augmented matrix, and proximal steps."""

    is_delicate = True

    def __init__(self, G, v, p):
        from scipy import sparse

        A = G.T.tocsc()
        if v is not None:
            A = sparse.vstack([sparse.diags(v) @ A, sparse.diags(p)]).tocsc()
        long = np.sqrt(np.asarray(A.multiply(A).sum(axis=0)).reshape(-1))
        self._scale = np.where(long > 0, long, 1.0)
        self._A = (A @ sparse.diags(1 / self._scale)).tocsc()
        self._lu = None

    def solve(self, b, rcond=_EXACT):
        """Return a minimiser; with a large `rcond`, one that almost equal columns keep short."""
        A, (n, m) = self._A, self._A.shape
        if self._lu is None:
            self._lu = _factor(A, _MILD**2)
        if self._lu is False:
            return _lsmr(A, b) / self._scale
        # With one step this is Tikhonov's regularisation with weight _MILD; further ones take
        # its effect back, and the rounding errors of the factors with it.
        y, rest, flat = np.zeros(m), b, np.inf
        for _ in range(1 if rcond >= _MILD else 12):
            new = y + self._lu.solve(np.concatenate([rest, np.zeros(m)]))[n:]
            new_rest = b - A @ new
            new_flat = np.abs(A.T @ new_rest).max(initial=0.0)
            if not new_flat < 0.5 * flat:
                break
            y, rest, flat = new, new_rest, new_flat
        return y / self._scale


def _factor(A, delta):
    """Return factors of ``[[I, A], [A^T, -delta I]]``, or False where there are none."""
    from scipy import sparse
    from scipy.sparse.linalg import splu

    n, m = A.shape
    K = sparse.bmat([[sparse.identity(n), A], [A.T, -delta * sparse.identity(m)]]).tocsc()
    try:
        return splu(
            K,
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
    except (RuntimeError, MemoryError):
        return False


class _ByProducts:
    """By LSMR, for Jacobians without entries."""

    is_delicate = False

    def __init__(self, G, v, p):
        from scipy.sparse.linalg import LinearOperator

        m, n = G.shape

        def dot(y):
            return G.T @ y if v is None else np.concatenate([v * (G.T @ y), p * y])

        def rdot(u):
            return G @ u if v is None else G @ (v * u[:n]) + p * u[n:]

        rows = n if v is None else n + m
        self._A = LinearOperator((rows, m), matvec=dot, rmatvec=rdot, dtype=np.float64)

    def solve(self, b, rcond=_EXACT):
        """Return a minimiser."""
        return _lsmr(self._A, b)


def _lsmr(A, b):
    from scipy.sparse.linalg import lsmr

    steps = min(4 * A.shape[1] + 50, 5000)
    return lsmr(A, b, atol=1e-15, btol=1e-15, conlim=0.0, maxiter=steps)[0]
