"""The comparison with peers neither flatters us nor them."""

import argparse
import json
import time

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse.linalg
import scipy.special

from benchmarks import bench_bcd, bench_bilevel, bench_relu, paper_ot
from benchmarks.common import marginal_error, plan_from_potentials, seconds_if_certified
from benchmarks.peers import (
    bcd,
    bcd_kin,
    bcd_logistic,
    bcd_multinomial,
    bcd_path,
    common,
    completion,
    completion_implicit,
    completion_ratings,
)
from solvers import bilevel, datasets


class Halving:
    """Halves an error that its own rule believes to be `optimism` times smaller than it is."""

    cap = 8

    def __init__(self, optimism=1.0, floor=0.0, nap=0.0):
        self.optimism, self.floor, self.nap = optimism, floor, nap

    def threshold(self, tol):
        return tol

    def prepare(self, cap):
        """Nothing to compile."""

    def run(self, threshold, cap):
        error, count = 1.0, 0
        while error > threshold * self.optimism and count < cap:
            error, count = error / 2, count + 1
            time.sleep(self.nap)
        return max(error, self.floor), count

    def error(self, answer):
        return answer[0]

    def iterations(self, answer):
        return answer[1]


def test_an_optimistic_contender_is_tightened_until_it_is_certified():
    contender = Halving(optimism=50.0)
    tuned = common.tune(contender, 1e-6, seconds=1.0)
    assert tuned.certified
    assert contender.run(tuned.threshold, tuned.cap)[0] <= 1e-6
    # Not much tighter than needed, or the contender would be timed for work nobody asked for.
    assert 1e-7 < tuned.attempt.error <= 1e-6


def test_a_contender_that_cannot_reach_the_tolerance_is_shown_with_what_it_reached():
    tuned = common.tune(Halving(floor=3e-5), 1e-6, seconds=1.0)
    assert not tuned.certified
    assert tuned.attempt.error == 3e-5
    assert tuned.note == "stopped"


def test_a_contender_out_of_time_is_ended():
    start = time.perf_counter()
    tuned = common.tune(Halving(nap=0.05), 1e-12, seconds=0.2)
    assert not tuned.certified
    assert tuned.note == "time"
    assert time.perf_counter() - start < 2.0


def test_an_exception_of_a_peer_is_reported_not_raised():
    class Broken(Halving):
        def run(self, threshold, cap):
            raise RuntimeError("singular")

    tuned = common.tune(Broken(), 1e-6, seconds=1.0)
    assert not tuned.certified
    assert tuned.note == "RuntimeError: singular"


class Settling:
    """Halves an error at each iteration, down to a floor; every iteration costs the same."""

    def __init__(self, first=1, floor=0.0, nap=0.0):
        self.first, self.floor, self.nap = first, floor, nap
        self.counts = []

    def prepare(self, count):
        """Nothing to compile."""

    def run(self, _, count):
        time.sleep(self.nap * count)
        self.counts.append(count)
        return max(0.5**count, self.floor)

    def error(self, answer):
        return answer


@pytest.mark.parametrize("first", [1, 7, 10, 60])
def test_the_number_of_iterations_is_the_smallest_that_will_do(first):
    tuned = common.tune_count(Settling(first), 1e-3, seconds=10.0)
    assert tuned.certified
    # Ten halvings make less than a thousandth; one more is a tenth.
    assert 10 <= tuned.cap <= 11
    assert tuned.attempt.error == 0.5**tuned.cap


def test_a_contender_that_settles_above_the_tolerance_is_not_run_for_ever():
    contender = Settling(floor=3e-5)
    tuned = common.tune_count(contender, 1e-6, seconds=10.0)
    assert not tuned.certified
    assert tuned.note == "stopped"
    assert tuned.attempt.error == 3e-5
    assert max(contender.counts) < 200


def test_iterations_that_would_take_too_long_are_not_begun():
    contender = Settling(nap=0.01)
    tuned = common.tune_count(contender, 1e-30, seconds=0.2)
    assert tuned.note == "time"
    assert 10 < max(contender.counts) <= 20


