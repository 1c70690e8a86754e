"""Ready-made problems: formulas, gradients and products, in every form they are asked for."""

import pickle
import warnings
from pathlib import Path

import _cuda_on_cpu
import numpy as np
import pytest
import scipy.sparse
from _cupy_standin import run_with_standin
from scipy.special import logsumexp

from solvers import ConvergenceWarning, bilevel
from solvers.bilevel import problems
from solvers.bilevel._problem import pose

N, M, P, K = 37, 23, 6, 3
NAMES = ["Quadratic", "RidgeHPO", "LogisticHPO", "SoftmaxHPO", "WeightedTraining",
         "HyperCleaning", "HyperCleaning classes", "SvmHPO"]  # fmt: skip


def data(name, seed=0, sparse=False):
    """Return the arguments of a problem."""
    rng = np.random.default_rng(seed)
    if name == "Quadratic":
        A, F = (np.cov(rng.standard_normal((P, 3 * P))) for _ in range(2))
        return (
            A,
            rng.standard_normal((P, 4)),
            *rng.standard_normal((1, P)),
            F,
            rng.random(P),
            0.3,
        )
    X, Xv = rng.standard_normal((N, P)), rng.standard_normal((M, P))
    if sparse:
        X, Xv = (scipy.sparse.csr_array(x * (rng.random(x.shape) < 0.4)) for x in (X, Xv))
    t, tv = rng.standard_normal(N), rng.standard_normal(M)
    if name in ("SoftmaxHPO", "HyperCleaning classes"):
        t, tv = rng.integers(K, size=N), rng.integers(K, size=M)
    elif name != "RidgeHPO":
        t, tv = np.sign(t), np.sign(tv)
    groups = (rng.integers(4, size=N),) if name == "WeightedTraining" else ()
    return X, t, Xv, tv, *groups


def make(name, **options):
    return getattr(problems, name.split()[0])(*data(name, **options))


