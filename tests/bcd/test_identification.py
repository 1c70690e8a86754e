"""When zeros and bounds are found for good, and when a method ends after finitely many updates."""

import warnings

import numpy as np
import pytest

from solvers import ConvergenceWarning, bcd, penalties


def planted(seed, kind, p=20, support=6, delta=0.05):
    """A quadratic whose solution is chosen first, with a certificate at a known distance delta."""
    rng = np.random.default_rng(seed)
    Q = np.linalg.qr(rng.standard_normal((p, p)))[0]
    A = (Q * np.linspace(0.5, 3.0, p)) @ Q.T
    A = 0.5 * (A + A.T)
    x = np.zeros(p)
    x[:support] = rng.uniform(1.0, 2.0, support)
    if kind == "l1":
        x *= rng.choice([-1.0, 1.0], p)
        g = rng.uniform(-1.0 + delta, 1.0 - delta, p)
        g[:support], g[support] = -np.sign(x[:support]), 1.0 - delta
        return A, A @ x - g, {"l1": 1.0}, x
    g = rng.uniform(delta, 1.0, p)
    g[:support], g[support] = 0.0, delta
    return A, A @ x - g, {"bounds": (0.0, np.inf)}, x


def prox(kind, v, step):
    if kind == "l1":
        return np.sign(v) * np.maximum(abs(v) - step, 0.0)
    return np.maximum(v, 0.0)


@pytest.mark.parametrize("kind", ["l1", "bounds"])
@pytest.mark.parametrize("seed", range(3))
def test_a_step_from_near_enough_finds_all_zeros_and_not_one_from_farther(kind, seed):
    delta, support = 0.05, 6
    A, b, _, x = planted(seed, kind, delta=delta)
    L = np.linalg.eigvalsh(A)[-1]
    rng = np.random.default_rng(seed)
    for _ in range(200):
        off = rng.standard_normal(x.size)
        near = x + delta / (2.0 * L) * off / np.linalg.norm(off)
        after = prox(kind, near - (A @ near - b) / L, 1.0 / L)
        assert not after[support:].any()
    # The bound is sharp but for its factor 2: along one unknown, twice as far is too far.
    far = x.copy()
    far[support] += (2.0 * delta / L) * (-1.0 if kind == "l1" else 1.0)
    if kind == "l1":
        far[support] -= delta / L
    L1 = 50.0 * L
    step = lambda y: prox(kind, y - (A @ y - b) / L1, 1.0 / L1)  # noqa: E731
    assert step(far)[support] != 0.0


@pytest.mark.parametrize("kind", ["l1", "bounds"])
@pytest.mark.parametrize("seed", range(4))
def test_the_support_is_identified_within_the_bound_of_the_paper(kind, seed):
    delta = 0.05
    A, b, given, x = planted(seed, kind, delta=delta)
    values = np.linalg.eigvalsh(A)
    # The library's step is longer than 1 / L by nothing, and shorter by a safety factor.
    L = values[-1] * (1.0 + 1e-6)
    rate = L / values[0]
    res = bcd.minimize(
        bcd.Problem.quadratic(A, b, **given), partition="order", block_size=x.size,
        selection="cyclic", update="gradient", working_set=False, tol=1e-12,
    )  # fmt: skip
    assert res.success
    np.testing.assert_array_equal(res.support, np.flatnonzero(x))
    assert 0 < res.identified_at <= np.ceil(rate * np.log(2 * L * np.linalg.norm(x) / delta)) + 1
    assert res.identified_at < res.nit
    nnz = res.history["nnz"]
    assert (nnz[res.identified_at - 1 :] == np.count_nonzero(x)).all()


@pytest.mark.parametrize("kind", ["l1", "bounds"])
@pytest.mark.parametrize("update", ["exact", "prox_newton", "two_metric"])
@pytest.mark.parametrize("selection", ["gsq", "gs-s", "gsd"])
def test_blocks_that_hold_the_support_end_after_finitely_many_updates(kind, update, selection):
    for seed in range(3):
        A, b, given, x = planted(seed, kind, p=60, support=12)
        updates = []
        with warnings.catch_warnings():
            # The goal is rounding, which may be just out of reach.
            warnings.simplefilter("ignore")
            res = bcd.minimize(
                bcd.Problem.quadratic(A, b, **given), block_size=22, selection=selection,
                update=update, working_set=False, tol=1e-12, maxiter=29, callback=updates.append,
            )  # fmt: skip
        assert res.kkt <= 1e-12 * abs(b).max()
        assert len(updates) < 30
        np.testing.assert_allclose(res.x, x, atol=1e-10)


def test_random_blocks_of_the_same_size_do_not_end_so_soon():
    A, b, given, _ = planted(0, "l1", p=60, support=12)
    with pytest.warns(ConvergenceWarning):
        res = bcd.minimize(
            bcd.Problem.quadratic(A, b, **given), block_size=22, selection="random",
            update="exact", working_set=False, tol=1e-12, maxiter=29, rng=0,
        )  # fmt: skip
    assert res.kkt > 1e-10


def violations(update, seed):
    """The largest violation of a sparse logistic problem after each update of a large block."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((200, 30))
    y, a, seen = np.sign(X[:, :5].sum(axis=1) + rng.standard_normal(200)), 0.02, []

    def watch(state):
        w = state.x
        g = -X.T @ (y / (1.0 + np.exp(y * (X @ w)))) / y.size
        far = np.where(w != 0, abs(g + a * np.sign(w)), np.maximum(abs(g) - a, 0.0))
        seen.append(far.max())

    problem = bcd.Problem(X, y, datafit="logistic", penalty=penalties.L1(a))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        res = bcd.minimize(
            problem, block_size=30, update=update, working_set=False, tol=1e-13, maxiter=40,
            callback=watch,
        )  # fmt: skip
    return np.array(seen), res.identified_at


@pytest.mark.parametrize("seed", range(3))
def test_once_the_support_is_found_newton_steps_double_the_digits(seed):
    for update in ("prox_newton", "two_metric"):
        seen, identified = violations(update, seed)
        assert identified <= 5
        before, after = seen[identified - 1 : -1], seen[identified:]
        # Below, rounding is what is left; the constant is the problem's.
        sound = after > 1e-13
        assert sound.sum() >= 1
        assert (after[sound] <= 50.0 * before[sound] ** 2).all()
        assert after[-1] < 1e-12
    seen, _ = violations("gradient", seed)
    assert seen[-1] > 1e-6