def test_rounds_run_forwards_and_backwards_and_slow_runs_leave():
    order = []

    def named(name, nap):
        def run():
            order.append(name)
            time.sleep(nap)

        return run

    runs = {"a": named("a", 0.0), "b": named("b", 0.1)}
    times = common.interleave(runs, repeat=4, budget=0.19)
    assert order == ["a", "b", "b", "a", "a", "a"]
    assert [len(times[name]) for name in runs] == [4, 2]


def test_a_table_grows_in_several_runs_and_keeps_rows_we_lose(tmp_path):
    def entry(seconds, certified=True):
        note = "" if certified else "time"
        return {"certified": certified, "seconds": seconds, "error": 2e-5, "note": note}

    path = tmp_path / "table.json"
    names = ["case", "tol", "threads"]
    store = common.Store(path, names)
    store.add(("easy", 1e-6, 1), {"solvers": entry(0.2), "p fast": entry(0.1)})
    store = common.Store(path, names)
    store.add(("easy", 1e-6, 1), {"q": entry(0.8)})
    store.add(("hard", 1e-6, 1), {"solvers": entry(0.2), "q": entry(3.0, certified=False)})
    page = common.report(store, "Title", {"p": ["p fast", "p slow"], "q": ["q"]}, "solvers")
    lines = [line.replace(" ", "") for line in page.splitlines()]
    assert any(
        line.startswith("|easy|1e-06|1|0.200|0.100fast(**x0.50**)|0.800(x4.0)|") for line in lines
    )
    assert any(line.startswith("|hard|1e-06|1|0.200||>3.0at2e-05|") for line in lines)
    assert "|1e-06|1|q|x4.0|1of2|0|" in lines
    assert "|1e-06|1|thebestofall|x0.50|1of2|1|" in lines


def test_the_independent_check_sees_the_product_plan_and_rejects_a_wrong_one():
    problem = datasets.gaussian_mixture_transport(6, 5, rng=0)
    a, b = problem.a.copy(), problem.b
    a[2] = 0.0
    a /= a.sum()
    problem = problem._replace(a=a, C=np.zeros((6, 5)))
    f, g = np.zeros(6), np.zeros(5)
    f[2] = -np.inf  # without mass, a potential means nothing
    P = plan_from_potentials(f, g, problem, reg=0.1)
    np.testing.assert_allclose(P, np.outer(a, b), rtol=1e-14)
    assert marginal_error(P, a, b) < 1e-15
    assert marginal_error(1.5 * P, a, b) == pytest.approx(1.0)
    assert marginal_error(np.nan * P, a, b) == np.inf


def test_a_time_is_only_reported_for_a_certified_answer():
    assert seconds_if_certified(lambda: 1e-3, abs, 1e-2) >= 0
    assert np.isnan(seconds_if_certified(lambda: 1e-1, abs, 1e-2))
    assert np.isnan(seconds_if_certified(lambda: np.nan, abs, 1e-2))


# The paper's experiments ------------------------------------------------------------------------
def tiny_experiments():
    """Problems of the paper's kinds that take no time; one without published numbers."""
    grid = datasets.grid_transport(30)
    return {
        "assignment": paper_ot.Experiment(datasets.assignment(30, rng=0), 20, 2, (29, 56_199)),
        "densities": paper_ot.Experiment(grid, 10, 10, None),
    }


def test_the_paper_is_repeated_with_tables_numbers_and_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    options = argparse.Namespace(
        seconds=0.5, out=tmp_path / "results", figure=tmp_path / "paper.png", command="me"
    )
    paper_ot.run(options, tiny_experiments())
    rows = json.loads((options.out / "paper_ot.json").read_text())
    assert len(rows) == 2 * len(paper_ot.SHARPNESS) * len(paper_ot.METHODS)
    for row in rows:
        if row["method"] == "sinkhorn_newton":
            assert row["error"] <= 1e-10
            (_, loose), (_, tight) = (row["reached"][goal] for goal in ("1e-06", "1e-10"))
            assert loose <= tight <= row["seconds"]
        lengths = {len(series) for series in row["curve"].values()}
        assert lengths == {len(row["curve"]["nit"])}
        assert 0 < len(row["curve"]["nit"]) <= paper_ot.KEPT
    page = (options.out / "paper_ot.md").read_text()
    assert "| assignment | 29 | " in page
    assert page.count("| densities | ") == len(paper_ot.SHARPNESS) * len(paper_ot.METHODS)
    assert "`me` (" in page
    assert options.figure.read_bytes().startswith(b"\x89PNG")


