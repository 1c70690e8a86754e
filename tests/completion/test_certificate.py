from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from _cupy_standin import run_with_standin
from hypothesis import given
from hypothesis import strategies as st

import solvers
from solvers import completion
from tests.completion.oracles import Problem, factors, influence, nonnegative_als, ridge_als

seeds = st.integers(0, 2**32 - 1)
MODELS = ("plain", "weights", "weighted_lambda", "biases", "implicit", "frequency")
GAP, GRADIENT, RESIDUAL = "relative duality gap", "relative gradient norm", "relative residual"


def pose(rng, model, strength=0.3):
    """A small dense problem under a ridge, the caller's matrix and the options of `certify`."""
    m, n = rng.integers(5, 10, size=2)
    T = rng.normal(size=(m, 2)) @ rng.normal(size=(2, n)) + 0.3 * rng.normal(size=(m, n))
    seen = rng.random((m, n)) < 0.7
    seen[0, 0] = True
    if rng.random() < 0.3:
        seen[1], seen[:, 2] = False, False
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
            M[~seen] = 0.0
            T, W = (M > 0) * 1.0, 1.0 + 2.0 * abs(M)
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


def candidate(rng, problem):
    m, n = problem.T.shape
    k = int(rng.integers(1, min(m, n)))
    answer = rng.normal(size=(m, k)), rng.uniform(0.1, 1.0, size=k), rng.normal(size=(n, k))
    return answer, rng.normal(size=m), rng.normal(size=n)


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
    assert found.details["dual"] <= best + 1e-2 * (exact - best) + 1e-12 * scale
    optimum = problem.primal(*problem.optimum(steps=400))
    assert found.details["dual"] <= optimum * (1 + 1e-12)
    assert found.value == found.details["duality_gap"]
    gap = found.details["primal"] - found.details["dual"]
    assert found.value == pytest.approx(gap / exact, rel=1e-6, abs=1e-12)
    norm = np.linalg.norm(problem.scaled(Y, -0.5), 2)
    assert found.details["spectral_ratio"] == pytest.approx(norm / problem.lam, rel=1e-9)


@given(seeds, st.sampled_from(MODELS), st.booleans())
def test_the_gradient_is_that_along_matrices_of_the_answers_rank(seed, model, ridge):
    rng = np.random.default_rng(seed)
    problem, M, options = pose(rng, model)
    if not ridge:
        # Without a ridge nothing prescribes another norm than the plain one.
        problem.lam = options["lam"] = 0.0
        problem.D[:], problem.E[:] = 1.0, 1.0
    (U, s, V), a, b = candidate(rng, problem)
    given = biases(model, a, b)
    found = completion.certify(M, U, s, V, **given, **options)
    X = (U * s) @ V.T
    assert found.details["grad_norm"] == pytest.approx(problem.gradient(X, *given.values()))
    G = problem.errors(X, *given.values())
    relres = np.sqrt(np.sum(problem.W * G * G) / np.sum(problem.W * problem.T**2))
    assert found.details["relres"] == pytest.approx(relres)


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
    wide = completion.certify(M, np.c_[U, more[0]], shrunk, np.c_[V, more[1]], tol=1e-7, **options)
    assert wide.holds
    assert wide.kind == GAP
    assert wide.details["grad_norm"] <= 1e-7
    shrunk[-2] = 1e-3 * s[0]
    wide = completion.certify(M, np.c_[U, more[0]], shrunk, np.c_[V, more[1]], tol=1e-7, **options)
    assert not wide.holds


def test_nothing_is_the_optimum_from_the_largest_ridge_on():
    problem, M, options = pose(np.random.default_rng(4), "weights")
    lam = np.linalg.norm(problem.W * problem.T, 2)
    m, n = problem.T.shape
    nothing = np.ones((m, 2)), np.zeros(2), np.ones((n, 2))
    assert completion.certify(M, *nothing, **{**options, "lam": 1.0001 * lam}).holds
    found = completion.certify(M, *nothing, **{**options, "lam": 0.99 * lam}, tol=1e-5)
    assert not found.holds


