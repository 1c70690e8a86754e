r"""The completion problem: the caller's data in the unit that the solvers work in.

Solvers minimise, over factors A (m, k) and B (n, k) and biases a, b,

.. math:: \sum_\Omega w_{ij} \, \rho(A_i \cdot B_j + a_i + b_j - M_{ij})
          + \tfrac{1}{2} \sum_i \lambda D_i |A_i|^2 + \tfrac{1}{2} \sum_j \lambda E_j |B_j|^2
          + \tfrac{1}{2} \lambda_b (|a|^2 + |b|^2)

with :math:`\rho(r) = r^2 / 2` unless a robust loss is asked for. The values are centred by `mu`
(if at all) and divided by `scale`, their root mean square.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from . import _losses
from ._factors import Factors, entries, svd_of_product
from ._observations import Entries, Observations, observe

LOSSES = ("squared", "huber", "l1", "welsch", "tukey")
# Losses of degree 2: scaling the data by c scales them by its square, if `delta` goes along.
_QUADRATIC = ("squared", "huber", "welsch", "tukey")


# Entries that are looked at together, so that they stay in the cache.
_BATCH = 1 << 17


class Holdout(NamedTuple):
    """Entries kept apart to tell when to stop; values in the problem's unit."""

    rows: Any
    cols: Any
    vals: Any


