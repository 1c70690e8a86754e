"""The alternating direction method against other solvers, dense algebra and its own laws."""

import numpy as np
import pytest

from solvers import ConvergenceWarning, relu
from solvers._core.backend import get_backend
from solvers.relu import _admm
from solvers.relu._anderson import Anderson
from solvers.relu._losses import LOSSES
from solvers.relu._problem import Programme
from solvers.relu._splits import make_split
from tests.relu.oracles import clarabel, data, patterns

NUMPY = get_backend("numpy")
REGRESSION, MARGINS = ("squared", "huber"), ("logistic", "hinge", "squared_hinge")


def posed(loss="squared", *, c=1, n=20, d=3, P=5, beta=0.3):
    """A programme, equalised, with a split and a state that is not special."""
    X, y = data(n, d, labels=loss in MARGINS)
    X[3] = 0.0
    D, _ = patterns(X, P)
    Y = np.stack([y, -y][:c])
    gates = relu.Gates(D)
    programme = Programme(NUMPY, X, Y, LOSSES[loss](Y, np), beta, gates, gates.mask, c > 1)
    programme.equalise()
    rho, sigma, theta = 0.7, 5.0, 2.0
    split = make_split(programme, "p", "woodbury", sigma, theta, np.random.default_rng(0))
    state = _admm.State.at(programme, None, split, rho)
    rng = np.random.default_rng(1)
    for part in state.parts(split):
        part[...] = rng.standard_normal(part.shape)
    state.settle(programme, split, rho)
    return programme, split, state, rho, sigma


def dense_step(programme, split, state, rho, sigma, relax):
    """One iteration of the plain method on ``x = (T_v, T_s, q)`` with dense matrices; c = 1."""
    X, mask = programme.X, programme.mask.astype(float)
    P, n = mask.shape
    d = X.shape[1]
    lengths = np.linalg.norm(X, axis=1) / np.sqrt(np.square(X).sum(axis=1).mean())
    Z = X / np.where(lengths > 0, lengths, 1.0)[:, None]
    blocks = [m[:, None] * X for m in mask]
    F = np.hstack([*blocks, *(-b for b in blocks)])
    G = np.zeros((2 * P * n, 2 * P * d))
    for i in range(2 * P):
        G[i * n : (i + 1) * n, i * d : (i + 1) * d] = (2 * mask[i % P] - 1)[:, None] * Z
    T_v, T_s, q = (np.ravel(a).copy() for a in state.parts(split))
    norms = np.linalg.norm(T_v.reshape(-1, d), axis=1)
    V = T_v * np.repeat(np.maximum(1 - programme.beta / rho / norms, 0.0), d)
    S, p = np.maximum(T_s, 0.0), programme.loss.prox(q[None], rho * split.theta)[0]
    A = np.eye(2 * P * d) + sigma * G.T @ G + split.theta * F.T @ F
    right = 2 * V - T_v + sigma * G.T @ (2 * S - T_s) + split.theta * F.T @ (2 * p - q)
    U = np.linalg.solve(A, right)
    return [
        x + relax * m for x, m in zip((T_v, T_s, q), (U - V, G @ U - S, F @ U - p), strict=True)
    ]


