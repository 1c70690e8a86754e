"""`solvers.newton` against closed forms, SciPy and dense algebra."""

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator

import solvers
from solvers.newton import gns_newton


class Logistic:
    """Mean logistic loss with a small ridge, and the parts of its approximations."""

    def __init__(self, rng, k=60, n=8, ridge=1e-2):
        self.X, self.ridge = rng.standard_normal((k, n)), ridge
        y = np.sign(self.X @ rng.standard_normal(n) + rng.standard_normal(k))
        self.Z = y[:, None] * self.X

    def fun(self, w):
        return np.logaddexp(0, -self.Z @ w).mean() + 0.5 * self.ridge * w @ w

    def p(self, w):
        return 1 / (1 + np.exp(self.Z @ w))

    def jac(self, w):
        return -self.Z.T @ self.p(w) / len(self.Z) + self.ridge * w

    def hess(self, w):
        p = self.p(w)
        return (self.Z.T * (p * (1 - p))) @ self.Z / len(p) + self.ridge * np.eye(len(w))


@pytest.fixture
def logistic(rng):
    return Logistic(rng)


def minimiser(problem, n):
    """A minimiser by Newton's method in plain NumPy."""
    w = np.zeros(n)
    for _ in range(30):
        w = w - np.linalg.solve(problem.hess(w), problem.jac(w))
    assert abs(problem.jac(w)).max() <= 1e-14
    return w


