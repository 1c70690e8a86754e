"""Blockwise variance-reduced steps: closed forms, the ready-made problem, contracts."""

import math
import warnings

import numpy as np
import pytest

import solvers
from solvers import bilevel

VARIANTS = ("v1", "v2", "v3")
each_variant = pytest.mark.parametrize("variant", VARIANTS)


class Blocks:
    """g_i = y'A_i y/2 - y'(B_i x + c_ij), a mean over j; f_i = |y - t_i|^2/2 + h |x|^2/2."""

    def __init__(self, m=6, n=5, d=2, p=3, noise=0.3, seed=0, h=0.2):
        rng = np.random.default_rng(seed)
        q = np.linalg.qr(rng.standard_normal((m, p, p)))[0]
        self.A = np.einsum("mij,j,mkj->mik", q, np.linspace(0.5, 1.5, p), q)
        self.B, self.t = rng.standard_normal((m, p, d)), rng.standard_normal((m, p))
        self.c = rng.standard_normal((m, 1, p)) + noise * rng.standard_normal((m, n, p))
        self.h, self.m, self.n, self.d, self.p = h, m, n, d, p
        self.calls = 0
        J = np.linalg.solve(self.A, self.B)
        base = np.linalg.solve(self.A, self.c.mean(1)[..., None])[..., 0]
        H = np.einsum("mpi,mpj->ij", J, J) / m + h * np.eye(d)
        self.x = np.linalg.solve(H, np.einsum("mpi,mp->i", J, self.t - base) / m)
        self.y = J @ self.x + base

    def lower_of(self, x, y, blocks, idx):
        self.calls += 1
        A, B, c = self.A[blocks], self.B[blocks], self.c[blocks[:, None], idx].mean(1)
        Ay, r = np.einsum("mij,mj->mi", A, y), B @ x + c
        value = 0.5 * (y * Ay).sum(1) - (y * r).sum(1)
        return value, -np.einsum("mpi,mp->mi", B, y), Ay - r

    def upper_of(self, x, y, blocks, idx):
        e = y - self.t[blocks]
        value = 0.5 * (e * e).sum(1) + 0.5 * self.h * x @ x
        return value, np.tile(self.h * x, (len(blocks), 1)), e

    def levels(self, **changes):
        lower = {
            "value_and_grads": self.lower_of,
            "hvp_yy": lambda x, y, v, blocks, idx: np.einsum("mij,mj->mi", self.A[blocks], v),
            "hvp_xy": lambda x, y, v, b, idx: -np.einsum("mpi,mp->mi", self.B[b], v),
            "n_samples": self.n,
            **changes,
        }
        upper = bilevel.Oracle(
            value_and_grads=self.upper_of, n_samples=changes.get("n_samples", self.n)
        )
        return upper, bilevel.Oracle(**lower)

    def solve(self, **options):
        levels = options.pop("levels", None) or self.levels()
        start = options.pop("start", (np.zeros(self.d), np.zeros((self.m, self.p))))
        given = {"n_blocks": self.m, "blocks": 3, "batch": 2, "epochs": 120, "rng": 0, **options}
        return quiet(bilevel.bsvrb, *levels, *start, **given)


def quiet(call, *args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solvers.ConvergenceWarning)
        return call(*args, **options)


def classifiers(m=6, sizes=(24, 20), p=4, seed=0):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((m, p)) * (np.arange(p) % 2)
    out = []
    for n in sizes:
        X = rng.standard_normal((m, n, p))
        z = np.einsum("mnp,mp->mn", X, W)
        out += [X, np.where(z + rng.standard_normal(z.shape) > 0, 1.0, -1.0)]
    return out


@each_variant
def test_the_closed_form_is_found_from_a_few_samples_of_a_few_blocks(variant):
    problem = Blocks()
    res = problem.solve(variant=variant, epochs=150)
    assert res.certificate.value < 0.3
    np.testing.assert_allclose(res.x, problem.x, atol=0.05)
    # The lower level is solved on all samples where the steps end.
    y = np.linalg.solve(problem.A, (problem.B @ res.x + problem.c.mean(1))[..., None])[..., 0]
    np.testing.assert_allclose(res.y, y, atol=1e-2)


