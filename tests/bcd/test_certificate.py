import dataclasses
import math
import tracemalloc
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse as sp
from _cupy_standin import run_with_standin
from hypothesis import given
from hypothesis import strategies as st

import solvers
from solvers import bcd, losses, penalties
from tests.bcd import oracles

seeds = st.integers(0, 2**32 - 1)
LOSSES = tuple(oracles.LOSSES)
GAP, KKT = "relative duality gap", "relative KKT violation"


def targets(rng, loss, n, z):
    """Targets of a loss for predictions z."""
    if loss in ("quadratic", "huber"):
        return 2.0 * z + rng.normal(size=n) + 1.0
    if loss == "poisson":
        return rng.poisson(np.exp(0.5 * z)).astype(float)
    if loss == "multinomial":
        return np.r_[0, 1, 2, np.digitize(z[3:] + rng.normal(size=n - 3), (-0.5, 0.7))]
    return np.r_[-1.0, 1.0, np.sign(z[2:] + rng.normal(size=n - 2) + 0.3)]


# The public penalty, and the oracle's with the same meaning.
PENALTIES = {
    "l1": lambda a: (penalties.L1(a), oracles.elastic(a)),
    "elastic": lambda a: (penalties.ElasticNet(a, 0.6), oracles.elastic(0.6 * a, 0.4 * a)),
    "ridge": lambda a: (penalties.L2(a), oracles.elastic(0.0, a)),
    "positive": lambda a: (penalties.PositiveL1(a), oracles.elastic(a, 0.0, 0.0)),
    "elastic positive": lambda a: (
        penalties.ElasticBox(a, a, 0.0),
        oracles.elastic(a, a, 0.0),
    ),
    "l1 in a box": lambda a: (
        penalties.ElasticBox(a, 0.0, -0.2, 0.1),
        oracles.elastic(a, 0.0, -0.2, 0.1),
    ),
    "away from zero": lambda a: (
        penalties.ElasticBox(a, 0.0, 0.1, np.inf),
        oracles.elastic(a, 0.0, 0.1),
    ),
}


def pose(rng, loss, penalty, fit_intercept, strength):
    """A small problem: the library's and the oracle's."""
    n, p = int(rng.integers(8, 20)), int(rng.integers(1, 7))
    X = rng.normal(size=(n, p))
    y = targets(rng, loss, n, X @ rng.normal(size=p) / np.sqrt(p))
    s = rng.integers(1, 4, size=n).astype(float)
    public, own = PENALTIES[penalty](strength)
    problem = bcd.Problem(
        X, y, datafit=loss, penalty=public, sample_weight=s, fit_intercept=fit_intercept
    )
    return problem, oracles.Model(X, y, loss, own, s, fit_intercept)


# The duality gap ---------------------------------------------------------------------------------
@given(
    seeds,
    st.sampled_from(LOSSES),
    st.sampled_from(tuple(PENALTIES)),
    st.booleans(),
    st.floats(0.003, 0.5),
)
def test_the_gap_encloses_the_optimum_whatever_the_answer(seed, loss, penalty, free, strength):
    rng = np.random.default_rng(seed)
    problem, model = pose(rng, loss, penalty, free, strength)
    w_best, c_best, best = model.solve(3000)
    for spoil in (0.0, 1e-3, 1.0):
        w = model.penalty.prox(w_best + spoil * rng.normal(size=w_best.shape), 1e-300)
        w = np.where(rng.random(w.shape) < 0.3, w_best, w)
        c = c_best + spoil * rng.normal(size=c_best.shape) if free else c_best
        found = bcd.certify(problem, w, intercept=c)
        primal = model.objective(w, c)
        details = found.details
        assert found.kind == GAP
        assert details["primal"] == pytest.approx(primal, rel=1e-12)
        assert details["dual"] <= best + 1e-12 * abs(best) + 1e-14
        assert details["gap"] >= primal - best - 1e-12 * details["scale"]
        assert details["gap"] == details["primal"] - details["dual"]
        assert found.value >= max(details["gap"], 0.0) / details["scale"]
        if spoil == 0.0:
            assert found.value <= 1e-6


