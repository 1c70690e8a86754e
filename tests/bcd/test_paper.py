"""What the paper claims of its rules, in small."""

import argparse
import json

import numpy as np
import pytest

from benchmarks import paper_bcd


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """All experiments on small problems, with their report and picture."""
    pytest.importorskip("matplotlib")
    place = tmp_path_factory.mktemp("paper")
    options = argparse.Namespace(
        n=80, p=600, sizes=(2, 5, 12), iterations=30, newton=8, side=10, labelled=12, points=150,
        exact=60, out=place, figure=place / "paper.png", command="me", only=[],
    )  # fmt: skip
    paper_bcd.run(options)
    assert options.figure.read_bytes().startswith(b"\x89PNG")
    page = (place / "paper_bcd.md").read_text()
    assert "## Figure 5/11: Matrix steps on A" in page
    assert "`me` (" in page
    return json.loads((place / "paper_bcd.json").read_text())


def ends(found, figure):
    """How far from the least value each run ended, by rules and size of block."""
    (result,) = (r for r in paper_bcd.figures(found) if r["figure"] == figure)
    return {(run["label"], run["size"]): run["gap"][-1] for run in result["runs"]}


def test_greedy_rules_need_fewer_updates_than_rules_that_look_at_nothing(found):
    for figure, blind in (("4/8", ("random", "cyclic", "lipschitz")), ("5/11", ("random",))):
        end = ends(found, figure)
        for size in (2, 5, 12):
            best = min(end["sort gs", size], end["sort gsl", size])
            assert best < min(end[f"sort {word}", size] for word in blind)
            assert end["variable gs", size] < end["variable random", size]
    end = ends(found, "7/13")
    for word in ("PG", "PN", "TMP"):
        for size in (2, 5, 12):
            assert end[f"{word}, gsq", size] < end[f"{word}, random", size]


def test_the_gradient_for_its_constant_beats_the_gradient_alone(found):
    end = ends(found, "4/8")
    for size in (2, 5, 12):
        assert end["sort gsl", size] <= 1.05 * end["sort gs", size]
        assert end["variable gsl", size] <= 1.05 * end["variable gs", size]


def test_variable_blocks_beat_fixed_ones_with_steps_by_a_matrix(found):
    end = ends(found, "5/11")
    for size in (2, 5, 12):
        assert end["variable gsq", size] < end["sort gsq", size]
        assert end["variable gsd", size] < end["sort gsl", size]


def test_steps_by_a_matrix_beat_gradient_steps_and_larger_blocks_smaller_ones(found):
    plain, matrix = ends(found, "4/8"), ends(found, "5/11")
    for size in (5, 12):
        assert matrix["variable gs", size] < plain["variable gs", size]
        assert matrix["sort gs", size] < plain["sort gs", size]
    for rules in ("variable gsq", "sort gsq", "variable gs"):
        assert matrix[rules, 12] < matrix[rules, 5] < matrix[rules, 2]


@pytest.mark.parametrize("figure", ["6a", "6b"])
def test_trees_beat_colours_and_colours_general_blocks(found, figure):
    end = {label: gap for (label, _), gap in ends(found, figure).items()}
    assert end["greedy tree, gs"] <= end["random tree"]
    assert end["fixed trees, gs"] < end["red-black, gs"] < end["general, gs"]
    assert end["general, gs"] < end["general, random"]


def test_blocks_larger_than_the_support_end_after_a_few_updates(found):
    counts = {(row["size"], row["selection"]): row for row in found["finite_termination"]}
    most = counts[12, "gsq"]
    assert most["support"] < 12
    assert most["updates"] <= 5
    assert most["violation"] <= 1e-11
    assert counts[12, "random"]["violation"] > 1e-8


def test_the_problems_are_the_authors(found):
    X, _, _ = paper_bcd.design(1000, 300)
    # An entry is kept with ten times log(n) / n.
    share = X.nnz / (1000 * 300)
    assert abs(share - 10 * np.log(1000) / 1000) < 0.002
    lattice, moons = paper_bcd.lattice(50, 100), paper_bcd.moons(2000, 100)
    assert lattice.problem.model.size == 2400
    assert moons.problem.model.size == 1900
    A = lattice.problem.model.A.tocoo()
    assert set(A.data[A.row != A.col]) == {-1e5}