def test_feedback_without_a_ridge_on_empty_rows_bears_no_dual_there(rng):
    R = rng.poisson(1.0, size=(7, 6)).astype(float)
    R[2] = R[:, 3] = 0.0
    degrees = [(R != 0).sum(axis=axis) for axis in (1, 0)]
    T, W = (R > 0) * 1.0, 1.0 + R
    problem = Problem(T, W, *(d**0.5 for d in degrees), 0.5)
    A, B = rng.normal(size=(7, 2)), rng.normal(size=(6, 2))
    options = {"implicit": True, "lam": 0.5, "nu": 0.5, "alpha0": 0.0, "certificate": "gap"}
    found = completion.certify(sp.csr_matrix(R), A, [1, 1], B, **options)
    assert found.details["primal"] == pytest.approx(problem.primal(A @ B.T), rel=1e-12)
    A[2] = B[3] = 0.0
    optimum = problem.primal(A @ B.T)
    expected = completion.certify(sp.csr_matrix(R), A, [1, 1], B, **options)
    assert found.details["dual"] == pytest.approx(expected.details["dual"], rel=1e-12)
    assert expected.details["dual"] <= optimum


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


# Non-negative factors and robust losses -------------------------------------------------------
def nonnegative_problem(rng, lam, k=3):
    X = rng.random((9, k)) @ rng.random((k, 8)) - 0.1
    seen = rng.random(X.shape) < 0.8
    T = np.where(seen, X + 0.2 * rng.normal(size=X.shape), 0.0)
    W = seen * rng.uniform(0.5, 2.0, size=X.shape)
    return Problem(T, W, np.ones(9), np.ones(8), lam), np.where(seen, T, np.nan)


@pytest.mark.parametrize("lam", [0.0, 0.1])
def test_nonnegative_factors_pass_where_no_entry_wants_to_move(rng, lam):
    problem, M = nonnegative_problem(rng, lam)
    A, B = nonnegative_als(problem, 3, rng)
    assert min((A == 0).sum(), (B == 0).sum()) >= 1
    # Without a ridge the oracle converges slowly.
    tol = 1e-6 if lam else 2e-4
    options = {"lam": lam, "weights": problem.W, "nonnegative": True, "tol": tol}
    found = completion.certify(M, A, np.ones(3), B, **options)
    assert found.holds
    assert found.kind == "KKT residual"
    # Scales of the columns are nobody's business.
    other = completion.certify(M, 2 * A, np.full(3, 0.1), 5 * B, **options)
    assert other.value == pytest.approx(found.value, abs=1e-12)
    live = A.copy()
    live[np.unravel_index(np.argmax(A), A.shape)] *= 1.01
    pushed = A.copy()
    pushed[np.unravel_index(np.argmin(A), A.shape)] = 0.05
    for spoiled in (live, pushed):
        assert not completion.certify(M, spoiled, np.ones(3), B, **options).holds
    # A pair of columns that is zero stands still, but there is something to gain.
    emptied = completion.certify(M, A, [1.0, 1.0, 0.0], B, **options)
    assert not emptied.holds
    nothing = completion.certify(M, 0 * A, [1.0, 1.0, 1.0], 0 * B, **options)
    assert not nothing.holds
    signed = completion.certify(M, *factors(A @ B.T), **{**options, "nonnegative": False})
    assert signed.kind != "KKT residual"


@given(seeds, st.sampled_from(["plain", "weights", "implicit", "frequency"]))
def test_the_kkt_residual_is_that_of_a_step_in_each_entry(seed, model):
    rng = np.random.default_rng(seed)
    problem, M, options = pose(rng, model)
    (U, s, V), *_ = candidate(rng, problem)
    U, V = abs(U), abs(V)
    found = completion.certify(M, U, s, V, nonnegative=True, **options)
    assert found.value == pytest.approx(problem.kkt(U * s, V), rel=1e-9)


def test_an_exact_nonnegative_fit_passes_by_its_residual(rng):
    A, B = rng.random((6, 2)), rng.random((5, 2))
    found = completion.certify(A @ B.T, A, [1.0, 1.0], B, nonnegative=True)
    assert found.holds
    assert found.kind == RESIDUAL