class TestIteration:
    @pytest.mark.parametrize("loss", ["squared", "logistic"])
    def test_a_step_is_the_plain_methods(self, loss):
        programme, split, state, rho, sigma = posed(loss)
        expected = dense_step(programme, split, state, rho, sigma, 1.6)
        before = [part.copy() for part in state.parts(split)]
        residuals = _admm.step(programme, split, state, rho, sigma, 1.6)
        for part, x in zip(state.parts(split), expected, strict=True):
            np.testing.assert_allclose(part.ravel(), x, atol=1e-10)
        weights = 1.0, sigma, split.theta
        moved = [np.square(x - a.ravel()).sum() for x, a in zip(expected, before, strict=True)]
        assert residuals[2] * 1.6**2 == pytest.approx(np.dot(weights, moved), rel=1e-9)

    def test_outputs_do_not_meet(self):
        two, alone = posed(c=2), posed()
        for a, b in zip(two[2].parts(two[1]), alone[2].parts(alone[1]), strict=True):
            b[...] = a[:1]
        for programme, split, state, rho, sigma in (two, alone):
            state.settle(programme, split, rho)
            _admm.step(programme, split, state, rho, sigma, 1.6)
        for a, b in zip(two[2].parts(two[1]), alone[2].parts(alone[1]), strict=True):
            np.testing.assert_allclose(a[:1], b, atol=1e-12)

    @pytest.mark.parametrize("q", [0.2, 3.0])
    def test_a_change_of_rho_does_not_move_the_solution(self, q):
        programme, split, state, rho, sigma = posed()
        for _ in range(4000):
            _admm.step(programme, split, state, rho, sigma, 1.6)
        state.rescale(programme, split, q)
        residuals = _admm.step(programme, split, state, q * rho, sigma, 1.6)
        assert residuals[2] < 1e-16

    def test_residuals_that_are_near_leave_rho_alone(self):
        assert _admm.balance(1.0, 2.0) == 1.0
        assert _admm.balance(4.0, 1.0) == 2.0
        assert _admm.balance(1.0, 1e6) == 0.2
        assert _admm.balance(0.0, 1.0) == 1.0


class TestAnderson:
    def run(self, A, b, steps):
        """Iterate ``x <- A x + b`` on two arrays; every jump stands."""
        x = [np.zeros(3), np.zeros((1, 2))]
        accel = Anderson(NUMPY, (1.0, 2.0))
        for _ in range(steps):
            accel.mark(x)
            flat = np.concatenate([a.ravel() for a in x])
            new = A @ flat + b
            x[0][...], x[1][...] = new[:3], new[3:].reshape(1, 2)
            accel.jump(x, np.square(new - flat).sum())
            assert accel.stands(0.0)
        return np.concatenate([a.ravel() for a in x])

    def test_it_solves_a_linear_problem_in_as_many_jumps_as_unknowns(self, rng):
        A = np.diag([0.99, 0.9, 0.5, -0.7, 0.2])
        A = (Q := np.linalg.qr(rng.standard_normal((5, 5)))[0]) @ A @ Q.T
        b = rng.standard_normal(5)
        solution = np.linalg.solve(np.eye(5) - A, b)
        assert np.abs(self.run(A, b, 9) - solution).max() < 1e-3 * np.abs(solution).max()

    def test_a_jump_that_raises_the_residual_is_undone(self):
        accel, x = Anderson(NUMPY, (1.0,)), [np.zeros(2)]
        for step in ([1.0, 0.0], [0.5, 0.1]):
            accel.mark(x)
            x[0] += step
            before = x[0].copy()
            accel.jump(x, np.array(0.25))
        assert not np.array_equal(x[0], before)
        assert not accel.stands(np.array(4.0))
        accel.undo(x)
        np.testing.assert_array_equal(x[0], before)
        assert accel.stands(np.array(1e9))

    def test_jumps_save_iterations(self):
        X, y = data(40, 5)
        options = {"beta": 0.1, "n_gates": 15, "tol": 1e-4, "polish": False, "rng": 0}
        with_jumps = relu.admm(X, y, **options)
        without = relu.admm(X, y, accel=None, **options)
        assert with_jumps.success
        assert without.success
        assert with_jumps.nit < without.nit


