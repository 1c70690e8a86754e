"""A candidate held against the entries: its errors, its slope, and its gradient by every gauge."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ._certificate_case import Slope, svd_of_product
from ._certificate_gap import Duality

# Scales of losses relative to the median error, where none is given: those of 95 % efficiency
# for normal noise, and for the smoothed absolute value a small one.
_MEDIAN = 1.4826
_EFFICIENT = {
    "huber": 1.345 * _MEDIAN,
    "l1": 1e-3 * _MEDIAN,
    "welsch": 2.985 * _MEDIAN,
    "tukey": 4.685 * _MEDIAN,
}
# And the least one, relative to the largest value.
_LEAST = 1e-12
# Beyond some error these feel nothing at all.
REDESCENDING = ("welsch", "tukey")


@dataclass(frozen=True)
class Model:
    """What is minimised beside the entries; see `certify`.

    Attributes
    ----------
    lam : float
        Ridge of the factors.
    lam_bias : float or None
        Ridge of the biases; None where there are none.
    rows, cols : array, shapes (m,) and (n,), or None
        How much each row and column counts in the ridge; None if all count 1.
    loss : str
    delta : float or None
        Scale of a robust loss; None to take it from the errors.
    """

    lam: float
    lam_bias: float | None
    rows: Any
    cols: Any
    loss: str
    delta: float | None


class Fit:
    """A candidate and what follows from it.

    Parameters
    ----------
    case : Case
    model : Model
    answer : Factors
        In float64; any gauge.

    Attributes
    ----------
    delta : float or None
        Scale of a robust loss.
    error : array, shape (N,)
        Target minus estimate at the observed places.
    pull : array, shape (N,)
        Minus the derivative of the misfit with respect to the estimate there; for implicit
        feedback plus the estimate, which stands for what all places have in common.
    U, s, V : array
        Singular value decomposition of the matrix in the norm that the ridge prescribes: rows
        times the root of `model.rows`, columns likewise.
    slope : Slope
        Minus the gradient of the misfit in these coordinates.
    size : float
        Norm of the slope at the estimate zero, for squared errors.
    unit : float
        What gradients are relative to: `size`, or for robust losses the norm of the slope; or 1.
    """

    def __init__(self, case, model, answer):
        be, xp = case.be, case.be.xp
        self.case, self.model, self.answer = case, model, answer
        A = answer.U * answer.s
        estimate = case.entries(A, answer.V)
        if answer.row_bias.size:
            estimate += answer.row_bias[case.rows] + answer.col_bias[case.cols]
        self.error = case.target - estimate
        self.delta = model.delta
        if model.delta is None and model.loss != "squared":
            median = be.host(xp.median(abs(self.error)))
            self.delta = max(_EFFICIENT[model.loss] * median, _LEAST)
        self.pull = case.weight * influence(xp, self.error, model.loss, self.delta)
        start = case.weight * case.target
        if case.implicit:
            self.pull += case.target
            start += case.target
        U, s, V = svd_of_product(be, answer.U, answer.s, answer.V)
        self.own = U, s, V
        low_rank = (U * s, V) if case.implicit else (None, None)
        data = self.pull
        if model.rows is not None:
            d, e = (xp.sqrt(scale)[:, None] for scale in (model.rows, model.cols))
            U, s, V = svd_of_product(be, d * answer.U, answer.s, e * answer.V)
            # Rows and columns without any weight in the ridge have no part in its dual.
            d, e = (xp.where(x > 0, 1.0 / xp.where(x > 0, x, 1.0), 0.0) for x in (d, e))
            both = d[case.rows, 0] * e[case.cols, 0]
            data, start = data * both, start * both
            if case.implicit:
                low_rank = d * low_rank[0], e * low_rank[1]
        self.U, self.s, self.V = U, s, V
        self.slope = Slope(be, case.sparse(data), *low_rank)
        reference = start if model.loss == "squared" else data
        self.size = float(be.host(xp.linalg.norm(start)))
        self.unit = float(be.host(xp.linalg.norm(reference))) or 1.0

    @cached_property
    def left(self):
        """The slope times V."""
        return self.slope.times(self.V)

    @cached_property
    def right(self):
        """The slope's transpose times U."""
        return self.slope.transposed_times(self.U)

    @cached_property
    def square(self):
        """Weighted sum of squares of the errors."""
        case, xp = self.case, self.case.be.xp
        total = (case.weight * self.error) @ self.error
        if case.implicit:
            # Of the others, all squares less those at the observed places.
            estimate = case.target - self.error
            total += xp.square(self.own[1]).sum() + (self.error - estimate) @ case.target
        return float(case.be.host(total))

    def relres(self):
        """Return the weighted norm of the errors, relative to that of the targets."""
        case = self.case
        size = (case.weight * case.target) @ case.target
        if case.implicit:
            size += case.target @ case.target
        return np.sqrt(max(self.square, 0.0) / (case.be.host(size) or 1.0))

    def rmse(self):
        """Return the root mean square of the errors at the observed places."""
        xp = self.case.be.xp
        return float(np.sqrt(self.case.be.host(xp.square(self.error).mean())))

    def median(self):
        """Return the median size of an error, relative to the root mean square target."""
        case, xp = self.case, self.case.be.xp
        median, size = case.be.host(
            xp.median(abs(self.error)), xp.sqrt(xp.square(case.target).mean())
        )
        return median / (size or 1.0)

    def inliers(self):
        """Return which part of the errors is within the scale of a robust loss."""
        return self.case.be.host((abs(self.error) <= self.delta).mean())

    @property
    def freedom(self):
        """Degrees of freedom of a matrix of this rank."""
        (m, n), k = self.case.shape, self.s.size
        return k * (m + n - k)

    def growth(self):
        """Return the size of the estimate's entries relative to that of their targets."""
        case, xp = self.case, self.case.be.xp
        m, n = case.shape
        mean = xp.square(self.own[1]).sum() / (float(m) * n)
        mean, size = case.be.host(mean, xp.square(case.target).mean())
        return float(np.sqrt(mean / (size or 1.0)))

    @cached_property
    def loose(self):
        """Sum of squares of an estimate for implicit feedback where there is no ridge.

        These places, in rows and columns without entries, should be zero, and bear no dual.
        """
        case, xp, model = self.case, self.case.be.xp, self.model
        if not case.implicit or model.rows is None:
            return 0.0
        U, s, V = self.own
        bound = [F[scale > 0] for F, scale in ((U * s, model.rows), (V, model.cols))]
        left, right = (F.T @ F for F in bound)
        return max(case.be.host(xp.square(s).sum() - (left * right).sum()), 0.0)

    def biases(self):
        """Return each bias vector with what its rows or columns pull at it."""
        case, xp, (m, n) = self.case, self.case.be.xp, self.case.shape
        if self.model.lam_bias is None:
            return []
        return [
            (self.answer.row_bias, xp.bincount(case.rows, self.pull, m)),
            (self.answer.col_bias, xp.bincount(case.cols, self.pull, n)),
        ]

    def duality(self):
        """Return the `Duality` of this fit: for squared errors under a ridge."""
        case, xp = self.case, self.case.be.xp
        along = (case.weight * self.error) @ case.target
        if case.implicit:
            along += self.error @ case.target
        return Duality(
            case.be,
            self.model.lam,
            self.model.lam_bias,
            self.s,
            xp.einsum("ml,ml->l", self.U, self.left),
            self.square - self.loose,
            self.loose,
            float(case.be.host(along)),
            self.biases(),
        )

    def split(self, rank):
        """Return the `Split` of the slope by the leading singular vectors of the candidate."""
        xp, lam, (m, n) = self.case.be.xp, self.model.lam, self.case.shape
        U, V, left, right = (x[:, :rank] for x in (self.U, self.V, self.left, self.right))
        core = U.T @ left
        above, below = left - U @ core, right - V @ core.T
        square = xp.square(core - lam * xp.eye(rank)).sum()
        square += xp.square(above).sum() + xp.square(below).sum()
        for (b, pull), others in zip(self.biases(), (n, m), strict=False):
            square += xp.square(pull - self.model.lam_bias * b).sum() / others
        norm = xp.linalg.norm
        parts = self.case.be.host(
            norm(core, 2) if rank else 0.0, norm(above), norm(below), xp.sqrt(square)
        )
        return Split(U, V, *parts)


class Split(NamedTuple):
    """The slope in blocks: inside of the spaces U and V, and between them and the rest.

    Attributes
    ----------
    U, V : array, shapes (m, r) and (n, r)
    core : float
        Spectral norm of ``U^T A V``.
    left, right : float
        Frobenius norms of ``(I - U U^T) A V`` and ``U^T A (I - V V^T)``.
    gradient : float
        Norm of the gradient of the objective along matrices of this rank, and along the biases
        (per place): the same in every gauge.
    """

    U: Any
    V: Any
    core: float
    left: float
    right: float
    gradient: float


def influence(xp, r, loss, delta):
    """Return the derivative of a loss at the residuals `r`."""
    if loss == "squared":
        return r
    if loss == "huber":
        return xp.clip(r, -delta, delta)
    if loss == "l1":
        return r / xp.sqrt(r * r + delta * delta)
    x = xp.square(r / delta)
    return r * (xp.exp(-x) if loss == "welsch" else xp.square(xp.maximum(1.0 - x, 0.0)))
