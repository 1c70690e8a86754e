"""Losses of predictions, as small immutable objects that solvers compile into their loops.

A loss compares a target y with a prediction z, sample by sample; `Multinomial` compares a class
with one prediction per class. A new loss is a NamedTuple of numbers with three scalar functions::

    class Quantile(NamedTuple):
        tau: float  # its slopes are -tau and 1 - tau, but for a stretch of this width
        width: float


    def derivative(loss, y, z):
        return min(max((z - y) / loss.width, -loss.tau), 1.0 - loss.tau)


    def value(loss, y, z):
        # With d the slope: d (z - y) - width d^2 / 2 is right on all three pieces.
        d = min(max((z - y) / loss.width, -loss.tau), 1.0 - loss.tau)
        return d * (z - y) - 0.5 * loss.width * d * d


    def curvature(loss, y, z):
        inside = -loss.tau < (z - y) / loss.width < 1.0 - loss.tau
        return 1.0 / loss.width if inside else 0.0


    losses.register(Quantile, value=value, derivative=derivative, curvature=curvature)
"""

import math
from numbers import Real
from typing import NamedTuple

from ._core import rules

__all__ = [
    "Huber",
    "Logistic",
    "Multinomial",
    "Poisson",
    "Squared",
    "SquaredHinge",
    "register",
]


class Squared(NamedTuple):
    """``(y - z)^2 / 2``."""


class Logistic(NamedTuple):
    """``log(1 + exp(-y z))`` with y = -1 or 1."""


class Multinomial(NamedTuple):
    """``log(sum_k exp(z_k)) - z_y``: one prediction per class, y is the class."""


class Huber(NamedTuple):
    """``(y - z)^2 / 2`` up to a distance of `delta`, linear from there.

    Parameters
    ----------
    delta : float, default 1.35
        In the unit of the targets.
    """

    delta: float = 1.35


class SquaredHinge(NamedTuple):
    """``max(1 - y z, 0)^2 / 2`` with y = -1 or 1."""


class Poisson(NamedTuple):
    """``exp(z) - y z`` with y >= 0."""


# The largest second and third derivative by z, infinite where there is none. Multinomial: in the
# directions of one coefficient.
CURVATURE = {
    Squared: 1.0,
    Logistic: 0.25,
    Multinomial: 0.25,
    Huber: 1.0,
    SquaredHinge: 1.0,
    Poisson: math.inf,
}
THIRD = {Squared: 0.0, Logistic: 1.0 / (6.0 * math.sqrt(3.0))}


def register(cls, *, value, derivative, curvature, bound=math.inf):
    """Teach solvers a loss.

    Parameters
    ----------
    cls : type
        A NamedTuple class whose fields are numbers.
    value, derivative, curvature : function
        ``value(loss, y, z)`` and its first and second derivative by z.
    bound : float, optional
        Largest curvature; methods that need one refuse the loss if it is infinite.

    Returns
    -------
    type
        `cls`.

    Examples
    --------
    >>> import math
    >>> from typing import NamedTuple
    >>> from solvers import losses
    >>> class LogCosh(NamedTuple):
    ...     scale: float = 1.0
    >>> def value(loss, y, z):
    ...     size = abs(z - y) / loss.scale
    ...     return size + math.log1p(math.exp(-2.0 * size)) - math.log(2.0)
    >>> def derivative(loss, y, z):
    ...     return math.tanh((z - y) / loss.scale) / loss.scale
    >>> def curvature(loss, y, z):
    ...     return (1.0 - math.tanh((z - y) / loss.scale) ** 2) / loss.scale**2
    >>> rules = {"value": value, "derivative": derivative, "curvature": curvature}
    >>> losses.register(LogCosh, **rules).__name__
    'LogCosh'
    """
    rules.register(cls, value=value, derivative=derivative, curvature=curvature)
    CURVATURE[cls] = bound
    return cls


def check(loss):
    """Raise unless the fields of a loss are what they may be."""
    for name, field in zip(loss._fields, loss, strict=True):
        if isinstance(field, bool) or not isinstance(field, Real):
            raise TypeError(f"`{name}` came as {type(field).__name__}; expected a number")
        positive = isinstance(loss, Huber)
        if not math.isfinite(field) or (positive and field <= 0.0):
            expected = "a finite number > 0" if positive else "a finite number"
            raise ValueError(f"`{name}` came as {field:.6g}; expected {expected}")


def bind(loss):
    """Return a loss in the form that kernels take."""
    return rules.compiled_class(type(loss))(*map(float, loss))


def _squared_value(loss, y, z):
    return 0.5 * (z - y) * (z - y)


def _squared_derivative(loss, y, z):
    return z - y


def _squared_curvature(loss, y, z):
    return 1.0


def _logistic_value(loss, y, z):
    # Split by sign: the exponential never overflows.
    m = y * z
    return max(-m, 0.0) + math.log1p(math.exp(-abs(m)))


def _logistic_derivative(loss, y, z):
    e = math.exp(-abs(z))
    # 1 / (1 + exp(y z)), without overflow.
    share = (1.0 if y * z < 0.0 else e) / (1.0 + e)
    return -y * share


def _logistic_curvature(loss, y, z):
    e = math.exp(-abs(z))
    return e / ((1.0 + e) * (1.0 + e))


def _huber_value(loss, y, z):
    size = abs(z - y)
    if size <= loss.delta:
        return 0.5 * size * size
    return loss.delta * (size - 0.5 * loss.delta)


def _huber_derivative(loss, y, z):
    return min(max(z - y, -loss.delta), loss.delta)


def _huber_curvature(loss, y, z):
    return 1.0 if abs(z - y) < loss.delta else 0.0


def _hinge_value(loss, y, z):
    gap = max(1.0 - y * z, 0.0)
    return 0.5 * gap * gap


def _hinge_derivative(loss, y, z):
    return -y * max(1.0 - y * z, 0.0)


def _hinge_curvature(loss, y, z):
    return 1.0 if y * z < 1.0 else 0.0


def _poisson_value(loss, y, z):
    return math.exp(z) - y * z


def _poisson_derivative(loss, y, z):
    return math.exp(z) - y


def _poisson_curvature(loss, y, z):
    return math.exp(z)


register(
    Squared,
    value=_squared_value,
    derivative=_squared_derivative,
    curvature=_squared_curvature,
    bound=1.0,
)
register(
    Logistic,
    value=_logistic_value,
    derivative=_logistic_derivative,
    curvature=_logistic_curvature,
    bound=0.25,
)
register(
    Huber,
    value=_huber_value,
    derivative=_huber_derivative,
    curvature=_huber_curvature,
    bound=1.0,
)
register(
    SquaredHinge,
    value=_hinge_value,
    derivative=_hinge_derivative,
    curvature=_hinge_curvature,
    bound=1.0,
)
register(
    Poisson,
    value=_poisson_value,
    derivative=_poisson_derivative,
    curvature=_poisson_curvature,
)