@each_variant
def test_without_noise_the_answer_is_exact(variant):
    problem = Blocks(noise=0.0)
    sigma = {"sigma": 1e-4} if variant == "v3" else {}
    res = problem.solve(variant=variant, blocks=6, batch=5, epochs=600, lr_upper=0.05, **sigma)
    assert res.success
    np.testing.assert_allclose(res.x, problem.x, atol=1e-2)


@each_variant
def test_the_order_of_the_blocks_does_not_matter(variant):
    one, other = Blocks(), Blocks()
    order = np.array([3, 1, 5, 0, 2, 4])
    for name in "ABct":
        setattr(other, name, getattr(one, name)[order])
    options = {"blocks": 6, "batch": 5, "epochs": 40, "lr": 0.4, "lr_upper": 0.02, "sigma": 0.1}
    runs = [q.solve(variant=variant, **options) for q in (one, other)]
    np.testing.assert_allclose(runs[1].x, runs[0].x, rtol=1e-9)
    np.testing.assert_allclose(runs[1].y, runs[0].y[order], rtol=1e-6, atol=1e-8)


@each_variant
def test_ready_made_levels_take_the_same_steps_as_functions_of_the_caller(variant):
    data = classifiers()
    ready = bilevel.problems.MultiBlockLogistic(*data)

    def hidden(oracle):
        names = ("value_and_grads", "hvp_yy", "hvp_xy")
        functions = {name: getattr(oracle, name) for name in names}
        m = ready.n_blocks
        return bilevel.Oracle(
            **functions, precond_y=lambda x: m * oracle.precond_y(x), n_samples=oracle.n_samples
        )

    options = {"variant": variant, "blocks": 2, "batch": 5, "epochs": 2, "rng": 3}
    res = quiet(bilevel.bsvrb, ready, **options)
    levels = hidden(ready.upper), hidden(ready.lower)
    other = quiet(bilevel.bsvrb, *levels, ready.x0, ready.y0, n_blocks=6, X=ready.X, **options)
    np.testing.assert_allclose(other.x, res.x, rtol=1e-9)
    assert other.nit == res.nit == 2 * 3 * 5


def test_many_classifiers_come_close_to_the_best_penalties():
    problem = bilevel.problems.MultiBlockLogistic(*classifiers(m=10, p=5))
    best = quiet(bilevel.penalty, problem, tol=1e-4).fun
    at_start = quiet(bilevel.penalty, problem, maxiter=0).fun
    for variant in VARIANTS:
        res = quiet(bilevel.bsvrb, problem, variant=variant, blocks=5, batch=8, epochs=60, rng=0)
        assert res.fun - best <= 0.15 * (at_start - best)


def test_the_mean_over_blocks_is_that_of_single_problems():
    X, t, Xv, tv = classifiers()
    problem = bilevel.problems.MultiBlockLogistic(X, t, Xv, tv)
    singles = [bilevel.problems.LogisticHPO(*part) for part in zip(X, t, Xv, tv, strict=True)]
    rng = np.random.default_rng(1)
    x, y, v = rng.standard_normal(4), rng.standard_normal((6, 4)), rng.standard_normal((6, 4))
    idx = np.array([3, 3, 7, 0])
    for last in ((), (idx,)):
        for level in ("upper", "lower"):
            value, gx, gy = getattr(problem, level)(x, y, *last)
            looks = [getattr(q, level)(x, row, *last) for q, row in zip(singles, y, strict=True)]
            assert value == pytest.approx(np.mean([look[0] for look in looks]))
            np.testing.assert_allclose(gx, np.mean([look[1] for look in looks], 0), atol=1e-14)
            np.testing.assert_allclose(gy, np.array([look[2] for look in looks]) / 6)
        lower = [q.lower for q in singles]
        products = [o.hvp_yy(x, a, b, *last) for o, a, b in zip(lower, y, v, strict=True)]
        np.testing.assert_allclose(problem.lower.hvp_yy(x, y, v, *last), np.array(products) / 6)
        mixed = [o.hvp_xy(x, a, b, *last) for o, a, b in zip(lower, y, v, strict=True)]
        np.testing.assert_allclose(problem.lower.hvp_xy(x, y, v, *last), np.mean(mixed, 0))
    diagonals = [q.lower.precond_y(x) for q in singles]
    np.testing.assert_allclose(problem.lower.precond_y(x), np.array(diagonals) / 6)
    difference, *grads = problem.lower.pair(x, y, v)
    one, other = problem.lower(x, y), problem.lower(x, v)
    assert difference == pytest.approx(one[0] - other[0])
    for got, wanted in zip(grads, (one[1], other[1], one[2], other[2]), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-13)
    close = y + 1e-9 * v
    slope = one[2].ravel() @ v.ravel()
    assert problem.lower.pair(x, close, y)[0] == pytest.approx(1e-9 * slope, rel=1e-6)