@pytest.mark.parametrize("loss", ["huber", "l1", "welsch", "tukey"])
def test_a_robust_fit_passes_by_its_median_or_its_slope(rng, loss):
    L, R = rng.normal(size=(12, 2)), rng.normal(size=(10, 2))
    M = L @ R.T
    out = rng.random(M.shape) < 0.2
    spoiled = M + np.where(out, 20.0, 0.0)
    found = completion.certify(spoiled, L, np.ones(2), R, loss=loss, delta=0.1, tol=1e-10)
    assert found.holds
    assert found.kind == "median residual"
    moved = L + 1e-3 * rng.normal(size=L.shape)
    found = completion.certify(spoiled, moved, np.ones(2), R, loss=loss, delta=0.1, tol=1e-10)
    assert not found.holds
    error = spoiled - moved @ R.T
    median = np.median(abs(error)) / np.sqrt(np.mean(spoiled**2))
    assert found.details["median_residual"] == pytest.approx(median, rel=1e-12)
    psi = influence(error, loss, 0.1)
    Q, P = np.linalg.qr(moved)[0], np.linalg.qr(R)[0]
    tangent = psi - (np.eye(12) - Q @ Q.T) @ psi @ (np.eye(10) - P @ P.T)
    expected = np.linalg.norm(tangent) / np.linalg.norm(psi)
    assert found.kind == GRADIENT
    assert found.details["grad_norm"] == pytest.approx(expected, rel=1e-5)
    noise = 1.4826 * np.median(abs(error))
    factor = {"huber": 1.345, "l1": 1e-3, "welsch": 2.985, "tukey": 4.685}[loss]
    known = completion.certify(spoiled, moved, np.ones(2), R, loss=loss, delta=factor * noise)
    same(completion.certify(spoiled, moved, np.ones(2), R, loss=loss), known)
    # With hardly more entries than unknowns half of them can be met by anybody.
    few = np.full(M.shape, np.nan)
    few[0], few[:, 0] = M[0], M[:, 0]
    found = completion.certify(few, L, np.ones(2), R, loss=loss, delta=0.1, tol=1e-10)
    assert found.kind == GRADIENT


def test_a_robust_fit_under_a_ridge_is_stationary_where_its_slope_meets_the_ridge(rng):
    M, lam, delta = 10.0 * rng.normal(size=(8, 6)), 3.0, 1.0
    L, R = rng.normal(size=(8, 1)), rng.normal(size=(6, 1))
    for _ in range(3000):
        W = np.minimum(1.0, delta / np.maximum(abs(M - L @ R.T), 1e-300))
        L = ((W * M) @ R) / (W @ R**2 + lam)
        R = ((W * M).T @ L) / (W.T @ L**2 + lam)
    options = {"lam": lam, "loss": "huber", "delta": delta, "tol": 1e-6}
    found = completion.certify(M, L, [1.0], R, **options)
    assert found.holds
    assert found.kind == GRADIENT
    assert not completion.certify(M, 1.001 * L, [1.0], R, **options).holds
    assert not completion.certify(M, L, [1.0], R, **{**options, "lam": 3.01}).holds


@pytest.mark.parametrize("loss", ["welsch", "tukey"])
def test_what_is_out_of_reach_of_every_entry_does_not_pass(rng, loss):
    M, far = rng.normal(size=(8, 7)), np.full((8, 1), 1e3)
    found = completion.certify(M, far, [1.0], np.ones((7, 1)), loss=loss, delta=1.0)
    assert found.details["grad_norm"] == 0.0
    assert found.details["inliers"] == 0.0
    assert not found.holds


# What must change nothing ---------------------------------------------------------------------
def same(found, expected, *, units=None, flipped=False, tol=1e-9):
    """Whether two certificates say the same, in other units or of the transpose."""
    swap = {"unidentified_rows": "unidentified_cols", "unidentified_cols": "unidentified_rows"}
    assert found.kind == expected.kind
    assert found.holds == expected.holds
    assert found.details.keys() == expected.details.keys()
    for name, value in expected.details.items():
        factor = (units or {}).get(name, 1.0)
        other = found.details[swap.get(name, name) if flipped else name]
        assert other == pytest.approx(factor * value, rel=tol, abs=1e-12 * factor)