class TestSolve:
    @pytest.mark.parametrize("loss", [*REGRESSION, *MARGINS])
    def test_the_optimum_is_the_interior_points(self, loss):
        X, y = data(25, 3, labels=loss in MARGINS)
        D, _ = patterns(X, 6)
        optimum = clarabel(X, y, D, 0.2, loss, delta=1.35)[0]
        res = relu.admm(X, y, beta=0.2, loss=loss, gates=D, tol=1e-4, maxiter=20000)
        assert res.success
        assert res.dual <= optimum * (1 + 1e-7)
        assert optimum * (1 - 1e-7) <= res.fun_convex <= optimum * (1 + 1e-4)

    @pytest.mark.parametrize(
        "options",
        [{"rho": 3.0}, {"rho": 3.0, "adapt_rho": False}, {"sigma": 0.5}, {"relax": 1.0}],
        ids=str,
    )
    def test_options_change_the_way_and_not_the_end(self, options):
        X, y = data(25, 3)
        D, _ = patterns(X, 6)
        common = {"beta": 0.2, "gates": D, "tol": 1e-4, "maxiter": 20000, "polish": False}
        usual, res = relu.admm(X, y, **common), relu.admm(X, y, **common, **options)
        assert res.success
        assert res.fun_convex == pytest.approx(usual.fun_convex, rel=2e-4)
        assert res.fun_convex != usual.fun_convex

    def test_units_of_the_data_do_not_change_the_iterations(self):
        X, y = data(25, 3)
        D, _ = patterns(X, 6)
        usual = relu.admm(X, y, beta=0.25, gates=D, tol=1e-3)
        # Powers of two: not even rounding differs.
        for s, t in ((8.0, 1.0), (1.0, 32.0)):
            res = relu.admm(s * X, t * y, beta=0.25 * s * t, gates=D, tol=1e-3)
            assert res.nit == usual.nit
            np.testing.assert_allclose(res.V * s / t, usual.V, rtol=1e-7, atol=1e-9)

    def test_rows_of_zeros_and_of_any_length_are_no_obstacle(self):
        X, y = data(25, 3)
        X[4] = 0.0
        X[5] *= 1e4
        D, _ = patterns(X, 6)
        res = relu.admm(X, y, beta=0.2, gates=D, tol=1e-3, maxiter=20000)
        assert res.success
        assert np.isfinite(res.V).all()

    def test_a_penalty_that_nothing_is_worth_ends_at_once(self):
        X, y = data(25, 3)
        D, _ = patterns(X, 6)
        most = max(np.linalg.norm(X.T @ (D[:, i] * y)) for i in range(6))
        res = relu.admm(X, y, beta=1.001 * most, gates=D)
        assert res.nit == 0
        assert res.success
        assert not res.V.any()

    def test_single_precision_is_certified_in_double(self):
        X, y = data(40, 4)
        options = {"beta": 0.2, "n_gates": 10, "tol": 1e-3, "rng": 0}
        res = relu.admm(X.astype(np.float32), y.astype(np.float32), **options)
        assert res.success
        assert res.V.dtype == np.float32
        assert res.fun_convex == pytest.approx(relu.admm(X, y, **options).fun_convex, rel=2e-3)

    def test_checks_come_as_often_as_asked(self):
        X, y = data(40, 4)
        options = {"beta": 0.01, "n_gates": 12, "tol": 1e-14, "maxiter": 90, "polish": False}
        with pytest.warns(ConvergenceWarning):
            often = relu.admm(X, y, check_every=30, rng=0, **options)
        assert often.history["nit"].tolist() == [30, 50, 60, 90]
        assert {"r", "s", "rho"} <= set(often.history)
        assert often.rho > 0
        assert often.sigma > 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"rho": 0.0}, ValueError),
        ({"rho": "big"}, TypeError),
        ({"sigma": -1.0}, ValueError),
        ({"relax": 2.0}, ValueError),
        ({"relax": 0.0}, ValueError),
        ({"adapt_rho": 1}, TypeError),
        ({"accel": "magic"}, ValueError),
        ({"multi_output": "joint"}, ValueError),
    ],
    ids=str,
)
def test_a_bad_option_is_named(options, error):
    X, y = data(20, 3)
    with pytest.raises(error, match=f"^`{next(iter(options))}`"):
        relu.admm(X, y, beta=0.3, n_gates=5, rng=0, **options)
