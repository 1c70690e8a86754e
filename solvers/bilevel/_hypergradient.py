"""The gradient of the optimistic value at one point, with an estimate of its error."""

from typing import Any, NamedTuple

import numpy as np

from .._core.validation import check_choice, check_positive
from ._envelope import Envelope, UnboundedError, errors, ladder, norm
from ._problem import pose


class HyperGradient(NamedTuple):
    """A hyper-gradient.

    Parameters
    ----------
    grad : array
        Gradient of psi, like x.
    err : float
        Estimate of the length of its error.
    value, value_lower : float
        Upper and lower bound of psi.
    y, z : array
        The optimistic lower-level solution, and the minimiser of g from the warm start.
    """

    grad: Any
    err: float
    value: float
    value_lower: float
    y: Any
    z: Any


def hypergradient(upper, lower, x, y0=None, *, method="penalty", sigma=None, order=2, tol=1e-8):
    r"""Return the gradient of psi at x by first derivatives alone.

    With y and z the minimisers of ``sigma f + g`` and of g, ``d_sigma = f_x(x, y) + (g_x(x, y) -
    g_x(x, z)) / sigma`` is the gradient of a smooth lower bound of psi, and tends to that of psi.

    Parameters
    ----------
    upper, lower : callable or Oracle
        The levels, as `penalty` takes them; or a ready-made problem and None.
    x : array or nested arrays
        Where.
    y0 : array or nested arrays
        Start of the lower level.
    method : {"penalty"}, default "penalty"
        How.
    sigma : float, optional
        The penalty. By default it falls, until the error is within the tolerance or grows.
    order : {2, 1, "central"}, default 2
        1: ``d_sigma``; 2: ``2 d_(sigma/2) - d_sigma``; "central": the mean of those of sigma/2
        and -sigma/2, for strongly convex lower levels.
    tol : float, default 1e-8
        Wanted error, relative to ``max(1, |grad|)``.

    Returns
    -------
    HyperGradient
        The gradient `grad` with the estimate `err` of the length of its error, bounds `value` and
        `value_lower` of psi, and the minimisers `y` and `z`.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> upper = lambda x, y: (0.5 * (y - 1) @ (y - 1), 0 * x, y - 1)
    >>> lower = lambda x, y: (0.5 * (y - x) @ (y - x), x - y, y - x)
    >>> bilevel.hypergradient(upper, lower, np.zeros(2), np.zeros(2)).grad.round(6)
    array([-1., -1.])
    """
    tol = check_positive(tol, "tol")
    sigma = check_positive(sigma, "sigma", allow_none=True)
    check_choice(method, "method", ("penalty",))
    if isinstance(order, bool) or order not in (1, 2, "central"):
        raise ValueError(f"`order` came as {order!r}; expected 1, 2 or 'central'")
    problem = pose(upper, lower, x, y0)
    with problem.io.device, np.errstate(all="ignore"):
        return _found(problem, sigma, order, tol)


def _found(problem, sigma, order, tol):
    env = Envelope(problem)
    env.accuracy = tol
    x, best = problem.x0, None
    last, sigma = sigma, sigma or env.scales.sigma / 10
    while True:
        try:
            point = env.at(x, ladder(order, sigma))
        except UnboundedError as error:
            raise ValueError(
                f"`lower` falls without end in y at the penalty {sigma:.3g}; expected a lower "
                "level with a minimum"
            ) from error
        e = errors(point)
        env.gain = min(max(e.gain, 1.0), 1e3)
        grad, err = e.of(order)
        if best is not None and not err <= best[1]:
            break
        best = grad, err, point
        if last or err <= tol * max(1.0, norm(grad)):
            break
        sigma /= 10
    grad, err, point = best
    y = env.settle(point)
    out = problem.py.unpack
    return HyperGradient(
        problem.px.unpack(grad),
        err,
        problem.upper.look(x, y).value,
        env.lower_bound(point, point.sides[1]),
        out(y),
        out(point.z),
    )
