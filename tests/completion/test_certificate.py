import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from solvers import completion
from tests.completion.oracles import Problem, factors, ridge_als

seeds = st.integers(0, 2**32 - 1)
MODELS = ("plain", "weights", "weighted_lambda", "biases", "implicit", "frequency")
GAP, GRADIENT, RESIDUAL = "relative duality gap", "relative gradient norm", "relative residual"


def pose(rng, model, strength=0.3):
    """A small dense problem under a ridge, the caller's matrix and the options of `certify`."""
    m, n = rng.integers(5, 10, size=2)
    T = rng.normal(size=(m, 2)) @ rng.normal(size=(2, n)) + 0.3 * rng.normal(size=(m, n))
    seen = rng.random((m, n)) < 0.7
    seen[0, 0] = True
    W, D, E, lam_bias, options = seen * 1.0, np.ones(m), np.ones(n), None, {}
    M = np.where(seen, T, np.nan)
    if model == "weights":
        W = seen * rng.uniform(0.2, 3.0, size=(m, n))
        options["weights"] = W
    if model == "weighted_lambda":
        D, E = seen.sum(axis=1).astype(float), seen.sum(axis=0).astype(float)
        options["weighted_lambda"] = True
    if model == "biases":
        lam_bias = options["lam_bias"] = 0.7
        T = T + rng.normal(size=(m, 1)) + rng.normal(size=n)
        options["mu"] = 3.0
        M = np.where(seen, T + 3.0, np.nan)
    if model in ("implicit", "frequency"):
        M = rng.poisson(1.0, size=(m, n)) * rng.choice([1.0, 1.0, -1.0], size=(m, n))
        T, W = (M > 0) * 1.0, 1.0 + 2.0 * abs(M)
        options.update(implicit=True, alpha=2.0)
        if model == "frequency":
            degrees = (M != 0).sum(axis=1), (M != 0).sum(axis=0)
            D, E = ((d + 0.5 * size) ** 0.8 for d, size in zip(degrees, (n, m), strict=True))
            options.update(nu=0.8, alpha0=0.5)
        M = sp.csr_matrix(M)
    T = np.where(W > 0, T, 0.0)
    problem = Problem(T, W, D, E, 1.0, lam_bias)
    problem.lam = options["lam"] = strength * np.linalg.norm(problem.scaled(W * T, -0.5), 2)
    return problem, M, options


def biases(model, a, b):
    return {"row_bias": a, "col_bias": b} if model == "biases" else {}


