"""The gradient of the optimistic value at one point, with an estimate of its error."""

from typing import Any, NamedTuple

from .._core.validation import check_choice, check_positive
from ._envelope import Envelope, errors, norm
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
    """Return the gradient of psi at x by first derivatives alone."""
    tol = check_positive(tol, "tol")
    sigma = check_positive(sigma, "sigma", allow_none=True)
    check_choice(method, "method", ("penalty",))
    if order not in (1, 2):
        raise ValueError(f"`order` came as {order!r}; expected 1 or 2")
    problem = pose(upper, lower, x, y0)
    env = Envelope(problem)
    env.accuracy = tol
    start = sigma or env.scales.sigma / 10
    best = None
    while True:
        point = env.at(problem.x0, (start, start / 2, start / 4))
        e = errors(point)
        grad, err = e.of(order)
        if best is not None and err > best[1]:
            break
        best = grad, err, point
        if sigma or err <= tol * max(1.0, norm(grad)):
            break
        start /= 10
    grad, err, point = best
    y = env.settle(point)
    f = problem.upper.look(problem.x0, y)
    return HyperGradient(
        problem.px.unpack(grad), err, f.value, point.sides[1].value,
        problem.py.unpack(y), problem.py.unpack(point.z),
    )  # fmt: skip