def test_blocks_of_different_sizes_are_those_of_single_problems():
    rng = np.random.default_rng(2)
    sizes, widths = (9, 14, 11), (3, 2, 4)
    X = [rng.standard_normal((n, p)) for n, p in zip(sizes, widths, strict=True)]
    Xv = [rng.standard_normal((6, p)) for p in widths]
    t, tv = ([np.sign(rng.standard_normal(len(A))) for A in part] for part in (X, Xv))
    problem = bilevel.problems.MultiBlockLogistic(X, t, Xv, tv)
    x, y = rng.standard_normal(4), np.zeros((3, 4))
    for i, p in enumerate(widths):
        y[i, :p] = rng.standard_normal(p)
    value, _, gy = problem.lower(x, y)
    total = 0.0
    for i, p in enumerate(widths):
        single = bilevel.problems.LogisticHPO(X[i], t[i], Xv[i], tv[i])
        one, _, slope = single.lower(x[:p], y[i, :p])
        total += one
        np.testing.assert_allclose(gy[i, :p], slope / 3)
        np.testing.assert_array_equal(gy[i, p:], 0)
    assert value == pytest.approx(total / 3)
    res = quiet(bilevel.bsvrb, problem, blocks=2, batch=4, epochs=5, rng=0)
    assert (res.y[1, 2:] == 0).all()


def test_blocks_may_have_different_numbers_of_samples():
    problem = Blocks(noise=0.0)
    # With one value for all samples of a block, it does not matter which are there.
    n = np.array([5, 3, 4, 5, 2, 5])
    seen = []

    def lower(x, y, blocks, idx):
        seen.append((idx < n[blocks][:, None]).all())
        return problem.lower_of(x, y, blocks, idx)

    res = problem.solve(levels=problem.levels(value_and_grads=lower, n_samples=n))
    np.testing.assert_allclose(res.x, problem.x, atol=0.1)
    assert all(seen)
    with pytest.raises(ValueError, match=r"^`n_samples` of `upper` .*bilevel.bsvrb$"):
        bilevel.penalty(*problem.levels(n_samples=n), np.zeros(2), np.zeros((6, 3)))


def test_all_samples_together_are_the_sum_of_parts(monkeypatch):
    problem = Blocks()
    level = problem.levels()[1].over_blocks(problem.m)
    rng = np.random.default_rng(0)
    x, y, v = rng.standard_normal(2), rng.standard_normal((6, 3)), rng.standard_normal((6, 3))
    at_once = *level(x, y), level.hvp_yy(x, y, v), level.hvp_xy(x, y, v)
    monkeypatch.setattr("solvers.bilevel._blocks._AT_A_TIME", 10)
    in_parts = *level(x, y), level.hvp_yy(x, y, v), level.hvp_xy(x, y, v)
    for one, other in zip(at_once, in_parts, strict=True):
        np.testing.assert_allclose(one, other)
    assert at_once[0] == pytest.approx(
        np.mean(problem.lower_of(x, y, np.arange(6), np.tile(np.arange(5), (6, 1)))[0])
    )