def test_an_error_at_another_entropic_weight_does_not_count():
    history = {
        "nit": np.arange(1, 5),
        "seconds": np.arange(4.0),
        "marginal_error": np.array([1e-8, 1e-3, 1e-7, 1e-9]),
        "reg": np.array([1.0, 0.1, 0.1, 0.1]),
    }
    run = argparse.Namespace(reg=0.1, history=history)
    assert paper_ot.first_below(run, 1e-6) == (3, 2.0)
    assert paper_ot.first_below(run, 1e-12) is None


def test_the_experiments_are_those_of_the_paper():
    cases = paper_ot.experiments()
    assert cases["assignment"].problem.C.shape == (500, 500)
    assert cases["digits, l1"].problem.C.shape == (784, 784)
    assert [case.sweeps for case in cases.values()][:3] == [20, 20, 700]
    first, second = (cases[f"densities, W{k}"].problem for k in (1, 2))
    np.testing.assert_allclose(first.C**2, second.C, atol=1e-15)
    assert all(case.problem.C.max() == pytest.approx(1.0, rel=1e-4) for case in cases.values())


# Completion -------------------------------------------------------------------------------------
def test_the_error_of_a_planted_matrix_is_that_of_all_its_entries():
    problem = completion.Planted(*datasets.planted_matrix(30, 40, 3, 3.0, cond=5.0, rng=0))
    rng = np.random.default_rng(0)
    U, V = rng.standard_normal((30, 3)), rng.standard_normal((40, 3))
    s = np.array([2.0, 1.0, 0.5])
    X, Y = (U * s) @ V.T, problem.L @ problem.R.T
    everywhere = np.linalg.norm(X - Y) / np.linalg.norm(Y)
    known = np.linalg.norm((X - Y)[problem.rows, problem.cols]) / np.linalg.norm(problem.vals)
    assert problem.error(U, s, V) == pytest.approx(max(everywhere, known))
    assert problem.error(problem.L, np.ones(3), problem.R) < 1e-14
    assert problem.error(np.nan * U, s, V) == np.inf


@pytest.mark.parametrize("method", ["ConjugateGradient", "TrustRegions"])
def test_pymanopt_is_given_derivatives_of_its_cost(method):
    pymanopt = pytest.importorskip("pymanopt")
    problem = completion.Planted(*datasets.planted_matrix(30, 40, 3, 3.0, cond=5.0, rng=0))
    there = completion.Pymanopt(problem, method).there
    point = there.manifold.random_point()
    direction = there.manifold.random_tangent_vector(point)
    slope = there.manifold.inner_product(point, there.riemannian_gradient(point), direction)

    def cost(t):
        return there.cost(there.manifold.retraction(point, t * direction))

    assert slope == pytest.approx((cost(1e-6) - cost(-1e-6)) / 2e-6, rel=1e-5)
    del pymanopt


def test_the_objective_of_ratings_is_evaluated_as_it_is_written():
    known = datasets.ratings_like(30, 20, 100, rng=0)
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((30, 2)), rng.standard_normal((20, 2))
    value = completion_ratings.Ratings(known, known, 2, 3.0, False).fit(A, B)
    written = 1.5 * (np.sum(A**2) + np.sum(B**2))
    for i, j, rating in zip(*known.coords, known.data, strict=True):
        written += 0.5 * (known.data.mean() + A[i] @ B[j] - rating) ** 2
    assert value == pytest.approx(written)


def test_the_objective_of_implicit_feedback_is_evaluated_as_it_is_written():
    known = datasets.listening_counts(30, 25, 100, rng=0)
    rng = np.random.default_rng(0)
    A, B = rng.standard_normal((30, 2)), rng.standard_normal((25, 2))
    value = completion_implicit.Counts(known, 2, lam=3.0, alpha=0.7).fit(A, B)
    R = known.toarray()
    written = 0.5 * np.sum((1 + 0.7 * R) * ((R > 0) - A @ B.T) ** 2)
    written += 1.5 * (np.sum(A**2) + np.sum(B**2))
    assert value == pytest.approx(written)