@given(seeds, st.sampled_from(MODELS))
def test_neither_gauge_nor_order_nor_transposition_changes_what_is_found(seed, model):
    rng = np.random.default_rng(seed)
    problem, M, options = pose(rng, model)
    m, n = problem.T.shape
    (U, s, V), a, b = candidate(rng, problem)
    expected = completion.certify(M, U, s, V, **biases(model, a, b), **options)
    k = s.size
    G = rng.normal(size=(k, k)) + 3 * np.eye(k)
    turned = (U * s) @ G, np.ones(k), np.linalg.solve(G, V.T).T
    same(completion.certify(M, *turned, **biases(model, a, b), **options), expected)
    flipped = {**options}
    if "weights" in options:
        flipped["weights"] = options["weights"].T
    other = completion.certify(M.T, V, s, U, **biases(model, b, a), **flipped)
    same(other, expected, flipped=True)
    i, j = rng.permutation(m), rng.permutation(n)
    if "weights" in options:
        flipped["weights"] = options["weights"][i][:, j]
    mixed = completion.certify(
        M[i][:, j], U[i], s, V[j], **biases(model, a[i], b[j]), **{**flipped}
    )
    same(mixed, expected)


@given(seeds, st.sampled_from([*MODELS[:4], "huber", "l1", "tukey", "nonnegative"]))
def test_the_unit_of_the_values_changes_only_what_is_in_it(seed, model):
    rng = np.random.default_rng(seed)
    problem, M, options = pose(rng, model if model in MODELS else "plain")
    c = 10.0 ** rng.uniform(-140, 140)
    (U, s, V), a, b = candidate(rng, problem)
    scaled = {**options, "lam": c * options["lam"], "mu": c * options.get("mu", 0.0)}
    if model == "nonnegative":
        U, V = abs(U), abs(V)
        options["nonnegative"] = scaled["nonnegative"] = True
    elif model not in MODELS:
        options.update(loss=model, delta=0.5)
        scaled.update(loss=model, delta=0.5 * c)
        if model == "l1":
            # The loss has the unit of the nuclear norm.
            scaled["lam"] = options["lam"]
    expected = completion.certify(M, U, s, V, **biases(model, a, b), **options)
    found = completion.certify(c * M, U, c * s, V, **biases(model, c * a, c * b), **scaled)
    same(found, expected, units={"rmse": c, "primal": c * c, "dual": c * c})


def test_single_precision_answers_get_the_tolerance_that_they_can_reach(rng):
    M, L, R, _ = exact_problem(rng, 30, 20)
    U, s, V = (x.astype(np.float32) for x in factors(L @ R.T))
    found = completion.certify(M, U, s, V, tol=1e-9)
    assert found.holds
    floor = 8 * np.finfo(np.float32).eps * np.sqrt(2)
    assert found.tol == found.details["tol_floor"] == pytest.approx(floor)
    assert 0 < found.value <= 1e-6
    assert completion.certify(M, U, s, V, tol=1e-3).tol == 1e-3


# What the entries mean ------------------------------------------------------------------------
@pytest.mark.parametrize("how", ["mean", "sum", "last"])
def test_duplicates_are_dealt_with_as_the_option_says(rng, how):
    M, L, R, seen = exact_problem(rng)
    rows, cols = np.nonzero(seen)
    vals = M[seen]
    weights = rng.uniform(0.5, 2.0, size=vals.size)
    twice = rng.choice(vals.size, 12, replace=False)
    again = {"mean": vals[twice] + 1.0, "sum": np.full(12, 0.25), "last": vals[twice]}[how]
    first = vals.copy()
    first[twice] = {
        "mean": vals[twice] - weights[twice] / 3.0,
        "sum": vals[twice] - 0.25,
        "last": 99.0,
    }[how]
    data = tuple(
        np.r_[new, old] if how != "last" else np.r_[old, new]
        for old, new in ((rows, rows[twice]), (cols, cols[twice]), (first, again))
    )
    # A mean of v - w / 3 with weight 3 and v + 1 with weight w is v.
    heavy = np.where(np.isin(np.arange(vals.size), twice), 3.0, weights)
    both = np.r_[weights[twice], heavy] if how != "last" else np.r_[heavy, weights[twice]]
    plain = weights.copy()
    plain[twice] = {"mean": 3.0 + weights[twice], "sum": 3.0, "last": weights[twice]}[how]
    options = {"shape": M.shape, "tol": 1e-12}
    found = completion.certify(
        data, 1.01 * L, np.ones(2), R, weights=both, duplicates=how, **options
    )
    same(
        found,
        completion.certify((rows, cols, vals), 1.01 * L, [1, 1], R, weights=plain, **options),
    )
    with pytest.raises(ValueError, match=r"`M` holds the entry \(\d+, \d+\) twice"):
        completion.certify(data, L, np.ones(2), R, **options)


