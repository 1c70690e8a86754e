"""Losses: values by their formulas, derivatives by differences, a user's own one."""

import copy
import math
import pickle

import numpy as np
import pytest
from scipy import special

from solvers import losses
from solvers._core import rules
from solvers.bcd import Problem
from solvers.losses import Huber, Logistic, Multinomial, Poisson, Squared, SquaredHinge

LOSSES = [Squared(), Logistic(), Huber(), Huber(0.4), SquaredHinge(), Poisson()]
each = pytest.mark.parametrize("loss", LOSSES, ids=repr)


def rules_of(loss):
    bound = losses.bind(loss)
    return lambda name, y, z: rules.function_of(type(bound), name)(bound, y, z)


def formula(loss, y, z):
    match loss:
        case Squared():
            return (y - z) ** 2 / 2
        case Logistic():
            return np.logaddexp(0.0, -y * z)
        case Huber(delta):
            return special.huber(delta, y - z)
        case SquaredHinge():
            return np.maximum(1 - y * z, 0) ** 2 / 2
        case Poisson():
            return np.exp(z) - y * z
    raise AssertionError(loss)


def targets(loss):
    if isinstance(loss, Logistic | SquaredHinge):
        return (-1.0, 1.0)
    return (0.0, 3.0) if isinstance(loss, Poisson) else (-1.3, 2.0)


@each
def test_values_and_derivatives_are_those_of_the_formula(loss):
    rule, h = rules_of(loss), 1e-4
    for y in targets(loss):
        for z in np.linspace(-3.03, 3.0, 41):
            left, mid, right = (formula(loss, y, z + d) for d in (-h, 0.0, h))
            assert abs(rule("value", y, z) - mid) <= 1e-13 * (1 + abs(mid))
            assert abs(rule("derivative", y, z) - (right - left) / (2 * h)) < 1e-6
            assert abs(rule("curvature", y, z) - (right - 2 * mid + left) / h**2) < 1e-5


@each
def test_no_curvature_exceeds_the_bound(loss):
    rule, bound = rules_of(loss), losses.CURVATURE[type(loss)]
    values = [rule("curvature", y, z) for y in targets(loss) for z in np.linspace(-9, 9, 1001)]
    assert min(values) >= 0
    assert max(values) <= bound
    # Nor is the bound larger than it must be.
    assert math.isinf(bound) or max(values) > 0.999 * bound


def test_no_third_derivative_of_the_logistic_loss_exceeds_the_bound():
    rule, h = rules_of(Logistic()), 1e-5
    z = np.linspace(-4, 4, 4001)
    third = [abs(rule("curvature", 1, t + h) - rule("curvature", 1, t - h)) / (2 * h) for t in z]
    bound = losses.THIRD[Logistic]
    assert 0.9999 * bound < max(third) <= bound * (1 + 1e-6)


def test_the_logistic_loss_survives_any_margin():
    rule = rules_of(Logistic())
    for y in (-1.0, 1.0):
        assert rule("value", y, 1e4 * y) == rule("derivative", y, 1e4 * y) == 0.0
        assert rule("value", y, -1e4 * y) == 1e4
        assert rule("derivative", y, -1e4 * y) == -y
        assert rule("curvature", y, 1e4) == 0.0
        # Far out, where 1 - sigmoid would be 0.
        assert math.isclose(rule("derivative", y, 50.0 * y), -y * math.exp(-50.0), rel_tol=1e-12)


@each
def test_they_pickle_and_copy_free_and_bound(loss):
    for thing in (loss, losses.bind(loss)):
        for twin in (pickle.loads(pickle.dumps(thing)), copy.deepcopy(thing)):
            assert type(twin) is type(thing)
            assert twin == thing


@pytest.mark.parametrize(
    ("loss", "kind", "word"),
    [
        (Huber(0.0), ValueError, "delta"),
        (Huber(-1.0), ValueError, "delta"),
        (Huber(math.nan), ValueError, "delta"),
        (Huber("wide"), TypeError, "delta"),
        (Huber(True), TypeError, "delta"),
        ("hinge", ValueError, "datafit"),
        (0.5, TypeError, "datafit"),
    ],
    ids=repr,
)
def test_a_wrong_loss_or_field_is_named_when_a_problem_is_posed(loss, kind, word):
    with pytest.raises(kind, match=f"^`{word}` "):
        Problem(np.eye(3) + 1.0, [1.0, 0.0, 2.0], datafit=loss)


def test_a_multinomial_loss_has_no_scalar_rules():
    assert rules.compiled_class(Multinomial) is None
    assert losses.CURVATURE[Multinomial] == 0.25
