"""Every derivative that is wrong must be told from every one that is right."""

import numpy as np
import pytest

from solvers import bilevel
from tests.bilevel.oracles import Quadratic, Ridge

check = bilevel.check_oracle
RIDGE = Ridge(1)
X, Y = np.linspace(-1, 1, 7), np.cos(np.arange(7.0))


def oracle(**changes):
    """Return the ridge's lower level with everything that an oracle may have."""
    r = RIDGE

    def pair(x, y, z, idx):
        a, b = r.lower(x, y, idx), r.lower(x, z, idx)
        return a[0] - b[0], a[1], b[1], a[2], b[2]

    good = {
        "value_and_grads": r.lower,
        "hvp_yy": lambda x, y, v, idx: r.hessian(x) @ v,
        "hvp_xy": lambda x, y, v, idx: np.exp(x) * y * v,
        "prox_y": lambda v, t: v / (1 + t),
        "pair": pair,
        "n_samples": r.n,
    }
    return bilevel.Oracle(**{**good, **changes})


PARTS = {"grad_x", "grad_y", "hvp_yy", "hvp_xy", "pair", "samples", "prox_y"}


def test_right_derivatives_of_every_kind_pass():
    errors = check(oracle(), X, Y, rng=0)
    assert set(errors) == PARTS
    assert max(errors.values()) < 1e-9
    assert set(check(RIDGE.lower, X, Y, rng=0)) == {"grad_x", "grad_y"}


def spoiled(spoil):
    """Return the lower level with its answer passed on as `spoil` returns it."""
    return {"value_and_grads": lambda x, y, idx: spoil(len(idx), *RIDGE.lower(x, y, idx))}


def stale_pair(x, y, z, idx):
    at_y, at_z = RIDGE.lower(x, y, idx), RIDGE.lower(x, z, idx)
    return 0.0, at_y[1], at_z[1], at_y[2], at_z[2]


FAULTS = {
    "grad_x": spoiled(lambda n, value, gx, gy: (value, -gx, gy)),
    "grad_y": spoiled(lambda n, value, gx, gy: (value, gx, gy / 60)),
    "hvp_yy": {"hvp_yy": lambda x, y, v, idx: RIDGE.hessian(x) @ v - np.exp(x) * v},
    "hvp_xy": {"hvp_xy": lambda x, y, v, idx: -np.exp(x) * y * v},
    "pair": {"pair": stale_pair},
    "samples": spoiled(lambda n, value, gx, gy: (n * value, n * gx, n * gy)),
    "prox_y": {"prox_y": lambda v, t: (1 + t) * v},
}
# Products and pairs are compared with the gradients, right or wrong.
RELATED = {
    "grad_x": {"hvp_xy", "pair"},
    "grad_y": {"hvp_yy", "pair"},
    "samples": {"hvp_yy", "hvp_xy", "pair"},
}


@pytest.mark.parametrize("part", FAULTS)
def test_one_wrong_part_is_found_and_no_other_accused(part):
    errors = check(oracle(**FAULTS[part]), X, Y, rng=0)
    assert errors[part] > 0.1
    for other in PARTS - {part} - RELATED.get(part, set()):
        assert errors[other] < 1e-6


@pytest.mark.parametrize("entry", range(7))
def test_a_single_wrong_entry_is_found(entry):
    sign = np.ones(7)
    sign[entry] = -1

    def wrong(x, y):
        value, gx, gy = RIDGE.lower(x, y)
        return value, sign * gx, sign * gy

    errors = check(wrong, X, Y, rng=0)
    assert errors["grad_x"] > 1e-3
    assert errors["grad_y"] > 1e-3


def test_single_precision_and_nested_arrays_are_checked_in_kind():
    q = Quadratic(0, dtype=np.float32)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(4).astype(np.float32), rng.standard_normal(7).astype(np.float32)
    errors = check(q.oracle(), x, y, rng=0)
    assert max(errors.values()) < 1e-3

    def nested(x, y):
        assert x["a"].dtype == np.float32
        value, gx, gy = q.lower(np.r_[x["a"], x["b"]], y[0])
        return value, {"a": gx[:1], "b": -gx[1:]}, [gy]

    errors = check(nested, {"a": x[:1], "b": x[1:]}, [y], rng=0)
    assert errors["grad_x"] > 0.1
    assert errors["grad_y"] < 1e-3


def test_a_gradient_is_checked_also_where_it_vanishes_or_is_left_out():
    q = Quadratic(0)
    at_rest = check(q.lower, q.x, q.best_response(q.x), rng=0)
    assert at_rest["grad_y"] < 1e-3
    free = bilevel.Oracle(value=lambda x, y: y @ y, grad_y=lambda x, y: 2 * y)
    assert check(free, q.x, q.y, rng=0) == pytest.approx({"grad_x": 0, "grad_y": 0}, abs=1e-4)
    forgotten = bilevel.Oracle(value=lambda x, y: x @ x + y @ y, grad_y=lambda x, y: 2 * y)
    assert check(forgotten, q.x, q.y, rng=0)["grad_x"] == 1.0


def test_values_that_are_not_finite_count_as_infinitely_wrong():
    bad = lambda x, y: (np.nan, 0 * x, 0 * y)  # noqa: E731
    assert check(bad, X, Y, rng=0)["grad_y"] == np.inf


def test_directions_come_from_the_generator_alone():
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert check(RIDGE.lower, X, Y, rng=5) == check(RIDGE.lower, X, Y, rng=5)
    assert check(RIDGE.lower, X, Y, rng=5) != check(RIDGE.lower, X, Y, rng=6)
    assert np.array_equal(state, np.random.get_state()[1])  # noqa: NPY002


def test_the_number_of_directions_is_the_number_of_directions():
    calls = []

    def level(x, y):
        calls.append(1)
        return RIDGE.lower(x, y)

    check(level, X, Y, directions=1)
    first = len(calls)
    check(level, X, Y, directions=4)
    # Four values of each difference for each variable, and one look at the point itself.
    assert (first, len(calls) - first) == (9, 33)


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"oracle": 3}, TypeError, "`oracle`"),
        ({"x": np.array([np.nan])}, ValueError, "`x`"),
        ({"y": np.zeros(0)}, ValueError, "`y`"),
        ({"directions": 0}, ValueError, "`directions`"),
        ({"rng": "dice"}, TypeError, "`rng`"),
        ({"oracle": lambda x, y: (0.0, x[:2], y)}, ValueError, "`oracle` returned grad_x"),
    ],
)
def test_bad_input_names_the_argument(change, error, match):
    given = {"oracle": RIDGE.lower, "x": X, "y": Y, **change}
    with pytest.raises(error, match=match):
        check(**given)
