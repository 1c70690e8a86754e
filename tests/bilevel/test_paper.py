"""The papers' experiments in small, and what they claim."""

import argparse
import json

import numpy as np
import pytest
import threadpoolctl

from benchmarks import paper_bilevel
from benchmarks.paper_bilevel_constraints import Toy
from benchmarks.paper_bilevel_samples import Blocks, Growth
from tests.bilevel.oracles import differences

QUICK = ["law", "law_of_many", "toys"]


def ran(place, names):
    """Run experiments on small problems, with their report and picture."""
    pytest.importorskip("matplotlib")
    options = argparse.Namespace(
        **paper_bilevel.settings(True), out=place, figure=place / "paper.png", command="me",
        only=names,
    )  # fmt: skip
    # As its main program has it: small products are slow on many threads.
    with threadpoolctl.threadpool_limits(1):
        paper_bilevel.REPORT.run(options)
    assert options.figure.read_bytes().startswith(b"\x89PNG")
    assert "`me` (" in (place / "paper_bilevel.md").read_text()
    return json.loads((place / "paper_bilevel.json").read_text())


@pytest.fixture(scope="module")
def quickly(tmp_path_factory):
    return ran(tmp_path_factory.mktemp("quick"), QUICK)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    names = [step.__name__ for step in paper_bilevel.EXPERIMENTS]
    return ran(tmp_path_factory.mktemp("paper"), [name for name in names if name not in QUICK])


def column(table, name):
    """A column of a table by the first one's entries."""
    return {row[0]: row[table["header"].index(name)] for row in table["rows"]}


@pytest.mark.parametrize("experiment", ["law", "law_of_many"])
def test_errors_fall_like_sigma_and_like_its_square(quickly, experiment):
    (table,) = quickly[experiment]
    first, second = (
        [float(v) for v in column(table, f"double, order {k}").values()] for k in (1, 2)
    )
    assert first[0] / first[2] == pytest.approx(100.0, rel=0.3)
    assert 3e3 <= second[0] / second[2] <= 2e4
    for row in table["rows"]:
        for k in range(1, 9, 2):
            # Errors of single precision are of its rounding below 1e-3.
            assert float(row[k]) <= 10 * float(row[k + 1])


@pytest.mark.slow
def test_values_of_every_method_come_down_and_those_with_products_come_close(found):
    table = found["features"][0]
    for label, seconds, over in table["curves"]:
        assert over[-1] <= over[0], label
        assert seconds == sorted(seconds)
        if "implicit" in label:
            assert over[-1] < 0.1, label


@pytest.mark.slow
def test_one_penalty_per_feature_fits_the_validation_set_best(found):
    losses = {k: float(v) for k, v in column(found["features"][1], "validation").items()}
    assert min(losses, key=losses.get) == "one per feature, 40 steps"


@pytest.mark.slow
def test_cleaning_tells_wrong_labels_from_right_ones(found):
    (table,) = found["cleaning"]
    assert all(float(area) > 0.8 for area in column(table, "area").values())
    row = dict(zip(table["header"], table["rows"][0], strict=True))
    assert float(row["cleaned"]) > float(row["as they are"])


@pytest.mark.slow
def test_every_loop_lowers_the_value(found):
    (table,) = found["loops"]
    # The model of equal weights, for which log 10 is the loss of no model at all.
    assert all(float(psi) < np.log(10) for psi in column(table, "psi").values())
    assert "shared" in column(table, "psi")


@pytest.mark.parametrize("curved", [False, True])
def test_the_toy_is_solved_where_it_is_said_to_be(curved):
    toy, n = Toy(5, curved), 5

    def psi(s):
        """The value at x = s, by the lower level's conditions: all entries are equal."""
        w = s - 0.5 if curved else -1.0
        u = s - w
        y = np.r_[np.full(n, u), np.full(n, -1.0 - w if curved else -s - u)]
        assert abs(toy.lower(np.full(n, s), y)[2] + w).max() < 1e-12
        assert abs(n * s + y.sum()) < 1e-12
        return toy.upper(np.full(n, s), y)[0]

    assert psi(toy.x) == pytest.approx(toy.value)
    assert psi(toy.x) < min(psi(toy.x + 1e-3), psi(toy.x - 1e-3))


def test_a_larger_weight_of_the_gap_is_closer(quickly):
    (table,) = quickly["toys"]
    rows = [dict(zip(table["header"], row, strict=True)) for row in table["rows"]]
    for name in ("LLC", "strongly convex"):
        errors = [float(r["x"]) for r in rows if r["problem"] == name and "robust" in r["method"]]
        assert errors[-1] < 0.2 * errors[0]


@pytest.mark.slow
def test_costs_are_chosen_equally_well_with_and_without_slacks(found):
    (table,) = found["costs"]
    losses = {k: float(v) for k, v in column(table, "validation loss").items()}
    assert losses["penalty, without slacks"] <= 1.05 * losses["lvhba"]


@pytest.mark.parametrize("name", ["upper", "lower"])
def test_gradients_of_growing_levels_are_those_of_their_values(name):
    g = Growth(d=3, distance=1.0, samples=5)
    rng = np.random.default_rng(0)
    x, y, idx = rng.standard_normal(3), rng.standard_normal(3), np.array([1, 4])
    level = getattr(g, name)
    _, gx, gy = level(x, y, idx)
    np.testing.assert_allclose(gx, differences(lambda v: level(v, y, idx)[0], x), atol=1e-6)
    np.testing.assert_allclose(gy, differences(lambda v: level(x, v, idx)[0], y), atol=1e-4)


def test_the_value_of_blocks_is_that_of_each_one_alone():
    from scipy.optimize import minimize

    data = Blocks(3, 20, 4)
    x = np.array([-1.0, 0.0, 1.0, -2.0])
    total = 0.0
    for X, t, V, tv in zip(data.X, data.t, data.V, data.tv, strict=True):
        fit = minimize(
            lambda y: np.logaddexp(0, -t * (X @ y)).mean() + 0.5 * np.exp(x) @ y**2,  # noqa: B023
            np.zeros(4),
            tol=1e-10,
        )
        total += np.logaddexp(0, -tv * (V @ fit.x)).mean() / 3
    assert data.psi(x) == pytest.approx(total, rel=1e-6)