def test_duplicates_without_weights_count_as_often_as_they_occur(rng):
    M, L, R, seen = exact_problem(rng)
    rows, cols = np.nonzero(seen)
    data = tuple(np.r_[x, x[:5]] for x in (rows, cols, M[seen]))
    weights = np.where(np.arange(rows.size) < 5, 2.0, 1.0)
    found = completion.certify(
        data, 1.1 * L, np.ones(2), R, shape=M.shape, duplicates="mean", lam=1.0
    )
    plain = (rows, cols, M[seen])
    expected = completion.certify(
        plain, 1.1 * L, np.ones(2), R, shape=M.shape, weights=weights, lam=1.0
    )
    same(found, expected)


def test_duplicate_feedback_adds_up_before_it_becomes_confidence(rng):
    R = rng.poisson(1.0, size=(6, 5)).astype(float)
    rows, cols = np.nonzero(R)
    half = np.r_[rows, rows], np.r_[cols, cols], np.tile(R[rows, cols] / 2, 2)
    A, B = rng.normal(size=(6, 2)), rng.normal(size=(5, 2))
    options = {"implicit": True, "alpha": 3.0, "lam": 0.5}
    found = completion.certify(half, A, [1, 1], B, shape=R.shape, duplicates="sum", **options)
    same(found, completion.certify(sp.csr_matrix(R), A, [1, 1], B, **options))


def test_entries_of_weight_zero_are_as_good_as_missing(rng):
    problem, M, options = pose(rng, "weights")
    options["weighted_lambda"] = True
    (U, s, V), *_ = candidate(rng, problem)
    expected = completion.certify(M, U, s, V, **options)
    same(completion.certify(np.where(problem.W > 0, M, 7.0), U, s, V, **options), expected)


def test_stored_zeros_are_observed(rng):
    M, L, R, seen = exact_problem(rng)
    M[2, seen[2]] = 0.0
    L[2] = 0.0
    rows, cols = np.nonzero(seen)
    stored = sp.coo_matrix((M[seen], (rows, cols)), shape=M.shape)
    found = completion.certify(stored, L, np.ones(2), R)
    assert found.holds
    same(found, completion.certify(M, L, np.ones(2), R))
    L[2] = 1.0
    assert not completion.certify(stored, L, np.ones(2), R).holds


@pytest.mark.parametrize("model", ["plain", "biases", "weights", "implicit"])
def test_held_out_entries_are_scored_and_left_out(rng, model):
    problem, M, options = pose(rng, model)
    (U, s, V), a, b = candidate(rng, problem)
    given = biases(model, a, b)
    if model == "implicit":
        rows, cols = M.nonzero()
        vals = M.data
        targets = (vals > 0) * 1.0
    else:
        rows, cols = np.nonzero(~np.isnan(M))
        vals = M[rows, cols]
        targets = vals - options.get("mu", 0.0)
    weights = options.pop("weights", None)
    weights = None if weights is None else weights[rows, cols]
    held = np.array([3, 0, 11])
    rest = np.setdiff1d(np.arange(rows.size), held)
    found = completion.certify(
        (rows, cols, vals),
        U,
        s,
        V,
        shape=problem.T.shape,
        weights=weights,
        holdout=held,
        **given,
        **options,
    )
    estimate = (U * s) @ V.T
    if given:
        estimate += a[:, None] + b
    error = estimate[rows, cols][held] - targets[held]
    assert found.details.pop("rmse_holdout") == pytest.approx(np.sqrt(np.mean(error**2)))
    weights = None if weights is None else weights[rest]
    data = rows[rest], cols[rest], vals[rest]
    same(
        found,
        completion.certify(
            data, U, s, V, shape=problem.T.shape, weights=weights, **given, **options
        ),
    )


