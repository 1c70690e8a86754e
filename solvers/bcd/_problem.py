r"""The problems of the family: the caller's data, checked, in the form that solvers work on.

`GLM` is :math:`\sum_i s_i \phi(y_i, x_i \cdot w + c) + \sum_j G_j(w_j)`, `Quadratic` is
:math:`\tfrac{1}{2} x^\top A x - b^\top x + \sum_i G_i(x_i)`. Both offer the same things to
solvers: the objective, its gradient, the penalty, the number of unknowns.
"""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .. import losses, penalties
from .._core.arrays import is_sparse
from .._core.validation import check_array, check_choice, check_flag, describe
from ._design import Design, check_finite, read_design
from ._groups import Groups, read_groups

DATAFITS = {
    "quadratic": losses.Squared,
    "logistic": losses.Logistic,
    "multinomial": losses.Multinomial,
    "huber": losses.Huber,
    "squared_hinge": losses.SquaredHinge,
    "poisson": losses.Poisson,
}
# Targets of these are two labels.
_TWO_CLASSES = (losses.Logistic, losses.SquaredHinge)


class Posed:
    """What all problems of the family say of their arrays; `io` is the caller's door."""

    io: Any

    @property
    def be(self):
        """Back end of the arrays."""
        return self.io.be

    @property
    def xp(self):
        """The array module."""
        return self.io.xp

    @property
    def dtype(self):
        """Precision of the unknowns."""
        return self.io.dtype

    @property
    def kernels(self):
        """The kernels for these arrays."""
        return self.be.kernels("solvers.bcd")