# Under a ridge: the duality gap ----------------------------------------------------------------
@given(seeds, st.sampled_from(MODELS))
def test_primal_and_dual_value_enclose_the_optimum_whatever_the_answer(seed, model):
    rng = np.random.default_rng(seed)
    problem, M, options = pose(rng, model, rng.uniform(0.02, 1.3))
    m, n = problem.T.shape
    k = rng.integers(1, min(m, n) + 1)
    A, B = rng.normal(size=(m, k)), rng.uniform(0.01, 1.0) * rng.normal(size=(n, k))
    a, b = rng.normal(size=m), rng.normal(size=n)
    given = biases(model, a, b)
    found = completion.certify(M, A, np.ones(k), B, certificate=("gap",), **given, **options)
    exact = problem.primal(A @ B.T, *given.values())
    assert found.details["primal"] == pytest.approx(exact, rel=1e-10)
    Y = problem.W * problem.errors(A @ B.T, *given.values())
    best = problem.best_dual(Y)
    # No multiple of these errors proves more, and the optimum is not below what they prove.
    scale = max(exact, 1e-300)
    assert best - 1e-12 * scale <= found.details["dual"] + 1e-12 * scale
    assert found.details["dual"] <= best + 1e-3 * (exact - best) + 1e-12 * scale
    optimum = problem.primal(*problem.optimum(steps=400))
    assert found.details["dual"] <= optimum * (1 + 1e-12)
    assert found.value == found.details["duality_gap"]
    gap = found.details["primal"] - found.details["dual"]
    assert found.value == pytest.approx(gap / exact, rel=1e-6, abs=1e-12)
    norm = np.linalg.norm(problem.scaled(Y, -0.5), 2)
    assert found.details["spectral_ratio"] == pytest.approx(norm / problem.lam, rel=1e-9)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_optimum_passes_and_impostors_do_not(model, seed):
    rng = np.random.default_rng(seed)
    problem, M, options = pose(rng, model, strength=0.1)
    X, a, b = problem.optimum()
    U, s, V = factors(X)
    assert s.size >= 2
    given = biases(model, a, b)

    def certify(U=U, s=s, V=V, **changes):
        return completion.certify(M, U, s, V, tol=1e-6, **{**options, **given, **changes})

    found = certify()
    assert found.holds
    assert found.kind == GAP
    assert found.details["spectral_ratio"] == pytest.approx(1.0, abs=1e-5)
    impostors = {
        "scaled": certify(s=1.01 * s),
        "first direction dropped": certify(U[:, 1:], s[1:], V[:, 1:]),
        "last direction dropped": certify(U[:, :-1], s[:-1], V[:, :-1]),
        "last direction emptied": certify(s=np.r_[s[:-1], 0.0]),
        "nothing": certify(s=0 * s),
        "rows exchanged": certify(U[::-1]),
        "other ridge": certify(lam=1.05 * problem.lam),
    }
    if model == "biases":
        impostors["no biases"] = certify(row_bias=0 * a, col_bias=0 * b)
        impostors["biases moved"] = certify(row_bias=a + 0.05, col_bias=b - 0.05)
        impostors["other mean"] = certify(mu=3.1)
        impostors["other ridge of biases"] = certify(lam_bias=0.9)
    if model == "weights":
        impostors["no weights"] = certify(weights=None)
        impostors["weights squared"] = certify(weights=problem.W**2)
    if model == "weighted_lambda":
        impostors["plain ridge"] = certify(weighted_lambda=False)
    if model in ("implicit", "frequency"):
        impostors["other confidence"] = certify(alpha=1.9)
        impostors["other frequency"] = certify(nu=0.1, alpha0=0.1)
    assert {name for name, verdict in impostors.items() if verdict.holds} == set()
    for name, verdict in impostors.items():
        if name not in ("last direction dropped", "first direction dropped"):
            assert verdict.details["grad_norm"] > 1e-5, name


def test_surplus_columns_that_have_shrunk_do_not_count():
    rng = np.random.default_rng(3)
    problem, M, options = pose(rng, "plain")
    U, s, V = factors(problem.optimum()[0])
    more = [np.linalg.qr(np.c_[F, rng.normal(size=(F.shape[0], 2))])[0][:, -2:] for F in (U, V)]
    shrunk = np.r_[s, 1e-9 * s[0], 1e-30]
    wide = completion.certify(
        M, np.c_[U, more[0]], shrunk, np.c_[V, more[1]], tol=1e-7, **options
    )
    assert wide.holds
    assert wide.kind == GAP
    assert wide.details["grad_norm"] <= 1e-7
    shrunk[-2] = 1e-3 * s[0]
    wide = completion.certify(
        M, np.c_[U, more[0]], shrunk, np.c_[V, more[1]], tol=1e-7, **options
    )
    assert not wide.holds


def test_nothing_is_the_optimum_from_the_largest_ridge_on():
    problem, M, options = pose(np.random.default_rng(4), "weights")
    lam = np.linalg.norm(problem.W * problem.T, 2)
    m, n = problem.T.shape
    nothing = np.ones((m, 2)), np.zeros(2), np.ones((n, 2))
    assert completion.certify(M, *nothing, **{**options, "lam": 1.0001 * lam}).holds
    found = completion.certify(M, *nothing, **{**options, "lam": 0.99 * lam}, tol=1e-5)
    assert not found.holds