def test_one_bias_is_enough(rng):
    problem, M, options = pose(rng, "biases")
    (U, s, V), a, b = candidate(rng, problem)
    expected = completion.certify(M, U, s, V, row_bias=a, col_bias=0 * b, **options)
    same(completion.certify(M, U, s, V, row_bias=a, **options), expected)
    flipped = completion.certify(M.T, V, s, U, col_bias=a, **options)
    same(flipped, expected, flipped=True)


def test_a_single_entry_is_judged_too():
    found = completion.certify([[3.0]], [[1.0]], [3.0], [[1.0]])
    assert found.holds
    assert found.details["relres"] == 0.0
    assert completion.certify([[0.0]], [[1.0]], [0.0], [[1.0]]).holds
    found = completion.certify([[3.0]], [[1.0]], [2.0], [[1.0]], lam=1.0)
    assert found.holds
    assert found.details["primal"] == pytest.approx(2.5)
    assert not completion.certify([[3.0]], [[1.0]], [2.1], [[1.0]], lam=1.0).holds
    assert completion.certify([[0.0]], [[1.0]], [0.0], [[1.0]], lam=1.0).value == 0.0


def test_all_forms_of_the_data_are_judged_alike(rng):
    M, L, R, seen = exact_problem(rng)
    rows, cols = np.nonzero(seen)
    mixed = rng.permutation(rows.size)
    forms = (
        np.ma.masked_invalid(M),
        sp.csr_array(sp.coo_array((M[seen], (rows, cols)), shape=M.shape)),
        sp.csc_matrix(sp.coo_matrix((M[seen], (rows, cols)), shape=M.shape)),
        np.asfortranarray(M),
    )
    answer = 1.1 * L, np.ones(2), R
    expected = completion.certify(M, *answer, lam=1.0)
    for form in forms:
        same(completion.certify(form, *answer, lam=1.0), expected)
    data = rows[mixed], cols[mixed], M[seen][mixed]
    same(completion.certify(data, *answer, shape=M.shape, lam=1.0), expected)


# Arguments -------------------------------------------------------------------------------------
GOOD = {"M": np.eye(3), "U": np.eye(3, 2), "s": np.ones(2), "V": np.eye(3, 2)}
REFUSED = [
    ("U", np.ones((4, 2)), ValueError),
    ("U", np.ones(3), ValueError),
    ("U", np.full((3, 2), np.nan), ValueError),
    ("U", np.ones((3, 2), complex), TypeError),
    ("U", np.ones((3, 0)), ValueError),
    ("s", np.ones(3), ValueError),
    ("s", np.array([1.0, -1.0]), ValueError),
    ("s", np.array([1.0, np.inf]), ValueError),
    ("V", np.ones((3, 3)), ValueError),
    ("V", "factors", TypeError),
    ("row_bias", np.ones(2), ValueError),
    ("col_bias", np.ones(4), ValueError),
    ("lam", -1.0, ValueError),
    ("lam", "0.1", TypeError),
    ("lam_bias", -1.0, ValueError),
    ("mu", np.nan, ValueError),
    ("mu", None, TypeError),
    ("weighted_lambda", 1, TypeError),
    ("nonnegative", "yes", TypeError),
    ("implicit", 0, TypeError),
    ("alpha", 0.0, ValueError),
    ("nu", -0.5, ValueError),
    ("alpha0", -0.5, ValueError),
    ("loss", "log", ValueError),
    ("loss", 3, TypeError),
    ("delta", -1.0, ValueError),
    ("duplicates", "first", ValueError),
    ("holdout", [9], ValueError),
    ("holdout", [-1], ValueError),
    ("holdout", [0.5], TypeError),
    ("certificate", ("kkt",), ValueError),
    ("certificate", 3, TypeError),
    ("tol", 0.0, ValueError),
    ("tol", None, TypeError),
    ("weights", -np.ones((3, 3)), ValueError),
]