@dataclass(frozen=True)
class GLM(Posed):
    """A loss of linear predictions with a penalty.

    Attributes
    ----------
    io : Ingest
        The way back to the caller's kind of array.
    design : Design
        X; samples of weight 0 are gone.
    y : array, shape (n,)
        Targets; -1 and 1 for two classes, class numbers (int64) for `losses.Multinomial`.
    s : array, shape (n,)
        Weights of the samples; they sum to 1 unless the problem is a least-squares one.
    loss : NamedTuple
        One of `solvers.losses`.
    penalty : NamedTuple
        As the caller gave it.
    weights : array, shape (p,) or (p, C), or None
        Feature weights.
    groups : Groups or None
        Of a group penalty, whose numbers `bound` does not hold then.
    fit_intercept : bool
    classes : numpy.ndarray or None
        The caller's labels, in the order of -1, 1 or of class numbers.
    rows : array or None
        The caller's samples that are left; None for all.
    memory : dict or None
        What solvers leave along a path for the next penalty weight.
    """

    io: Any
    design: Design
    y: Any
    s: Any
    loss: Any
    penalty: Any
    weights: Any
    groups: Groups | None
    fit_intercept: bool
    classes: Any
    rows: Any = None
    memory: dict | None = None

    quadratic = False

    @property
    def n_classes(self):
        """C for multinomial problems, else 1."""
        return len(self.classes) if isinstance(self.loss, losses.Multinomial) else 1

    @property
    def multinomial(self):
        """Whether there is a row of coefficients for each feature."""
        return isinstance(self.loss, losses.Multinomial)

    @property
    def shape(self):
        """Shape of the coefficients: (p,) or (p, C)."""
        p = self.design.shape[1]
        return (p, self.n_classes) if self.multinomial else (p,)

    @property
    def size(self):
        """Number of coefficients, N."""
        return math.prod(self.shape)

    @property
    def convex(self):
        """Whether the penalty is convex, as far as is known."""
        known = penalties.ElasticBox, penalties.GroupL2, penalties.RowL2
        return isinstance(self.penalty, known) or hasattr(self.penalty, "canonical")

    @cached_property
    def bound(self):
        """The penalty for kernels, one entry per coefficient; None for a group penalty."""
        if self.groups is not None:
            return None
        weights = None if self.weights is None else self.weights.reshape(-1)
        return penalties.bind(self.penalty, self.size, self.dtype, weights, xp=self.xp)

    @cached_property
    def moments(self):
        """Weighted sums of squares, entries and products with y, of each column, in float64."""
        return self.design.moments(self.s.astype(np.float64), self.y.astype(np.float64))

    @cached_property
    def lipschitz(self):
        """Largest second derivative of the smooth part for each coefficient, float64 (N,)."""
        square, mean, _ = self.moments
        if self.fit_intercept and isinstance(self.loss, losses.Squared):
            # The intercept follows at once: columns count as if they were centred.
            total = self.s.sum(dtype=np.float64)
            square = self.xp.maximum(square - mean * mean / total, 0.0)
        L = losses.CURVATURE[type(self.loss)] * square
        return self.xp.repeat(L, self.n_classes) if self.multinomial else L

    def predict(self, w, c):
        """Return the linear predictions z, (n,) or (n, C)."""
        return self.design.dot(w.reshape(self.shape)) + c

    def loss_sum(self, z):
        """Return the weighted sum of losses."""
        if self.multinomial:
            return self.kernels.softmax_sum(self.y, z, self.s)
        return self.kernels.loss_sum(losses.bind(self.loss), self.y, z, self.s)

    def slopes(self, z):
        """Return the weighted derivatives of the losses, of the shape of z."""
        out = self.xp.empty_like(z)
        if self.multinomial:
            self.kernels.softmax_slopes(self.y, z, self.s, out)
        else:
            self.kernels.loss_slopes(losses.bind(self.loss), self.y, z, self.s, out)
        return out

    def curvatures(self, z):
        """Return the weighted second derivatives; multinomial: of each class alone."""
        if self.multinomial:
            probability = self.slopes(z)
            probability[self.xp.arange(self.y.size), self.y] += self.s
            return probability * (1.0 - probability / self.s[:, None])
        out = self.xp.empty_like(z)
        self.kernels.loss_curvatures(losses.bind(self.loss), self.y, z, self.s, out)
        return out

    def gradient(self, z):
        """Return the gradient by the coefficients (N,), a pass over X, and by the intercept."""
        r = self.slopes(z)
        return self.design.rdot(r).reshape(-1), r.sum(axis=0)

    def penalty_sum(self, w):
        """Return the penalty."""
        if self.groups is not None:
            return self.groups.value(w)
        return self.kernels.penalty_sum(self.bound, w.reshape(-1))

    def objective(self, w, c):
        """Return the objective."""
        return float(self.loss_sum(self.predict(w, c)) + self.penalty_sum(w))

    def zeros(self):
        """Return coefficients and intercept of a cold start; feasible, mostly zeros."""
        xp = self.xp
        w = xp.zeros(self.size, self.dtype)
        if self.bound is not None and "lo" in self.bound._fields:
            w = xp.clip(w, self.bound.lo, self.bound.hi)
        return w, self.no_intercept()

    def no_intercept(self):
        """Return an intercept of zero: a scalar, or one for each class."""
        return self.xp.zeros(self.n_classes if self.multinomial else (), self.dtype)


@dataclass(frozen=True)
class Quadratic(Posed):
    """A quadratic with a symmetric, positive semi-definite A, and a penalty.

    Attributes
    ----------
    io : Ingest
    A : array or sparse array, shape (N, N)
        Compressed rows where it is sparse.
    b : array, shape (N,)
    penalty : NamedTuple
        One of `solvers.penalties`.
    """

    io: Any
    A: Any
    b: Any
    penalty: Any

    quadratic = True
    fit_intercept = False
    groups = None
    multinomial = False
    convex = True

    @property
    def shape(self):
        """(N,)."""
        return self.b.shape

    @property
    def size(self):
        """N."""
        return self.b.size

    @property
    def sparse(self):
        """Whether A is sparse."""
        return is_sparse(self.A)

    @cached_property
    def bound(self):
        """The penalty for kernels."""
        return penalties.bind(self.penalty, self.size, self.dtype, xp=self.xp)

    @cached_property
    def lipschitz(self):
        """The diagonal of A, float64."""
        return self.A.diagonal().astype(np.float64)

    def gradient(self, x):
        """Return ``A x - b``."""
        return self.A @ x - self.b

    def penalty_sum(self, x):
        """Return the penalty."""
        return self.kernels.penalty_sum(self.bound, x)

    def objective(self, x, c=0.0):
        """Return the objective."""
        smooth = 0.5 * (x @ (self.A @ x)) - self.b @ x
        return float(self.be.host(smooth) + self.penalty_sum(x))

    def zeros(self):
        """Return a cold start, the feasible point nearest to zero, and no intercept."""
        xp = self.xp
        x = xp.zeros(self.size, self.dtype)
        if "lo" in self.bound._fields:
            x = xp.clip(x, self.bound.lo, self.bound.hi)
        return x, self.no_intercept()

    def no_intercept(self):
        """Return an intercept of zero, a scalar."""
        return self.xp.zeros((), self.dtype)


