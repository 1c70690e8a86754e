"""States of block methods: increments equal fresh numbers, and bounds are bounds."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from solvers import bcd, penalties
from solvers.bcd._state import open_state

N, P, CLASSES = 30, 7, 3
KINDS = ["quadratic", "logistic", "huber", "squared_hinge", "poisson", "multinomial"]


def posed(kind, *, seed=0, sparse=False, intercept=False, dtype=np.float64, penalty=None):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((N, P)) * (rng.random((N, P)) < 0.7)
    y = X[:, 0] - X[:, 1] + 0.5 * rng.standard_normal(N)
    if kind in ("logistic", "squared_hinge"):
        y = np.sign(y)
    if kind == "poisson":
        y = rng.poisson(2.0, N).astype(float)
    if kind == "multinomial":
        y = np.digitize(y, [-0.7, 0.7])
    data = sp.csc_array(X.astype(dtype)) if sparse else X.astype(dtype)
    options = {"sample_weight": rng.uniform(0.5, 2.0, N).astype(dtype)}
    y = y if kind == "multinomial" else y.astype(dtype)
    problem = bcd.Problem(
        data, y, datafit=kind, penalty=penalty, fit_intercept=intercept, **options
    )
    return problem.model, X


def quadratic(seed=0, sparse=False):
    rng = np.random.default_rng(seed)
    R = rng.standard_normal((P, P)) * (rng.random((P, P)) < 0.5)
    A = R @ R.T + 0.1 * np.eye(P)
    return bcd.Problem.quadratic(sp.csr_array(A) if sparse else A, rng.standard_normal(P)).model


def opened(model, seed=0, **options):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(model.size).astype(model.dtype)
    return open_state(model, x, model.zeros()[1], **options), rng


def wander(state, rng, steps=25, size=3):
    """Take random steps of random blocks."""
    for _ in range(steps):
        block = np.sort(rng.choice(state.x.size, size, replace=False))
        line = state.line(block, 0.3 * rng.standard_normal(size))
        state.move(line, rng.uniform(0.2, 1.0))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
def test_increments_equal_fresh_numbers(kind, sparse, intercept):
    model, X = posed(kind, sparse=sparse, intercept=intercept)
    state, rng = opened(model, greedy=True)
    state.gradient()
    wander(state, rng)
    W = state.x.reshape(model.shape)
    np.testing.assert_allclose(state.z, X @ W + state.c, atol=1e-12)
    fresh = (X.T @ model.slopes(state.z)).reshape(-1)
    np.testing.assert_allclose(state.gradient(), fresh, atol=1e-12)
    block = np.array([1, 4, 5])
    np.testing.assert_allclose(state.partial(block), fresh[block], atol=1e-12)
    assert state.objective() == pytest.approx(model.objective(W, state.c), rel=1e-13)


@pytest.mark.parametrize("sparse", [False, True])
def test_the_gradient_of_a_quadratic_moves_along(sparse):
    model = quadratic(sparse=sparse)
    state, rng = opened(model)
    wander(state, rng)
    A = model.A.toarray() if sparse else model.A
    np.testing.assert_allclose(state.gradient(), A @ state.x - model.b, atol=1e-12)
    assert state.objective() == pytest.approx(model.objective(state.x), rel=1e-13)
    block = np.array([0, 3, 6])
    np.testing.assert_allclose(state.hessian(block), A[np.ix_(block, block)])


@pytest.mark.parametrize("kind", KINDS)
def test_a_move_changes_the_objective_by_what_the_line_says(kind):
    model, _ = posed(kind)
    state, rng = opened(model)
    for size in (1.0, 1e-2):
        block = np.array([0, 2, 5])
        line = state.line(block, size * rng.standard_normal(3))
        before, said = state.objective(), line.change(0.7)
        state.move(line, 0.7)
        assert state.objective() - before == pytest.approx(said, rel=1e-5, abs=1e-14)


@pytest.mark.parametrize("kind", ["quadratic", "logistic", "multinomial", "poisson"])
def test_tiny_changes_are_not_lost_to_cancellation(kind):
    # The first-order term is all that is left of them, known to ten digits.
    model, _ = posed(kind)
    state, rng = opened(model)
    block, d = np.array([0, 2, 5]), 1e-12 * rng.standard_normal(3)
    first = state.partial(block) @ d
    assert state.line(block, d).change() == pytest.approx(first, rel=1e-8)


@pytest.mark.parametrize("kind", ["quadratic", "logistic", "poisson", "multinomial"])
@pytest.mark.parametrize("sparse", [False, True])
def test_hessians_are_the_slopes_of_gradients(kind, sparse):
    model, _ = posed(kind, sparse=sparse)
    state, rng = opened(model)
    block = np.sort(rng.choice(model.size, 4, replace=False))
    H, step = state.hessian(block), 1e-6
    for k in range(4):
        d = np.zeros(4)
        d[k] = step
        up, down = (opened(model)[0] for _ in range(2))
        up.move(up.line(block, d))
        down.move(down.line(block, -d))
        slope = (up.partial(block) - down.partial(block)) / (2 * step)
        np.testing.assert_allclose(H[:, k], slope, atol=1e-8)


@given(st.integers(0, 10**6), st.sampled_from([k for k in KINDS if k != "poisson"]))
def test_bounds_are_never_below_hessians(seed, kind):
    model, _ = posed(kind, seed=seed % 7)
    state, rng = opened(model, seed)
    block = np.sort(rng.choice(model.size, rng.integers(1, 6), replace=False))
    gap = np.linalg.eigvalsh(state.bound(block) - state.hessian(block))
    assert gap.min() >= -1e-12
    if kind != "multinomial":
        np.testing.assert_allclose(np.diag(state.bound(block)), state.lipschitz[block])


@given(st.integers(0, 10**6), st.sampled_from(["logistic", "multinomial"]))
def test_third_derivatives_are_bounded(seed, kind):
    model, _ = posed(kind, seed=seed % 7)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(model.size) * rng.choice([0.0, 0.3, 3.0])
    block = np.sort(rng.choice(model.size, rng.integers(1, 6), replace=False))
    d = rng.standard_normal(block.size)
    d /= np.linalg.norm(d)
    bends = []
    for step in (1e-4, -1e-4):
        state = open_state(model, x, model.zeros()[1])
        state.move(state.line(block, step * d))
        bends.append(d @ state.hessian(block) @ d)
    most = state.third(block)
    assert abs(bends[0] - bends[1]) / 2e-4 <= most * (1 + 1e-3)


@pytest.mark.parametrize("kind", ["logistic", "huber", "squared_hinge", "multinomial"])
@pytest.mark.parametrize("shift", [0.0, 300.0])
def test_the_intercept_is_always_the_best_one(kind, shift):
    model, _ = posed(kind, intercept=True)
    c = model.zeros()[1] + np.asarray(shift)
    state = open_state(model, np.zeros(model.size), c)
    wander(state, np.random.default_rng(3), steps=4)
    r = model.slopes(state.z)
    assert np.abs(r.sum(axis=0)).max() <= 1e-13 * np.abs(r).sum()


def test_the_intercept_of_two_classes_settles():
    # A Newton step class by class would go twice as far as it should, for ever.
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 2)), rng.integers(0, 2, 40)
    model = bcd.Problem(X, y, datafit="multinomial", fit_intercept=True).model
    state = open_state(model, np.zeros(4), np.array([5.0, -5.0]))
    share = y.mean()
    assert state.c[1] - state.c[0] == pytest.approx(np.log(share / (1 - share)), abs=1e-10)


def test_single_precision_does_not_drift():
    model, X = posed("logistic", dtype=np.float32)
    state, rng = opened(model)
    wander(state, rng, steps=700)
    assert state.x.dtype == state.z.dtype == np.float32
    np.testing.assert_allclose(state.z, X @ state.x.astype(float), atol=2e-4)


def test_increments_that_drift_are_replaced_sooner():
    model = quadratic()
    state, rng = opened(model)
    clean = model.gradient

    def passes(steps):
        before = state.npass
        for _ in range(steps):
            state.move(state.line(np.array([0]), np.array([1e-3])))
        return state.npass - before - steps / P

    assert passes(1000) == pytest.approx(2.0)
    # What is computed afresh never agrees with what was carried along.
    object.__setattr__(model, "b", model.b)
    state.problem = type("Odd", (), {})()
    for name in ("A", "b", "be", "xp", "dtype", "sparse", "size"):
        setattr(state.problem, name, getattr(model, name))
    state.problem.gradient = lambda x: clean(x) * (1.0 + 1e-6 * rng.standard_normal())
    assert passes(1000) > 5.0


def test_steps_never_leave_the_bounds():
    box = penalties.Box(-0.1, 0.3)
    model, _ = posed("quadratic", penalty=box, dtype=np.float32)
    state = open_state(model, np.full(P, 0.1, np.float32), model.zeros()[1])
    block = np.arange(P)
    for sign in (1.0, -1.0):
        end = np.where(sign > 0, 0.3, -0.1)
        state.move(state.line(block, end - state.x.astype(float)))
        assert (state.x <= state.penalty.hi).all()
        assert (state.x >= state.penalty.lo).all()


def test_passes_are_counted():
    model, _ = posed("logistic")
    state, _ = opened(model)
    assert state.npass == 1.0
    state.gradient()
    state.gradient()
    assert state.npass == 2.0
    state.line(np.arange(P), np.ones(P))
    assert state.npass == 3.0