@pytest.mark.parametrize("ready", [False, True], ids=["own levels", "ready-made levels"])
def test_the_certificate_is_that_of_all_blocks_together(ready):
    problem = bilevel.problems.MultiBlockLogistic(*classifiers()) if ready else Blocks()
    options = {"blocks": 3, "batch": 4, "epochs": 20, "rng": 0}
    res = quiet(bilevel.bsvrb, problem, **options) if ready else problem.solve(**options)
    levels = (problem.upper, problem.lower) if ready else problem.levels()
    X = problem.X if ready else None
    means = (level.over_blocks(6) for level in levels)
    again = bilevel.certify(*means, res.x, res.y, X=X, tol=1e-2)
    assert again.value == pytest.approx(res.certificate.value, rel=1e-6)
    assert again.holds == res.success


def test_hessians_that_do_not_fit_into_memory_are_refused_at_once(monkeypatch):
    monkeypatch.setattr("solvers._core.validation._SMALL_ALLOCATION", 1)
    monkeypatch.setattr("solvers._core.validation._free_memory", lambda: 100)
    problem = Blocks()
    with pytest.raises(MemoryError, match=r"^`variant`='v1' needs .* Use variant='v2'"):
        problem.solve(variant="v1", lr=0.1)


def test_the_upper_variable_may_be_nested():
    problem = Blocks()

    def nested(fun):
        def call(x, *rest):
            value, gx, gy = fun(np.concatenate([x["a"], x["b"]]), *rest)
            return value, {"a": gx[:, :1], "b": gx[:, 1:]}, gy

        return bilevel.Oracle(value_and_grads=call, n_samples=problem.n)

    levels = nested(problem.upper_of), nested(problem.lower_of)
    start = {"a": np.zeros(1), "b": np.zeros(1)}, np.zeros((6, 3))
    flat, res = (
        problem.solve(epochs=10, tol=1),
        problem.solve(levels=levels, start=start, epochs=10, tol=1),
    )
    np.testing.assert_allclose(np.concatenate([res.x["a"], res.x["b"]]), flat.x, rtol=1e-12)


@each_variant
def test_a_run_goes_on_bit_for_bit(variant):
    problem = Blocks()
    states = []
    keep = {"checkpoint": states.append, "checkpoint_every": 0}
    res = problem.solve(variant=variant, epochs=6, tol=1.0, **keep)
    assert len(states) >= 6
    again = problem.solve(variant=variant, epochs=6, tol=1.0, resume=states[2], rng=5)
    np.testing.assert_array_equal(again.x, res.x)
    np.testing.assert_array_equal(again.y, res.y)
    assert again.nit == res.nit


def test_one_seed_gives_one_result_and_moves_a_generator_on_once():
    problem = Blocks()
    runs = [problem.solve(epochs=3, tol=1.0, rng=np.random.default_rng(1)) for _ in range(2)]
    np.testing.assert_array_equal(runs[0].x, runs[1].x)
    assert (problem.solve(epochs=3, tol=1.0, rng=2).x != runs[0].x).any()
    short, long = np.random.default_rng(1), np.random.default_rng(1)
    problem.solve(epochs=1, tol=10.0, rng=short)
    problem.solve(epochs=5, tol=10.0, rng=long)
    assert short.random() == long.random()


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": 2}, {"batch": 3}, {"epochs": 5}, {"alpha": 0.5}, {"gamma": 0.5}, {"beta": 0.5},
        {"sigma": 0.5}, {"lr": 0.1}, {"lr_upper": 0.01}, {"variant": "v2"}, {"rng": 1},
        {"X": bilevel.box(-0.01, 0.01)},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_every_option_has_an_effect(change):
    problem = Blocks()
    plain, other = (
        problem.solve(epochs=4, tol=10.0, **c)
        if "epochs" not in c
        else problem.solve(tol=10.0, **c)
        for c in ({}, change)
    )
    assert (plain.x != other.x).any()


@pytest.mark.parametrize(("variant", "change"), [("v1", {"floor": 0.9}), ("v2", {"radius": 0.01})])
def test_options_of_single_variants_have_an_effect(variant, change):
    problem = Blocks()
    plain, other = (problem.solve(variant=variant, epochs=4, tol=10.0, **c) for c in ({}, change))
    assert (plain.x != other.x).any()