def point(problem, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(-2, 1, problem.x0.shape), *rng.standard_normal((3, *problem.y0.shape))


def levels(problem):
    return problem.upper, problem.lower


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_differences_of_values(name):
    problem = make(name)
    x, y, v, _ = point(problem)
    u, e = np.cos(np.arange(x.size)), 1e-5
    for level in levels(problem):
        _, gx, gy = level(x, y)
        slope = (level(x, y + e * v)[0] - level(x, y - e * v)[0]) / (2 * e)
        assert slope == pytest.approx((gy * v).sum(), rel=1e-7, abs=1e-8)
        slope = (level(x + e * u, y)[0] - level(x - e * u, y)[0]) / (2 * e)
        assert slope == pytest.approx(gx @ u, rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_are_the_differences_of_gradients(name):
    problem = make(name)
    lower = problem.lower
    x, y, v, _ = point(problem)
    e = 1e-5
    _, gx, gy = (a - b for a, b in zip(lower(x, y + e * v), lower(x, y - e * v), strict=True))
    np.testing.assert_allclose(lower.hvp_yy(x, y, v), gy / (2 * e), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(lower.hvp_xy(x, y, v), gx / (2 * e), rtol=1e-6, atol=1e-7)
    assert lower.precond_y(x).shape == y.shape
    assert (lower.precond_y(x) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_pair_is_two_looks(name):
    problem = make(name)
    x, y, z, _ = point(problem)
    for level in levels(problem):
        value, *gradients = level.pair(x, y, z)
        at_y, at_z = level(x, y), level(x, z)
        assert value == pytest.approx(at_y[0] - at_z[0], rel=1e-12)
        expected = at_y[1], at_z[1], at_y[2], at_z[2]
        for found, wanted in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)


def by_hand(name, x, y):
    """Return both levels' values by the formulas, in plain NumPy."""
    if name == "Quadratic":
        A, B, c, F, t, h = data(name)
        e = y - t
        return 0.5 * e @ F @ e + 0.5 * h * x @ x, 0.5 * y @ A @ y - y @ (B @ x + c)
    X, t, Xv, tv, *groups = data(name)

    def losses(X, t):
        z = X @ y
        if name == "RidgeHPO":
            return 0.5 * (z - t) ** 2
        if name == "SvmHPO":
            return 0.5 * np.maximum(1 - t * z, 0) ** 2
        if z.ndim == 2:
            return logsumexp(z, axis=1) - z[np.arange(len(t)), t]
        return np.logaddexp(0, -t * z)

    f, each = losses(Xv, tv).mean(), losses(X, t)
    if name == "SvmHPO":
        return f, 0.5 * y @ y + (np.exp(x) * each).sum()
    if name.endswith("HPO"):
        return f, each.mean() + 0.5 * (np.exp(x) * (y.reshape(P, -1) ** 2).sum(axis=1)).sum()
    weights = 1 / (1 + np.exp(-(x[groups[0]] if groups else x)))
    return f, (weights * each).sum() / N + 0.5e-3 * (y**2).sum()


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_the_formulas(name):
    problem = make(name)
    x, y, *_ = point(problem)
    found = [level(x, y)[0] for level in levels(problem)]
    assert found == pytest.approx(by_hand(name, x, y), rel=1e-12)


@pytest.mark.parametrize("name", NAMES[1:])
def test_compressed_rows_give_what_dense_ones_give(name):
    X, t, Xv, tv, *groups = data(name, sparse=True)
    cls = getattr(problems, name.split()[0])
    kinds = [
        (X, Xv),
        (X.toarray(), Xv.toarray()),
        (scipy.sparse.csc_matrix(X), scipy.sparse.coo_array(Xv)),
    ]
    compressed, dense, other = (cls(A, t, Av, tv, *groups) for A, Av in kinds)
    x, y, z, v = point(dense)
    for name_of_level in ("upper", "lower"):
        wanted, found, also = (getattr(p, name_of_level) for p in (dense, compressed, other))
        for a, b, c in zip(wanted(x, y), found(x, y), also(x, y), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-14)
            np.testing.assert_array_equal(c, b)
        for a, b in zip(wanted.pair(x, y, z), found.pair(x, y, z), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-11, atol=1e-14)
    lower = dense.lower, compressed.lower
    np.testing.assert_allclose(*(o.hvp_yy(x, y, v) for o in lower), rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(*(o.precond_y(x) for o in lower), rtol=1e-12)


@pytest.mark.parametrize("name", NAMES[1:])
def test_batches_are_means_over_their_samples(name):
    problem = make(name)
    x, y, z, v = point(problem)
    for level in levels(problem):
        n = level.n_samples
        single = [level(x, y, np.array([i])) for i in range(n)]
        whole = level(x, y)
        for k, total in enumerate(whole):
            mean = sum(answer[k] for answer in single) / n
            np.testing.assert_allclose(mean, total, rtol=1e-11, atol=1e-13)
        idx = np.array([3, 7, 3])
        value, *_ = level.pair(x, y, z, idx)
        assert value == pytest.approx(level(x, y, idx)[0] - level(x, z, idx)[0], rel=1e-10)
    mean = sum(problem.lower.hvp_xy(x, y, v, np.array([i])) for i in range(N)) / N
    np.testing.assert_allclose(mean, problem.lower.hvp_xy(x, y, v), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_several_points_in_one_pass_are_those_one_by_one(name):
    problem = make(name)
    x, y, z, v = point(problem)
    u = x + 0.1
    for level in levels(problem):
        flat = level.flat
        points = [tuple(a.reshape(-1) for a in p) for p in ((x, y, z), (u, v, y))]
        for found, wanted in zip(flat.pairs(points), (flat.pair(*p) for p in points), strict=True):
            assert found.difference == pytest.approx(wanted.difference, rel=1e-12)
            for a, b in zip(
                (*found.first, *found.second), (*wanted.first, *wanted.second), strict=True
            ):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
            np.testing.assert_allclose(found.gx, wanted.gx, rtol=1e-12, atol=1e-14)
        for found, (x_, y_, _) in zip(flat.looks([p[:2] for p in points]), points, strict=True):
            for a, b in zip(found, flat.look(x_, y_), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_differences_of_near_points_keep_their_digits(name):
    problem = make(name)
    x, z, d, _ = point(problem)
    flat = problem.lower.flat
    e = 1e-9 * d
    pair = flat.pair(x, (z + e).reshape(-1), z.reshape(-1))
    step = (z + e) - z
    # To first order, at the middle; what is left out is smaller by 1e-18.
    _, _, gy = problem.lower(x, z + 0.5 * e)
    assert pair.difference == pytest.approx((gy * step).sum(), rel=1e-6)
    gx = problem.lower.hvp_xy(x, z, step)
    np.testing.assert_allclose(pair.gx, gx, rtol=1e-5, atol=1e-6 * abs(gx).max())


@pytest.mark.parametrize("name", ["LogisticHPO", "WeightedTraining", "Quadratic"])
def test_solvers_ask_on_their_own_vectors_and_count_the_same(name):
    problem = make(name)
    plain = [bilevel.Oracle(value_and_grads=o.value_and_grads, n_samples=o.n_samples)
             for o in levels(problem)]  # fmt: skip
    direct = pose(problem, None, None, None)
    packed = pose(*plain, problem.x0, problem.y0)
    assert direct.lower.direct is problem.lower.flat
    assert packed.lower.direct is None
    x, y, z, _ = point(problem)
    for a, b in ((direct.upper, packed.upper), (direct.lower, packed.lower)):
        first, second = a.pair(x, y, z), b.pair(x, y, z)
        assert first.difference == pytest.approx(second.difference, rel=1e-9)
        for k in ("first", "second"):
            for u, v in zip(getattr(first, k), getattr(second, k), strict=True):
                np.testing.assert_allclose(u, v, rtol=1e-12, atol=1e-14)
        # What was seen is not asked for again.
        assert a.look(x, y) is a.look(x, y)
        # Both points of a pair read the same samples.
        assert a.counts.pop("n_samples") <= b.counts.pop("n_samples")
        assert a.counts == b.counts


@pytest.mark.parametrize("name", ["RidgeHPO", "HyperCleaning classes"])
def test_other_structures_of_the_variables_are_packed(name):
    problem = make(name)
    x0, y0 = {"a": problem.x0}, problem.y0

    def upper(x, y):
        value, gx, gy = problem.upper(x["a"], y)
        return value, {"a": gx}, gy

    def lower(x, y):
        value, gx, gy = problem.lower(x["a"], y)
        return value, {"a": gx}, gy

    assert pose(upper, lower, x0, y0).lower.direct is None


@pytest.mark.parametrize("name", NAMES)
def test_float32_data_are_worked_on_in_float32(name):
    args = [np.asarray(a, np.float32) if np.ndim(a) else a for a in data(name)]
    problem = getattr(problems, name.split()[0])(*args)
    exact = make(name)
    x, y, *_ = point(exact)
    assert problem.x0.dtype == problem.y0.dtype == np.float32
    for level, wanted in zip(levels(problem), levels(exact), strict=True):
        found = level(*(a.astype(np.float32) for a in (x, y)))
        assert found[1].dtype == found[2].dtype == np.float32
        for a, b in zip(found, wanted(x, y), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    # Vectors of another precision are rounded at the door.
    assert problem.lower(x, y)[2].dtype == np.float32


@pytest.mark.parametrize("name", NAMES)
def test_problems_pickle_print_and_leave_their_data_alone(name):
    args = data(name)
    before = pickle.dumps(args)
    problem = getattr(problems, name.split()[0])(*args)
    again = pickle.loads(pickle.dumps(problem))
    x, y, *_ = point(problem)
    for a, b in zip(levels(problem), levels(again), strict=True):
        np.testing.assert_array_equal(a(x, y)[2], b(x, y)[2])
    assert repr(problem).startswith(name.split()[0])
    assert pickle.dumps(args) == before


def test_predictions_are_those_of_the_model():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((9, P))
    w, W = rng.standard_normal(P), rng.standard_normal((P, K))
    np.testing.assert_array_equal(make("RidgeHPO").predict(X, w), X @ w)
    for name in ("LogisticHPO", "SvmHPO", "HyperCleaning", "WeightedTraining"):
        np.testing.assert_array_equal(make(name).predict(X, w), np.where(X @ w > 0, 1, -1))
    for name in ("SoftmaxHPO", "HyperCleaning classes"):
        np.testing.assert_array_equal(make(name).predict(X, W), np.argmax(X @ W, axis=1))
    A, B, c, *_ = data("Quadratic")
    x = rng.standard_normal(4)
    np.testing.assert_allclose(A @ make("Quadratic").predict(x), B @ x + c, atol=1e-10)


def test_grouped_features_share_a_penalty():
    X, t, Xv, tv = data("RidgeHPO")
    groups = np.array([0, 1, 0, 2, 2, 1])
    grouped, single = problems.RidgeHPO(X, t, Xv, tv, groups), problems.RidgeHPO(X, t, Xv, tv)
    x, y = np.array([0.3, -1.0, 0.5]), np.random.default_rng(0).standard_normal(P)
    value, gx, gy = grouped.lower(x, y)
    expected = single.lower(x[groups], y)
    assert value == pytest.approx(expected[0], rel=1e-14)
    np.testing.assert_allclose(gy, expected[2], rtol=1e-14)
    np.testing.assert_allclose(gx, [expected[1][groups == k].sum() for k in range(3)], rtol=1e-13)


def test_the_svm_is_that_of_liblinear():
    svm = pytest.importorskip("sklearn.svm")
    X, t, Xv, tv = data("SvmHPO")
    problem = problems.SvmHPO(X, t, Xv, tv)
    x = np.random.default_rng(5).uniform(-2, 1, N)
    machine = svm.LinearSVC(
        loss="squared_hinge", dual=True, C=0.5, fit_intercept=False, tol=1e-9, max_iter=10**6
    )
    w = machine.fit(X, t, sample_weight=np.exp(x)).coef_[0]
    assert abs(problem.lower(x, w)[2]).max() <= 1e-8


@pytest.mark.parametrize("name", NAMES[1:])
def test_penalty_solves_them_with_certificates(name):
    # With something to learn, and labels of both levels that no model has all right.
    X, t, Xv, tv, *groups = data(name)
    W = np.random.default_rng(2).standard_normal((P, K))
    if name == "RidgeHPO":
        t, tv = t + 2 * X[:, 0], tv + 2 * Xv[:, 0]
    elif "classes" in name or name == "SoftmaxHPO":
        t, tv = (
            np.where(np.arange(len(v)) % 4, np.argmax(A @ W, 1), v) for A, v in ((X, t), (Xv, tv))
        )
    else:
        t, tv = np.sign(X @ W[:, 0] + t), np.sign(Xv @ W[:, 0] + tv)
    problem = getattr(problems, name.split()[0])(X, t, Xv, tv, *groups)
    if name == "SvmHPO":
        # Its psi has kinks, where no hyper-gradient is small.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            res = bilevel.penalty(problem, tol=1e-3, maxiter=20)
    else:
        res = bilevel.penalty(problem, tol=1e-3)
        assert res.success
    assert res.fun < problem.upper(problem.x0, problem.y0)[0]
    assert res.y.shape == problem.y0.shape


def test_a_leak_between_the_levels_is_told():
    X, t, *_ = data("RidgeHPO")
    with pytest.warns(UserWarning, match="`X` and `Xv` share memory"):
        problems.RidgeHPO(X, t, X[5:], t[5:])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        problems.RidgeHPO(X[5:], t[5:], X[:5], t[:5])
        columns = np.asfortranarray(X)
        problems.RidgeHPO(columns[5:], t[5:], columns[:5], t[:5])


def bad(name, **changes):
    keys = (
        ("A", "B", "c", "F", "t", "h") if name == "Quadratic" else ("X", "t", "Xv", "tv", "groups")
    )
    args = dict(zip(keys, data(name), strict=False))
    args.update(changes)
    return lambda: getattr(problems, name.split()[0])(**args)


NOT_A_NUMBER = np.where(np.arange(P) == 2, np.nan, np.ones((N, P)))
BAD = [
    (ValueError, "`X` contains NaN", bad("RidgeHPO", X=NOT_A_NUMBER)),
    (ValueError, "`X` contains NaN", bad("LogisticHPO", X=scipy.sparse.csr_array(NOT_A_NUMBER))),
    (ValueError, "`t` contains inf", bad("RidgeHPO", t=np.full(N, np.inf))),
    (ValueError, "`tv` came with shape", bad("RidgeHPO", tv=np.ones(M + 1))),
    (ValueError, "`Xv` came with 2 columns; expected 6", bad("SvmHPO", Xv=np.ones((M, 2)))),
    (ValueError, "`X` came empty", bad("RidgeHPO", X=np.ones((0, P)))),
    (ValueError, "`X` came 1-D", bad("RidgeHPO", X=np.ones(P))),
    (ValueError, "`X` came empty", bad("RidgeHPO", X=scipy.sparse.csr_array((0, P)))),
    (TypeError, "`X` came as scipy.csr_array", bad("RidgeHPO", X=scipy.sparse.csr_array([[1j]]))),
    (TypeError, "`Xv` came as NoneType", bad("RidgeHPO", Xv=None)),
    (TypeError, "`t` came as", bad("RidgeHPO", t=np.array(["a"] * N))),
    (ValueError, "`t` came with other labels; expected -1", bad("LogisticHPO", t=np.arange(N))),
    (ValueError, "`tv` came with other labels; expected -1", bad("SvmHPO", tv=np.zeros(M))),
    (ValueError, "`t` came with other labels; expected 0", bad("SoftmaxHPO", t=-np.ones(N))),
    (ValueError, "`tv` came with other labels", bad("HyperCleaning", tv=np.full(M, 2))),
    (ValueError, "`l2` came as 0", bad("HyperCleaning", l2=0.0)),
    (TypeError, "`groups` came as NoneType", bad("WeightedTraining", groups=None)),
    (ValueError, "`groups` came with shape", bad("WeightedTraining", groups=np.zeros(3))),
    (ValueError, "`groups` came with other entries", bad("RidgeHPO", groups=np.full(P, 0.5))),
    (ValueError, "`groups` came with other entries", bad("RidgeHPO", groups=np.full(P, -1))),
    (ValueError, "`A` came as a matrix that is not", bad("Quadratic", A=np.tri(P))),
    (ValueError, "`c` came with shape", bad("Quadratic", c=np.ones(2))),
    (ValueError, "`h` came as -1", bad("Quadratic", h=-1.0)),
    (TypeError, "`F` came as NoneType", bad("Quadratic", F=None)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "message", "call"), BAD, ids=[m for _, m, _ in BAD])
def test_what_is_wrong_is_named(error, message, call):
    with pytest.raises(error, match=message.replace("(", r"\(")):
        call()


@pytest.mark.parametrize("idx", [[-1], [N], []])
def test_oracles_refuse_samples_that_do_not_exist(idx):
    lower, idx = make("RidgeHPO").lower, np.array(idx, int)
    x, y, z, v = point(make("RidgeHPO"))
    for call in (
        lambda: lower(x, y, idx),
        lambda: lower.pair(x, y, z, idx),
        lambda: lower.hvp_yy(x, y, v, idx),
        lambda: lower.hvp_xy(x, y, v, idx),
    ):
        with pytest.raises(ValueError, match=r"`idx` came as .*; expected samples 0 to 36"):
            call()


def test_read_only_and_narrow_numbers_come_in():
    X, t, Xv, tv = data("RidgeHPO", sparse=True)
    wanted = problems.RidgeHPO(X, t, Xv, tv)
    for part in (X.data, X.indices, X.indptr, t):
        part.flags.writeable = False
    found = problems.RidgeHPO(X, t, Xv, tv)
    x, y, *_ = point(wanted)
    idx = np.array([2, 30], np.int16)
    idx.flags.writeable = False
    for a, b in zip(wanted.lower(x, y, np.array([2, 30])), found.lower(x, y, idx), strict=True):
        np.testing.assert_array_equal(a, b)


def test_oracles_refuse_points_of_another_shape():
    problem = make("SoftmaxHPO")
    with pytest.raises(ValueError, match=r"`y` came with shape \(6,\); expected \(6, 3\)"):
        problem.lower(problem.x0, np.zeros(P))
    with pytest.raises(ValueError, match=r"`x0` came"):
        bilevel.penalty(problem, x0=np.zeros(2))


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_problems_on_the_device_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "problems_on_device.py")
