"""Penalties: proximal points by brute force, distances by differences, a user's own one."""

import copy
import math
import pickle
from typing import NamedTuple

import numpy as np
import pytest

from solvers import penalties
from solvers._core import rules
from solvers.bcd import Problem
from solvers.penalties import L1, L2, MCP, SCAD, Box, ElasticBox, ElasticNet, Lq, PositiveL1

PENALTIES = [
    L1(0.7),
    L2(0.7),
    ElasticNet(0.9, 0.3),
    PositiveL1(0.4),
    Box(-0.5, 1.25),
    Box(0.5, 2.0),
    ElasticBox(0.3, 0.2, -1.0, math.inf),
    MCP(0.8, 3.0),
    MCP(0.8, 1.6),
    SCAD(0.6, 3.7),
    SCAD(0.6, 2.6),
    Lq(0.5, 0.5),
    Lq(0.9, 0.2),
    Lq(0.9, 0.9),
]
SMOOTH = [p for p in PENALTIES if not isinstance(p, Box)]
each = pytest.mark.parametrize("penalty", PENALTIES, ids=repr)


def rules_of(penalty):
    """The penalty of one coefficient, and its rules as Python functions of (w, ...)."""
    bound = penalties.bind(penalty, 1, np.float64)
    return lambda name, *args: rules.function_of(type(bound), name)(bound, *args, 0)


def formula(penalty, w):
    """What the documentation says, for an array w."""
    size = np.abs(w)
    match penalty:
        case L1(a):
            return a * size
        case L2(a):
            return a / 2 * w**2
        case ElasticNet(a, share):
            return a * (share * size + (1 - share) / 2 * w**2)
        case PositiveL1(a):
            return np.where(w >= 0, a * w, np.inf)
        case Box(lo, hi):
            return np.where((w >= lo) & (w <= hi), 0.0, np.inf)
        case ElasticBox(a, ridge, lo, hi):
            return np.where((w >= lo) & (w <= hi), a * size + ridge / 2 * w**2, np.inf)
        case MCP(a, gamma):  # the integral of its slope max(a - t / gamma, 0)
            top = np.minimum(size, gamma * a)
            return a * top - top**2 / (2 * gamma)
        case SCAD(a, gamma):  # of min(a, max(gamma a - t, 0) / (gamma - 1))
            flat, ramp = np.minimum(size, a), np.clip(size, a, gamma * a)
            return a * flat + (gamma * a * (ramp - a) - (ramp**2 - a**2) / 2) / (gamma - 1)
        case Lq(a, q):
            return a * size**q
    raise AssertionError(penalty)


@each
def test_values_are_those_of_the_formula(penalty):
    value = rules_of(penalty)
    points = np.linspace(-4, 4, 161)
    expected = formula(penalty, points)
    np.testing.assert_allclose([value("value", w) for w in points], expected, rtol=1e-12)


@each
@pytest.mark.parametrize("step", [0.1, 0.9, 1.4])
def test_proximal_points_are_the_best_of_a_fine_grid(penalty, step):
    rule = rules_of(penalty)
    grid = np.append(np.linspace(-5, 5, 20_001), 0.0)
    cost = formula(penalty, grid)
    for v in np.linspace(-4.3, 4.3, 44):
        best = (cost + (grid - v) ** 2 / (2 * step)).min()
        w = rule("prox", v, step)
        got = formula(penalty, np.float64(w)) + (w - v) ** 2 / (2 * step)
        # As good as any point of the grid, and no better than half its width explains.
        assert best - 1e-5 <= got <= best + 1e-14


@pytest.mark.parametrize("penalty", SMOOTH, ids=repr)
def test_slopes_and_bends_are_the_derivatives(penalty):
    rule = rules_of(penalty)
    h = 1e-4
    for w in (-3.1, -0.93, -0.31, 0.17, 0.77, 1.9):
        left, mid, right = (float(formula(penalty, np.float64(w + d))) for d in (-h, 0.0, h))
        if not np.isfinite(left + right):
            continue
        assert abs(rule("slope", w) - (right - left) / (2 * h)) < 1e-6
        assert abs(rule("bend", w) - (right - 2 * mid + left) / h**2) < 1e-4


@each
def test_the_distance_is_that_to_the_subdifferential(penalty):
    rule = rules_of(penalty)
    h = 1e-7
    for w in (-1.0, -0.5, 0.0, 0.31, 0.5, 1.25, 2.0):
        at = formula(penalty, np.float64(w))
        if not np.isfinite(at) or (isinstance(penalty, Lq) and w == 0.0):
            continue
        # One-sided derivatives are the ends of the interval; infinite beyond a bound.
        right = (formula(penalty, np.float64(w + h)) - at) / h
        left = (at - formula(penalty, np.float64(w - h))) / h
        for g in (-2.0, -0.3, 0.0, 0.55, 3.0):
            nearest = np.clip(-g, left, right) if left <= right else left
            assert abs(rule("distance", w, g) - abs(nearest + g)) < 1e-6