# Block coordinate descent ------------------------------------------------------------------------
@pytest.mark.parametrize("sparse", [False, True])
def test_gaps_of_sparse_models_bound_how_far_they_are_from_the_best(sparse):
    make = datasets.text_like if sparse else datasets.autoregressive
    X, y, _ = make(60, 40, informative=5, classes=True, rng=0)
    dense = X.toarray() if sparse else X
    for kind, best in ((bcd.Squares, _lowest_squares), (bcd_logistic.Classes, _lowest_logistic)):
        problem = kind(X, y, 0.3 * kind.largest(X, y))
        w, value, unit = best(dense, y, problem.alpha)
        assert 0 <= problem.error(w) < 1e-9
        assert problem.error(np.zeros(40)) * unit >= unit - value
        moved = w + 0.01 * np.random.default_rng(0).standard_normal(40)
        assert 1e-6 < problem.error(moved) < 1.0
        assert problem.error(moved) == pytest.approx(problem.certified(moved), rel=1e-6)
        assert problem.error(np.nan * w) == np.inf
        # From the threshold on, zero is the answer.
        X0 = np.zeros(40)
        assert kind(X, y, (1 + 1e-9) * kind.largest(X, y)).error(X0) < 1e-8
        assert kind(X, y, 0.99 * kind.largest(X, y)).error(X0) > 1e-6


def _lowest_squares(X, y, alpha):
    return _lowest(
        lambda z: (z - y) / y.size, lambda z: 0.5 * np.mean((z - y) ** 2), 1.0, X, y, alpha
    )


def _lowest_logistic(X, y, alpha):
    def slope(z):
        return -y / (1 + np.exp(y * z)) / y.size

    return _lowest(slope, lambda z: np.logaddexp(0, -y * z).mean(), 0.25, X, y, alpha)


def _lowest(slope, value, curvature, X, y, alpha):
    """Proximal gradient steps, written out: coefficients, objective, objective at zero."""
    w, step = np.zeros(X.shape[1]), y.size / (curvature * np.linalg.norm(X, 2) ** 2)
    for _ in range(20000):
        v = w - step * (X.T @ slope(X @ w))
        w = np.sign(v) * np.maximum(np.abs(v) - step * alpha, 0.0)
    return w, value(X @ w) + alpha * np.abs(w).sum(), value(0.0 * y)


def test_a_path_is_as_good_as_its_worst_point():
    X, y, _ = datasets.autoregressive(50, 20, informative=5, rng=0)
    alphas = bcd.Squares.largest(X, y) * np.array([0.5, 0.1])
    good = [_lowest_squares(X, y, alpha)[0] for alpha in alphas]
    problem = bcd_path.Path(X, y, alphas)
    assert problem.error(good) < 1e-9
    assert problem.error([good[0], good[0]]) == bcd.Squares(X, y, alphas[1]).error(good[0]) > 1e-3


@pytest.mark.parametrize("penalty", bcd_multinomial.PENALTIES)
def test_several_classes_are_judged_by_a_gap(penalty):
    X, y = bcd_multinomial.planted(60, 20, 3)
    alpha = 0.3 * bcd_multinomial.largest(X, y, penalty)
    problem, W = bcd_multinomial.Multi(X, y, alpha, penalty), np.zeros((20, 3))
    if penalty == "l2":
        z = lambda w: X @ w.reshape(20, 3)  # noqa: E731
        W = scipy.optimize.minimize(
            lambda w: (
                (scipy.special.logsumexp(z(w), axis=1) - z(w)[np.arange(60), y]).mean()
                + 0.5 * alpha * w @ w
            ),
            W.ravel(),
            tol=1e-10,
        ).x.reshape(20, 3)
        assert problem.error(W) < 1e-7
    else:
        # From the largest weight on, nothing is the best answer.
        assert problem._replace(alpha=alpha / 0.3).error(W) < 1e-12
    worse = W + 0.1
    assert problem.error(worse) > 1e-3
    assert problem.error(worse) == pytest.approx(problem.certified(worse), rel=0.05)