def test_reports_come_as_often_as_asked_for():
    problem, seen = Blocks(), []
    res = problem.solve(epochs=4, callback_every=0.5, tol=10.0, callback=seen.append)
    # An epoch has 2 steps of 3 blocks for each of 3 batches of 2 among 5 samples.
    assert [r.nit for r in seen] == [3, 6, 9, 12, 15, 18, 21, 24]
    np.testing.assert_array_equal(res.history["nit"], [r.nit for r in seen])
    assert (
        problem.solve(epochs=4, tol=10.0, callback=lambda r: True).status
        == solvers.Status.CALLBACK
    )


def test_calls_are_counted(monkeypatch):
    problem, counted = Blocks(), []
    judge = bilevel._driver.judge
    monkeypatch.setattr(
        "solvers.bilevel._driver.judge",
        lambda *args, **options: counted.append(problem.calls) or judge(*args, **options),
    )
    res = problem.solve(epochs=3)
    # `scales` and the start included; what the certificate asks is not.
    assert abs(res.counts["n_g"] - counted[0]) <= 1


def test_divergence_ends_as_such_with_a_finite_answer():
    problem = Blocks()
    res = quiet(problem.solve, lr=50.0, epochs=200)
    assert res.status == solvers.Status.NUMERICAL
    assert np.isfinite(res.x).all()
    assert np.isfinite(res.y).all()


def test_float32_stays_float32():
    problem = bilevel.problems.MultiBlockLogistic(*(a.astype(np.float32) for a in classifiers()))
    res = quiet(bilevel.bsvrb, problem, blocks=3, batch=8, epochs=3, rng=0)
    assert res.x.dtype == res.y.dtype == np.float32
    wide = bilevel.problems.MultiBlockLogistic(*classifiers())
    other = quiet(bilevel.bsvrb, wide, blocks=3, batch=8, epochs=3, rng=0)
    np.testing.assert_allclose(res.x, other.x, atol=2e-3)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_other_kinds_of_arrays_come_back_as_they_came(name):
    module = pytest.importorskip(name)
    make = module.as_tensor if name == "torch" else module.numpy.asarray
    data = [make(a.astype(np.float32)) for a in classifiers()]
    problem = bilevel.problems.MultiBlockLogistic(*data)
    res = quiet(bilevel.bsvrb, problem, blocks=3, batch=8, epochs=2, rng=0)
    assert type(res.x) is type(problem.x0) is type(data[0])
    bare = [
        bilevel.Oracle(value_and_grads=o.value_and_grads, n_samples=o.n_samples)
        for o in (problem.upper, problem.lower)
    ]
    own = quiet(
        bilevel.bsvrb,
        *bare,
        problem.x0,
        problem.y0,
        n_blocks=6,
        blocks=3,
        batch=8,
        epochs=1,
        rng=0,
    )
    assert type(own.x) is type(data[0])


def test_a_run_may_start_from_a_result():
    problem = bilevel.problems.MultiBlockLogistic(*classifiers())
    options = {"blocks": 3, "batch": 8, "epochs": 3, "rng": 0}
    res = quiet(bilevel.bsvrb, problem, **options)
    again = quiet(bilevel.bsvrb, problem, x0=res, **options)
    levels = problem.upper, problem.lower
    other = quiet(bilevel.bsvrb, *levels, res.x, res.y, n_blocks=6, X=problem.X, **options)
    np.testing.assert_array_equal(again.x, other.x)


