"""Direct inner solvers on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest
import scipy.sparse as sp

from solvers._core.backend import get_backend
from solvers.constrained import solve_kkt
from solvers.constrained.inner import Saddle, open_inner

be = get_backend("cupy")


def chain(n):
    rng = np.random.default_rng(0)
    B = sp.diags_array([np.ones(n - 1), 4 + rng.random(n), np.ones(n - 1)], offsets=[-1, 0, 1])
    G = sp.diags_array([rng.uniform(1, 2, n - 2)] * 3, offsets=[0, 1, 2], shape=(n - 2, n))
    return B.tocsr(), G.tocsr()


def on_device(A, form):
    if form == "dense":
        return cupy.asarray(A.toarray())
    parts = (cupy.asarray(part) for part in (A.data, A.indices, A.indptr))
    return be.sparse.csr_matrix(tuple(parts), shape=A.shape)


@pytest.mark.parametrize("form", ["dense", "csr"])
def test_factors_tell_convexity_and_solve(form):
    B, G = chain(150)
    for shift, convex in ((0.0, True), (-20.0, False)):
        H = (B + shift * sp.eye_array(150)).tocsr()
        K = sp.block_array([[H, G.T], [G, None]]).toarray()
        saddle = Saddle(on_device(H, form), on_device(G, form), be=be)
        inner, r = open_inner("direct", None), np.cos(np.arange(298))
        assert inner.factor(saddle) is convex
        solved = inner.solve(cupy.asarray(r))
        assert isinstance(solved.d, cupy.ndarray)
        np.testing.assert_allclose(be.host(solved.d), np.linalg.solve(K, r), atol=1e-8)
        assert abs(be.host(solved.residual)).max() < 1e-8


def test_dependent_rows_are_seen_on_the_device():
    B, G = (A.toarray() for A in chain(20))
    G = np.vstack([G, G[:1]])
    inner = open_inner("direct", None)
    assert inner.factor(Saddle(cupy.asarray(B), cupy.asarray(G), be=be)) is False
    assert inner.singular
    assert inner.factor(Saddle(cupy.asarray(B), cupy.asarray(G), 1e-6, be=be)) is True


@pytest.mark.parametrize("inner", ["auto", "condensed"])
def test_dense_systems_are_solved_on_the_device(inner):
    B, G = (A.toarray() for A in chain(20))
    x = np.arange(38.0)
    r = np.block([[B, G.T], [G, np.zeros((18, 18))]]) @ x
    res = solve_kkt(*map(cupy.asarray, (B, G, r)), inner=inner)
    assert res.success
    assert isinstance(res.x, cupy.ndarray)
    np.testing.assert_allclose(be.host(res.x), x, atol=1e-7)
