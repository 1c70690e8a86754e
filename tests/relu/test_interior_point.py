"""`interior_point`: against cvxpy's, for all losses, and where the numbers get hard."""

import warnings

import numpy as np
import pytest

from solvers import ConvergenceWarning, Status, relu

from . import oracles

LOSSES = ["squared", "logistic", "hinge", "squared_hinge", "huber"]


def problem(loss, n=40, d=4, P=12, seed=0):
    X, y = oracles.data(n, d, seed, labels=loss not in ("squared", "huber"))
    return X, y, oracles.patterns(X, P, seed)[0]


def train(X, y, D, *, tol=1e-8, beta=0.1, **more):
    return relu.interior_point(X, y, beta=beta, gates=D, tol=tol, **more)


@pytest.mark.filterwarnings("ignore:Solution may be inaccurate")
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_reaches_the_optimum_of_another_interior_point(loss):
    pytest.importorskip("cvxpy")
    X, y, D = problem(loss)
    res = train(X, y, D, loss=loss, delta=0.5)
    value, _, _ = oracles.clarabel(X, y, D, 0.1, loss, delta=0.5)
    assert res.success
    assert res.fun_convex == pytest.approx(value, rel=1e-6)
    assert res.dual <= res.fun_convex
    assert res.nit <= 40


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_are_inside_their_cones_and_proved_by_the_judge_alone(loss):
    X, y, D = problem(loss, seed=1)
    res = train(X, y, D, loss=loss)
    signs = 2.0 * D - 1.0
    assert (signs * (X @ res.V)).min() >= 0
    assert (signs * (X @ res.W)).min() >= 0
    # The slopes at kinks of a hinge are not in the weights.
    more = {"z": res.z} if loss == "hinge" else {}
    cert = relu.certify(X, y, beta=0.1, loss=loss, V=res.V, W=res.W, gates=D, tol=2e-8, **more)
    assert cert.holds


@pytest.mark.parametrize("loss", ["squared", "logistic", "hinge"])
@pytest.mark.parametrize("beta", [1e-3, 1.0])
def test_bounds_hold_and_meet_from_weak_to_strong_penalties(beta, loss):
    X, y, D = problem(loss, n=30, P=8, seed=2)
    res = train(X, y, D, loss=loss, beta=beta, tol=1e-7)
    assert res.success
    assert res.dual <= res.fun_convex <= res.dual * (1 + 2e-7)