FORMS = {
    "dense": lambda H: H,
    "sparse": sp.csr_array,
    "operator": lambda H: LinearOperator(H.shape, H.dot, dtype=float),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_exact_hessian_leads_to_the_minimiser(logistic, form):
    hess = lambda w: FORMS[form](logistic.hess(w))  # noqa: E731
    res = gns_newton(logistic.fun, np.zeros(8), jac=logistic.jac, hess=hess)
    assert res.success
    assert np.linalg.norm(logistic.jac(res.x)) <= 1e-8
    np.testing.assert_allclose(res.x, minimiser(logistic, 8), atol=1e-6)
    assert res.nit <= 25
    assert res.fun == pytest.approx(logistic.fun(res.x))
    assert res.nhev == res.nit
    np.testing.assert_allclose(res.jac, logistic.jac(res.x))


def test_a_step_solves_the_regularised_system_of_the_metric(logistic, rng):
    D, w = rng.uniform(0.5, 2, 8), 0.1 * rng.standard_normal(8)
    seen = []
    keep = lambda intermediate_result: seen.append(intermediate_result.x) or True  # noqa: E731
    res = gns_newton(
        logistic.fun, w, jac=logistic.jac, hess=logistic.hess, metric=D, gamma0=0.25, callback=keep
    )
    g = logistic.jac(w)
    lam = np.sqrt(g @ (g / D)) / (0.25 / 2 ** (res.history["tries"][0] - 1))
    np.testing.assert_allclose(
        seen[0], w - np.linalg.solve(logistic.hess(w) + lam * np.diag(D), g)
    )
    assert res.history["lam"][0] == pytest.approx(lam)
    assert res.status is solvers.Status.CALLBACK


def test_every_step_lowers_the_objective_as_promised(rng):
    x0 = np.tile([-1.2, 1.0], 3)
    rosen = scipy.optimize.rosen, scipy.optimize.rosen_der, scipy.optimize.rosen_hess
    res = gns_newton(rosen[0], x0, jac=rosen[1], hess=rosen[2])
    assert res.success
    assert np.linalg.norm(rosen[1](res.x)) <= 1e-8
    f = np.r_[rosen[0](x0), res.history["fun"]]
    size, lam = res.history["gradient_norm"], res.history["lam"]
    assert np.all(f[:-1] - f[1:] >= size**2 / (8 * lam) - 1e-15 * abs(f[:-1]))
    # The Hessian is indefinite at the start: some factorisation must have failed.
    assert np.linalg.eigvalsh(rosen[2](np.array([0.0, 1.0] * 3)))[0] < 0
    assert res.nsolve >= res.nit


def chain(x):
    """Residuals and Jacobian of Rosenbrock's chain."""
    n = len(x)
    u = np.r_[1 - x[:-1], 10 * (x[1:] - x[:-1] ** 2)]
    J = np.zeros((2 * n - 2, n))
    i = np.arange(n - 1)
    J[i, i], J[n - 1 + i, i], J[n - 1 + i, i + 1] = -1, -20 * x[:-1], 10
    return u, J


@pytest.mark.parametrize("form", ["dense", "sparse", "weighted"])
def test_gauss_newton_solves_least_squares(form):
    def hess(x):
        J = chain(x)[1]
        return {"dense": J, "sparse": sp.csr_array(J), "weighted": (J, np.ones(len(J)))}[form]

    fun = lambda x: 0.5 * chain(x)[0] @ chain(x)[0]  # noqa: E731
    jac = lambda x: chain(x)[1].T @ chain(x)[0]  # noqa: E731
    res = gns_newton(fun, np.full(5, -0.5), jac=jac, hess=hess, approx="gauss-newton")
    assert res.success
    np.testing.assert_allclose(res.x, 1.0, atol=1e-5)


def first_step(problem_fun, jac, x, **options):
    """Return the first step and its lambda."""
    seen = []
    keep = lambda intermediate_result: seen.append(intermediate_result.x) or True  # noqa: E731
    res = gns_newton(problem_fun, x, jac=jac, callback=keep, **options)
    return seen[0] - x, res.history["lam"][0]


@pytest.mark.parametrize("k", [4, 30])
@pytest.mark.parametrize("approx", ["gauss-newton", "fisher", "logsumexp", "power"])
def test_approximations_are_the_matrices_of_their_definitions(rng, approx, k):
    n = 9  # k = 4 has a rank below n, k = 30 has not
    A, x = rng.standard_normal((k, n)), rng.standard_normal(n)
    w, mu, p = rng.uniform(0.1, 1, k), 0.7, 3.0
    u = A @ x
    parts, H = {
        "gauss-newton": ((A, w), A.T @ np.diag(w) @ A),
        "fisher": (A, sum(np.outer(g, g) for g in A) / k),
        "logsumexp": ((A, w / w.sum(), mu), A.T @ np.diag(w / w.sum()) @ A / mu),
        "power": (
            (u, A, p),
            np.linalg.norm(u) ** (p - 2) * A.T @ A
            + (p - 2) * np.linalg.norm(u) ** (p - 4) * np.outer(A.T @ u, A.T @ u),
        ),
    }[approx]
    # A quadratic with this Hessian, so that the first try is accepted.
    b = rng.standard_normal(n)
    fun, jac = lambda y: 0.5 * y @ H @ y + b @ y, lambda y: H @ y + b
    step, lam = first_step(fun, jac, x, hess=lambda y: parts, approx=approx)
    expected = -np.linalg.solve(H + lam * np.eye(n), jac(x))
    np.testing.assert_allclose(step, expected, rtol=1e-7, atol=1e-9)


def test_the_power_of_a_residual_is_minimised_for_any_power_above_one(rng):
    A, b = rng.standard_normal((12, 5)), rng.standard_normal(12)
    solution = np.linalg.lstsq(A, b)[0]
    for p in (1.5, 3.0):
        fun = lambda x, p=p: np.linalg.norm(A @ x - b) ** p / p  # noqa: E731
        jac = lambda x, p=p: np.linalg.norm(A @ x - b) ** (p - 2) * A.T @ (A @ x - b)  # noqa: E731
        parts = lambda x, p=p: (A @ x - b, A, p)  # noqa: E731
        res = gns_newton(fun, np.zeros(5), jac=jac, hess=parts, approx="power")
        assert res.success
        assert res.nit <= 60
        np.testing.assert_allclose(res.x, solution, atol=1e-7)


def test_log_sum_exp_is_minimised_by_its_approximation(rng):
    A = rng.standard_normal((40, 6))
    A -= A.mean(axis=0)  # which makes the function bounded below
    mu = 0.5

    def softmax(x):
        z = A @ x / mu
        p = np.exp(z - z.max())
        return p / p.sum()

    fun = lambda x: mu * np.logaddexp.reduce(A @ x / mu)  # noqa: E731
    res = gns_newton(
        fun,
        rng.standard_normal(6),
        jac=lambda x: A.T @ softmax(x),
        hess=lambda x: (A, softmax(x), mu),
        approx="logsumexp",
        tol=1e-7,
    )
    theirs = scipy.optimize.minimize(fun, np.zeros(6), jac=lambda x: A.T @ softmax(x), tol=1e-10)
    assert res.success
    assert res.fun <= theirs.fun + 1e-12


def test_scaling_the_objective_changes_nothing_but_the_gradients_unit(logistic):
    run = lambda c: gns_newton(  # noqa: E731
        lambda w: c * logistic.fun(w),
        np.zeros(8),
        jac=lambda w: c * logistic.jac(w),
        hess=lambda w: c * logistic.hess(w),
        tol=c * 1e-8,
    )
    one, many = run(1.0), run(1024.0)
    np.testing.assert_allclose(one.x, many.x, rtol=1e-12, atol=1e-14)
    assert one.nit == many.nit


def test_single_precision_comes_back_and_counts_in_the_certificate(logistic):
    x0 = np.zeros(8, np.float32)
    res = gns_newton(logistic.fun, x0, jac=logistic.jac, hess=logistic.hess)
    assert res.success
    assert res.x.dtype == np.float32
    assert not x0.any()
    assert res.certificate.tol > 1e-8
    assert res.certificate.tol < 1e-6
    np.testing.assert_allclose(res.x, minimiser(logistic, 8), atol=1e-5)


def test_a_limit_of_steps_ends_with_a_warning_and_an_honest_certificate(logistic):
    with pytest.warns(solvers.ConvergenceWarning, match="maxiter"):
        res = gns_newton(
            logistic.fun, np.zeros(8), jac=logistic.jac, hess=logistic.hess, maxiter=2
        )
    assert not res.success
    assert res.status is solvers.Status.MAXITER
    assert res.nit == 2
    assert res.certificate.value == pytest.approx(np.linalg.norm(logistic.jac(res.x)))


def test_a_tolerance_below_rounding_ends_as_stalled(logistic):
    # The last digits of f are noise, which no step lowers.
    noisy = lambda w: logistic.fun(w) + 1e-9 * abs(np.sin(1e9 * w).sum())  # noqa: E731
    with pytest.warns(solvers.ConvergenceWarning):
        res = gns_newton(
            noisy, np.zeros(8), jac=logistic.jac, hess=logistic.hess, tol=1e-300, maxiter=200
        )
    assert res.status is solvers.Status.STALLED
    assert np.linalg.norm(logistic.jac(res.x)) <= 1e-3


def test_a_start_that_is_the_answer_takes_no_step():
    res = gns_newton(lambda x: x @ x, np.zeros(3), jac=lambda x: 2 * x, hess=lambda x: np.eye(3))
    assert res.success
    assert res.nit == 0
    assert res.nhev == 0


def test_points_that_are_not_finite_are_only_failed_tries():
    fun = lambda x: float(-np.log(x[0]) + x[0]) if x[0] > 0 else np.nan  # noqa: E731
    res = gns_newton(
        fun,
        np.array([8.0]),
        jac=lambda x: 1 - 1 / x,
        hess=lambda x: 1 / x[:, None] ** 2,  # the first full step leads to x = -48
        gamma0=100.0,
    )
    assert res.success
    assert res.x[0] == pytest.approx(1.0, abs=1e-6)
    assert res.history["tries"][0] > 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x0": np.zeros((2, 2))}, ValueError, "`x0` came 2-D"),
        ({"x0": np.full(8, np.nan)}, ValueError, "`x0`"),
        ({"x0": np.zeros(8) + 1j}, TypeError, "`x0`"),
        ({"fun": 3}, TypeError, "`fun` came as int"),
        ({"jac": None}, TypeError, "`jac` came as NoneType"),
        ({"jac": lambda w: w[:2]}, ValueError, "`jac` returned shape"),
        ({"hess": lambda w: np.eye(3)}, ValueError, "`hess` returned shape"),
        ({"hess": lambda w: sp.eye_array(3)}, ValueError, "`hess` returned shape"),
        ({"fun": lambda w: np.inf}, ValueError, r"`fun\(x0\)`"),
        ({"approx": "newton"}, ValueError, "`approx` came as 'newton'"),
        ({"approx": "fisher", "hess": lambda w: np.eye(3)}, ValueError, "`hess` returned shape"),
        (
            {"approx": "gauss-newton", "hess": lambda w: (np.eye(8), -np.ones(8))},
            ValueError,
            "`hess` returned weights",
        ),
        (
            {"approx": "power", "hess": lambda w: (np.ones(8), np.eye(8), 1.0)},
            ValueError,
            "`hess` returned",
        ),
        ({"metric": np.ones(3)}, ValueError, "`metric` came with shape"),
        ({"metric": np.zeros(8)}, ValueError, "`metric`"),
        ({"gamma0": 0.0}, ValueError, "`gamma0`"),
        ({"tol": -1.0}, ValueError, "`tol`"),
        ({"maxiter": 2.5}, TypeError, "`maxiter`"),
        ({"callback": 3}, TypeError, "`callback`"),
    ],
)
def test_bad_arguments_are_named(logistic, change, error, message):
    arguments = {
        "fun": logistic.fun,
        "x0": np.zeros(8),
        "jac": logistic.jac,
        "hess": logistic.hess,
        **change,
    }
    with pytest.raises(error, match=message):
        gns_newton(arguments.pop("fun"), arguments.pop("x0"), **arguments)