def test_inputs_stay_as_they_are():
    problem = Blocks()
    start = np.ones(2), np.ones((6, 3))
    problem.solve(start=start, epochs=2, tol=10.0)
    assert (start[0] == 1).all()
    assert (start[1] == 1).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n_blocks": None}, TypeError, "`n_blocks` came as NoneType; expected a whole"),
        ({"n_blocks": 5}, ValueError, r"`y0` came with shape \(6, 3\); expected a row for each"),
        ({"blocks": 7}, ValueError, "`blocks` came as 7; expected at most the 6 blocks"),
        ({"blocks": 0}, ValueError, "`blocks` came as 0"),
        ({"batch": 6}, ValueError, "`batch` came as 6; expected at most the 5 samples"),
        ({"variant": "v4"}, ValueError, "`variant` came as 'v4'"),
        ({"alpha": 1.5}, ValueError, r"`alpha` came as 1.5; expected a number in \(0, 1\]"),
        ({"beta": 0.0}, ValueError, "`beta` came as 0.0"),
        ({"gamma": -1.0}, ValueError, "`gamma` came as -1.0"),
        ({"epochs": 0}, ValueError, "`epochs` came as 0"),
        ({"sigma": -1.0}, ValueError, "`sigma` came as -1.0"),
        ({"lr": math.inf}, ValueError, "`lr` came as inf"),
        ({"radius": 0.0}, ValueError, "`radius` came as 0.0"),
        ({"floor": "low"}, TypeError, "`floor` came as str"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    with pytest.raises(error, match=f"^{message}"):
        Blocks().solve(**change)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"n_samples": None}, ValueError, "`n_samples` of `upper` is None; expected an Oracle"),
        ({"n_samples": np.array([3, 4])}, ValueError, r"`n_samples` of `upper` has shape \(2,\)"),
        (
            {"value_and_grads": lambda x, y, b, i: (0.0, None, y)}, ValueError,
            r"`lower` returned values of shape \(\); expected \(6,\)",
        ),
        (
            {"value_and_grads": lambda x, y, b, i: (y[:, 0], None, y[0])}, ValueError,
            r"`lower` returned grad_y of shape \(3,\); expected \(6, 3\)",
        ),
        ({"value_and_grads": lambda *a: 1.0}, TypeError, r"`lower` returned 1.0; expected \(val"),
    ],
)  # fmt: skip
def test_wrong_levels_are_named(change, error, message):
    problem = Blocks()
    with pytest.raises(error, match=f"^{message}"):
        problem.solve(levels=problem.levels(**change))


@pytest.mark.parametrize("variant", ["v1", "v2"])
def test_variants_with_products_ask_for_them(variant):
    problem = Blocks()
    with pytest.raises(TypeError, match=f"^`variant`='{variant}' needs lower.hvp_yy"):
        problem.solve(variant=variant, levels=problem.levels(hvp_yy=None))


def test_a_problem_without_blocks_is_refused():
    X, t, Xv, tv = (a[0] for a in classifiers())
    single = bilevel.problems.LogisticHPO(X, t, Xv, tv)
    with pytest.raises(TypeError, match=r"^`upper` came as a level without blocks"):
        bilevel.bsvrb(single.upper, single.lower, single.x0, single.y0, n_blocks=4)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"t": None}, TypeError, "`t` came as NoneType"),
        ({"t": np.zeros((6, 24))}, ValueError, "`t` came with other labels; expected -1 and 1"),
        ({"t": np.ones((6, 23))}, ValueError, r"`t` came with shape \(6, 23\)"),
        ({"X": np.zeros((6, 24))}, ValueError, "`X` came 2-D"),
        ({"X": np.full((6, 24, 4), np.nan)}, ValueError, "`X` contains NaN"),
        ({"Xv": np.zeros((6, 20, 3))}, ValueError, "`Xv` came with 3 columns in block 0"),
        ({"Xv": np.zeros((5, 20, 4)), "tv": np.ones((5, 20))}, ValueError, "`Xv` came with 5 b"),
        ({"t": [np.ones(24)] * 5}, ValueError, r"`t\[0\]` came with 5 parts"),
    ],
)
def test_wrong_data_are_named(change, error, message):
    data = dict(zip(("X", "t", "Xv", "tv"), classifiers(), strict=True))
    with pytest.raises(error, match=f"^{message}"):
        bilevel.problems.MultiBlockLogistic(**{**data, **change})


def test_data_that_both_levels_read_are_warned_of():
    X, t, _, _ = classifiers()
    with pytest.warns(UserWarning, match="^`X` and `Xv` share memory"):
        bilevel.problems.MultiBlockLogistic(X, t, X, t)


def test_labels_are_predicted():
    X, t, Xv, tv = classifiers()
    problem = bilevel.problems.MultiBlockLogistic(X, t, Xv, tv)
    res = quiet(bilevel.bsvrb, problem, epochs=20, blocks=6, batch=8, rng=0)
    assert (problem.predict(Xv, res.y) == tv).mean() > 0.6
    assert "6 blocks" in repr(problem)
