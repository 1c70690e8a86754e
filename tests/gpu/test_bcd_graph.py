"""Graphs, clusters and factors on a real device: kernels, and solves against NumPy."""

import numpy as np
import pytest

from solvers import bcd
from solvers._core.backend import get_backend
from tests.bcd.factors_kernel_tests import FactorsKernelTests
from tests.bcd.graph_kernel_tests import GraphKernelTests
from tests.bcd.graphs import lattice

pytestmark = pytest.mark.gpu


@pytest.fixture
def be():
    return get_backend("cupy")


class TestGraphKernels(GraphKernelTests):
    pass


class TestFactorsKernels(FactorsKernelTests):
    pass


@pytest.mark.parametrize("method", ["auto", "tree", "redblack", "forest_variable", "cg"])
@pytest.mark.parametrize("mode", ["harmonic", "box"])
def test_labels_are_those_for_numpy_arrays(be, method, mode):
    W, labels = lattice(12, 11), np.full(132, -1)
    labels[[0, 50, 131]] = [0, 1, 2]
    expected = bcd.label_propagation(W, labels, method=method, mode=mode)
    graph = be.sparse.csr_matrix(W)
    res = bcd.label_propagation(graph, be.xp.asarray(labels), method=method, mode=mode)
    assert res.success
    np.testing.assert_allclose(be.host(res.x), expected.x, rtol=0, atol=1e-5)


def test_clusters_are_those_for_numpy_arrays(be):
    rng, W = np.random.default_rng(0), lattice(8, 8)
    X, labels = rng.standard_normal((64, 3)), np.full(64, -1)
    labels[:3] = [0, 1, 2]
    for sweep in ("gauss_seidel", "jacobi"):
        options = {"lam": 0.3, "sweep": sweep, "tol": 1e-8, "maxiter": 2000}
        expected = bcd.transductive_clustering(X, 3, W=W, labels=labels, **options)
        put = be.xp.asarray(X), be.sparse.csr_matrix(W), be.xp.asarray(labels)
        res = bcd.transductive_clustering(put[0], 3, W=put[1], labels=put[2], **options)
        np.testing.assert_allclose(be.host(res.x), expected.x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_factors_fit_as_well_as_for_numpy_arrays(be, dtype):
    rng = np.random.default_rng(0)
    V = (rng.random((200, 5)) @ rng.random((5, 150)) + 0.1 * rng.random((200, 150))).astype(dtype)
    tol = 1e-4 if dtype == "float32" else 1e-6
    expected = bcd.nmf(V, 5, rng=0, tol=tol)
    res = bcd.nmf(be.xp.asarray(V), 5, rng=0, tol=tol)
    assert res.success
    assert res.W.dtype == dtype
    assert res.fun == pytest.approx(expected.fun, rel=1e-2)
