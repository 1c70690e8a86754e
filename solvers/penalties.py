"""Penalties of coefficients, as small immutable objects that solvers compile into their loops.

A penalty is a sum over coefficients, ``sum_j G_j(w_j)``, or over groups of them. Fields are
numbers, or arrays with one entry per coefficient; a feature weight multiplies `alpha`.

A new penalty is a NamedTuple and three scalar functions. In them every field is an array with one
entry per coefficient, whatever the caller gave::

    class CappedL1(NamedTuple):
        alpha: float  # alpha min(|w|, cap)
        cap: float


    def value(penalty, w, j):
        return penalty.alpha[j] * min(abs(w), penalty.cap[j])


    def prox(penalty, v, step, j):
        a, cap, size = penalty.alpha[j], penalty.cap[j], abs(v)
        inner = min(max(size - step * a, 0.0), cap)
        outer = max(size, cap)
        inside = a * inner + (inner - size) ** 2 / (2.0 * step)
        outside = a * cap + (outer - size) ** 2 / (2.0 * step)
        return math.copysign(inner if inside <= outside else outer, v)


    def distance(penalty, w, g, j):
        if w == 0.0:
            return max(abs(g) - penalty.alpha[j], 0.0)
        return abs(g + math.copysign(penalty.alpha[j] if abs(w) < penalty.cap[j] else 0.0, w))


    penalties.register(CappedL1, value=value, prox=prox, distance=distance)
"""

import math
from typing import Any, NamedTuple

import numpy as np

from ._core import rules

__all__ = [
    "L1",
    "L2",
    "MCP",
    "SCAD",
    "Box",
    "ElasticBox",
    "ElasticNet",
    "GroupL2",
    "Lq",
    "PositiveL1",
    "RowL2",
    "register",
]


class ElasticBox(NamedTuple):
    r"""``alpha |w| + ridge/2 w^2`` for coefficients within bounds: all convex ones in one.

    Parameters
    ----------
    alpha, ridge : float or array
        Weights of the absolute value and of half the square.
    lo, hi : float or array
        Bounds; ``lo <= 0 <= hi`` is not required.
    """

    alpha: Any = 0.0
    ridge: Any = 0.0
    lo: Any = -math.inf
    hi: Any = math.inf


class L1(NamedTuple):
    """``alpha |w|``.

    Parameters
    ----------
    alpha : float or array
        Weight.
    """

    alpha: Any

    def canonical(self):
        """Return the same penalty as an `ElasticBox`."""
        return ElasticBox(self.alpha)


class L2(NamedTuple):
    """``alpha/2 w^2``.

    Parameters
    ----------
    alpha : float or array
        Weight.
    """

    alpha: Any

    def canonical(self):
        """Return the same penalty as an `ElasticBox`."""
        return ElasticBox(0.0, self.alpha)


class ElasticNet(NamedTuple):
    """``alpha (l1_ratio |w| + (1 - l1_ratio)/2 w^2)``.

    Parameters
    ----------
    alpha : float or array
        Weight.
    l1_ratio : float, default 0.5
        Share of the absolute values, in [0, 1].
    """

    alpha: Any
    l1_ratio: float = 0.5

    def canonical(self):
        """Return the same penalty as an `ElasticBox`."""
        # An infinite alpha leaves a share of zero at zero.
        share, rest = self.l1_ratio, 1.0 - self.l1_ratio
        return ElasticBox(self.alpha * share if share else 0.0, self.alpha * rest if rest else 0.0)


class PositiveL1(NamedTuple):
    """``alpha w`` for ``w >= 0``.

    Parameters
    ----------
    alpha : float or array
        Weight.
    """

    alpha: Any

    def canonical(self):
        """Return the same penalty as an `ElasticBox`."""
        return ElasticBox(self.alpha, 0.0, 0.0)


class Box(NamedTuple):
    """Nothing for ``lo <= w <= hi``, infinity elsewhere.

    Parameters
    ----------
    lo : float or array, default 0.0
        Lower bounds.
    hi : float or array, default inf
        Upper bounds.
    """

    lo: Any = 0.0
    hi: Any = math.inf

    def canonical(self):
        """Return the same penalty as an `ElasticBox`."""
        return ElasticBox(0.0, 0.0, self.lo, self.hi)


class MCP(NamedTuple):
    """The minimax concave penalty: ``alpha |w| - w^2 / (2 gamma)``, constant from gamma alpha.

    Parameters
    ----------
    alpha : float or array
        Slope at zero.
    gamma : float, default 3.0
        Above 1.
    """

    alpha: Any
    gamma: float = 3.0