def test_bounds_groups_and_graphs_are_judged_by_their_own_conditions():
    problem = bcd_kin.nonnegative(30, 8)
    best = scipy.optimize.nnls(*problem)[0]
    assert problem.error(best) < 1e-12
    assert problem.error(np.linalg.lstsq(*problem)[0]) > 1e-2  # some are negative
    assert problem.error(0.9 * best) > 1e-2
    group = bcd_kin.grouped(60, 40, 4, 0.999999)
    assert group.error(np.zeros(40)) < 1e-4
    alone = bcd_kin.Grouped(*bcd_kin.grouped(60, 40, 1, 0.3))
    w = _lowest_squares(alone.X, alone.y, alone.alpha)[0]
    assert alone.error(w) < 1e-9
    assert alone.error(w) == pytest.approx(bcd.Squares(*alone[:3]).error(w), abs=1e-12)
    graph = datasets.lattice_graph(9, labelled=10, rng=0)
    system = bcd_kin.harmonic(graph)
    x = scipy.sparse.linalg.spsolve(system.A, system.b)
    assert system.error(x) < 1e-12
    # Each value is the mean of its neighbours.
    full = graph.labels.copy()
    full[np.isnan(full)] = x
    mean = graph.W @ full / graph.W.sum(axis=1)
    np.testing.assert_allclose(mean[np.isnan(graph.labels)], x, atol=1e-10)


def test_the_suite_times_what_is_certified(monkeypatch):
    small = {"small": lambda: datasets.autoregressive(50, 20, informative=5, classes=True, rng=0)}
    monkeypatch.setattr(bcd, "CASES", small)
    monkeypatch.setattr(bcd_logistic, "CASES", small)
    few = {"small": lambda: bcd_multinomial.planted(60, 20, 3)}
    monkeypatch.setattr(bcd_multinomial, "CASES", few)
    monkeypatch.setattr(bcd_path, "EPS", {"small": 0.1})
    monkeypatch.setattr(bcd_path, "NUMBER", 5)
    monkeypatch.setattr(bcd_kin, "CASES", {"small": lambda: bcd_kin.nonnegative(100, 80)})
    for suite, place in (
        (bench_bcd.Squares(), ("small", 0.1)),
        (bench_bcd.Logistic(), ("small", 0.1)),
        (bench_bcd.Multinomial(), ("small", "row", 0.1)),
        (bench_bcd.Path(), ("small",)),
        (bench_bcd.Kin(), ("small",)),
    ):
        suite.setup(*place)
        assert suite.track_seconds_to_accuracy(*place) > 0
        assert suite.track_error(*place) <= 1e-8
    assert bench_bcd.Squares.track_passes is bench_bcd.Logistic.track_passes


def test_the_suite_times_networks_that_are_certified():
    X, y, *_ = datasets.planted_network(30, 3, 2, rng=0)
    suite = bench_relu.Tables()
    suite.over(X, y, 10, 1.0)
    assert suite.track_seconds_to_accuracy() > 0
    assert suite.track_gap() <= 1e-3
    suite.judge = lambda res: 1.0
    assert np.isnan(suite.track_seconds_to_accuracy())


def test_the_suite_times_bilevel_problems_that_are_certified():
    suite = bench_bilevel.PerFeature()
    suite.over(bench_bilevel.halves(40, 4, bilevel.problems.RidgeHPO))
    assert suite.track_seconds_to_accuracy() > 0
    assert suite.track_certificate() <= 1e-4
    assert suite.track_lower_gradients() > 0
    suite.judge = lambda res: 1.0
    assert np.isnan(suite.track_seconds_to_accuracy())


@pytest.mark.parametrize("peer", ["scikit-learn Lasso", "scikit-learn lars_path"])
def test_peers_of_sparse_models_are_asked_the_same_question(peer):
    X, y, _ = datasets.autoregressive(50, 20, informative=5, rng=0)
    problem = bcd.Squares(X, y, 0.2 * bcd.Squares.largest(X, y))
    tuned = common.tune(bcd.CONTENDERS[peer](problem), 1e-8, seconds=5.0)
    assert tuned.certified