class Problem:
    """A problem for `minimize` and `certify`, its data checked once.

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
        Rows are samples. Dense in either order and compressed columns are used as they are,
        other sparse formats are converted once.
    y : array, shape (n,)
        Targets, or labels: any two values, of which the larger counts as 1, or any number of
        classes for "multinomial".
    datafit : {"quadratic", "logistic", "multinomial", "huber", "squared_hinge", "poisson"}
        The loss, or one of `solvers.losses`.
    penalty : NamedTuple, optional
        One of `solvers.penalties`; nothing by default.
    sample_weight : array, shape (n,), optional
        Weights of the samples, scaled to sum to 1; equal by default.
    weights : array, shape (p,), optional
        Feature weights; they multiply the `alpha` of the penalty, 0 leaves a feature free.
    fit_intercept : bool, default False
        Whether to fit an intercept, which is not penalised.
    """

    def __init__(
        self,
        X,
        y,
        *,
        datafit="quadratic",
        penalty=None,
        sample_weight=None,
        weights=None,
        fit_intercept=False,
    ):
        self.model = pose(
            X,
            y,
            datafit,
            penalties.ElasticBox() if penalty is None else penalty,
            sample_weight=sample_weight,
            weights=weights,
            fit_intercept=fit_intercept,
        )

    @classmethod
    def quadratic(cls, A, b, *, bounds=None, l1=0.0):
        """Return the problem ``x^T A x / 2 - b^T x + l1 |x|_1`` within bounds.

        Parameters
        ----------
        A : array or sparse matrix, shape (N, N)
            Symmetric and positive semi-definite.
        b : array, shape (N,)
            Linear term.
        bounds : (lo, hi), optional
            Numbers or arrays of shape (N,).
        l1 : float, default 0.0
            Weight of the absolute values.
        """
        problem = cls.__new__(cls)
        problem.model = pose_quadratic(A, b, bounds=bounds, l1=l1)
        return problem

    @classmethod
    def least_squares(cls, A, b, *, bounds=None):
        """Return the problem ``|A x - b|^2 / 2`` within bounds.

        Parameters
        ----------
        A : array or sparse matrix, shape (n, p)
            Matrix.
        b : array, shape (n,)
            Right-hand side.
        bounds : (lo, hi), optional
            Numbers or arrays of shape (p,).
        """
        problem = cls.__new__(cls)
        problem.model = pose_least_squares(A, b, bounds=bounds)
        return problem


def pose(
    X,
    y,
    datafit,
    penalty,
    *,
    sample_weight=None,
    weights=None,
    fit_intercept=False,
):
    """Return the `GLM` of checked arguments; see `Problem`."""
    # Samples of weight 0 are not in the sums that tell of NaN later.
    finite = sample_weight is not None
    io, design = read_design(X, finite=finite, y=y, sample_weight=sample_weight, weights=weights)
    n, p = design.shape
    loss = check_loss(datafit)
    fit_intercept = check_flag(fit_intercept, "fit_intercept")
    means = "(n_samples,)"
    with io.device:
        y = _vector(io, "y", n, means)
        s = check_array(io, "sample_weight", shape=(n,), means=means, minimum=0.0)
        design, y, s, rows = _weighted(io, design, y, s)
        y, classes = _targets(io, y, rows, loss)
        multinomial = isinstance(loss, losses.Multinomial)
        weights = _feature_weights(io, p, len(classes) if multinomial else None)
        shape = (p, len(classes)) if multinomial else (p,)
        penalties.check(penalty, math.prod(shape), xp=io.xp)
        penalty, groups = read_groups(io, penalty, shape, weights)
    glm = GLM(io, design, y, s, loss, penalty, weights, groups, fit_intercept, classes, rows)
    check_finite(io, design, glm.moments[0])
    check_step(glm)
    return glm


