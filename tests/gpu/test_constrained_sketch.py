"""Sketch and project on a real device: the kernels, and solves against NumPy."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers._core.backend import get_backend
from solvers.constrained import sketch_project
from solvers.constrained.sketches import SKETCHES
from tests.constrained.kernel_tests import KernelTests

pytestmark = pytest.mark.gpu


@pytest.fixture
def be():
    return get_backend("cupy")


class TestKernels(KernelTests):
    pass


@pytest.mark.parametrize("form", ["dense", "csr"])
@pytest.mark.parametrize("sketch", SKETCHES)
def test_systems_are_solved_on_the_device(be, sketch, form):
    rng = np.random.default_rng(0)
    A = rng.standard_normal((200, 200)) / 30 + 2 * np.eye(200)
    x = rng.standard_normal(200)
    matrix = be.sparse.csr_matrix(sp.csr_matrix(A)) if form == "csr" else be.xp.asarray(A)
    res = sketch_project(matrix, be.xp.asarray(A @ x), sketch=sketch, rng=0)
    assert res.success
    assert isinstance(res.x, be.xp.ndarray)
    np.testing.assert_allclose(be.host(res.x), x, rtol=0, atol=1e-6)


def test_blocks_pay_on_a_large_dense_matrix_with_outliers(be):
    xp, n = be.xp, 3000
    rng = np.random.default_rng(0)
    U = np.linalg.qr(rng.standard_normal((n, 100)))[0]
    A = xp.asarray(np.eye(n) + 1e3 * U @ U.T)
    x = xp.ones(n)
    res = sketch_project(A, A @ x, block_size=300, rng=0)
    assert res.success
    assert be.host(abs(res.x - x).max()) <= 1e-5
