"""Linear steps against dense linear algebra, copies against their own definition."""

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar

from solvers import relu
from solvers._core import validation
from solvers._core.backend import get_backend
from solvers.relu import _usolvers
from solvers.relu._block_descent import BlockDescent
from solvers.relu._gates import Gates
from solvers.relu._losses import LOSSES
from solvers.relu._problem import Programme
from solvers.relu._splits import Joint, Predictions, Rows, check_split, make_split, resolved
from solvers.relu._usolvers import Dense, Krylov, Sylvester, Woodbury, sketched

BE = get_backend("numpy")
SIGMA, THETA = 0.7, 1.9


def drawn(n=14, d=3, P=6, c=2, loss="squared", dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)).astype(dtype)
    D = X @ rng.standard_normal((d, P)).astype(dtype) >= 0
    Y = rng.standard_normal((c, n)).astype(dtype)
    if LOSSES[loss].margin:
        Y = np.sign(Y)
    gates = Gates(D)
    return Programme(BE, X, Y, LOSSES[loss](Y, np), 0.3, gates, gates.mask, c > 1)


def blocks(programme, seed=1):
    shape = (len(programme.Y), 2, len(programme.mask), programme.X.shape[1])
    return np.random.default_rng(seed).standard_normal(shape).astype(programme.X.dtype)


def maps(programme):
    """F and G as matrices on the blocks of one output, and the metric."""
    X, mask = programme.X.astype(float), programme.mask.astype(float)
    F = np.hstack([side * m[:, None] * X for side in (1, -1) for m in mask])
    B = np.eye(X.shape[1]) + SIGMA * X.T @ X
    return F, np.kron(np.eye(2 * len(mask)), B)


def row_map(programme):
    """The map from blocks to rows Q as a matrix."""
    n, d = programme.X.shape
    Q = np.zeros((n, d, 2, len(programme.mask), d))
    for j in range(d):
        Q[:, j, 0, :, j], Q[:, j, 1, :, j] = programme.mask.T, -1.0 * programme.mask.T
    return Q.reshape(n * d, -1)


def dense_solve(matrix, metric, R, target, theta):
    right = R.reshape(len(R), -1) + theta * target.reshape(len(R), -1) @ matrix
    return np.linalg.solve(metric + theta * matrix.T @ matrix, right.T).T.reshape(R.shape)


def made(name, programme):
    rng = np.random.default_rng(5)
    solver = {
        "woodbury": lambda: Woodbury(programme, SIGMA),
        "dense": lambda: Dense(programme, SIGMA),
        "cg": lambda: Krylov(programme, SIGMA, rng),
    }[name]()
    solver.weigh(THETA)
    return solver


@pytest.mark.parametrize("inverted", [True, False])
@pytest.mark.parametrize("P", [6, 31])
@pytest.mark.parametrize("name", ["woodbury", "dense"])
def test_a_direct_step_solves_the_dense_system(name, P, inverted, monkeypatch):
    monkeypatch.setattr(_usolvers, "_INVERT", 1000 if inverted else 0)
    programme = drawn(P=P)
    R, target = blocks(programme), programme.Y - 0.2
    want = dense_solve(*maps(programme), R, target, THETA)
    np.testing.assert_allclose(made(name, programme).solve(R.copy(), target), want, atol=1e-11)


@pytest.mark.parametrize("P", [6, 31])
def test_the_rows_step_solves_the_dense_system(P):
    programme = drawn(P=P)
    R = blocks(programme)
    target = np.random.default_rng(2).standard_normal((2, *programme.X.shape))
    _, metric = maps(programme)
    matrix = row_map(programme)
    for extra in (0.0, 1.5):
        more = metric + extra * np.eye(len(metric))
        want = dense_solve(matrix, more, R, target, 0.4)
        solver = Sylvester(programme, SIGMA, 0.4, extra=extra)
        got = solver.solve(R.copy(), target)
        np.testing.assert_allclose(got, want, atol=1e-11)
        np.testing.assert_allclose(
            solver.rows(got).reshape(2, -1), got.reshape(2, -1) @ matrix.T, atol=1e-12
        )


def test_conjugate_gradients_close_in_on_the_dense_solution():
    programme = drawn(n=130, P=9)
    R, target = blocks(programme), programme.Y
    want, solver = dense_solve(*maps(programme), R, target, THETA), made("cg", programme)
    errors = [abs(solver.solve(R.copy(), target) - want).max() for _ in range(2)]
    # The first solve may be as rough as 1e-2; the same system once more has nothing new in it.
    assert errors[0] < 0.05 * abs(want).max()
    assert errors[1] < 1e-12


@pytest.mark.parametrize("name", ["woodbury", "dense", "cg"])
def test_single_precision_keeps_its_digits(name):
    programme, twin = drawn(dtype=np.float32), drawn()
    R, solver = blocks(programme), made(name, programme)
    want = dense_solve(*maps(twin), blocks(twin), twin.Y, THETA)
    solver.solve(R.copy(), programme.Y)
    got = solver.solve(R.copy(), programme.Y)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, atol=2e-5 * abs(want).max())


