"""Kernels on graphs, and clusters, on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers._core.backend import get_backend
from solvers.bcd import transductive_clustering
from tests.bcd.graph_kernel_tests import GraphKernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 64])
class TestCudaKernels(GraphKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


@pytest.mark.parametrize("distance", ["sqeuclidean", "gaussian"])
def test_clusters_are_those_for_numpy_arrays(device, distance):
    X, labels = np.random.default_rng(0).standard_normal((30, 2)), np.full(30, -1)
    labels[:2] = [1, 0]
    options = {"distance": distance, "rng": 0, "maxiter": 5000}
    expected = transductive_clustering(X, 3, labels=labels, **options)
    res = transductive_clustering(cupy.asarray(X), 3, labels=cupy.asarray(labels), **options)
    assert res.success
    assert isinstance(res.prototypes, cupy.ndarray)
    Y, found = cupy_be.host(res.x, res.labels)
    np.testing.assert_allclose(Y, expected.x, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found, expected.labels)
