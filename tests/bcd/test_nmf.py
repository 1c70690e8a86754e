"""Non-negative factors against their optimality conditions, SciPy and scikit-learn."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.decomposition import NMF

from solvers import ConvergenceWarning, Status
from solvers.bcd import nmf


def planted(n=20, p=15, k=3, seed=0, noise=0.0):
    rng = np.random.default_rng(seed)
    return rng.random((n, k)) @ rng.random((k, p)) + noise * rng.random((n, p))


def violation(V, W, H, l1=0.0):
    """Largest violation of the optimality conditions, relative as the certificate is."""
    gW, gH = (W @ H - V) @ H.T + l1, W.T @ (W @ H - V) + l1
    worst = max(np.where(x > 0, abs(g), np.maximum(-g, 0)).max() for x, g in ((W, gW), (H, gH)))
    return worst / max((V @ H.T).max(), (W.T @ V).max())


@pytest.mark.parametrize("init", ["nndsvd", "random"])
@pytest.mark.parametrize("l1", [0.0, 0.05])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_factors_are_stationary_and_nonnegative(init, l1, noise):
    V = planted(noise=noise)
    res = nmf(V, 3, l1=l1, init=init, rng=0, tol=1e-7, maxiter=5000)
    assert res.success
    assert min(res.W.min(), res.H.min()) >= 0
    assert violation(V, res.W, res.H, l1) <= 1.01e-7
    fun = 0.5 * np.square(V - res.W @ res.H).sum() + l1 * (res.W.sum() + res.H.sum())
    assert res.fun == pytest.approx(fun, rel=1e-9, abs=1e-15)
    np.testing.assert_array_equal(res.x, np.r_[res.W.ravel(), res.H.ravel()])
    rises = np.diff(res.history["fun"]).max()
    assert rises <= 1e-12 * np.square(V).sum()


def test_data_of_that_rank_are_fitted():
    V = planted(30, 25, 4, seed=1)
    res = nmf(V, 4, rng=0)
    assert res.success
    assert np.linalg.norm(V - res.W @ res.H) <= 1e-5 * np.linalg.norm(V)


def test_one_column_is_the_leading_singular_pair():
    V = planted(12, 9, 5, seed=2)
    res = nmf(V, 1, rng=0, tol=1e-10)
    U, s, R = np.linalg.svd(V)
    np.testing.assert_allclose(res.W @ res.H, s[0] * np.outer(U[:, 0], R[0]), rtol=0, atol=1e-7)


def test_each_factor_is_the_best_for_the_other():
    V = planted(noise=0.3, seed=3)
    res = nmf(V, 3, rng=0, tol=1e-9, maxiter=5000)
    for target, basis, rows in ((V, res.H.T, res.W), (V.T, res.W, res.H.T)):
        for v, x in zip(target, rows, strict=True):
            _, best = nnls(basis, v)
            assert np.linalg.norm(basis @ x - v) <= best + 1e-6


def test_the_fit_is_no_worse_than_scikit_learns():
    V = planted(60, 40, 6, seed=4, noise=0.5)
    theirs = NMF(5, solver="cd", init="nndsvda", tol=1e-6, max_iter=20000)
    W = theirs.fit_transform(V)
    best = 0.5 * np.square(V - W @ theirs.components_).sum()
    assert nmf(V, 5, rng=0, tol=1e-6, maxiter=5000).fun <= 1.02 * best


def test_a_penalty_makes_factors_sparse_and_a_large_one_zero():
    V = planted(noise=0.2, seed=5)
    zeros = [np.mean(nmf(V, 3, l1=l1, rng=0, tol=1e-6, maxiter=5000).x == 0) for l1 in (0.0, 0.5)]
    assert zeros[1] > zeros[0]
    res = nmf(V, 3, l1=100.0, rng=0)
    assert res.success
    assert not res.x.any()


@pytest.mark.parametrize("form", [sp.csr_array, sp.csc_matrix, sp.coo_array])
def test_sparse_data_give_the_same(form):
    V = planted(noise=0.3, seed=6)
    V[V < 0.8] = 0.0
    x0 = np.random.default_rng(0).random((20, 3)), np.random.default_rng(1).random((3, 15))
    dense = nmf(V, 3, x0=x0, tol=1e-8, maxiter=5000)
    res = nmf(form(V), 3, x0=x0, tol=1e-8, maxiter=5000)
    assert res.success
    assert violation(V, res.W, res.H) <= 1.01e-8
    assert res.fun == pytest.approx(dense.fun, rel=1e-7)
    np.testing.assert_allclose(res.W @ res.H, dense.W @ dense.H, rtol=0, atol=1e-4)


def test_float32_is_kept():
    V = planted(noise=0.1).astype(np.float32)
    res = nmf(V, 3, rng=0, tol=1e-4)
    assert res.success
    assert res.W.dtype == res.H.dtype == res.x.dtype == np.float32


@given(st.integers(0, 10**6), st.sampled_from([1e-6, 1.0, 1e6]))
def test_scaling_the_data_scales_the_product(seed, scale):
    V = planted(8, 7, 2, seed=seed, noise=0.1)
    start = np.random.default_rng(seed).random((8, 2)), np.random.default_rng(7).random((2, 7))
    scaled = tuple(np.sqrt(scale) * part for part in start)
    options = {"tol": 1e-4, "maxiter": 5000}
    res, again = nmf(V, 2, x0=start, **options), nmf(scale * V, 2, x0=scaled, **options)
    np.testing.assert_allclose(again.W @ again.H / scale, res.W @ res.H, rtol=0, atol=1e-6)


@pytest.mark.parametrize("V", [np.zeros((4, 3)), np.ones((1, 1)), np.eye(5), np.ones((6, 2))])
@pytest.mark.parametrize("k", [1, 3])
def test_degenerate_data_are_fine(V, k):
    res = nmf(V, k, rng=0)
    assert res.success
    assert np.isfinite(res.x).all()


def test_starts_are_taken_in_every_form_and_solutions_stay():
    V = planted(noise=0.2, seed=8)
    res = nmf(V, 3, rng=0)
    for start in (res, res.x, (res.W, res.H)):
        again = nmf(V, 3, x0=start)
        assert again.nit == 0
        np.testing.assert_array_equal(again.x, res.x)


def test_early_ends_are_honest_and_rng_decides_the_start():
    V = planted(noise=0.2, seed=9)
    with pytest.warns(ConvergenceWarning, match="maxiter"):
        res = nmf(V, 3, rng=0, maxiter=2)
    assert (res.status, res.nit) == (Status.MAXITER, 2)
    seen = []
    res = nmf(V, 3, rng=0, callback=lambda r: seen.append(r) or len(seen) == 3)
    assert (res.status, res.nit) == (Status.CALLBACK, 3)
    np.testing.assert_array_equal(seen[-1].W, res.W)
    np.testing.assert_array_equal(seen[-1].H, res.H)
    first, same, other = (nmf(V, 3, rng=s, init="random", tol=1e-4).x for s in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)


V9 = np.ones((4, 3))
BAD = [
    ((np.ones(3), 1), {}, ValueError, "V"),
    ((-V9, 1), {}, ValueError, "V"),
    ((V9 * np.nan, 1), {}, ValueError, "V"),
    ((sp.csr_array(-V9), 1), {}, ValueError, "V"),
    ((V9 + 0j, 1), {}, TypeError, "V"),
    ((V9, 0), {}, ValueError, "k"),
    ((V9, 1.0), {}, TypeError, "k"),
    ((V9, 1), {"l1": -1.0}, ValueError, "l1"),
    ((V9, 1), {"init": "zeros"}, ValueError, "init"),
    ((V9, 1), {"tol": 0.0}, ValueError, "tol"),
    ((V9, 1), {"x0": np.ones(6)}, ValueError, "x0"),
    ((V9, 1), {"x0": -np.ones(7)}, ValueError, "x0"),
    ((V9, 1), {"x0": (np.ones((4, 2)), np.ones((1, 3)))}, ValueError, "x0"),
    ((V9, 1), {"rng": "one"}, TypeError, "rng"),
]


@pytest.mark.parametrize(("args", "options", "kind", "name"), BAD)
def test_bad_input_is_refused_by_name(args, options, kind, name):
    with pytest.raises(kind, match=rf"^`{name}\b"):
        nmf(*args, **options)