@pytest.mark.parametrize(("name", "value", "error"), REFUSED)
def test_what_cannot_be_judged_is_refused_by_name(name, value, error):
    with pytest.raises(error, match=f"^`{name}`"):
        completion.certify(**{**GOOD, name: value})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("row_bias", {"implicit": True, "row_bias": np.ones(3)}),
        ("mu", {"implicit": True, "mu": 1.0}),
        ("weights", {"implicit": True, "weights": np.ones((3, 3))}),
        ("weighted_lambda", {"implicit": True, "weighted_lambda": True}),
        ("loss", {"implicit": True, "loss": "huber", "delta": 1.0}),
        ("loss", {"nonnegative": True, "loss": "huber", "delta": 1.0}),
        ("row_bias", {"nonnegative": True, "row_bias": np.ones(3)}),
        ("nu", {"weighted_lambda": True, "nu": 0.5}),
        ("certificate", {"certificate": ("gap",)}),
        ("certificate", {"certificate": "gap", "lam": 1.0, "loss": "huber", "delta": 1.0}),
        ("certificate", {"certificate": ["gap"], "lam": 1.0, "nonnegative": True}),
        (
            "certificate",
            {"certificate": "gap", "lam": 1.0, "lam_bias": 0.0, "row_bias": [0, 0, 0]},
        ),
        ("U", {"nonnegative": True, "U": -np.eye(3, 2)}),
        ("weights", {"weights": np.zeros((3, 3))}),
        ("holdout", {"holdout": np.arange(9)}),
    ],
)
def test_options_that_do_not_go_together_are_refused(name, options):
    with pytest.raises(ValueError, match=f"^`{name}`"):
        completion.certify(**{**GOOD, **options})


def test_nothing_of_the_callers_is_modified(rng):
    problem, M, options = pose(rng, "weights")
    (U, s, V), *_ = candidate(rng, problem)
    held = np.array([1, 2])
    arrays = [M, U, s, V, options["weights"], held]
    before = [x.copy() for x in arrays]
    for x in arrays:
        x.setflags(write=False)
    completion.certify(M, U, s, V, holdout=held, **options)
    for x, y in zip(arrays, before, strict=True):
        assert np.array_equal(x, y, equal_nan=True)


def test_a_solver_is_not_asked_for_a_gap_that_does_not_exist():
    with pytest.raises(ValueError, match=r"^`certificate` came as \('gap',\) with lam=0"):
        completion.alternating_minimization(np.eye(3), 1, certificate=("gap",))


def test_values_whose_squares_overflow_are_judged_all_the_same(rng):
    M, L, R, _ = exact_problem(rng)
    for c in (1e-200, 1e200):
        found = completion.certify(c * M, L, np.full(2, c), R, tol=1e-12)
        assert found.holds
        found = completion.certify(c * M, L, np.full(2, 1.1 * c), R, tol=1e-12)
        assert found.details["relres"] == pytest.approx(0.1)
        assert found.details["rmse"] == pytest.approx(
            c * completion.certify(M, L, np.full(2, 1.1), R).details["rmse"]
        )


def test_the_judge_works_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "certificate_on_device.py")


@pytest.mark.parametrize(
    ("lam", "rank", "said"),
    [
        (0.0, 1, "stationary for rank 1, which proves no recovery: the relative residual is 0."),
        (0.3, 1, "stationary for rank 1, not shown to be global: the relative duality gap is 0."),
        (0.3, 7, "relative duality gap"),
    ],
)
def test_the_message_says_what_the_certificate_proves(rng, lam, rank, said):
    M = np.where(rng.random((8, 7)) < 0.8, rng.normal(size=(8, 7)) + 3.0, np.nan)
    res = completion.alternating_minimization(M, rank, lam=lam, tol=1e-7, maxiter=2000, rng=0)
    assert res.success
    assert said in res.message
    assert res.components.tolist() == [0] * 15
    assert res.grad_norm <= 1e-5
    assert (res.duality_gap is None) == (lam == 0.0)
    with pytest.warns(solvers.ConvergenceWarning, match=r"The relative (residual|duality gap) is"):
        completion.alternating_minimization(M, rank, lam=lam, tol=1e-12, maxiter=1, rng=0)