class SCAD(NamedTuple):
    """Smoothly clipped absolute deviation: slope `alpha` up to alpha, none from gamma alpha.

    Parameters
    ----------
    alpha : float or array
        Slope at zero.
    gamma : float, default 3.7
        Above 2.
    """

    alpha: Any
    gamma: float = 3.7


class Lq(NamedTuple):
    """``alpha |w|^q`` with ``0 < q < 1``.

    Parameters
    ----------
    alpha : float or array
        Weight.
    q : float, default 0.5
        Between 0 and 1.
    """

    alpha: Any
    q: float = 0.5


class GroupL2(NamedTuple):
    r"""``alpha (l1_ratio |w|_1 + (1 - l1_ratio) sum_g sqrt(d_g) |w_g|)``, g of d_g members.

    Parameters
    ----------
    alpha : float
        Weight.
    groups : sequence
        A label for each coefficient, or a list of lists of their indices.
    l1_ratio : float, default 0.0
        Share of the absolute values.
    """

    alpha: Any
    groups: Any
    l1_ratio: float = 0.0


class RowL2(NamedTuple):
    """``alpha sum_j |W_j|`` over the rows of a matrix of coefficients.

    Parameters
    ----------
    alpha : float
        Weight.
    """

    alpha: Any


def register(cls, *, value, prox, distance, slope=None, bend=None):
    """Teach solvers a penalty that is a sum over coefficients.

    Parameters
    ----------
    cls : type
        A NamedTuple class. In the rules, ``penalty.field[j]`` is its field for coefficient j.
    value : function
        ``value(penalty, w, j)``: the penalty of a coefficient w.
    prox : function
        ``prox(penalty, v, step, j)``: minimiser of ``value(w) + (w - v)^2 / (2 step)``.
    distance : function
        ``distance(penalty, w, g, j)``: how far ``-g`` is from the subdifferential at w.
    slope, bend : function, optional
        ``slope(penalty, w, j)`` and ``bend(penalty, w, j)``: first and second derivative for
        ``w != 0``. With them, solvers take Newton steps.

    Returns
    -------
    type
        `cls`.

    Examples
    --------
    >>> from typing import NamedTuple
    >>> from solvers import penalties
    >>> class Count(NamedTuple):
    ...     alpha: float
    >>> def value(penalty, w, j):
    ...     return penalty.alpha[j] if w != 0.0 else 0.0
    >>> def prox(penalty, v, step, j):
    ...     return v if v * v > 2.0 * step * penalty.alpha[j] else 0.0
    >>> def distance(penalty, w, g, j):
    ...     return abs(g) if w != 0.0 else 0.0
    >>> penalties.register(Count, value=value, prox=prox, distance=distance).__name__
    'Count'
    """
    if (slope is None) != (bend is None):
        missing = "slope" if slope is None else "bend"
        raise ValueError(f"`{missing}` came as None; expected both of `slope` and `bend`, or none")
    given = {"value": value, "prox": prox, "distance": distance, "slope": slope, "bend": bend}
    return rules.register(cls, **{name: f for name, f in given.items() if f is not None})


def bind(penalty, size, dtype, weights=None, *, xp=np):
    """Return a penalty for `size` coefficients in the form that kernels take.

    Parameters
    ----------
    penalty : NamedTuple
        One of this module or a registered one that has passed `check`.
    size : int
        Number of coefficients.
    dtype : numpy.dtype
        Precision of its fields.
    weights : array, shape (size,), optional
        Multiplies the field `alpha`.
    xp : module
        Where its arrays live.

    Returns
    -------
    NamedTuple
        Of arrays with one entry per coefficient.
    """
    if hasattr(penalty, "canonical"):
        penalty = penalty.canonical()
    fields = {
        name: xp.broadcast_to(xp.asarray(field, dtype), (size,)).copy()
        for name, field in zip(penalty._fields, penalty, strict=True)
    }
    # Finite, so that an infinite strength times a coefficient or a weight of 0 is 0.
    largest = np.finfo(dtype).max
    for name in {"alpha", "ridge"} & fields.keys():
        fields[name] = xp.minimum(fields[name], largest)
    if weights is not None and "alpha" in fields:
        with np.errstate(over="ignore"):
            fields["alpha"] = xp.minimum(fields["alpha"] * weights, largest).astype(dtype)
    return rules.compiled_class(type(penalty))(**fields)


