"""The penalty weight from which on all penalised coefficients are zero."""

import math

import numpy as np

from .. import penalties
from .._core.validation import check_choice, check_nonnegative
from ._certificate import Case
from ._problem import pose

PENALTIES = ("l1", "enet", "positive", "mcp", "scad", "group", "row")
# What the fronts take where the caller says nothing.
_RATIOS = {"enet": 0.5, "group": 0.0}
_EPS = np.finfo(np.float64).eps


def alpha_max(
    datafit,
    X,
    y,
    *,
    penalty="l1",
    fit_intercept=False,
    sample_weight=None,
    weights=None,
    groups=None,
    l1_ratio=None,
):
    r"""Return the smallest `alpha` for which zero is optimal.

    At zero (with the best intercept, and the best coefficients of features of weight 0) the
    gradient just fits into the subdifferential of the penalty: for "l1", :math:`\alpha_{\max} =
    \max_j |X_j^\top u| / a_j` with the weighted slopes u of the loss and feature weights a.

    Parameters
    ----------
    datafit : str or NamedTuple
        The loss, as in `Problem`.
    X, y : array
        Data, as in `Problem`.
    penalty : {"l1", "enet", "positive", "mcp", "scad", "group", "row"}
        "positive" is "l1" of coefficients that may not be negative. For "mcp" and "scad" zero is
        stationary from there on.
    fit_intercept : bool, default False
        Whether an intercept is fitted.
    sample_weight : array, shape (n,), optional
        Weights of the samples.
    weights : array, shape (p,), optional
        Feature weights.
    groups : sequence, optional
        For "group": a label for each feature, or a list of lists of their indices.
    l1_ratio : float, optional
        Share of the absolute values for "enet" (default 0.5, as in `elastic_net`) and "group"
        (default 0, as in `group_lasso`).

    Returns
    -------
    float
        Infinity for an elastic net without absolute values.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the expected kind, shape or value.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bcd
    >>> bcd.alpha_max("quadratic", np.eye(4), np.array([1.0, -3.0, 2.0, 0.0]))
    0.75
    """
    penalty = check_choice(penalty, "penalty", PENALTIES)
    ratio = _check_ratio(penalty, l1_ratio)
    if (groups is None) == (penalty == "group"):
        came = "was left out" if groups is None else "came for a penalty without groups"
        raise ValueError(f"`groups` {came}; expected groups if and only if `penalty` is 'group'")
    unit = {
        "positive": penalties.PositiveL1(1.0),
        "group": penalties.GroupL2(1.0, groups, ratio),
        "row": penalties.RowL2(1.0),
    }.get(penalty, penalties.L1(1.0))
    problem = pose(
        X,
        y,
        datafit,
        unit,
        sample_weight=sample_weight,
        weights=weights,
        fit_intercept=fit_intercept,
    )
    with problem.io.device, np.errstate(all="ignore"):
        largest = threshold(problem)
    return largest if penalty != "enet" else _divided(largest, ratio)


def threshold(problem):
    """Return `alpha_max` of a `GLM` whose penalty has an `alpha` of 1."""
    case = Case(problem)
    return case.penalty.threshold(case.pull(_null_slopes(case)))


def _null_slopes(case):
    """Return slopes of the best model without any penalised coefficient."""
    loss, data = case.loss, case.data
    z = case.xp.zeros((case.problem.y.size, *case.problem.shape[1:]))
    if not case.has_free:
        return loss.slope(z + case.best_intercept(z))
    free = case.penalty.free.reshape(case.problem.shape)
    return loss.slope(_unpenalised_fit(case, data, free, z))


def _unpenalised_fit(case, data, free, z):
    """Return the predictions that minimise the loss over free columns and intercept: Newton."""
    xp, host, loss = case.xp, case.host, case.loss
    used = xp.flatnonzero(free.any(axis=1) if free.ndim == 2 else free)
    B = data.columns(used)
    may = free[used] if free.ndim == 2 else free[used][:, None]
    if case.fit_intercept:
        B = xp.concatenate([B, xp.ones((B.shape[0], 1))], axis=1)
        may = xp.concatenate([may, xp.ones((1, may.shape[1]), bool)])
    may = host(may).reshape(-1)
    value = loss.sum(loss.value(z))
    for _ in range(100):
        g = host(B.T @ case.weigh(loss.slope(z))).reshape(-1)[may]
        H = _hessian(case, B, z)[np.ix_(may, may)]
        d = np.zeros(may.size)
        d[may] = -np.linalg.lstsq(H, g, rcond=_EPS * g.size)[0]
        dz = B @ xp.asarray(d.reshape(B.shape[1], -1))
        dz = dz if z.ndim == 2 else dz[:, 0]
        t, expected = 1.0, -float(g @ d[may])
        # The Newton decrement bounds what is left to gain.
        if not expected > 4 * _EPS * abs(value):
            break
        while loss.sum(loss.value(z + t * dz)) > value - 1e-4 * t * expected and t > 1e-10:
            t *= 0.5
        z = z + t * dz
        value = loss.sum(loss.value(z))
    return z


def _hessian(case, B, z):
    """Return the second derivatives of the loss by coefficients of the columns B, on the host."""
    loss, s = case.loss, case.data.s
    if z.ndim == 1:
        return case.host(B.T @ ((s * loss.curvature(z))[:, None] * B))
    q, (q_columns, C) = loss.chances(z), (B.shape[1], z.shape[1])
    H = np.empty((q_columns, C, q_columns, C))
    for k in range(C):
        for m in range(C):
            bend = s * q[:, k] * ((k == m) - q[:, m])
            H[:, k, :, m] = case.host(B.T @ (bend[:, None] * B))
    return H.reshape(q_columns * C, q_columns * C)


def _divided(a, b):
    return math.inf if b == 0 and a > 0 else a / b if a else 0.0


def _check_ratio(penalty, l1_ratio):
    if penalty not in _RATIOS:
        if l1_ratio is not None:
            raise ValueError("`l1_ratio` came for a penalty without one; expected None")
        return 1.0
    if l1_ratio is None:
        return _RATIOS[penalty]
    ratio = check_nonnegative(l1_ratio, "l1_ratio")
    if ratio > 1:
        raise ValueError(f"`l1_ratio` came as {ratio}; expected a number in [0, 1]")
    return ratio