def test_zero_is_stationary_for_a_power_below_one_whatever_the_slope():
    assert rules_of(Lq(0.5))("distance", 0.0, 1e9) == 0.0


@pytest.mark.parametrize("penalty", [MCP(0.5), SCAD(0.5)], ids=repr)
def test_a_weight_scales_alpha_only(penalty):
    bound = penalties.bind(penalty, 2, np.float64, np.array([1.0, 3.0]))
    np.testing.assert_array_equal(bound.alpha, [0.5, 1.5])
    np.testing.assert_array_equal(bound.gamma, penalty.gamma)


def test_an_infinite_alpha_costs_nothing_at_zero():
    for penalty in (L1(math.inf), ElasticNet(math.inf, 1.0), ElasticNet(math.inf, 0.0)):
        bound = penalties.bind(penalty, 2, np.float32, np.array([0.0, 2.0]))
        value, prox = (rules.function_of(type(bound), name) for name in ("value", "prox"))
        assert value(bound, 0.0, 0) == value(bound, 0.0, 1) == 0.0
        assert bound.alpha[0] == 0.0
        assert prox(bound, 5.0, 1.0, 1) < 1e-30


def test_some_coefficients_keep_their_numbers():
    bound = penalties.bind(L1(np.array([1.0, 2.0, 3.0])), 3, np.float64)
    np.testing.assert_array_equal(penalties.take(bound, np.array([2, 0])).alpha, [3.0, 1.0])


def test_all_convex_ones_are_one_class_for_kernels():
    kinds = {
        type(penalties.bind(p, 1, np.float64)) for p in (L1(1.0), L2(1.0), Box(), PositiveL1(1.0))
    }
    assert len(kinds) == 1


@each
def test_they_pickle_and_copy_free_and_bound(penalty):
    bound = penalties.bind(penalty, 3, np.float64)
    for thing in (penalty, bound):
        for twin in (pickle.loads(pickle.dumps(thing)), copy.deepcopy(thing)):
            assert type(twin) is type(thing)
            np.testing.assert_array_equal(np.stack(twin), np.stack(thing))


BAD = [
    (L1(-1.0), ValueError, "alpha"),
    (L1(math.nan), ValueError, "alpha"),
    (L1("2"), TypeError, "alpha"),
    (L1(None), TypeError, "alpha"),
    (L1([1.0, 2.0]), ValueError, "alpha"),
    (ElasticNet(1.0, 1.5), ValueError, "l1_ratio"),
    (ElasticNet(1.0, -0.1), ValueError, "l1_ratio"),
    (ElasticBox(1.0, -1.0), ValueError, "ridge"),
    (Box(1.0, 0.0), ValueError, "lo"),
    (MCP(1.0, 0.9), ValueError, "gamma"),
    (MCP(-1.0, 3.0), ValueError, "alpha"),
    (SCAD(1.0, 2.0), ValueError, "gamma"),
    (Lq(1.0, 1.0), ValueError, "q"),
    (Lq(1.0, 0.0), ValueError, "q"),
    (penalties.GroupL2(-1.0, [0, 0, 1]), ValueError, "alpha"),
    (penalties.GroupL2(1.0, [0, 0, 1], 2.0), ValueError, "l1_ratio"),
    (0.5, TypeError, "penalty"),
    (NamedTuple("Stray", [("alpha", float)])(1.0), TypeError, "penalty"),
]


@pytest.mark.parametrize(("penalty", "kind", "word"), BAD, ids=repr)
def test_a_wrong_field_is_named_when_a_problem_is_posed(penalty, kind, word):
    X = np.eye(3) + 1.0
    with pytest.raises(kind, match=f"^`{word}` "):
        Problem(X, [1.0, 0.0, 2.0], penalty=penalty)


def test_the_smallest_legal_gamma_belongs_to_the_column_that_needs_it():
    X = np.diag([1.0, 2.0, 4.0])
    y = np.ones(3)
    with pytest.raises(ValueError, match=r"^`gamma` came as 2\.9; expected more than 3"):
        Problem(X, y, penalty=MCP(0.1, 2.9))
    Problem(X, y, penalty=MCP(0.1, 3.1))
    Problem(X, y, penalty=MCP(0.1, np.array([3.1, 1.1, 1.1])))
    # A free coefficient has no concave part.
    Problem(X, y, penalty=MCP(0.1, 1.1), weights=[0.0, 1.0, 1.0])


def test_half_a_pair_of_derivatives_is_refused():
    class Half(NamedTuple):
        alpha: float

    with pytest.raises(ValueError, match=r"^`bend` "):
        penalties.register(Half, value=len, prox=len, distance=len, slope=len)