# Legal values of fields: the test that an array of them must pass, and how it reads.
_AT_LEAST_0 = (lambda v: v >= 0.0), ">= 0"
_LEGAL = {
    (ElasticBox, "alpha"): _AT_LEAST_0,
    (ElasticBox, "ridge"): _AT_LEAST_0,
    (L1, "alpha"): _AT_LEAST_0,
    (L2, "alpha"): _AT_LEAST_0,
    (ElasticNet, "alpha"): _AT_LEAST_0,
    (PositiveL1, "alpha"): _AT_LEAST_0,
    (GroupL2, "alpha"): _AT_LEAST_0,
    (RowL2, "alpha"): _AT_LEAST_0,
    (MCP, "alpha"): _AT_LEAST_0,
    (SCAD, "alpha"): _AT_LEAST_0,
    (Lq, "alpha"): _AT_LEAST_0,
    (ElasticNet, "l1_ratio"): ((lambda v: (v >= 0.0) & (v <= 1.0)), "in [0, 1]"),
    (GroupL2, "l1_ratio"): ((lambda v: (v >= 0.0) & (v <= 1.0)), "in [0, 1]"),
    (MCP, "gamma"): ((lambda v: v > 1.0), "above 1"),
    (SCAD, "gamma"): ((lambda v: v > 2.0), "above 2"),
    (Lq, "q"): ((lambda v: (v > 0.0) & (v < 1.0)), "between 0 and 1"),
}


def check(penalty, size, *, xp=np):
    """Raise unless a penalty is one, and its fields are what they may be, for `size` unknowns."""
    group = isinstance(penalty, GroupL2 | RowL2)
    known = group or hasattr(penalty, "canonical") or rules.compiled_class(type(penalty))
    if not known or isinstance(penalty, type):
        raise TypeError(
            f"`penalty` came as {penalty!r}; expected one of solvers.penalties, or one that is "
            "registered there"
        )
    numbers = {
        name: _numbers(field, name, size, xp)
        for name, field in zip(penalty._fields, penalty, strict=True)
        if name != "groups" or not group
    }
    for name, field in numbers.items():
        legal, text = _LEGAL.get((type(penalty), name), (None, None))
        if legal is not None and not legal(field).all():
            raise ValueError(f"`{name}` came as {_shown(penalty, name)}; expected {text}")
    if isinstance(penalty, Box | ElasticBox) and (numbers["lo"] > numbers["hi"]).any():
        lo, hi = _shown(penalty, "lo"), _shown(penalty, "hi")
        raise ValueError(f"`lo` came as {lo} and `hi` as {hi}; expected lo <= hi")


def _numbers(field, name, size, xp):
    """Return a field as an array of shape () or (size,) without NaN."""
    # A string of digits would become a number, and None NaN.
    kind = getattr(field, "dtype", np.dtype(float)).kind
    wrong = field is None or isinstance(field, str) or kind not in "biuf"
    try:
        numbers = xp.asarray("" if wrong else field, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"`{name}` came as {type(field).__name__}; expected a number or an array of numbers"
        ) from None
    if numbers.shape not in ((), (size,)):
        raise ValueError(
            f"`{name}` came with shape {numbers.shape}; expected a number or an array of shape "
            f"({size},)"
        )
    if xp.isnan(numbers).any():
        raise ValueError(f"`{name}` contains NaN; expected numbers")
    return numbers


def _shown(penalty, name):
    field = getattr(penalty, name)
    return f"{field:.6g}" if isinstance(field, int | float) else "an array with others"


def take(bound, where):
    """Return a penalty from `bind` for some of its coefficients."""
    return type(bound)(*(field[where] for field in bound))


def _elastic_value(penalty, w, j):
    if w < penalty.lo[j] or w > penalty.hi[j]:
        return math.inf
    return penalty.alpha[j] * abs(w) + 0.5 * penalty.ridge[j] * w * w


def _elastic_prox(penalty, v, step, j):
    size = max(abs(v) - step * penalty.alpha[j], 0.0) / (1.0 + step * penalty.ridge[j])
    return min(max(math.copysign(size, v), penalty.lo[j]), penalty.hi[j])


def _elastic_distance(penalty, w, g, j):
    a = penalty.alpha[j]
    g += penalty.ridge[j] * w
    # The subdifferential without the bounds is [left, right]; a bound opens one end.
    right, left = (a if w >= 0.0 else -a), (-a if w <= 0.0 else a)
    if w <= penalty.lo[j]:
        left = -math.inf
    if w >= penalty.hi[j]:
        right = math.inf
    return max(-g - right, g + left, 0.0)


def _elastic_slope(penalty, w, j):
    return math.copysign(penalty.alpha[j], w) + penalty.ridge[j] * w


def _elastic_bend(penalty, w, j):
    return penalty.ridge[j]


def _mcp_value(penalty, w, j):
    a, gamma, size = penalty.alpha[j], penalty.gamma[j], abs(w)
    if size <= gamma * a:
        return a * size - size * size / (2.0 * gamma)
    return 0.5 * gamma * a * a


