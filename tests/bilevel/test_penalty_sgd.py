"""Stochastic methods: that they get there, what noise does, and that runs can be repeated."""

import warnings

import numpy as np
import pytest
from scipy.optimize import minimize

from solvers import ConvergenceWarning, Status, bilevel
from solvers.bilevel import _penalty_sgd

METHODS = _penalty_sgd.METHODS
BOX = bilevel.box(-6.0, 2.0)
EPOCHS = {"batch": 32, "epochs": 12}


class Ridge:
    """One penalty ``exp(x_j)`` per feature; psi and its gradient in closed form."""

    def __init__(self, n=320, m=288, p=5, seed=0):
        rng = np.random.default_rng(seed)
        w = rng.standard_normal(p) * (np.arange(p) % 2)
        self.A, self.V = rng.standard_normal((n, p)), rng.standard_normal((m, p))
        self.b = self.A @ w + 0.7 * rng.standard_normal(n)
        self.c = self.V @ w + 0.7 * rng.standard_normal(m)
        self.n, self.m, self.x0, self.y0 = n, m, np.full(p, 1.0), np.zeros(p)
        self.calls = []

    def g(self, x, y, idx):
        self.calls.append(("g", np.array(idx)))
        A, r, e = self.A[idx], self.A[idx] @ y - self.b[idx], np.exp(x)
        value = 0.5 * r @ r / len(idx) + 0.5 * e @ (y * y)
        return value, 0.5 * e * y * y, A.T @ r / len(idx) + e * y

    def f(self, x, y, idx):
        self.calls.append(("f", np.array(idx)))
        V, r = self.V[idx], self.V[idx] @ y - self.c[idx]
        return 0.5 * r @ r / len(idx), None, V.T @ r / len(idx)

    @property
    def upper(self):
        return bilevel.Oracle(value_and_grads=self.f, n_samples=self.m)

    @property
    def lower(self):
        return bilevel.Oracle(
            value_and_grads=self.g,
            hvp_yy=lambda x, y, v, i: self.A[i].T @ (self.A[i] @ v) / len(i) + np.exp(x) * v,
            hvp_xy=lambda x, y, v, i: np.exp(x) * y * v,
            n_samples=self.n,
        )

    def psi(self, x):
        H = self.A.T @ self.A / self.n + np.diag(np.exp(x))
        y = np.linalg.solve(H, self.A.T @ self.b / self.n)
        r = self.V @ y - self.c
        q = np.linalg.solve(H, self.V.T @ r / self.m)
        return 0.5 * r @ r / self.m, -np.exp(x) * y * q

    def lowest(self):
        bounds = [(-6.0, 2.0)] * len(self.x0)
        return minimize(self.psi, self.x0, jac=True, method="L-BFGS-B", bounds=bounds).fun


def run(problem, **options):
    options = {"X": BOX, "rng": 0, **EPOCHS, **options}
    return bilevel.penalty_sgd(problem.upper, problem.lower, problem.x0, problem.y0, **options)