def test_outputs_side_by_side_are_those_of_separate_runs():
    X, y, D = problem("squared")
    Y = np.stack([y, -2.0 * y, np.roll(y, 3)], axis=1)
    together = train(X, Y, D)
    apart = [train(X, column, D) for column in Y.T]
    assert together.V.shape == (3, 4, D.shape[1])
    assert together.fun_convex == pytest.approx(sum(r.fun_convex for r in apart), rel=1e-7)
    for k, alone in enumerate(apart):
        np.testing.assert_allclose(together.V[k], alone.V, atol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_blocks_that_tend_to_zero_are_zero(loss):
    X, y, D = problem(loss, P=30)
    res = train(X, y, D, loss=loss, tol=1e-6)
    norms = np.linalg.norm(np.stack([res.V, res.W]), axis=1)
    assert 0 < res.n_active < 2 * D.shape[1]
    assert norms[norms > 0].min() > 1e-9 * norms.max()


def test_single_precision_is_solved_in_double_and_returned_in_single():
    X, y, D = problem("logistic")
    double = train(X, y, D, loss="logistic")
    X, y = X.astype(np.float32), y.astype(np.float32)
    res = train(X, y, D, loss="logistic", tol=1e-4)
    assert res.success
    assert res.V.dtype == np.float32
    assert res.fun_convex == pytest.approx(double.fun_convex, rel=1e-4)


def test_hinge_in_a_far_corner_and_straight_huber_tails_do_no_harm():
    # Curvature is zero along the whole path: the system must never divide by it.
    X, y, D = problem("squared")
    res = train(X, 100.0 * y, D, loss="huber", delta=1e-2, beta=1e-3, tol=1e-6)
    assert res.success
    X, y, D = problem("hinge")
    res = train(X, y, D, loss="hinge", beta=1e-5)
    assert res.success


@pytest.mark.parametrize(
    "spoil",
    [
        lambda X: np.concatenate([np.zeros((3, 4)), X[3:]]),
        lambda X: np.concatenate([X[:20], X[:20]]),
        lambda X: X[:, [0, 1, 2, 0]],
        lambda X: X * [1e3, 1.0, 1e-3, 30.0],
        lambda X: X[:1],
    ],
    ids=["zero rows", "twins", "equal columns", "units", "one sample"],
)
@pytest.mark.parametrize("loss", ["squared", "hinge"])
def test_degenerate_data_are_trained_all_the_same(spoil, loss):
    X, y, _ = problem(loss)
    X = spoil(X)
    y = y[: len(X)]
    D = oracles.patterns(X, 10)[0]
    res = train(X, y, D, loss=loss, tol=1e-6)
    assert res.success


def test_gates_without_interior_keep_blocks_that_certify():
    # Two rows and their negatives, all let through: only u orthogonal to both stays.
    X, y, D = problem("squared")
    X[2:4] = -X[:2]
    D[:4] = True
    res = train(X, y, D, tol=1e-6)
    assert res.success
    assert res.certificate.details["cone_violation"] <= 1e-8


def test_gates_in_another_order_change_nothing_but_the_order():
    X, y, D = problem("squared_hinge")
    order = np.random.default_rng(0).permutation(D.shape[1])
    one, other = (train(X, y, G, loss="squared_hinge", tol=1e-9) for G in (D, D[:, order]))
    np.testing.assert_allclose(one.V[:, order], other.V, atol=1e-4)
    assert one.fun_convex == pytest.approx(other.fun_convex, rel=1e-8)


def test_negated_targets_swap_the_sides():
    X, y, D = problem("squared")
    one, other = train(X, y, D), train(X, -y, D)
    np.testing.assert_allclose(one.V, other.W, atol=1e-4)


def test_units_of_targets_and_penalty_change_no_step():
    X, y, D = problem("squared")
    runs = [train(X, s * y, D, beta=0.1 * s) for s in (1.0, 1e-6, 1e6)]
    assert len({r.nit for r in runs}) == 1
    np.testing.assert_allclose(runs[1].V * 1e6, runs[0].V, atol=1e-5)


def test_mean_loss_is_the_sum_over_samples():
    X, y, D = problem("logistic")
    total = train(X, y, D, loss="logistic", beta=0.4)
    mean = train(X, y, D, loss="logistic", beta=0.4 / len(X), loss_scale="mean")
    assert mean.fun_convex * len(X) == pytest.approx(total.fun_convex, rel=1e-9)


def test_a_start_that_is_optimal_ends_at_once():
    X, y, D = problem("squared")
    first = train(X, y, D)
    again = train(X, y, D, x0=first, tol=1e-6)
    assert again.status == Status.CONVERGED
    assert again.nit == 0


def test_a_start_elsewhere_reaches_the_same_optimum():
    X, y, D = problem("hinge")
    plain = train(X, y, D, loss="hinge")
    start = np.random.default_rng(0).standard_normal((2, 4, D.shape[1]))
    res = train(X, y, D, loss="hinge", x0=(start[0], start[1]))
    assert res.success
    assert res.fun_convex == pytest.approx(plain.fun_convex, rel=1e-7)


def test_steps_stop_where_the_caller_says():
    X, y, D = problem("squared")
    seen = []
    with pytest.warns(ConvergenceWarning, match="interior_point"):
        res = train(X, y, D, maxiter=3, callback=lambda intermediate_result: seen.append(1))
    assert res.status == Status.MAXITER
    assert res.nit == len(seen) == 3
    assert res.dual <= res.fun_convex
    res = train(X, y, D, callback=lambda intermediate_result: True)
    assert res.status == Status.CALLBACK
    assert res.nit == 1


def test_history_has_the_bounds_and_the_barrier_of_every_step():
    X, y, D = problem("squared")
    history = train(X, y, D).history
    # The last row stands for the steps in which blocks vanish, too.
    assert len(history["nit"]) >= history["nit"][-1] - 4
    assert (np.diff(history["gap"]) <= 0).all()
    assert history["mu"][-1] < 1e-6 * history["mu"][0]


def test_a_tolerance_below_rounding_stalls_and_keeps_the_best():
    X, y, D = problem("squared")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        res = train(X, y, D, tol=1e-15)
    assert res.status == Status.STALLED
    assert res.gap < 1e-9
    assert "ounding" in res.message


def test_robust_training_is_refused_with_the_remedy():
    X, y, D = problem("hinge")
    with pytest.raises(NotImplementedError, match=r"`robust_eps`.*admm"):
        train(X, y, D, loss="hinge", robust_eps=0.1)


def test_large_tables_of_products_are_replaced_by_products_of_matrices(monkeypatch):
    from solvers.relu import _interior_point

    X, y, D = problem("squared")
    plain = train(X, y, D)
    monkeypatch.setattr(_interior_point, "_TABLE", 100)
    other = train(X, y, D)
    assert other.nit == plain.nit
    np.testing.assert_allclose(other.V, plain.V, atol=1e-8)


def slow(*, polish, tol=1e-7, n=60, P=60, **more):
    """A run of `admm` whose tolerance is far beyond its checks."""
    X, y, D = problem("hinge", n=n, d=6, P=P, seed=3)
    return relu.admm(
        X, y, beta=0.05, loss="hinge", gates=D, tol=tol, maxiter=1000, polish=polish, **more
    )


def test_polish_ends_a_run_of_iterations_by_steps_that_its_stages_tell_apart():
    with pytest.warns(ConvergenceWarning):
        plain = slow(polish=False, accel=None)
    res = slow(polish=True, accel=None)
    assert plain.status == Status.MAXITER
    assert res.success
    assert [name for name, _, _ in res.stages] == ["admm", "interior_point"]
    assert sum(nit for _, nit, _ in res.stages) == res.nit < plain.nit
    assert plain.dual <= res.fun_convex <= plain.fun_convex


def test_polish_takes_in_gates_that_it_had_left_out(monkeypatch):
    from solvers.relu import _polish

    X, y, D = problem("squared", P=20)
    whole = train(X, y, D)
    lengths, seen = _polish.lengths, []

    def blind(data, z):
        # The first look sees no gate but one.
        seen.append(z)
        found = lengths(data, z)
        return found if len(seen) > 1 else np.where(np.arange(len(found)) == 3, 2 * data.beta, 0)

    def engine(programme, watch, options):
        zero = np.zeros_like(watch.best.U)
        _polish.polish(programme, watch, zero, watch.best.z, options.tol)

    from solvers.relu._driver import train as drive

    monkeypatch.setattr(_polish, "lengths", blind)
    res = drive("admm", X, y, engine, beta=0.1, gates=D, tol=1e-8)
    assert len(seen) > 2
    assert res.success
    assert res.fun_convex == pytest.approx(whole.fun_convex, rel=1e-7)


def test_a_run_that_has_stopped_to_improve_is_stalled():
    with pytest.warns(ConvergenceWarning):
        res = slow(polish=True, tol=1e-16, check_every=25)
    assert res.status == Status.STALLED
