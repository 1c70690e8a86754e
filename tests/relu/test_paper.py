"""The papers' experiments in small, and what they claim."""

import argparse
import json

import pytest
import threadpoolctl

from benchmarks import paper_relu


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """All experiments on small problems, with their report and picture."""
    pytest.importorskip("matplotlib")
    place = tmp_path_factory.mktemp("paper")
    sets = paper_relu.small_sets()
    assert len(sets) == 10
    options = argparse.Namespace(
        gaussian=[(30, 3, 6)], iterations=200, images=(40, 8, 5), long=40, gates=6, beta=1.0,
        sets={name: sets[name] for name in ("iris", "moons")}, paths=["iris"], betas=2,
        robust=["moons"], samples=30, descent=5, neurons=(8,), exact=[(8, 2)], sampled=(4,),
        quick=True,
        out=place, figure=place / "paper.png", command="me", only=[],
    )  # fmt: skip
    # As its main program has it: small products are slow on many threads.
    with threadpoolctl.threadpool_limits(1):
        paper_relu.REPORT.run(options)
    assert options.figure.read_bytes().startswith(b"\x89PNG")
    page = (place / "paper_relu.md").read_text()
    assert "## E2: linear steps" in page
    assert "`me` (" in page
    return json.loads((place / "paper_relu.json").read_text())


def column(table, name):
    """A column of a table by the first one's entries."""
    return {row[0]: row[table["header"].index(name)] for row in table["rows"]}


def test_every_iteration_comes_down_to_the_optimum_and_stays_above_it(found):
    (table,) = found["convergence"]
    for label, _, above in table["curves"]:
        assert 0.0 < above[-1] < above[0], label
    assert sum(value != "-" for value in column(table, "objective 1e-2").values()) >= 3


def test_equal_linear_systems_give_equal_networks_however_they_are_solved(found):
    (table,) = found["linear_steps"]
    feasible, bound = column(table, "feasible"), column(table, "bound")
    assert float(feasible["woodbury"]) == pytest.approx(
        float(feasible["conjugate gradients"]), rel=0.02
    )
    assert max(map(float, bound.values())) <= min(map(float, feasible.values()))


def test_small_sets_are_certified_by_both_methods(found):
    (table,) = found["gaps"]
    for name in ("admm 1e-4", "interior point 1e-4"):
        assert "-" not in column(table, name).values()


def test_every_answer_of_a_path_is_certified(found):
    (table,) = found["paths"]
    assert all(float(gap) <= 1e-3 for gap in column(table, "largest gap").values())


def test_no_attack_costs_more_than_robust_training_certifies(found):
    (table,) = found["attacks"]
    rows = [dict(zip(table["header"], row, strict=True)) for row in table["rows"]]
    assert {row["training"] for row in rows} > {"convex", "convex, robust", "Adam, PGD"}
    (robust,) = (row for row in rows if row["training"] == "convex, robust")
    assert float(robust["PGD-40, training loss"]) <= float(robust["worst case"]) * 1.01 + 0.01
    for row in rows:
        assert float(row["PGD-40"]) <= float(row["clean"])