@pytest.mark.parametrize("name", ["woodbury", "dense", "cg"])
def test_the_paper_split_follows_rho(name):
    programme, rng = drawn(), np.random.default_rng(0)
    split = make_split(programme, *check_split("paper", name, "squared"), SIGMA, THETA, rng)
    R = blocks(programme)
    for rho in (0.5, 0.02, 3.0):
        want = dense_solve(*maps(programme), R, programme.Y, 1.0 / rho)
        for _ in range(2):
            got = split.solve(R.copy(), rho)
        np.testing.assert_allclose(got, want, atol=1e-9 * abs(want).max())
        F = programme.predictions(got)
        assert not split.absorb(got, F, rho, 1.6).any()
        np.testing.assert_allclose(split.dual(rho), programme.Y - F, atol=1e-12)


def test_a_sketch_of_full_rank_data_lies_below_the_matrix_and_finds_a_low_rank_one():
    rng = np.random.default_rng(3)
    half = rng.standard_normal((40, 40)) * 0.7 ** np.arange(40)
    for A in (half @ half.T, half[:, :6] @ half[:, :6].T):
        Q, values = sketched(BE, lambda W, A=A: A @ W, rng.standard_normal((40, 12)), np.float64)
        np.testing.assert_allclose(Q.T @ Q, np.eye(12), atol=1e-10)
        rest = np.linalg.eigvalsh(A - (Q * values) @ Q.T)
        assert rest[0] > -1e-8 * values[0]
        # Nothing larger than what twelve columns must leave out, up to the sketch's luck.
        assert rest[-1] < 30 * np.linalg.eigvalsh(A)[-13] + 1e-8 * values[0]


@pytest.mark.parametrize("loss", ["squared", "logistic"])
def test_block_descent_minimises_the_paper_step(loss):
    programme, rho = drawn(loss=loss, c=1), 0.4
    R = blocks(programme)
    F, metric = maps(programme)
    L = {
        "squared": lambda p: 0.5 * ((p - programme.Y[0]) ** 2).sum(),
        "logistic": lambda p: np.logaddexp(0, -programme.Y[0] * p).sum(),
    }[loss]

    def value(u):
        return L(F @ u) + rho * (0.5 * u @ metric @ u - R.ravel() @ u)

    solver = BlockDescent(programme, SIGMA, np.random.default_rng(0))
    solver.weigh(1.0 / rho)
    least = minimize(value, np.zeros(R.size), options={"gtol": 1e-8}).fun
    found = [value(solver.solve(R, programme.Y).ravel()) for _ in range(250)]
    # It goes on from where it was, and only down.
    assert all(b <= a + 1e-9 for a, b in pairwise(found))
    assert least - 1e-9 <= found[-1] <= least + 1e-6 * abs(least)


@pytest.mark.parametrize("loss", LOSSES)
def test_row_copies_minimise_loss_and_distance(loss):
    programme, rho = drawn(loss=loss, c=1), 0.3
    programme.X[4] = 0.0
    split = Rows(programme, SIGMA)
    q = np.random.default_rng(3).standard_normal((1, *programme.X.shape))
    split.settle(q, rho)
    for k, x in enumerate(programme.X):
        one = LOSSES[loss](programme.Y[:, k], np)

        # The minimiser moves along x alone.
        def value(t, one=one, x=x, q=q[0, k]):
            return one.value(np.array([x @ (q + t * x)])) + 0.5 * rho * split.theta * t * t * (
                x @ x
            )

        best = minimize_scalar(value, (-1.0, 1.0), options={"xtol": 1e-12}).fun
        moved = split.Q[0, k] - q[0, k]
        np.testing.assert_allclose(moved, split.t[0, k] * x, atol=1e-12)
        here = one.value(np.array([x @ split.Q[0, k]])) + 0.5 * rho * split.theta * moved @ moved
        assert here <= best + 1e-9


@pytest.mark.parametrize("name", ["p", "Q"])
def test_the_dual_is_the_slope_at_the_copy_and_survives_a_new_rho(name):
    programme = drawn(loss="logistic")
    if name == "p":
        split = Predictions(programme, Woodbury(programme, SIGMA), THETA)
    else:
        split = Rows(programme, SIGMA)
    split.settle(np.random.default_rng(2).standard_normal(split.q.shape), 0.3)
    copy = split.p if name == "p" else (split.Q * programme.X).sum(axis=-1)
    np.testing.assert_allclose(split.dual(0.3), -programme.loss.slope(copy), atol=1e-12)
    dual, target = split.dual(0.3), split.q.copy()
    split.rescale(4.0)
    np.testing.assert_allclose(split.dual(1.2), dual, atol=1e-12)
    # The copy is what the rescaled state gives at the new rho.
    assert not np.allclose(split.q, target)
    split.settle(split.q, 1.2)
    again = split.p if name == "p" else (split.Q * programme.X).sum(axis=-1)
    np.testing.assert_allclose(again, copy, atol=1e-12)


