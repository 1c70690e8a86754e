"""What the tables of rules say, and what combinations they refuse."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import bcd, penalties
from solvers.bcd.rules import PARTITIONS, SELECTIONS, UPDATES, check_rules, is_default, is_smooth

DEFAULT = {"partition": "variable", "block_size": None, "selection": "gsq", "update": "auto"}


def glm(rng, datafit="quadratic", penalty=None, n=9, p=6):
    X, y = rng.standard_normal((n, p)), rng.standard_normal(n)
    targets = {"quadratic": y, "poisson": np.round(abs(y)), "huber": y, "logistic": np.sign(y)}
    return bcd.Problem(X, targets[datafit], datafit=datafit, penalty=penalty).model


def quadratic(form, **more):
    A = np.diag([3.0, 2.0, 2.0, 1.0]) - np.eye(4, k=1) - np.eye(4, k=-1)
    return bcd.Problem.quadratic(form(A + 2 * np.eye(4)), np.arange(4.0), **more).model


def check(problem, **given):
    return check_rules(problem, **{**DEFAULT, **given})


def message(problem, **given):
    with pytest.raises(ValueError, match=r"^`|^partition=") as error:
        check(problem, **given)
    return str(error.value)


@pytest.mark.parametrize("table", [PARTITIONS, SELECTIONS, UPDATES])
def test_every_rule_says_in_a_sentence_what_it_does(table):
    for rule in table.values():
        assert rule.about.endswith(".")
        assert len(rule.about) > 10


@pytest.mark.parametrize(
    ("name", "spelled", "meant"),
    [
        ("selection", "GS_S", "gs-s"),
        ("selection", "gss", "gs-s"),
        ("selection", "gs_r", "gs-r"),
        ("selection", "gsr", "gs-r"),
        ("selection", "gs_q", "gs-q"),
        ("selection", "gsq", "gsq"),
        ("selection", "GSL", "gsl"),
        ("partition", "Sort", "sort"),
        ("update", "prox-newton", "prox_newton"),
        ("update", "TwoMetric", "two_metric"),
    ],
)
def test_spellings_of_a_rule_mean_the_same(rng, name, spelled, meant):
    penalty = penalties.L1(0.1) if name == "update" else None
    assert check(glm(rng, penalty=penalty), **{name: spelled})[name] == meant


@pytest.mark.parametrize("name", ["partition", "selection", "update"])
def test_unknown_rules_are_refused_with_a_list_of_the_known(rng, name):
    table = {"partition": PARTITIONS, "selection": SELECTIONS, "update": UPDATES}[name]
    said = message(glm(rng), **{name: "nonsense"})
    assert said.startswith(f"`{name}` came as 'nonsense'")
    assert all(repr(rule) in said for rule in table)
    for wrong in (3, None):
        with pytest.raises(TypeError, match=f"^`{name}`"):
            check(glm(rng), **{name: wrong})


def test_block_sizes_have_a_default_and_limits(rng):
    problem = glm(rng, p=80)
    assert check(problem)["block_size"] == 50
    assert check(glm(rng, p=6))["block_size"] == 6
    assert check(problem, selection="nn")["block_size"] == 1
    assert check(problem, block_size=7)["block_size"] == 7
    for wrong, kind in ((0, ValueError), (81, ValueError), (2.0, TypeError), (True, TypeError)):
        with pytest.raises(kind, match=r"^`block_size`"):
            check(problem, block_size=wrong)
    assert message(problem, selection="nn", block_size=2).startswith("`block_size`")
    assert message(problem, partition=np.arange(80) % 3, block_size=2).startswith("`block_size`")


def test_rules_of_fixed_blocks_need_fixed_blocks(rng):
    problem = glm(rng)
    for name, rule in SELECTIONS.items():
        if not rule.variable:
            said = message(problem, selection=name)
            assert said.startswith(f"`selection` came as {name!r}")
            assert "'random'" in said
            assert check(problem, selection=name, partition="order")["selection"] == name
        if not rule.fixed:
            said = message(problem, selection=name, partition="sort")
            assert "partition='variable'" in said
            assert f"{name!r}," not in said.partition("expected")[2]


def test_the_search_for_neighbours_is_for_plain_losses(rng):
    assert check(glm(rng, "logistic"), selection="nn")["selection"] == "nn"
    for problem in (
        glm(rng, penalty=penalties.L1(0.1)),
        glm(rng, penalty=penalties.L2(0.1)),
        glm(rng, penalty=penalties.Box(0.0, 1.0)),
        quadratic(sp.csr_array),
    ):
        said = message(problem, selection="nn")
        assert said.startswith("`selection`")
        assert "'nn'" not in said.partition("expected")[2]


def test_without_a_bound_of_the_curvature_rules_that_need_it_are_refused(rng):
    problem = glm(rng, "poisson")
    # The choice is left to the solver: it may solve anything.
    assert check(problem)["selection"] == "gsq"
    for name, rule in SELECTIONS.items():
        given = {"selection": name, "block_size": 1, "update": "newton"}
        given["partition"] = "variable" if rule.variable else "order"
        if rule.lipschitz:
            said = message(problem, **given)
            assert "'gs'" in said
            assert f"{name!r}," not in said.partition("expected")[2]
        else:
            assert check(problem, **given)["selection"] == name
    for name, rule in PARTITIONS.items():
        if rule.lipschitz:
            assert "Poisson" in message(problem, partition=name, selection="random")
    for name in ("gradient", "matrix", "cubic"):
        said = message(problem, update=name, selection="gs")
        assert said.startswith("`update`")
        assert "'newton'" in said


def test_graph_partitions_need_a_sparse_quadratic(rng):
    for problem in (glm(rng), quadratic(np.asarray)):
        for name in ("redblack", "tree", "forest_variable"):
            said = message(problem, partition=name)
            assert said.startswith(f"`partition` came as {name!r}")
            assert "'order'" in said
    assert check(quadratic(sp.csr_array), partition="tree", update="tree")["block_size"] is None
    assert "`block_size`" in message(quadratic(sp.csr_array), partition="tree", block_size=2)


def test_the_tree_update_needs_forests_and_no_penalty():
    smooth = quadratic(sp.csr_array)
    for partition in ("order", "variable", [[0, 1], [2, 3]]):
        said = message(smooth, partition=partition, update="tree")
        assert said.startswith("`update` came as 'tree'")
        assert "'exact'" in said
    bounded = quadratic(sp.csr_array, bounds=(0.0, 1.0))
    said = message(bounded, partition="tree", update="tree")
    assert said.startswith("`update` came as 'tree'")
    assert "'two_metric'" in said


def test_updates_are_refused_where_they_make_no_sense(rng):
    lasso, mcp = (glm(rng, penalty=p) for p in (penalties.L1(0.1), penalties.MCP(0.1, 30.0)))
    assert "penalty" in message(lasso, update="cubic")
    assert "third" in message(glm(rng, "huber"), update="cubic")
    assert "MCP" in message(mcp, update="two_metric")
    assert check(lasso, update="two_metric")["update"] == "two_metric"


def test_newton_steps_need_a_penalty_with_second_derivatives(rng):
    from typing import NamedTuple

    class Plain(NamedTuple):
        alpha: float

    penalties.register(
        Plain,
        value=lambda penalty, w, j: penalty.alpha[j] * abs(w),
        prox=lambda penalty, v, step, j: v,
        distance=lambda penalty, w, g, j: abs(g),
    )
    problem = glm(rng, penalty=Plain(0.1))
    for name in ("newton", "prox_newton", "exact", "matrix"):
        said = message(problem, update=name)
        assert "Plain" in said
        assert "'gradient'" in said


def test_groups_are_their_own_blocks(rng):
    problem = glm(rng, penalty=penalties.GroupL2(0.1, [0, 0, 1, 1, 2, 2]))
    assert check(problem)["partition"] == "variable"
    assert "`partition`" in message(problem, selection="gs")


def test_smooth_problems_are_those_without_kinks_and_bounds(rng):
    assert is_smooth(glm(rng))
    assert is_smooth(glm(rng, penalty=penalties.L2(0.3)))
    assert is_smooth(quadratic(np.asarray))
    assert not is_smooth(quadratic(np.asarray, l1=0.1))
    assert not is_smooth(quadratic(np.asarray, bounds=(0, np.inf)))
    for penalty in (penalties.L1(0.1), penalties.MCP(0.1, 30.0), penalties.PositiveL1(0.0)):
        assert not is_smooth(glm(rng, penalty=penalty))


def test_defaults_are_told_from_choices():
    assert is_default(*DEFAULT.values())
    for name, other in (("partition", np.arange(3)), ("block_size", 50), ("selection", "gs")):
        assert not is_default(**{**DEFAULT, name: other})


def test_the_docs_of_minimize_name_every_rule():
    text = bcd.minimize.__doc__
    for table in (PARTITIONS, SELECTIONS, UPDATES):
        for name in table:
            assert f'"{name}"' in text, name