def _mcp_prox(penalty, v, step, j):
    a, gamma, size = penalty.alpha[j], penalty.gamma[j], abs(v)
    if size > gamma * a:
        return v
    return math.copysign(max(size - step * a, 0.0) / (1.0 - step / gamma), v)


def _mcp_slope(penalty, w, j):
    return math.copysign(max(penalty.alpha[j] - abs(w) / penalty.gamma[j], 0.0), w)


def _mcp_bend(penalty, w, j):
    return -1.0 / penalty.gamma[j] if abs(w) < penalty.gamma[j] * penalty.alpha[j] else 0.0


def _mcp_distance(penalty, w, g, j):
    if w == 0.0:
        return max(abs(g) - penalty.alpha[j], 0.0)
    return abs(g + math.copysign(max(penalty.alpha[j] - abs(w) / penalty.gamma[j], 0.0), w))


def _scad_value(penalty, w, j):
    a, gamma, size = penalty.alpha[j], penalty.gamma[j], abs(w)
    if size <= a:
        return a * size
    if size <= gamma * a:
        return (2.0 * gamma * a * size - size * size - a * a) / (2.0 * (gamma - 1.0))
    return 0.5 * a * a * (gamma + 1.0)


def _scad_prox(penalty, v, step, j):
    a, gamma, size = penalty.alpha[j], penalty.gamma[j], abs(v)
    if size <= a * (1.0 + step):
        return math.copysign(max(size - step * a, 0.0), v)
    if size <= gamma * a:
        return ((gamma - 1.0) * v - math.copysign(step * gamma * a, v)) / (gamma - 1.0 - step)
    return v


def _scad_slope(penalty, w, j):
    a, gamma, size = penalty.alpha[j], penalty.gamma[j], abs(w)
    return math.copysign(a if size <= a else max(gamma * a - size, 0.0) / (gamma - 1.0), w)


def _scad_bend(penalty, w, j):
    a, gamma, size = penalty.alpha[j], penalty.gamma[j], abs(w)
    return -1.0 / (gamma - 1.0) if a < size < gamma * a else 0.0


def _scad_distance(penalty, w, g, j):
    a, gamma, size = penalty.alpha[j], penalty.gamma[j], abs(w)
    if w == 0.0:
        return max(abs(g) - a, 0.0)
    slope = a if size <= a else max(gamma * a - size, 0.0) / (gamma - 1.0)
    return abs(g + math.copysign(slope, w))


def _lq_value(penalty, w, j):
    return penalty.alpha[j] * abs(w) ** penalty.q[j]


def _lq_prox(penalty, v, step, j):
    q, t, size = penalty.q[j], step * penalty.alpha[j], abs(v)
    if t == 0.0:
        return v
    # Below this the minimiser is zero; above it lies between h and |v|.
    h = (2.0 * t * (1.0 - q)) ** (1.0 / (2.0 - q))
    if size <= h + t * q * h ** (q - 1.0):
        return 0.0
    # Newton's method comes down to the root: the function is convex.
    w = size
    for _ in range(50):
        step_w = (w - size + t * q * w ** (q - 1.0)) / (1.0 + t * q * (q - 1.0) * w ** (q - 2.0))
        w -= step_w
        if step_w <= 1e-15 * w:
            break
    return math.copysign(w, v)


def _lq_slope(penalty, w, j):
    return math.copysign(penalty.alpha[j] * penalty.q[j] * abs(w) ** (penalty.q[j] - 1.0), w)


def _lq_bend(penalty, w, j):
    q = penalty.q[j]
    return penalty.alpha[j] * q * (q - 1.0) * abs(w) ** (q - 2.0)


def _lq_distance(penalty, w, g, j):
    # Its slope at zero is infinite: zero is stationary whatever g is.
    if w == 0.0:
        return 0.0
    q = penalty.q[j]
    return abs(g + math.copysign(penalty.alpha[j] * q * abs(w) ** (q - 1.0), w))


register(
    ElasticBox,
    value=_elastic_value,
    prox=_elastic_prox,
    distance=_elastic_distance,
    slope=_elastic_slope,
    bend=_elastic_bend,
)
register(
    MCP,
    value=_mcp_value,
    prox=_mcp_prox,
    distance=_mcp_distance,
    slope=_mcp_slope,
    bend=_mcp_bend,
)
register(
    SCAD,
    value=_scad_value,
    prox=_scad_prox,
    distance=_scad_distance,
    slope=_scad_slope,
    bend=_scad_bend,
)
register(Lq, value=_lq_value, prox=_lq_prox, distance=_lq_distance, slope=_lq_slope, bend=_lq_bend)