def pose_quadratic(A, b, *, bounds=None, l1=0.0):
    """Return the `Quadratic` of checked arguments; see `Problem.quadratic`."""
    from .._core.validation import check_nonnegative

    io, design = read_design(A, name="A", b=b)
    n, p = design.shape
    if n != p:
        raise ValueError(f"`A` came with shape {(n, p)}; expected a square matrix")
    with io.device:
        b = _vector(io, "b", n, "(A.shape[0],)")
        matrix = design.X.tocsr() if design.sparse else design.X
        _check_symmetric(io, matrix)
        lo, hi = check_bounds(io, bounds, n)
    l1 = check_nonnegative(l1, "l1")
    return Quadratic(io, matrix, b, penalties.ElasticBox(l1, 0.0, lo, hi))


def pose_least_squares(A, b, *, bounds=None):
    """Return the `GLM` of ``|A x - b|^2 / 2`` within bounds; see `Problem.least_squares`."""
    io, design = read_design(A, name="A", finite=False, b=b)
    n, p = design.shape
    with io.device:
        y = _vector(io, "b", n, "(A.shape[0],)")
        lo, hi = check_bounds(io, bounds, p)
        s = io.xp.ones(n, io.dtype)
    box = penalties.ElasticBox(0.0, 0.0, lo, hi)
    glm = GLM(io, design, y, s, losses.Squared(), box, None, None, False, None)
    check_finite(io, design, glm.moments[0], name="A")
    return glm


def check_loss(datafit):
    """Return a loss by name, or the one that came."""
    if isinstance(datafit, str):
        return DATAFITS[check_choice(datafit, "datafit", tuple(DATAFITS))]()
    if type(datafit) not in losses.CURVATURE:
        raise TypeError(
            f"`datafit` came as {describe(datafit)}; expected one of "
            f"{', '.join(map(repr, DATAFITS))}, or one of solvers.losses"
        )
    losses.check(datafit)
    return datafit


