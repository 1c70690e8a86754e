import copy
import pickle

import numpy as np
import pytest

import solvers
from solvers import constrained
from tests.constrained.oracles import circle, planted, quadratic


@pytest.fixture(scope="module")
def res():
    x, problem = circle()
    return constrained.minimize(x0=x + np.array([0.3, -0.2, 0.1]), **problem)


def test_parts_of_the_residual_are_those_of_the_certificate(res):
    details = res.certificate.details
    assert (
        res.kkt
        == res.certificate.value
        == max(res.stationarity, res.constr_violation, res.complementarity)
    )
    assert res.stationarity == details["stationarity"]
    assert res.constr_violation == details["violation"]
    assert res.kkt_floor == details["kkt_floor"] > 0


def test_the_certificate_is_that_of_the_answer_returned(res):
    x, problem = circle()
    again = constrained.certify(res.x, lam=res.lam, **problem)
    assert again.value == res.kkt
    np.testing.assert_allclose(res.x, x, atol=1e-8)
    assert res.second_order is True


def test_the_objective_and_its_gradient_are_those_at_the_answer(res):
    _, problem = circle()
    assert res.fun == problem["fun"](res.x)
    np.testing.assert_array_equal(res.jac, problem["jac"](res.x))


@pytest.mark.parametrize("bounds", [None, [(0.0, 2.0)] * 3])
def test_the_history_is_in_the_callers_unit(bounds):
    x, problem = circle()
    steep = {
        **problem,
        "fun": lambda x: 1e6 * problem["fun"](x),
        "jac": lambda x: 1e6 * problem["jac"](x),
        "hess": lambda x: 1e6 * problem["hess"](x),
    }
    res = constrained.minimize(x0=x + np.array([0.3, -0.2, 0.1]), bounds=bounds, **steep)
    assert res.success
    assert res.history["fun"][-1] == pytest.approx(res.fun, rel=1e-6)
    assert res.history["kkt"][-1] <= res.certificate.tol


def test_multipliers_come_in_one_array_and_for_each_constraint():
    x, lam, problem = quadratic(np.random.default_rng(0))
    A, b = problem["constraints"].A, problem["constraints"].lb
    cut = solvers.constrained.minimize(
        problem["fun"],
        np.zeros(len(x)),
        jac=problem["jac"],
        hess=problem["hess"],
        constraints=[
            type(problem["constraints"])(A[:1], b[:1], b[:1]),
            type(problem["constraints"])(A[1:], b[1:], b[1:]),
        ],
    )
    np.testing.assert_allclose(cut.lam, lam, atol=1e-7)
    assert [len(v) for v in cut.v] == [1, 2]
    np.testing.assert_array_equal(np.concatenate(cut.v), cut.lam)
    np.testing.assert_allclose(cut.x, x, atol=1e-7)


def test_bounds_have_multipliers_with_signs():
    x, _, bound, problem = planted(np.random.default_rng(3))
    hess = {"hess": lambda y: np.zeros((len(y), len(y)))}
    found = constrained.certify(x, **problem)
    assert found.holds
    res = constrained.minimize(x0=x + 1e-3, **problem, **hess, tol=1e-6)
    assert res.success
    np.testing.assert_allclose(res.bound_lam[:2], bound[:2], atol=1e-2)


def test_counts_and_times_are_there(res):
    assert min(res.nfev, res.njev, res.ncev, res.ncjev, res.nhev) >= 1
    assert 0 < res.callback_seconds < res.seconds + 1.0
    assert res.inner
    assert len(res.eta) == 2


def test_copies_and_prints(res):
    for twin in (copy.deepcopy(res), pickle.loads(pickle.dumps(res))):
        np.testing.assert_array_equal(twin.x, res.x)
        assert str(twin.certificate) == str(res.certificate)
        assert twin.certificate.holds
    told = res.summary()
    for word in ("KKT residual", res.inner, "eal", f"{res.nfev} fun", f"{res.ncjev} jac"):
        assert word in told
    assert "Exact Augmented" in res.cite()
    assert "certificate" in repr(res)


def test_convergence_is_drawn_against_seconds(res):
    pytest.importorskip("matplotlib").use("Agg")
    import matplotlib.pyplot as plt

    ax = res.plot()
    line = ax.get_lines()[0]
    assert len(line.get_xdata()) == len(res.history["kkt"])
    np.testing.assert_array_equal(line.get_ydata(), res.history["kkt"])
    plt.close(ax.figure)