@dataclass(frozen=True)
class Completion:
    """A checked problem.

    Attributes
    ----------
    be : Backend
    obs : Observations
        Values centred and scaled. Implicit feedback r is stored as the equivalent weighted
        entries: weight ``alpha |r|`` and value ``(1 + alpha r) / (alpha r)``, 0 for r < 0, beside
        weight 1 and value 0 at all places.
    lam : float
        Ridge, in the problem's unit.
    row_scale, col_scale : array, shapes (m,) and (n,)
        D and E: how much each row and column counts in the ridge.
    lam_bias : float or None
        Ridge of the biases; None where there are none.
    implicit : bool
        Whether all places count, as above.
    nonnegative : bool
        Whether factors must be non-negative.
    loss : str
        One of `LOSSES`.
    delta : float or None
        Its scale, in the problem's unit; None if the solver finds it.
    mu, scale : float
        The caller's values are ``mu + scale * value``.
    holdout : Holdout or None
        Entries to watch.
    """

    be: Any
    obs: Observations
    lam: float
    row_scale: Any
    col_scale: Any
    lam_bias: float | None
    implicit: bool
    nonnegative: bool
    loss: str
    delta: float | None
    mu: float
    scale: float
    holdout: Holdout | None = None

    @property
    def xp(self):
        """The array module."""
        return self.be.xp

    @property
    def dtype(self):
        """Precision of values and factors."""
        return self.obs.by_row.val.dtype

    @property
    def shape(self):
        """Shape of the matrix."""
        return self.obs.shape

    @property
    def size(self):
        """Number of observed entries."""
        return self.obs.size

    @property
    def density(self):
        """Observed part of the matrix."""
        return self.size / (float(self.shape[0]) * self.shape[1])

    @property
    def biased(self):
        """Whether rows and columns have biases."""
        return self.lam_bias is not None

    @property
    def kernels(self):
        """The kernels for these arrays."""
        return self.be.kernels("solvers.completion")

    @cached_property
    def row_ridge(self):
        """Weight of ``|A_i|^2 / 2``, for each row."""
        return (self.lam * self.row_scale).astype(self.dtype)

    @cached_property
    def col_ridge(self):
        """Weight of ``|B_j|^2 / 2``, for each column."""
        return (self.lam * self.col_scale).astype(self.dtype)

    @property
    def unit(self):
        """The objective's unit: what to multiply it by for the caller's data."""
        return self.scale * self.scale if self.loss in _QUADRATIC else self.scale

    @cached_property
    def norm(self):
        """Weighted norm of the values, the unit of relative residuals; 1 if they are all 0."""
        val, w = self.obs.by_row.val, self.obs.by_row.weight
        if self.implicit:
            # Places with r > 0 have p = 1, at the price 1 + w.
            square = (self.xp.where(val > 0, 1.0 + w, 0.0)).sum(dtype=np.float64)
        else:
            square = _sum_of_squares(self.xp, val, w)
        return float(np.sqrt(self.be.host(square))) or 1.0

    @cached_property
    def slope(self):
        """Norm of the data's gradient at zero, the unit of relative gradients; 1 if it is 0.

        Where rows and columns count differently in the ridge, it is over the roots of that.
        """
        xp, side = self.xp, self.obs.by_row
        data = side.val * side.weight if side.weight.size else side.val
        if self.weighted:
            d, e = self.row_scale[self.obs.rows], self.col_scale[self.obs.cols]
            data = data / xp.sqrt(d * e)
        return float(np.sqrt(self.be.host(xp.square(data, dtype=np.float64).sum()))) or 1.0

    @cached_property
    def _offset(self):
        """What the weighted entries of implicit feedback lack to its objective."""
        if not self.implicit:
            return 0.0
        val, w = self.obs.by_row.val, self.obs.by_row.weight
        terms = self.xp.where(val > 0, 1.0 + w, 0.0) - w * val * val
        return 0.5 * float(self.be.host(terms.sum(dtype=np.float64)))

    def residual(self, A, B, a, b, out=None):
        """Return estimate minus value for each entry, in row order."""
        side = self.obs.by_row
        out = self.xp.empty_like(side.val) if out is None else out
        self.kernels.residual(side.ptr, side.idx, side.val, A, B, a, b, out)
        return out

    def misfit(self, A, B, r):
        """Return half the weighted sum of squares, from the residual `r`."""
        square = self.be.host(_sum_of_squares(self.xp, r, self.obs.by_row.weight))
        return self.misfit_of(square, A, B)

    def misfit_of(self, square, A, B):
        """Return half the weighted sum of squares, from that of the observed entries."""
        total = 0.5 * square
        if self.implicit:
            total += 0.5 * self.be.host(((A.T @ A) * (B.T @ B)).sum()) + self._offset
        return float(total)

    def data_term(self, A, B, r):
        """Return what the objective charges for the residual `r`."""
        if self.loss == "squared":
            return self.misfit(A, B, r)
        cost, w = _losses.value(self.xp, self.loss, r, self.delta), self.obs.by_row.weight
        return float(self.be.host((w * cost if w.size else cost).sum(dtype=np.float64)))

    def objective(self, A, B, a, b):
        """Return the objective of a least-squares problem."""
        return self.misfit(A, B, self.residual(A, B, a, b)) + self.penalty(A, B, a, b)

    def penalty(self, A, B, a, b):
        """Return the ridge terms."""
        xp, host = self.xp, self.be.host
        total = 0.0
        if self.lam:
            parts = ((self.row_ridge, A), (self.col_ridge, B))
            total += sum(0.5 * host((d * xp.square(F).sum(axis=1)).sum()) for d, F in parts)
        if self.biased:
            total += 0.5 * self.lam_bias * host(xp.square(a).sum() + xp.square(b).sum())
        return float(total)

    def relres(self, misfit):
        """Return the relative residual that belongs to a misfit."""
        return float(np.sqrt(max(2.0 * misfit, 0.0)) / self.norm)

    def balance(self, A, B, a, b):
        """Return `Factors` of ``A B^T`` (their SVD), with biases.

        Where rows count differently in the ridge, ``diag(D)^1/2 A`` and ``diag(E)^1/2 B`` should
        be balanced, not A and B: see `balanced`.
        """
        if self.nonnegative:
            return _scaled_columns(self.be, A, B, a, b)
        return Factors(*svd_of_product(self.be, A, B), a, b)

    def balanced(self, x):
        """Return the A and B of smallest penalty whose product is ``U diag(s) V^T``."""
        if self.nonnegative:
            return self.evened(x.U * x.s, x.V)
        if not self.weighted:
            return x.balanced(self.be)
        xp = self.xp
        # Empty rows and columns count nothing; they take part with factors of size zero.
        d, e = xp.sqrt(self.row_scale), xp.sqrt(self.col_scale)
        d, e = (xp.where(t > 0, t, 1.0).astype(self.dtype)[:, None] for t in (d, e))
        U, s, V = svd_of_product(self.be, d * x.U, e * (x.V * x.s))
        root = xp.sqrt(s)
        return U * root / d, V * root / e

    def evened(self, A, B):
        """Return A and B with their columns scaled so that the penalty is smallest."""
        xp = self.xp
        d, e = (self.row_scale, self.col_scale) if self.weighted else (1.0, 1.0)
        a, b = (xp.sqrt((scale * F.T**2).sum(axis=1)) for scale, F in ((d, A), (e, B)))
        alive = (a > 0) & (b > 0)
        root = xp.sqrt(xp.where(alive, b, 1.0) / xp.where(alive, a, 1.0)).astype(self.dtype)
        return A * root, B / root

    @cached_property
    def weighted(self):
        """Whether rows and columns count differently in the ridge."""
        ends = self.be.host(
            self.row_scale.min(), self.row_scale.max(), self.col_scale.min(), self.col_scale.max()
        )
        return self.lam > 0 and any(end != 1.0 for end in ends)

    def start_of(self, x):
        """Return `Factors` as a start (A, B, a, b)."""
        return *self.balanced(x), x.row_bias, x.col_bias

    def holdout_rmse(self, A, B, a, b):
        """Return the root mean square error on the held-out entries, in the problem's unit."""
        error = self._holdout_errors(A, B, a, b)
        return float(np.sqrt(self.be.host(self.xp.square(error).mean(dtype=np.float64))))

    def holdout_error(self, A, B, a, b):
        """Return what tells when to stop: that, or the median error where there are outliers."""
        if self.loss == "squared":
            return self.holdout_rmse(A, B, a, b)
        error = self.xp.abs(self._holdout_errors(A, B, a, b))
        return float(self.be.host(self.xp.median(error)))

    def _holdout_errors(self, A, B, a, b):
        rows, cols, vals = self.holdout
        return entries(self.be, A, B, a, b, rows, cols) - vals