def check_bounds(io, bounds, size):
    """Return lower and upper bounds as numbers or arrays; infinite ones are legal."""
    if bounds is None:
        return -math.inf, math.inf
    try:
        lo, hi = bounds
    except (TypeError, ValueError):
        raise TypeError(f"`bounds` came as {describe(bounds)}; expected (lo, hi)") from None
    xp, ends = io.xp, []
    for name, end in (("lo", lo), ("hi", hi)):
        try:
            # float64 keeps "as the caller wrote it"; kernels get the precision of the data.
            array = xp.asarray(end, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(
                f"`bounds` came with {name} as {describe(end)}; expected numbers"
            ) from None
        if array.shape not in ((), (size,)):
            raise ValueError(
                f"`bounds` came with {name} of shape {array.shape}; expected a number or ({size},)"
            )
        if io.be.host(xp.isnan(array).any()):
            raise ValueError("`bounds` contains NaN; expected numbers or infinities")
        ends.append(array)
    lo, hi = ends
    if io.be.host((lo > hi).any()):
        raise ValueError("`bounds` came with lo > hi; expected lo <= hi")
    if io.be.host((lo == math.inf).any() | (hi == -math.inf).any()):
        raise ValueError("`bounds` leave no finite number; expected lo < inf and hi > -inf")
    return lo, hi


def check_step(glm):
    """Raise where a concave penalty outweighs the curvature of the loss."""
    limits = {penalties.MCP: 0.0, penalties.SCAD: 1.0}
    base = limits.get(type(glm.penalty))
    if base is None:
        return
    L, gamma = glm.lipschitz, glm.bound.gamma
    counts = (L > 0) & (glm.bound.alpha > 0)
    if not glm.be.host(counts.any()):
        return
    needed = base + 1.0 / L[counts]
    worst = (gamma[counts] - needed).argmin()
    gamma, needed = glm.be.host(gamma[counts][worst], needed[worst])
    if gamma <= needed:
        raise ValueError(
            f"`gamma` came as {gamma:.6g}; expected more than {needed:.6g}: below, "
            "the problem in one coefficient is not convex; raise it or rescale the columns of X"
        )


def _vector(io, name, n, means):
    if name not in io:
        raise TypeError(f"`{name}` came as NoneType; expected an array of shape {means}")
    return check_array(io, name, shape=(n,), means=means)


def _check_symmetric(io, A):
    difference = A - A.T
    if is_sparse(difference):
        difference = difference.data if difference.nnz else io.xp.zeros(1, io.dtype)
        largest = abs(A.data).max() if A.nnz else 0.0
    else:
        largest = abs(A).max()
    gap, largest = io.be.host(abs(difference).max(), io.xp.asarray(largest))
    if gap > 1e3 * np.finfo(io.dtype).eps * largest:
        raise ValueError(
            f"`A` is not symmetric: entries differ by up to {gap:.3g}; expected a symmetric matrix"
        )
    if io.be.host((A.diagonal() < 0).any()):
        raise ValueError("`A` has negative diagonal entries; expected a semi-definite matrix")


def _targets(io, y, rows, loss):
    """Return targets in the form of the loss, and the caller's labels if it has classes."""
    xp = io.xp
    if isinstance(loss, losses.Poisson) and io.be.host((y < 0).any()):
        raise ValueError("`y` contains negative counts; expected numbers >= 0")
    if not isinstance(loss, (*_TWO_CLASSES, losses.Multinomial)):
        return y, None
    # As they came: whole numbers stay so, and large ones stay apart.
    labels = io.raw("y") if rows is None else io.raw("y")[rows]
    classes, numbers = xp.unique(labels, return_inverse=True)
    wanted = "two different labels" if isinstance(loss, _TWO_CLASSES) else "two or more classes"
    many = isinstance(loss, _TWO_CLASSES) and classes.size > 2
    if classes.size < 2 or many:
        raise ValueError(f"`y` holds {classes.size} different labels; expected {wanted}")
    if isinstance(loss, _TWO_CLASSES):
        return (2 * numbers - 1).astype(io.dtype), io.be.host(classes)
    return numbers.astype(np.int64).reshape(-1), io.be.host(classes)


def _weighted(io, design, y, s):
    """Return the samples that count, with weights that sum to 1, and which they are."""
    xp, n = io.xp, y.size
    if s is None:
        return design, y, xp.full(n, 1.0 / n, io.dtype), None
    largest = io.be.host(s.max())
    if not largest > 0:
        raise ValueError("`sample_weight` holds zeros only; expected a positive weight")
    # By the largest first: the sum itself may overflow.
    s = s.astype(np.float64) / largest
    s = (s / s.sum()).astype(io.dtype)
    rows = None
    if not io.be.host((s > 0).all()):
        rows = xp.flatnonzero(s > 0)
        X = design.X.tocsr()[rows].tocsc() if design.sparse else design.X[rows]
        design, y, s = replace(design, X=X), y[rows], s[rows]
    return design, y, s, rows


def _feature_weights(io, p, n_classes):
    if "weights" not in io:
        return None
    given = io.raw("weights").shape
    if n_classes is not None and given == (p, n_classes):
        return check_array(io, "weights", minimum=0.0)
    weights = check_array(io, "weights", shape=(p,), means="(n_features,)", minimum=0.0)
    return weights if n_classes is None else io.xp.repeat(weights[:, None], n_classes, axis=1)