def quiet(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return run(*args, **options)


@pytest.fixture(scope="module")
def ridge():
    return Ridge()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_comes_close_to_the_optimum(ridge, method):
    res = quiet(ridge, method=method, epochs=30)
    lowest, start = ridge.lowest(), ridge.psi(ridge.x0)[0]
    assert ridge.psi(res.x)[0] - lowest <= 0.25 * (start - lowest)
    assert res.fun == pytest.approx(ridge.psi(res.x)[0], rel=1e-4)
    assert res.success == res.certificate.holds
    np.testing.assert_allclose(res.jac, ridge.psi(res.x)[1], atol=5e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_choice_of_steps_counts_for_every_method(ridge, method):
    options = {"method": method, "lr": 0.05, "epochs": 3}
    near, far = (quiet(ridge, lr_upper=step, **options).x for step in (1e-4, 1e-1))
    assert abs(near - ridge.x0).max() < 1e-3 < abs(far - ridge.x0).max()


def test_the_answer_hardly_depends_on_the_penalty(ridge):
    values = [ridge.psi(quiet(ridge, sigma=s, epochs=30).x)[0] for s in (1e-1, 1e-2, 1e-4)]
    assert np.ptp(values) <= 0.002 * min(values)


@pytest.mark.parametrize("groups", [None, [0, 1, 1, 0, 2]])
@pytest.mark.parametrize("method", ["shared", "f2sa"])
def test_the_kernel_takes_the_steps_of_the_plain_loop(ridge, method, groups, monkeypatch):
    data = ridge.A, np.sign(ridge.b), ridge.V, np.sign(ridge.c)
    problem = bilevel.problems.LogisticHPO(*data, groups=groups)
    # The batch does not divide the samples, nor a report an epoch.
    options = {"method": method, "batch": 33, "epochs": 5, "callback_every": 0.7, "rng": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        fused = bilevel.penalty_sgd(problem, **options)
        monkeypatch.setattr(_penalty_sgd.Fused, "fits", lambda *_: False)
        plain = bilevel.penalty_sgd(problem, **options)
    np.testing.assert_allclose(fused.x, plain.x, rtol=1e-9)
    np.testing.assert_allclose(fused.history["fun"], plain.history["fun"], rtol=1e-9)
    assert fused.nit == plain.nit
    assert fused.history["n_g"].tolist() == plain.history["n_g"].tolist()


class Unshared(Ridge):
    """Draws a batch of its own for each gradient of the lower level."""

    def g(self, x, y, idx):
        if len(idx) < self.n:
            idx = np.random.default_rng(len(self.calls)).choice(self.n, len(idx), replace=False)
        return super().g(x, y, idx)


def test_a_shared_batch_keeps_the_noise_of_hyper_gradients_from_growing():
    """At a fixed x, without momentum; see section 2.5 of the method's description."""
    deviations = []
    for kind in (Ridge, Unshared):
        problem, found = kind(), []
        still = {"X": bilevel.box(problem.x0, problem.x0), "momentum": 0.0, "sigma": 1e-2}
        save = {"checkpoint": lambda s, f=found: f.append(s.data["s"]["D"]), "checkpoint_every": 0}
        quiet(problem, lr=0.05, lr_upper=1.0, epochs=40, callback_every=0.1, **still, **save)
        deviations.append(np.var(found[50:], axis=0).sum())
    assert deviations[1] >= 50 * deviations[0]


def test_one_batch_of_either_level_is_drawn_for_a_step_and_none_has_a_sample_twice(ridge):
    ridge.calls.clear()
    quiet(ridge, lr=0.05, lr_upper=1.0, epochs=2, sigma=0.01)
    # In the first step y and z are the same; then there are three calls in each.
    first = next(k for k, (_, idx) in enumerate(ridge.calls) if len(idx) == 32)
    steps = ridge.calls[first + 2 : first + 2 + 19 * 3]
    assert [kind for kind, _ in steps[:6]] == ["f", "g", "g"] * 2
    assert all(len(set(idx)) == 32 for _, idx in steps)
    assert np.array_equal(steps[1][1], steps[2][1])
    epoch = np.concatenate([idx for _, idx in steps[1 + 3 * 9 :: 3]])
    assert np.array_equal(np.sort(epoch), np.arange(320))


def test_counts_are_those_of_the_calls(ridge):
    ridge.calls.clear()
    seen = []
    # Once the run is over, the certificate looks again.
    res = quiet(ridge, callback=lambda intermediate_result: seen.append(len(ridge.calls)))
    kinds = [kind for kind, _ in ridge.calls]
    assert seen[-1] <= res.counts["n_f"] + res.counts["n_g"] <= len(kinds)
    assert res.counts["n_f"] <= kinds.count("f")
    assert res.counts["n_g"] <= kinds.count("g")


def test_the_same_seed_gives_the_same_run_and_a_generator_moves_on_once(ridge):
    one, two, other = (quiet(ridge, rng=seed).x for seed in (3, 3, 4))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    rngs = [np.random.default_rng(7) for _ in range(2)]
    for rng, epochs in zip(rngs, (1, 9), strict=True):
        quiet(ridge, rng=rng, epochs=epochs)
    assert rngs[0].integers(1000) == rngs[1].integers(1000)


def test_the_history_has_a_row_for_every_report(ridge):
    res = quiet(ridge, callback_every=0.5)
    assert res.nit == 120
    assert np.array_equal(res.history["nit"], np.arange(5, 121, 5))
    assert res.history["fun"][-10:].mean() < res.history["fun"][:4].mean()
    assert np.isfinite(res.history["optimality"]).all()


def test_trees_and_single_precision_are_kept():
    ridge = Ridge()

    def fold(fun):
        def folded(x, y, idx):
            value, gx, gy = fun(x["all"], np.concatenate([y[0], y[1]]), idx)
            gx = None if gx is None else {"all": gx.astype(np.float32)}
            return value, gx, [gy[:2].astype(np.float32), gy[2:].astype(np.float32)]

        return folded

    upper = bilevel.Oracle(value_and_grads=fold(ridge.f), n_samples=ridge.m)
    lower = bilevel.Oracle(value_and_grads=fold(ridge.g), n_samples=ridge.n)
    x0 = {"all": ridge.x0.astype(np.float32)}
    y0 = [np.zeros(2, np.float32), np.zeros(3, np.float32)]
    res = bilevel.penalty_sgd(upper, lower, x0, y0, rng=0, tol=0.05, **EPOCHS)
    assert res.x["all"].dtype == np.float32 == res.y[1].dtype
    assert ridge.psi(res.x["all"])[0] < ridge.psi(ridge.x0)[0]


def test_a_lower_level_with_a_prox_is_solved_with_it():
    """The l1 term of a lasso: coefficients of noise end at exactly 0."""
    ridge = Ridge()
    weight = 0.3
    lower = bilevel.Oracle(
        value_and_grads=ridge.g,
        prox_y=lambda v, t: np.sign(v) * np.maximum(abs(v) - weight * t, 0.0),
        n_samples=ridge.n,
    )
    fixed = bilevel.box(ridge.x0, ridge.x0)
    res = bilevel.penalty_sgd(ridge.upper, lower, ridge.x0, ridge.y0, X=fixed, rng=0, tol=1.0)
    slope = ridge.g(ridge.x0, res.y, np.arange(ridge.n))[2]
    zero = res.y == 0
    assert zero.any()
    assert (abs(slope[zero]) <= weight + 1e-3).all()
    np.testing.assert_allclose(slope[~zero], -weight * np.sign(res.y[~zero]), atol=1e-2)


@pytest.mark.parametrize("option", [{"normalize": True}, {"prox": True}, {"averaging": 0.0}])
def test_options_have_an_effect(ridge, option):
    method = "single-loop" if "prox" in option else "shared"
    plain, changed = (quiet(ridge, method=method, **o).x for o in ({}, option))
    assert not np.array_equal(plain, changed)
    assert ridge.psi(changed)[0] < ridge.psi(ridge.x0)[0]


def test_normalised_steps_have_the_length_that_was_asked_for(ridge):
    seen = []
    quiet(
        ridge, X=None, sigma=0.01, normalize=True, lr=0.05, lr_upper=0.01, averaging=0.0, epochs=1,
        callback=lambda intermediate_result: seen.append(intermediate_result.x.copy()),
        callback_every=0.1,
    )  # fmt: skip
    lengths = np.linalg.norm(np.diff([ridge.x0, *seen], axis=0), axis=1)
    decay = (1 + np.arange(10) / 2) ** -0.5
    # At the start y and z are the same.
    np.testing.assert_allclose(lengths[1:], 0.01 * decay[1:], rtol=1e-4)


def test_steps_that_were_chosen_too_long_are_shortened(ridge, monkeypatch):
    monkeypatch.setattr(_penalty_sgd, "_LONGEST", 1e3)
    monkeypatch.setattr(_penalty_sgd.Loop, "_measure", lambda self, count: None)
    res = quiet(ridge, epochs=30)
    assert ridge.psi(res.x)[0] < ridge.psi(ridge.x0)[0]


def test_a_run_that_diverges_returns_its_last_finite_point(ridge):
    res = quiet(ridge, lr=50.0, lr_upper=1.0, callback_every=0.1)
    assert res.status is Status.NUMERICAL
    assert np.isfinite(res.x).all()
    assert np.isfinite(res.y).all()


def test_it_ends_in_time_and_warns_once(ridge):
    with pytest.warns(ConvergenceWarning, match="penalty_sgd") as record:
        res = run(ridge, epochs=1e5, time_limit=0.2, tol=1e-12)
    assert res.status is Status.TIME_LIMIT
    assert len(record) == 1


def test_a_run_that_is_too_short_says_what_to_raise(ridge):
    with pytest.warns(ConvergenceWarning, match="`epochs` = 1 says"):
        res = run(ridge, epochs=1, tol=1e-9)
    assert res.status is Status.MAXITER


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"method": "adam"}, ValueError, "`method`"),
        ({"batch": 0}, ValueError, "`batch`"),
        ({"batch": 289}, ValueError, "`batch` came as 289; expected at most the 288"),
        ({"batch": 3.5}, TypeError, "`batch`"),
        ({"epochs": 0}, ValueError, "`epochs`"),
        ({"sigma": -1.0}, ValueError, "`sigma`"),
        ({"lr": 0.0}, ValueError, "`lr`"),
        ({"lr_upper": "1"}, TypeError, "`lr_upper`"),
        ({"momentum": 1.0}, ValueError, "`momentum`"),
        ({"momentum": None}, TypeError, "`momentum`"),
        ({"averaging": -0.1}, ValueError, "`averaging`"),
        ({"normalize": 1}, TypeError, "`normalize`"),
        ({"prox": "yes"}, TypeError, "`prox`"),
        ({"callback_every": 0}, ValueError, "`callback_every`"),
        ({"tol": 0.0}, ValueError, "`tol`"),
    ],
)
def test_wrong_arguments_are_named(ridge, change, kind, words):
    with pytest.raises(kind, match=words):
        run(ridge, **change)


def test_levels_without_samples_or_products_are_named(ridge):
    full = [
        lambda x, y, h=h, n=n: h(x, y, np.arange(n)) for h, n in ((ridge.f, 288), (ridge.g, 320))
    ]
    with pytest.raises(ValueError, match="`n_samples` of `upper`"):
        bilevel.penalty_sgd(*full, ridge.x0, ridge.y0)
    bare = bilevel.Oracle(value_and_grads=ridge.g, n_samples=ridge.n)
    with pytest.raises(TypeError, match=r"`method`='soba' needs lower\.hvp_yy"):
        bilevel.penalty_sgd(ridge.upper, bare, ridge.x0, ridge.y0, method="soba")