def pose(
    entered,
    *,
    lam,
    lam_bias,
    weighted_lambda,
    bias,
    center,
    implicit,
    alpha,
    nu,
    alpha0,
    nonnegative,
    loss,
    delta,
    duplicates,
    without=None,
    unit=None,
):
    """Return the `Completion` problem of checked entries and checked options.

    `unit`, if given, is the pair of `mu` and `scale` to work with.
    """
    io, be, xp = entered.io, entered.io.be, entered.io.xp
    obs = observe(entered, duplicates, without)
    if implicit:
        mu, scale = 0.0, 1.0
        obs = _as_feedback(io, entered.name, obs, alpha)
    else:
        side = obs.by_row
        mu, scale = _unit(be, side.val, side.weight, center) if unit is None else unit
        for val in (side.val, obs.by_col.val):
            _rescale(val, mu, scale)
    rows, cols = (xp.diff(s.ptr).astype(np.float64) for s in (obs.by_row, obs.by_col))
    m, n = obs.shape
    if weighted_lambda:
        row_scale, col_scale = rows, cols
    elif nu:
        row_scale, col_scale = (rows + alpha0 * n) ** nu, (cols + alpha0 * m) ** nu
    else:
        row_scale, col_scale = xp.ones(m), xp.ones(n)
    # A loss has the square of the data's unit, or that unit itself; no square may overflow.
    lam_unit, bias_unit = (scale, 1.0) if loss in _QUADRATIC else (1.0, 1.0 / scale)
    lam_bias = (lam if lam_bias is None else lam_bias) if bias else None
    return Completion(
        be,
        obs,
        # Squared factors have the data's unit, squared biases its square.
        lam=lam / lam_unit,
        row_scale=row_scale,
        col_scale=col_scale,
        lam_bias=lam_bias if lam_bias is None else lam_bias / bias_unit,
        implicit=implicit,
        nonnegative=nonnegative,
        loss=loss,
        delta=None if delta is None else delta / scale,
        mu=float(mu),
        scale=scale,
    )


def _unit(be, val, weight, center):
    """Return the mean to take off (0 unless centred) and the root mean square to divide by."""
    xp, mu = be.xp, 0.0
    if center:
        w = weight if weight.size else xp.ones_like(val)
        mu = be.host((w * val).sum(dtype=np.float64) / w.sum(dtype=np.float64))
    # The largest value is taken out of the squares, lest they overflow or vanish.
    top = max(abs(end - mu) for end in be.host(val.min(), val.max()))
    if not (top and np.isfinite(top)):
        return mu, 1.0
    parts = (val[first : first + _BATCH] for first in range(0, val.size, _BATCH))
    squares = (xp.square((part - mu) / top).sum(dtype=np.float64) for part in parts)
    return mu, top * float(np.sqrt(be.host(sum(squares)) / val.size))


def _rescale(val, mu, scale):
    """Shift and scale values that `observe` has copied, in place."""
    val -= mu
    val /= scale


def _as_feedback(io, name, obs, alpha):
    """Return the weighted entries that stand for implicit feedback r (see `Completion`)."""
    xp, r = io.xp, obs.by_row.val
    if not io.be.host(r.any()):
        raise ValueError(f"`{name}` holds zeros only; expected events, entries other than 0")
    if not io.be.host(r.all()):
        # What was never consumed is no observation.
        entries = Entries(io, obs.rows, obs.cols, r, xp.abs(r), obs.shape)
        obs = observe(entries)
        r = obs.by_row.val
    weight = alpha * xp.abs(r)
    return obs.with_values(xp.where(r > 0, (1.0 + weight) / weight, 0.0).astype(io.dtype), weight)


def _sum_of_squares(xp, r, w):
    if r.dtype == np.float64:
        return (w * r) @ r if w.size else r @ r
    # In float32 a long sum would lose what the residual still has.
    return (w * r * r if w.size else r * r).sum(dtype=np.float64)


def _scaled_columns(be, A, B, a, b):
    """Return non-negative factors with unit columns, the largest term first."""
    xp = be.xp
    na, nb = xp.linalg.norm(A, axis=0), xp.linalg.norm(B, axis=0)
    s = na * nb
    order = xp.argsort(-s)
    U, V = (F / xp.where(norm > 0, norm, 1.0) for F, norm in ((A, na), (B, nb)))
    return Factors(U[:, order], s[order], V[:, order], a, b)