@pytest.mark.parametrize("seed", range(10))
def test_the_gap_vanishes_at_enumerated_optima(seed):
    rng = np.random.default_rng(seed)
    n, p = 9, 4
    X, y, s = rng.normal(size=(n, p)), rng.normal(size=n), rng.uniform(0.5, 2.0, size=n)
    a = rng.uniform(0.05, 0.8, size=p) * abs(X.T @ y).max() / n
    problem = bcd.Problem(X, y, penalty=penalties.L1(1.0), weights=a, sample_weight=s)
    w, best = oracles.enumerate_lasso(X, y, a, s / s.sum())
    found = bcd.certify(problem, w, tol=1e-13)
    assert found.holds
    assert found.details["primal"] == pytest.approx(best, rel=1e-13)
    assert found.details["gap"] >= -1e-14 * found.details["scale"]
    assert not bcd.certify(problem, w + 1e-3, tol=1e-13).holds


@given(
    seeds,
    st.sampled_from(["quadratic", "logistic", "multinomial"]),
    st.sampled_from([0.0, 0.4, 1.0, "rows"]),
    st.booleans(),
)
def test_the_gap_of_group_penalties_encloses_the_optimum(seed, loss, share, free):
    rng = np.random.default_rng(seed)
    n, p, alpha = 14, 6, rng.uniform(0.01, 0.3)
    X = rng.normal(size=(n, p))
    y = targets(rng, loss, n, X @ rng.normal(size=p) / 2)
    C = 3 if loss == "multinomial" else 1
    weights = rng.choice([0.5, 1.0, 2.0], size=p)
    if share == "rows":
        public, groups, l1, roots = penalties.RowL2(alpha), [[j] for j in range(p)], 0.0, 1.0
    else:
        groups = [[2, 0], [1, 3, 5], [4]]
        public = penalties.GroupL2(alpha, groups, share)
        l1 = alpha * share * np.repeat(weights, C)
        roots = np.array([np.sqrt(C * len(g)) for g in groups]) * (1.0 - share)
    l2 = alpha * roots * np.array([np.sqrt(np.mean(weights[g] ** 2)) for g in groups])
    cells = [[j * C + k for j in g for k in range(C)] for g in groups]
    model = oracles.Model(X, y, loss, oracles.grouped(cells, l2, l1), fit_intercept=free)
    problem = bcd.Problem(X, y, datafit=loss, penalty=public, weights=weights, fit_intercept=free)
    w, c, best = model.solve(3000)
    found = bcd.certify(problem, w, intercept=c if free else None)
    assert found.kind == GAP
    assert found.value <= 1e-6
    for scale in (1e-2, 1.0):
        bad = w + scale * rng.normal(size=w.shape) * (rng.random(w.shape) < 0.5)
        found = bcd.certify(problem, bad, intercept=c if free else None)
        primal = model.objective(bad, c)
        assert found.details["primal"] == pytest.approx(primal, rel=1e-12)
        assert found.details["gap"] >= primal - best - 1e-13
        # The distance to the subdifferential, by the group with the largest.
        g = model.smooth(bad, c)[1].ravel()
        sizes = []
        for cell, a in zip(cells, l2, strict=True):
            part, slope, b = bad.ravel()[cell], g[cell], np.broadcast_to(l1, g.shape)[cell]
            if not part.any():
                sizes.append(max(np.linalg.norm(oracles.soft(slope, b)) - a, 0.0))
                continue
            pulled = slope + b * np.sign(part) + a * part / np.linalg.norm(part)
            idle = np.maximum(abs(slope) - b, 0.0)
            sizes.append(np.linalg.norm(np.where(part == 0, idle, pulled)))
        assert found.details["kkt"] == pytest.approx(max(sizes), rel=1e-9, abs=1e-13)
        worst = next(k for k, cell in enumerate(cells) if found.details["worst"] in cell)
        assert sizes[worst] == pytest.approx(max(sizes), rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("penalty", ["l1", "elastic", "positive"])
def test_unpenalised_columns_beside_penalised_ones_keep_the_gap_of_least_squares(
    rng, penalty, fit_intercept
):
    n, p = 15, 6
    X, y = rng.normal(size=(n, p)), rng.normal(size=n) + 2.0
    X[:, 3] = X[:, 1]
    weights = np.array([1.0, 0.0, 2.0, 0.0, 0.5, 1.0])
    a = 0.1 * weights
    public, own = {
        "l1": (penalties.L1(0.1), oracles.elastic(a)),
        "elastic": (penalties.ElasticBox(0.1, [0, 0, 1, 0, 1, 1]), None),
        "positive": (
            penalties.ElasticBox(0.1, 0.0, [0, -np.inf, 0, -np.inf, 0, 0]),
            oracles.elastic(a, 0.0, np.where(weights > 0, 0.0, -np.inf)),
        ),
    }[penalty]
    own = own or oracles.elastic(a, np.array([0, 0, 1, 0, 1, 1]))
    model = oracles.Model(X, y, "quadratic", own, fit_intercept=fit_intercept)
    problem = bcd.Problem(X, y, penalty=public, weights=weights, fit_intercept=fit_intercept)
    w, c, best = model.solve()
    found = bcd.certify(problem, w, intercept=c if fit_intercept else None)
    assert found.kind == GAP
    assert found.value <= 1e-12
    for spoil in (1e-4, 0.3):
        bad = model.penalty.prox(w + spoil * rng.normal(size=p), 1e-300)
        found = bcd.certify(problem, bad, intercept=c)
        assert found.details["gap"] >= model.objective(bad, c) - best > 0
        assert found.details["dual"] <= best + 1e-14


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_unpenalised_members_of_groups_keep_the_gap_of_least_squares(rng, share):
    X, y = rng.normal(size=(15, 6)), rng.normal(size=15) + 2.0
    weights = np.array([1.0, 0.0, 0.0, 0.0, 0.5, 1.0])
    groups = [[0, 1], [2, 3], [4, 5]]
    penalty = penalties.GroupL2(0.1, groups, share)
    problem = bcd.Problem(X, y, penalty=penalty, weights=weights, fit_intercept=True)
    l2 = 0.1 * (1.0 - share) * np.sqrt([weights[g] @ weights[g] for g in groups])
    own = oracles.grouped(groups, l2, 0.1 * share * weights)
    model = oracles.Model(X, y, "quadratic", own, fit_intercept=True)
    w, c, best = model.solve()
    found = bcd.certify(problem, w, intercept=c)
    assert found.kind == GAP
    assert found.value <= 1e-12
    bad = w + 0.1 * rng.normal(size=6)
    assert bcd.certify(problem, bad).details["dual"] <= best + 1e-14
    labels = np.sign(y - 2.0)
    logistic = bcd.Problem(X, labels, datafit="logistic", penalty=penalty, weights=weights)
    assert bcd.certify(logistic, w).kind == KKT


def test_the_kind_says_where_no_dual_point_is_known(rng):
    X, y = rng.normal(size=(12, 4)), rng.normal(size=12)
    labels = np.sign(y)
    kinds = {
        "nothing": bcd.Problem(X, y),
        "alpha = 0": bcd.Problem(X, labels, datafit="logistic", penalty=penalties.L1(0.0)),
        "a free column": bcd.Problem(
            X, labels, datafit="logistic", penalty=penalties.L1(0.1), weights=[1, 0, 1, 1]
        ),
        "a bound alone": bcd.Problem(X, y, penalty=penalties.L1(0.1), weights=[1, 0, 1, 1]),
        "box": bcd.Problem(X, y, penalty=penalties.Box(0.0, 1.0)),
        "mcp": bcd.Problem(X, y, penalty=penalties.MCP(0.1, 50.0)),
        "nnls": bcd.Problem.least_squares(X, y, bounds=(0.0, np.inf)),
        "quadratic": bcd.Problem.quadratic(X.T @ X, X.T @ y, l1=0.1),
    }
    kinds = {name: bcd.certify(problem, np.zeros(4)).kind for name, problem in kinds.items()}
    assert kinds.pop("a bound alone") == GAP
    assert set(kinds.values()) == {KKT}
    positive = bcd.Problem(X, y, penalty=penalties.PositiveL1(0.1), weights=[1, 0, 1, 1])
    assert bcd.certify(positive, np.zeros(4)).kind == KKT


def test_infinite_weights_empty_supports_and_constant_targets_are_judged(rng):
    X, y = rng.normal(size=(12, 4)), rng.normal(size=12)
    for penalty in (penalties.L1(math.inf), penalties.ElasticNet(math.inf, 0.5)):
        problem = bcd.Problem(X, y, penalty=penalty, fit_intercept=True)
        zero = bcd.certify(problem, np.zeros(4), intercept=y.mean())
        assert zero.value <= 1e-14
        assert zero.details["primal"] == pytest.approx(np.var(y) / 2)
        assert bcd.certify(problem, np.array([0, 0, 1e-9, 0]), intercept=y.mean()).value == np.inf
    largest = abs(X.T @ y).max() / 12
    assert bcd.certify(bcd.Problem(X, y, penalty=penalties.L1(largest)), np.zeros(4)).holds
    smaller = bcd.Problem(X, y, penalty=penalties.L1(0.99 * largest))
    assert not bcd.certify(smaller, np.zeros(4)).holds
    nothing = bcd.certify(bcd.Problem(X, 0.0 * y, penalty=penalties.L1(0.1)), np.zeros(4))
    assert nothing.value == 0.0
    assert nothing.details["scale"] == 1.0
    constant = bcd.Problem(X, np.full(12, 0.1), penalty=penalties.L1(0.1), fit_intercept=True)
    found = bcd.certify(constant, np.zeros(4), intercept=0.1)
    assert found.holds
    assert found.details["scale"] == pytest.approx(np.finfo(float).eps * 0.005, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_intercept_is_judged_as_it_is_and_the_best_one_by_default(rng, loss):
    problem, model = pose(rng, loss, "l1", True, 0.1)
    w, c, best = model.solve()
    wrong = bcd.certify(problem, w, intercept=c + np.arange(c.size).reshape(c.shape) + 0.5)
    assert wrong.details["primal"] > best + 1e-3
    assert not wrong.holds
    right = bcd.certify(problem, w)
    assert right.holds
    assert right.details["primal"] == pytest.approx(best, rel=1e-12)
    # The scale: the best value without coefficients, above the least that the loss can be.
    zero = bcd.certify(problem, 0 * w)
    y = np.maximum(model.y, 1e-300)
    floor = model.s @ (y - y * np.log(y)) if loss == "poisson" else 0.0
    assert zero.details["primal"] - floor == pytest.approx(zero.details["scale"], rel=1e-12)
    null = dataclasses.replace(model, X=0 * model.X)
    assert zero.details["scale"] == pytest.approx(null.solve()[2] - floor, rel=1e-10)


@pytest.mark.parametrize("loss", LOSSES)
def test_far_predictions_and_lonely_classes_leave_a_valid_gap(rng, loss):
    problem, model = pose(rng, loss, "l1", True, 0.1)
    best = model.solve()[2]
    for scale in (30.0, 500.0):
        w = scale * rng.normal(size=model.shape)
        found = bcd.certify(problem, w)
        assert found.details["dual"] <= best * (1 + 1e-12)
        assert not found.holds
        assert not math.isnan(found.value)


# The KKT violation -------------------------------------------------------------------------------
@given(seeds, st.sampled_from(["huber", "logistic", "poisson", "squared_hinge", "multinomial"]))
def test_box_constrained_optima_are_stationary_and_other_points_are_not(seed, loss):
    rng = np.random.default_rng(seed)
    _, model = pose(rng, loss, "l1", False, 0.1)
    lo, hi = -rng.uniform(0.0, 0.3), rng.uniform(0.0, 0.3)
    box = bcd.Problem(
        model.X,
        model.y,
        datafit=loss,
        penalty=penalties.Box(lo, hi),
        sample_weight=model.s,
    )
    model = dataclasses.replace(model, penalty=oracles.elastic(0.0, 0.0, lo, hi))
    w, _, best = model.solve(3000)
    found = bcd.certify(box, w, tol=1e-6)
    assert found.kind == KKT
    assert found.holds
    moved = np.clip(w + 0.1 * rng.normal(size=w.shape), lo, hi)
    if model.objective(moved) > best + 1e-4:
        assert not bcd.certify(box, moved, tol=1e-6).holds
    assert bcd.certify(box, np.full(w.shape, hi + 0.1)).value == np.inf


@pytest.mark.parametrize("seed", range(8))
def test_enumerated_optima_of_quadratics_are_stationary(seed):
    rng = np.random.default_rng(seed)
    p = 5
    X, y = rng.normal(size=(8, p)), rng.normal(size=8)
    H, q = X.T @ X, X.T @ y
    lo, hi = -rng.uniform(0.0, 0.4, size=p), np.where(rng.random(p) < 0.3, np.inf, 0.3)
    w, _ = oracles.enumerate_box(H, q, lo, hi)
    for problem in (
        bcd.Problem.quadratic(H, q, bounds=(lo, hi)),
        bcd.Problem.quadratic(sp.csr_array(H), q, bounds=(lo, hi)),
        bcd.Problem.least_squares(X, y, bounds=(lo, hi)),
    ):
        found = bcd.certify(problem, w, tol=1e-12)
        assert found.holds
        assert not bcd.certify(problem, np.clip(w + 0.01, lo, hi), tol=1e-4).holds
        g = H @ w - q
        free = (w > lo) & (w < hi)
        assert found.details["kkt"] == pytest.approx(abs(g[free]).max(initial=0.0), abs=1e-12)
    w, _ = oracles.enumerate_faces(H, q, 0.3)
    assert bcd.certify(bcd.Problem.quadratic(H, q, l1=0.3), w, tol=1e-12).holds


# Values of the non-convex penalties, and proximal points by brute force.
CONCAVE = {
    "mcp": (
        lambda: penalties.MCP(0.4, 3.0),
        lambda w: np.where(abs(w) <= 1.2, 0.4 * abs(w) - w**2 / 6, 0.24),
    ),
    "scad": (
        lambda: penalties.SCAD(0.4, 3.7),
        lambda w: np.where(
            abs(w) <= 0.4,
            0.4 * abs(w),
            np.where(abs(w) <= 1.48, (2.96 * abs(w) - w**2 - 0.16) / 5.4, 0.08 * 4.7),
        ),
    ),
    "lq": (lambda: penalties.Lq(0.4, 0.5), lambda w: 0.4 * np.sqrt(abs(w))),
}


@pytest.mark.parametrize("name", CONCAVE)
def test_minimisers_over_a_grid_are_stationary_for_non_convex_penalties(rng, name):
    make, value = CONCAVE[name]
    # Orthonormal columns: the problem falls apart, and each part is solved by looking.
    Q = np.linalg.qr(rng.normal(size=(20, 6)))[0] * np.sqrt(20)
    y = Q @ np.array([3.0, 0.2, -1.3, 0.9, -0.6, 0.0])
    z = Q.T @ y / 20
    problem = bcd.Problem(Q, y, penalty=make())
    grid = np.linspace(-4, 4, 800001)
    w = np.array([grid[np.argmin(0.5 * (grid - t) ** 2 + value(grid))] for t in z])
    found = bcd.certify(problem, w, tol=1e-5)
    assert found.holds
    exact = 0.5 * np.sum((y - Q @ w) ** 2) / 20 + value(w).sum()
    assert found.details["primal"] == pytest.approx(exact, rel=1e-12)
    for j in range(6):
        bad = w.copy()
        bad[j] += 0.05
        found = bcd.certify(problem, bad, tol=1e-5)
        assert not found.holds
        assert found.details["worst"] == j
    if name == "lq":
        # Its slope at zero is infinite: zero passes only where it is the best of its line.
        assert not bcd.certify(problem, np.zeros(6), tol=1e-5).holds


class Cauchy(NamedTuple):
    alpha: float


def _cauchy_value(penalty, w, j):
    return penalty.alpha[j] * math.log1p(w * w)


def _cauchy_prox(penalty, v, step, j):
    return v


def _cauchy_distance(penalty, w, g, j):
    return abs(g + penalty.alpha[j] * 2.0 * w / (1.0 + w * w))


class Cosh(NamedTuple):
    width: float


def _cosh_value(loss, y, z):
    return loss.width * math.log(math.cosh((z - y) / loss.width))


def _cosh_slope(loss, y, z):
    return math.tanh((z - y) / loss.width)


def _cosh_bend(loss, y, z):
    return (1.0 - math.tanh((z - y) / loss.width) ** 2) / loss.width


def test_registered_losses_and_penalties_are_judged_by_their_own_rules(rng):
    penalties.register(Cauchy, value=_cauchy_value, prox=_cauchy_prox, distance=_cauchy_distance)
    losses.register(
        Cosh, value=_cosh_value, derivative=_cosh_slope, curvature=_cosh_bend, bound=1.0
    )
    X, y, weights = rng.normal(size=(9, 3)), rng.normal(size=9), np.array([1.0, 2.0, 0.5])
    problem = bcd.Problem(
        X, y, datafit=Cosh(1.5), penalty=Cauchy(0.2), weights=weights, fit_intercept=True
    )
    w, c = rng.normal(size=3), 0.3
    found = bcd.certify(problem, w, intercept=c)
    error = (X @ w + c - y) / 1.5
    primal = 1.5 * np.log(np.cosh(error)).mean() + 0.2 * weights @ np.log1p(w * w)
    distance = abs(X.T @ np.tanh(error) / 9 + 0.4 * weights * w / (1 + w * w))
    assert found.kind == KKT
    assert found.details["primal"] == pytest.approx(primal, rel=1e-13)
    assert found.details["kkt"] >= distance.max() * (1 - 1e-13)
    lone = dataclasses.replace(problem.model, fit_intercept=False)
    problem.model = lone
    found = bcd.certify(problem, w)
    distance = abs(X.T @ np.tanh((X @ w - y) / 1.5) / 9 + 0.4 * weights * w / (1 + w * w))
    assert found.details["kkt"] == pytest.approx(distance.max(), rel=1e-13)
    assert found.details["worst"] == distance.argmax()


# Data --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("small_blocks", [False, True])
@pytest.mark.parametrize("loss", ["quadratic", "multinomial"])
@pytest.mark.parametrize("penalty", [penalties.L1(0.05), penalties.Lq(0.05)])
def test_every_layout_and_precision_is_judged_alike(rng, loss, penalty, small_blocks, monkeypatch):
    if small_blocks:
        monkeypatch.setattr("solvers.bcd._certificate_data._BLOCK", 40)
    n, p = 30, 40
    X = (rng.normal(size=(n, p)) * (rng.random((n, p)) < 0.4)).astype(np.float32)
    y = rng.integers(0, 3, size=n).astype(np.float32)
    s = rng.integers(1, 3, size=n).astype(np.float32)
    for used in (0.0, 0.03, 0.2, 1.0):
        answer = None
        for dtype in (np.float32, np.float64):
            Z, t, u = X.astype(dtype), y.astype(dtype), s.astype(dtype)
            wide = np.zeros((n, 2 * p), dtype)
            wide[:, ::2] = Z
            for data in (Z, np.asfortranarray(Z), wide[:, ::2], sp.csc_array(Z), sp.csr_array(Z)):
                problem = bcd.Problem(data, t, datafit=loss, penalty=penalty, sample_weight=u)
                if answer is None:
                    shape = problem.model.shape
                    answer = rng.normal(size=shape) * (rng.random(p) < used).reshape(
                        p, *[1] * (len(shape) - 1)
                    )
                    want = bcd.certify(problem, answer)
                found = bcd.certify(problem, answer)
                for name, value in want.details.items():
                    # Weights of samples are rounded to float32.
                    assert found.details[name] == pytest.approx(value, rel=3e-6, abs=1e-9), name


def test_float32_data_are_judged_in_float64(rng):
    X, y = rng.normal(size=(40, 5)).astype(np.float32), rng.normal(size=40).astype(np.float32)
    wide = X.astype(np.float64), y.astype(np.float64)
    # 1/32 is exact in both.
    X, y, wide = X[:32], y[:32], tuple(part[:32] for part in wide)
    w = rng.normal(size=5)
    one = bcd.certify(bcd.Problem(X, y, penalty=penalties.L1(0.1)), w)
    two = bcd.certify(bcd.Problem(*wide, penalty=penalties.L1(0.1)), w)
    assert one.details["primal"] == pytest.approx(two.details["primal"], rel=1e-15)
    assert one.details["gap"] == pytest.approx(two.details["gap"], rel=1e-14)
    assert (one.tol, two.tol) == (1e-6, 1e-8)


@pytest.mark.parametrize("order", ["C", "F", "sparse"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_judging_takes_little_memory_beside_the_data(rng, dtype, order):
    if order == "sparse":
        X = sp.csc_array(rng.normal(size=(1500, 4000)).astype(dtype))
        y = X[:, [0]].toarray()[:, 0] + 1
    else:
        X = np.asarray(rng.normal(size=(1500, 4000)), dtype, order=order)
        y = X[:, 0] + 1
    problem = bcd.Problem(X, y, penalty=penalties.L1(0.1), fit_intercept=True)
    w = np.where(rng.random(4000) < 0.5, 0.01, 0.0)
    tracemalloc.start()
    bcd.certify(problem, w)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # X has 46 MiB in float64.
    assert peak < 24 * 2**20


def test_nothing_of_the_callers_is_modified_or_needs_to_be_writable(rng):
    X, y, w = rng.normal(size=(9, 3)), rng.normal(size=9), rng.normal(size=3)
    copies = [part.copy() for part in (X, y, w)]
    for part in (X, y, w):
        part.flags.writeable = False
    problem = bcd.Problem(X, y, penalty=penalties.L1(0.1), fit_intercept=True)
    found = bcd.certify(problem, w, intercept=1)
    assert bcd.certify(problem, w.tolist(), intercept=1.0).value == found.value
    for part, copy in zip((X, y, w), copies, strict=True):
        np.testing.assert_array_equal(part, copy)


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "name"),
    [
        (("problem",), {}, TypeError, "problem"),
        ((None, [1.0, 2.0]), {}, ValueError, "w"),
        ((None, np.ones((3, 1))), {}, ValueError, "w"),
        ((None, [1.0, np.nan, 0.0]), {}, ValueError, "w"),
        ((None, np.ones(3) * 1j), {}, TypeError, "w"),
        ((None, None), {}, TypeError, "w"),
        ((None, "w"), {}, TypeError, "w"),
        ((None, np.ones(3)), {"tol": -1.0}, ValueError, "tol"),
        ((None, np.ones(3)), {"tol": "small"}, TypeError, "tol"),
        ((None, np.ones(3)), {"intercept": 1.0}, ValueError, "intercept"),
        ((None, np.ones(3)), {"intercept": [0.0, 0.0]}, ValueError, "intercept"),
        ((None, np.ones(3)), {"intercept": np.inf}, ValueError, "intercept"),
        ((None, np.ones(3)), {"intercept": "c"}, TypeError, "intercept"),
    ],
)
def test_wrong_arguments_are_named(rng, arguments, options, kind, name):
    problem = bcd.Problem(rng.normal(size=(9, 3)), rng.normal(size=9), penalty=penalties.L1(0.1))
    arguments = [problem if part is None else part for part in arguments[:1]] + [*arguments[1:]]
    if len(arguments) == 1:
        arguments.append(np.zeros(3))
    with pytest.raises(kind, match=f"^`{name}`"):
        bcd.certify(*arguments, **options)


# Interior points ---------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_the_gap_is_never_below_what_an_interior_point_method_finds(seed):
    rng = np.random.default_rng(seed)
    loss, free = LOSSES[seed % len(LOSSES)], bool(seed % 2)
    problem, model = pose(rng, loss, "l1", free, 0.1)
    best = oracles.cvxpy_optimum(model, lambda cp, w: 0.1 * cp.sum(cp.abs(w)))
    for scale in (0.0, 0.1, 1.0):
        w = scale * rng.normal(size=model.shape)
        found = bcd.certify(problem, w)
        assert found.details["gap"] >= found.details["primal"] - best - 1e-8 * abs(best)
        assert found.details["gap"] >= -1e-12 * found.details["scale"]


def test_certificates_are_the_ones_that_results_carry(rng):
    X, y = rng.normal(size=(20, 5)), rng.normal(size=20)
    res = bcd.lasso(X, y, 0.2, fit_intercept=True)
    problem = bcd.Problem(X, y, penalty=penalties.L1(0.2), fit_intercept=True)
    again = bcd.certify(problem, res.x, intercept=res.intercept)
    assert isinstance(again, solvers.Certificate)
    assert again.value == res.certificate.value
    assert again.details == res.certificate.details


def test_the_judge_works_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "certificate_on_device.py")
