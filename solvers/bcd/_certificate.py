r"""The independent judge of coefficients, wherever they come from.

For slopes :math:`v_i = \phi'(y_i, z_i)`, every multiple k of them that the conjugates allow
bounds the optimum from below (Fenchel's inequality for each term):

.. math:: P^\star \ge D(k) = -\sum_i s_i \, \phi^*(y_i, k v_i) - G^*(-k X^\top (s \circ v)),

with :math:`\sum_i s_i v_i = 0` where an intercept is fitted. Where there is no such bound the
distance of the gradient to the subdifferential is measured.
"""

import math
from typing import Any

import numpy as np

from .._core.arrays import Ingest
from .._core.certificate import Certificate
from .._core.validation import check_array, check_positive, describe
from ._certificate_data import Data, multiply
from ._certificate_losses import open_loss
from ._certificate_penalties import open_penalty
from ._problem import GLM, Problem

GAP, KKT = "relative duality gap", "relative KKT violation"
_EPS = np.finfo(np.float64).eps
# What rounding may hide in a value: relative to the terms that are subtracted.
_ROUNDING = 4 * _EPS


def certify(problem, w, *, intercept=None, tol=None):
    r"""Judge coefficients, wherever they come from.

    Everything is computed in float64 from the problem's data.

    Parameters
    ----------
    problem : Problem
        Data, loss and penalty.
    w : array
        Coefficients, of shape (p,), (p, C) or (N,).
    intercept : float or array of shape (C,), optional
        The intercept, taken as it is. Default: the best one for `w`, if the problem has one.
    tol : float, optional
        Largest value that passes. Default: 1e-8, or 1e-6 for float32 data.

    Returns
    -------
    Certificate
        With one of two kinds. The "relative duality gap" is
        :math:`(\max(P - D, 0) + 4 \varepsilon (|P| + |D|)) / \mathrm{scale}`, where
        :math:`\varepsilon` is the rounding unit of float64 and scale the objective at zero, with
        the best intercept. The "relative KKT violation", for penalties without a dual bound
        (none, bounds, non-convex or registered ones) and for quadratics, is the largest distance
        to optimality of a coefficient, relative to the largest gradient at zero, plus
        :math:`4 \varepsilon`. ``details`` has ``primal``, ``kkt``, ``scale`` and ``worst``, the
        coefficient with the largest distance (-1: the intercept), and for the first kind
        ``dual`` and ``gap``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the expected kind, shape or value.

    References
    ----------
    .. [1] E. Ndiaye, O. Fercoq, A. Gramfort and J. Salmon. Gap safe screening rules for sparsity
       enforcing penalties. Journal of Machine Learning Research 18(128), 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bcd, penalties
    >>> X, y = np.eye(3), np.array([3.0, 2.0, 0.5])
    >>> problem = bcd.Problem(X, y, penalty=penalties.L1(1 / 3))
    >>> bcd.certify(problem, np.array([2.0, 1.0, 0.0])).holds
    True
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"`problem` came as {describe(problem)}; expected a solvers.bcd.Problem")
    model = problem.model
    tol = check_positive(tol, "tol", allow_none=True)
    if tol is None:
        tol = 1e-8 if model.io.dtype == np.float64 else 1e-6
    w = _given(model, "w", w, model.shape)
    with model.io.device, np.errstate(all="ignore"):
        if intercept is None:
            return judge(model, w, None, tol=tol)
        shape = (model.n_classes,) if model.multinomial else ()
        c = _given(model, "intercept", intercept, shape)
        if not model.fit_intercept and model.be.host((c != 0).any()):
            raise ValueError("`intercept` came for a problem without one; expected None or 0")
        return judge(model, w, c.reshape(shape), tol=tol)


def judge(problem, x, c, *, tol):
    """Return the certificate of an answer to a posed problem; see `certify`.

    Parameters
    ----------
    problem : GLM or Quadratic
    x : array, shape (N,)
        Unknowns.
    c : array or None
        Intercept; None for the best one.
    tol : float
    """
    x = x.astype(np.float64)
    if not isinstance(problem, GLM):
        return _judge_quadratic(problem, x, tol)
    case = Case(problem)
    if c is None:
        c = case.best_intercept(case.data.predict(x, 0.0))
    point = case.at(x, problem.xp.asarray(c, dtype=np.float64))
    return (_judge_gap if case.dual else _judge_kkt)(case, point, tol)


class Case:
    """A `GLM` as the judge knows it.

    Attributes
    ----------
    data : Data
    loss : Loss
    penalty : Penalty
    dual : bool
        Whether slopes give a lower bound of the optimum.
    """

    def __init__(self, problem):
        self.problem, self.xp, self.host = problem, problem.xp, problem.be.host
        self.data = Data(problem)
        self.loss = open_loss(self.data, problem.loss)
        self.penalty = open_penalty(problem, self.data)
        self.fit_intercept = problem.fit_intercept
        self.has_free = self.penalty.free is not None
        free_ok = self.loss.projects or not self.has_free
        self.dual = self.penalty.dual and self.loss.dual and free_ok

    def best_intercept(self, z):
        """Return the best intercept for predictions without one; 0 if none is fitted."""
        shape = z.shape[1:]
        return self.loss.intercept(z) if self.fit_intercept else self.xp.zeros(shape)

    def at(self, w, c):
        """Return the `Point` of coefficients (N,) and intercept."""
        return Point(self, w, c)

    def pull(self, v):
        """Return the gradient by the coefficients (N,) that slopes v (n,) or (n, C) make."""
        return self.data.pull(self.weigh(v)).reshape(-1)

    def pull_all(self, slopes):
        """Return `pull` of each of several slopes, in one pass over X."""
        distinct = list({id(v): v for v in slopes}.values())
        if len(distinct) == 1:
            return [self.pull(distinct[0])] * len(slopes)
        weighed = [self.weigh(v).reshape(v.shape[0], -1) for v in distinct]
        G = self.data.pull(self.xp.concatenate(weighed, axis=1))
        width = weighed[0].shape[1]
        found = {id(v): G[:, k * width : (k + 1) * width] for k, v in enumerate(distinct)}
        return [found[id(v)].reshape(-1) for v in slopes]

    def dual_slopes(self, point):
        """Return slopes that an intercept and unpenalised columns allow."""
        loss = self.loss
        if not (self.fit_intercept or self.has_free):
            return point.v
        v = point.v
        if self.fit_intercept:
            v = loss.balanced(loss.slope(point.z + loss.intercept(point.z)))
        return self._projected(v) if self.has_free else v

    def bound(self, v, g):
        """Return the best lower bound of the optimum from multiples of slopes."""
        loss, penalty = self.loss, self.penalty
        ends = [loss.reach(v), penalty.reach(g)]
        low, high = max(low for low, _ in ends), min(high for _, high in ends)
        likely = {loss.likely(v)}
        if not (penalty.flat and loss.parabolic):
            # Beyond the penalty's kink a ridge pays for what the absolute value forbids.
            likely |= {0.0, 1.0, penalty.kink(g)}
        bounds = [self._dual(min(max(k, low), high), v, g) for k in likely if math.isfinite(k)]
        return max((b for b in bounds if not math.isnan(b)), default=-math.inf)

    def _dual(self, k, v, g):
        conjugate = self.penalty.conjugate(-k * g)
        return -self.loss.sum(self.loss.conjugate(k * v)) - float(self.host(conjugate))

    def _projected(self, v):
        """Return what unpenalised columns, and a constant, leave of residuals."""
        xp = self.xp
        root = xp.sqrt(self.data.s)[:, None]
        columns = self.data.columns(xp.flatnonzero(self.penalty.free))
        if self.fit_intercept:
            columns = xp.concatenate([columns, xp.ones((v.size, 1))], axis=1)
        Q = xp.linalg.svd(root * columns, full_matrices=False)
        rank = Q[1] > _EPS * max(columns.shape) * Q[1][0]
        basis = Q[0] * rank
        r = root[:, 0] * v
        # Twice: the first time leaves rounding errors of the size of what it takes away.
        for _ in range(2):
            r = r - basis @ (basis.T @ r)
        return r / root[:, 0]

    def weigh(self, v):
        """Return slopes v times the weights of their samples."""
        return self.data.s * v if v.ndim == 1 else self.data.s[:, None] * v


class Point:
    """An answer: predictions, slopes, objective."""

    def __init__(self, case, w, c, z=None):
        self.w, self.c = w, c
        self.z = case.data.predict(w, c) if z is None else z
        self.v = case.loss.slope(self.z)
        penalty = case.host(case.penalty.value(w))
        self.primal = case.loss.sum(case.loss.value(self.z)) + float(penalty)


def judge_together(problems, answers, *, tol):
    """Return certificates for problems that differ in the weight of their penalty alone.

    They share the passes over X: many products with vectors become two with matrices.
    """
    cases = [Case(problem) for problem in problems]
    if not all(case.dual for case in cases):
        return [judge(p, *answer, tol=tol) for p, answer in zip(problems, answers, strict=True)]
    first, xp = cases[0], cases[0].xp
    ws = [x.astype(np.float64) for x, _ in answers]
    columns = [w.reshape(first.data.shape[0], -1) for w in ws]
    Z, width = first.data.times(xp.concatenate(columns, axis=1)), columns[0].shape[1]
    points = []
    for k, (case, w, (_, c)) in enumerate(zip(cases, ws, answers, strict=True)):
        z = xp.ascontiguousarray(Z[:, k * width : (k + 1) * width])
        z = (z if first.problem.multinomial else z[:, 0]) + xp.asarray(c, dtype=np.float64)
        points.append(Point(case, w, c, z))
    duals = [case.dual_slopes(point) for case, point in zip(cases, points, strict=True)]
    pulled = first.pull_all([point.v for point in points] + duals)
    rows = zip(cases, points, duals, pulled[: len(cases)], pulled[len(cases) :], strict=True)
    return [_gap_of(*row, tol) for row in rows]


def _judge_gap(case, point, tol):
    v = case.dual_slopes(point)
    return _gap_of(case, point, v, *case.pull_all([point.v, v]), tol)


def _gap_of(case, point, v, g, g_dual, tol):
    primal, dual = point.primal, case.bound(v, g_dual)
    gap, scale = primal - dual, _scale(case)
    kkt, worst = case.penalty.worst(point.w, g)
    details = {
        "primal": primal,
        "dual": dual,
        "gap": gap,
        "kkt": kkt,
        "scale": scale,
        "worst": worst,
    }
    value = (max(gap, 0.0) + _ROUNDING * (abs(primal) + abs(dual))) / scale
    return Certificate(GAP, value, tol, details)


def _judge_kkt(case, point, tol):
    start, zero = case.penalty.start, case.xp.zeros(())
    start = case.at(start, case.best_intercept(case.data.predict(start, zero)))
    g, g_start = case.pull_all([point.v, start.v])
    unit = case.host(abs(g_start).max()) or 1.0
    kkt, worst = case.penalty.worst(point.w, g)
    if case.fit_intercept:
        # The intercept's slope has a unit of its own: that of the slopes it is the sum of.
        off = case.host(abs(case.data.s @ point.v).max())
        size = case.host((case.data.s @ abs(start.v)).max()) or 1.0
        if off / size > kkt / unit:
            kkt, worst = off / size * unit, -1
    details = {"primal": point.primal, "kkt": kkt, "scale": unit, "worst": worst}
    return Certificate(KKT, kkt / unit + _ROUNDING, tol, details)


def _judge_quadratic(problem, x, tol):
    host, penalty = problem.be.host, open_penalty(problem)
    b = problem.b.astype(np.float64)
    g = multiply(problem.xp, problem.A, x, problem.sparse) - b
    kkt, worst = penalty.worst(x, g)
    unit = (
        host(abs(multiply(problem.xp, problem.A, penalty.start, problem.sparse) - b).max()) or 1.0
    )
    primal = host(0.5 * (x @ (g - b))) + float(host(penalty.value(x)))
    details = {"primal": primal, "kkt": kkt, "scale": unit, "worst": worst}
    return Certificate(KKT, kkt / unit + _ROUNDING, tol, details)


def _scale(case):
    """Return the objective at zero with the best intercept, or what rounding makes of it.

    A loss whose least value is not zero, such as that of counts, is measured from there.
    """
    start = case.penalty.start
    z = case.data.predict(start, case.xp.zeros(case.problem.no_intercept().shape))
    floor = -case.loss.sum(case.loss.conjugate(case.xp.zeros(z.shape)))
    least = _EPS * case.loss.sum(case.loss.value(case.xp.zeros(z.shape)))
    z = z + case.best_intercept(z)
    value = case.loss.sum(case.loss.value(z)) + float(case.host(case.penalty.value(start)))
    return max(value - floor, least) or 1.0


def _given(model, name, value, shape):
    """Return what a caller passed for judgement as float64, where the data are."""
    given: Any = Ingest(dtype=np.float64, **{name: value})
    if given.be is not model.io.be:
        raise TypeError(
            f"`{name}` came as {describe(value)}; expected an array where the data are: "
            f"{model.io.kind}"
        )
    x = check_array(given, name, shape=shape)
    if x is None:
        raise TypeError(f"`{name}` came as NoneType; expected an array of shape {shape}")
    return x.reshape(-1)