@pytest.mark.parametrize("loss", ["squared", "hinge", "logistic"])
@pytest.mark.parametrize("name", ["p", "Q"])
def test_a_start_is_a_fixed_point_and_its_dual_the_slope_there(name, loss):
    programme, rho = drawn(loss=loss), 0.3
    solver = Woodbury(programme, SIGMA)
    split = Predictions(programme, solver, THETA) if name == "p" else Rows(programme, SIGMA)
    U = blocks(programme)
    F = programme.predictions(U)
    split.start(U, rho)
    np.testing.assert_allclose(split.dual(rho), -programme.loss.slope(F), atol=1e-12)
    before = split.q.copy()
    assert split.absorb(U, F, rho, 1.6).max() < 1e-22
    np.testing.assert_allclose(split.q, before, atol=1e-12)


def test_every_split_trains_to_the_same_optimum():
    rng = np.random.default_rng(8)
    X = rng.standard_normal((20, 3))
    Y = np.c_[np.maximum(X @ rng.standard_normal(3), 0), rng.standard_normal(20)]
    D = X @ rng.standard_normal((3, 12)) >= 0
    D = D[:, np.unique(D, axis=1, return_index=True)[1]]
    variants = [
        {"usolver": "woodbury"},
        {"usolver": "cg"},
        {"usolver": "sylvester"},
        {"usolver": "dense"},
        {"usolver": "cg", "split": "paper"},
        {"usolver": "rbcd"},
    ]
    bounds = [
        (res.dual, res.fun_convex)
        for options in variants
        for res in [relu.admm(X, Y, beta=0.5, gates=D, tol=3e-3, rng=0, **options)]
        if res.success
    ]
    assert len(bounds) == len(variants)
    # Each pair encloses the optimum: the highest lower bound is below the lowest upper one.
    assert max(low for low, _ in bounds) <= min(high for _, high in bounds)


def test_row_copies_and_conjugate_gradients_never_hold_a_matrix_of_samples():
    programme, rng = drawn(n=2500, d=4, P=5, c=1), np.random.default_rng(0)
    for usolver in ("sylvester", "cg", "woodbury"):
        tracemalloc.start()
        split = make_split(programme, *check_split("auto", usolver, "squared"), SIGMA, THETA, rng)
        split.solve(blocks(programme), 0.3)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert (peak < 8 * 2500**2) == (usolver != "woodbury")


def test_a_factor_that_does_not_fit_is_refused_with_a_remedy(monkeypatch):
    programme, rng = drawn(n=1000, P=150, c=1), np.random.default_rng(0)
    monkeypatch.setattr(validation, "_free_memory", lambda: 1.5e7)
    monkeypatch.setattr(validation, "_SMALL_ALLOCATION", 1 << 20)
    for usolver, remedy in (("woodbury", "sylvester"), ("dense", "woodbury"), ("cg", None)):
        if remedy is None:
            make_split(programme, "p", usolver, SIGMA, THETA, rng)
        else:
            with pytest.raises(MemoryError, match=f"usolver='{remedy}'"):
                make_split(programme, "paper", usolver, SIGMA, THETA, rng)


def test_the_choice_follows_the_sizes():
    assert resolved("auto", "auto", 4000, 10) == ("p", "woodbury")
    assert resolved("auto", "auto", 4001, 10) == ("Q", "sylvester")
    assert resolved("auto", "auto", 4001, 4001) == ("p", "cg")
    assert resolved("p", "auto", 4001, 10) == ("p", "cg")
    assert resolved("Q", "auto", 10, 10) == ("Q", "sylvester")
    assert resolved("paper", "auto", 10, 10) == ("paper", "woodbury")
    assert check_split("auto", "dense", "squared") == ("paper", "dense")
    assert check_split("paper", "auto", "hinge") == ("paper", "rbcd")
    programme, rng = drawn(), np.random.default_rng(0)
    for name, kind in (("auto", Predictions), ("Q", Rows), ("paper", Joint)):
        assert type(make_split(programme, name, "auto", SIGMA, THETA, rng)) is kind


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "q"}, "`split` came as 'q'"),
        ({"usolver": "lu"}, "`usolver` came as 'lu'"),
        ({"split": "p", "usolver": "sylvester"}, "`usolver` .* 'woodbury', 'cg' with split='p'"),
        ({"split": "Q", "usolver": "rbcd"}, "`usolver` .* 'sylvester' with split='Q'"),
        ({"usolver": "dense", "loss": "hinge"}, "`usolver` .* 'rbcd' with loss='hinge'"),
    ],
)
def test_splits_and_steps_that_do_not_fit_are_refused(options, message):
    X, y = np.eye(4)[:, :2], np.array([1.0, -1.0, 1.0, -1.0])
    with pytest.raises(ValueError, match=message):
        relu.admm(X, y, beta=1.0, n_gates=1, **options)