@given(seeds)
def test_no_combination_of_options_ends_in_nothing_or_an_error(seed):
    rng = np.random.default_rng(seed)
    m, n, k = rng.integers(1, 6, size=3)
    M = np.where(rng.random((m, n)) < 0.7, rng.choice([0.0, 1.0, -2.0], size=(m, n)), np.nan)
    M[0, 0] = rng.choice([0.0, 1.0])
    U, s, V = rng.normal(size=(m, k)), rng.choice([0.0, 1.0], size=k), rng.normal(size=(n, k))
    U[rng.random(m) < 0.3], V[rng.random(n) < 0.3] = 0.0, 0.0
    options = {"lam": rng.choice([0.0, 0.5, 50.0]), "lam_bias": rng.choice([None, 0.0, 1.0])}
    kind = rng.choice(["plain", "bias", "weighted", "implicit", "nonnegative", "robust"])
    if kind == "bias":
        options.update(row_bias=rng.normal(size=m), col_bias=np.zeros(n), mu=1.0)
    if kind == "weighted":
        options.update(weighted_lambda=True, weights=rng.choice([0.5, 1.0], size=(m, n)))
    if kind == "implicit":
        options.update(implicit=True, nu=rng.choice([0.0, 0.5]), alpha0=rng.choice([0.0, 1.0]))
        M[0, 0] = 1.0
    if kind == "nonnegative":
        U, V, options["nonnegative"] = abs(U), abs(V), True
    if kind == "robust":
        options.update(loss=rng.choice(["huber", "l1", "welsch", "tukey"]).item())
        options["delta"] = rng.choice([None, 0.5])
    found = completion.certify(M, U, s, V, **options)
    assert np.isfinite(found.value)
    assert np.isfinite(list(found.details.values())).all()
    assert found.details["relres"] >= 0
    assert found.details.get("duality_gap", 0.0) >= 0.0


@pytest.mark.parametrize(
    "model", ["biases", "implicit", "weighted_lambda", "nonnegative", "huber"]
)
def test_results_carry_the_certificate_that_anybody_would_give_them(rng, model):
    if model in MODELS:
        _, M, options = pose(rng, model)
    else:
        M = np.where(rng.random((9, 8)) < 0.8, abs(rng.normal(size=(9, 8))), np.nan)
        options = {"lam": 0.2, **({"loss": "huber"} if model == "huber" else {model: True})}
    mean = options.pop("mu", None)
    centred = {} if mean is None else {"bias": True}
    res = completion.alternating_minimization(
        M, 2, tol=1e-7, maxiter=400, validation=0.1, patience=400, rng=0, **centred, **options
    )
    given = {"mu": res.mu, "row_bias": res.row_bias, "col_bias": res.col_bias} if centred else {}
    if model == "huber":
        given["delta"] = res.delta
    found = completion.certify(
        M, res.U, res.s, res.V, holdout=res.holdout, tol=1e-7, **given, **options
    )
    assert res.success
    same(found, res.certificate)
    assert found.details["rmse_holdout"] == pytest.approx(res.rmse_validation)
    if "primal" in found.details:
        assert res.fun == pytest.approx(found.details["primal"], rel=1e-12)


@pytest.mark.parametrize("unit", [1.0, 100.0])
def test_biases_beside_absolute_errors_are_solved_in_any_unit(rng, unit):
    M = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 24)) + rng.normal(size=(30, 24))
    M = np.where(rng.random(M.shape) < 0.6, unit * M, np.nan)
    options = {"loss": "l1", "delta": 0.2 * unit, "lam_bias": 0.5 / unit, "bias": True}
    assert completion.alternating_minimization(M, 3, lam=1.0, tol=1e-6, rng=0, **options).success