@pytest.mark.parametrize("model", ["plain", "weights", "weighted_lambda", "frequency"])
def test_a_stationary_answer_of_too_small_a_rank_is_not_called_global(model):
    rng = np.random.default_rng(5)
    problem, M, options = pose(rng, model, strength=0.05)
    best = problem.primal(*problem.optimum())
    A, B = ridge_als(problem, 1, rng)
    found = completion.certify(M, A, [1.0], B, tol=1e-6, **options)
    assert found.holds
    assert found.kind == GRADIENT
    assert found.details["spectral_ratio"] > 1.01
    exact = problem.primal(A @ B.T)
    assert exact > 1.01 * best
    assert found.details["duality_gap"] * exact >= exact - best
    asked = completion.certify(M, A, [1.0], B, tol=1e-6, certificate="gap", **options)
    assert not asked.holds
    assert asked.value * exact >= exact - best
    assert not completion.certify(M, 1.01 * A, [1.0], B, tol=1e-6, **options).holds


# Without a ridge ------------------------------------------------------------------------------
def exact_problem(rng, m=9, n=8, k=2):
    L, R = rng.normal(size=(m, k)), rng.normal(size=(n, k))
    X = L @ R.T
    seen = rng.random((m, n)) < 0.8
    return np.where(seen, X, np.nan), L, R, seen


def test_an_exact_fit_passes_by_its_residual(rng):
    M, L, R, seen = exact_problem(rng)
    found = completion.certify(M, L, np.ones(2), R, tol=1e-12)
    assert found.holds
    assert found.kind == RESIDUAL
    bent = L.copy()
    bent[0] *= 1.001
    found = completion.certify(M, bent, np.ones(2), R, tol=1e-8)
    assert not found.holds
    error = np.linalg.norm(np.where(seen, (bent - L) @ R.T, 0.0))
    size = np.linalg.norm(np.where(seen, L @ R.T, 0.0))
    assert found.details["relres"] == pytest.approx(error / size, rel=1e-10)
    assert found.details["rmse"] == pytest.approx(error / np.sqrt(seen.sum()), rel=1e-10)
    assert not completion.certify(M, L[:, :1], [1.0], R[:, :1]).holds
    assert not completion.certify(M, L, [1.0, 0.0], R).holds


def test_a_least_squares_fit_passes_by_its_gradient(rng):
    M = rng.normal(size=(9, 7))
    U, s, Vt = np.linalg.svd(M, full_matrices=False)
    found = completion.certify(M, U[:, :2], s[:2], Vt[:2].T, tol=1e-10)
    assert found.holds
    assert found.kind == GRADIENT
    assert found.details["relres"] > 0.1
    # A place left free that would lower the residual is no stationary point.
    assert not completion.certify(M, U[:, :3], np.r_[s[:2], 0.0], Vt[:3].T, tol=1e-3).holds
    assert not completion.certify(M, U[:, :2], 1.001 * s[:2], Vt[:2].T, tol=1e-6).holds


def test_a_weighted_least_squares_fit_is_judged_with_its_weights(rng):
    problem, M, options = pose(rng, "weights")
    problem.lam = 0.0
    A, B = ridge_als(problem, 1, rng)
    weights = options["weights"]
    found = completion.certify(M, A, [1.0], B, weights=weights, tol=1e-8)
    assert found.holds
    assert found.kind == GRADIENT
    assert not completion.certify(M, A, [1.0], B, tol=1e-4).holds


def test_a_fit_that_runs_off_to_infinity_is_not_stationary():
    # Rank 1 comes as close as one likes to these three entries, and never meets them.
    M = np.array([[np.nan, 1.0], [1.0, 0.0]])
    far = 1e3
    found = completion.certify(M, [[far], [1.0]], [1.0], [[1.0], [1 / far]], tol=1e-6)
    assert found.details["grad_norm"] <= 1e-6
    assert not found.holds
