"""The facts that the family rests on, on random problems and by closed forms alone.

`psi_sigma` of `Quadratic` is f(x, y) + (g(x, y) - g(x, z)) / sigma at the minimisers y of
``sigma f + g`` and z of g; these tests tie it to psi, and the library's numbers to both.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solvers import bilevel
from tests.bilevel.oracles import Quadratic, Ridge, WeightedSvm, differences, ridge_by_folds

problems = st.builds(
    Quadratic,
    seed=st.integers(0, 10_000),
    kappa=st.sampled_from([3.0, 30.0, 1e3]),
    rank=st.sampled_from([None, 4, 6]),
)
points = st.integers(0, 10_000).map(lambda seed: np.random.default_rng(seed).standard_normal(4))
few = settings(max_examples=40, deadline=None, derandomize=True)


@given(q=problems, x=points)
@few
def test_psi_lies_between_its_penalised_values_and_any_lower_solution(q, x):
    psi, last = q.psi(x)[0], -np.inf
    size = 1 + abs(psi) + abs(q.lower(x, q.minimiser(x, 0))[0])
    for sigma in (1.0, 1e-1, 1e-2, 1e-3, 1e-4):
        value = q.psi_sigma(x, sigma)[0]
        rounding = 1e-13 * size / sigma
        # Monotone in sigma, below psi, and above f at the penalised solution.
        assert last <= value + rounding
        assert q.upper(x, q.minimiser(x, sigma))[0] <= value + rounding
        assert value <= psi + rounding
        last = value
    some = q.minimiser(x, 0) + q.N @ np.cos(np.arange(q.N.shape[1]))
    assert psi <= q.upper(x, some)[0] + 1e-12 * size


@given(q=problems, x=points)
@few
def test_the_gradient_of_the_penalised_value_needs_no_second_derivatives(q, x):
    for sigma in (1.0, 1e-2):
        y, z = q.minimiser(x, sigma), q.minimiser(x, 0)
        by_envelope = q.upper(x, y)[1] + (q.lower(x, y)[1] - q.lower(x, z)[1]) / sigma
        by_values = differences(lambda x: q.psi_sigma(x, sigma)[0], x, 1e-4)  # noqa: B023
        size = 1 + abs(by_envelope).max()
        assert np.allclose(by_envelope, by_values, rtol=0, atol=1e-6 * size)


@pytest.mark.parametrize("rank", [None, 5])
@pytest.mark.parametrize("seed", range(4))
def test_errors_fall_with_the_first_and_the_second_power_of_the_penalty(seed, rank):
    q = Quadratic(seed, kappa=5.0, rank=rank)
    x = np.random.default_rng(seed).standard_normal(4)
    psi, exact = q.psi(x)
    sigmas = np.array([1e-3, 1e-4])
    first = [np.linalg.norm(q.psi_sigma(x, s)[1] - exact) for s in sigmas]
    second = [
        np.linalg.norm(2 * q.psi_sigma(x, s / 2)[1] - q.psi_sigma(x, s)[1] - exact) for s in sigmas
    ]
    value = [psi - q.psi_sigma(x, s)[0] for s in sigmas]
    # 2 psi_s - f(x, y_s) costs nothing more and is one order better.
    free = [abs(2 * q.psi_sigma(x, s)[0] - q.upper(x, q.minimiser(x, s))[0] - psi) for s in sigmas]
    slope = lambda errors: np.log10(errors[0] / errors[1])  # noqa: E731
    assert 0.9 <= slope(first) <= 1.1
    assert 1.8 <= slope(second) <= 2.2
    assert 0.9 <= slope(value) <= 1.1
    assert 1.8 <= slope(free) <= 2.2


@given(q=problems, x=points, seed=st.integers(0, 1000), size=st.sampled_from([1e-1, 1e-3, 1e-6]))
@few
def test_unfinished_lower_solves_widen_the_sandwich_by_what_the_bound_says(q, x, seed, size):
    if q.N.shape[1]:
        return
    rng = np.random.default_rng(seed)
    mu, smooth = np.linalg.eigvalsh(q.A)[0], np.linalg.eigvalsh(q.F)[-1]
    psi = q.psi(x)[0]
    z = q.minimiser(x, 0) + size * rng.standard_normal(7)
    for sigma in (1e-1, 1e-2):
        y = q.minimiser(x, sigma) + size * rng.standard_normal(7)
        bent = np.linalg.eigvalsh(q.A + sigma * q.F)[0]
        f, g, at_z = q.upper(x, y), q.lower(x, y), q.lower(x, z)
        e_y = np.linalg.norm(sigma * f[2] + g[2])
        # g(x, z) is above the minimum, which only lowers this bound.
        below = f[0] + (g[0] - at_z[0]) / sigma - e_y**2 / (2 * bent * sigma)
        assert below <= q.psi_sigma(x, sigma)[0] + 1e-9 * (1 + abs(below))
        assert below <= psi + 1e-9 * (1 + abs(below))
    f, e_z = q.upper(x, z), np.linalg.norm(q.lower(x, z)[2])
    above = f[0] + np.linalg.norm(f[2]) * e_z / mu + smooth * e_z**2 / (2 * mu**2)
    assert psi <= above + 1e-9 * (1 + abs(above))


@given(q=problems, x=points, seed=st.integers(0, 1000))
@few
def test_the_proximal_error_bound_holds_uniformly_in_the_penalty(q, x, seed):
    if q.N.shape[1]:
        return
    mu, rho = np.linalg.eigvalsh(q.A)[0], 1.0
    v = np.random.default_rng(seed).standard_normal(7)
    for sigma in (0.0, 1e-4, 1e-2, 1.0):
        solution = q.minimiser(x, sigma)
        H, y = q.A + sigma * q.F, solution + v
        # The proximal point of h at y is the minimiser of h(v) + |v - y|^2 / (2 rho).
        pull = q.B @ x + q.c + sigma * q.F @ q.t + y / rho
        residual = np.linalg.norm(y - np.linalg.solve(H + np.eye(7) / rho, pull)) / rho
        assert residual >= mu / (1 + rho * mu) * np.linalg.norm(v) * (1 - 1e-9)


def test_with_several_lower_solutions_no_such_bound_is_uniform_in_the_penalty():
    # And yet the orders of the errors, above, are the same.
    q = Quadratic(1, rank=5)
    x, ratios = q.x + 0.3, []
    for sigma in (1e-2, 1e-3, 1e-4):
        v = q.N[:, 0]
        y = q.minimiser(x, sigma) + v
        H = q.A + sigma * q.F
        pull = q.B @ x + q.c + sigma * q.F @ q.t + y
        ratios.append(np.linalg.norm(y - np.linalg.solve(H + np.eye(7), pull)))
    assert ratios[0] / ratios[1] == pytest.approx(10, rel=0.2)
    assert ratios[1] / ratios[2] == pytest.approx(10, rel=0.2)


@pytest.mark.parametrize("rank", [None, 5])
def test_certify_finds_the_closed_forms(rank):
    rng = np.random.default_rng(0)
    for seed in range(5):
        q = Quadratic(seed, rank=rank)
        x = rng.standard_normal(4)
        psi, grad = q.psi(x)
        found = bilevel.certify(q.upper, q.lower, x, q.best_response(x)).details
        assert found["psi"] == pytest.approx(psi, rel=1e-9)
        assert found["psi_lower"] <= psi
        size = max(1, abs(grad).max())
        assert found["stationarity"] == pytest.approx(abs(grad).max() / size, rel=1e-8)


def test_the_estimated_error_covers_the_true_one():
    # In units of the estimate; the estimate itself must stay useful.
    worst, largest = 0.0, 0.0
    for seed in range(60):
        q = Quadratic(seed, kappa=10.0 ** (seed % 5), rank=(None, 5)[seed % 2])
        x = np.random.default_rng(seed).standard_normal(4)
        grad = q.psi(x)[1]
        off = 1e-8 * np.random.default_rng(seed).standard_normal(7)
        found = bilevel.certify(q.upper, q.lower, x, q.best_response(x) + off).details
        size = max(1, abs(grad).max())
        miss = abs(found["stationarity"] * size - abs(grad).max())
        estimate = found["hypergradient_error"] * max(1, np.linalg.norm(grad))
        worst, largest = max(worst, miss / estimate), max(largest, estimate)
    assert worst <= 1
    assert largest <= 1e-5


def test_ridge_and_its_folds_agree_with_the_hat_matrix():
    r = Ridge(3, n=20)
    x = np.linspace(-2, 1, 7)
    exact = r.psi(x)[1]
    assert np.allclose(differences(lambda x: r.psi(x)[0], x), exact, atol=1e-8)
    # Leaving one out: with the Hessian's 1/n, the ridge of n - 1 samples is larger by n/(n - 1).
    n = r.n
    A = r.X.T @ r.X + (n - 1) * np.diag(np.exp(x))
    hat = r.X @ np.linalg.solve(A, r.X.T)
    errors = (r.t - hat @ r.t) / (1 - np.diag(hat))
    assert ridge_by_folds(r.X, r.t, x, n) == pytest.approx(0.5 * np.mean(errors**2), rel=1e-10)


def test_the_support_vector_machine_agrees_with_scikit_learn():
    svm = pytest.importorskip("sklearn.svm")
    s = WeightedSvm(4, n=20)
    c = np.random.default_rng(1).uniform(-3, -1, 20)
    model = svm.LinearSVC(
        loss="squared_hinge", dual=True, C=0.5, fit_intercept=False, tol=1e-9, max_iter=100_000
    )
    model.fit(s.a, s.t, sample_weight=np.exp(c))
    assert np.allclose(model.coef_.ravel(), s.best_response(c)[: s.p], atol=1e-7)
