"""Row solvers for large ranks on a real device: the kernels, and whole runs against NumPy."""

import numpy as np
import pytest

from solvers import completion
from solvers._core.backend import get_backend
from tests.completion.sketch_kernel_tests import SketchKernelTests

pytestmark = pytest.mark.gpu


@pytest.fixture
def be():
    return get_backend("cupy")


class TestKernels(SketchKernelTests):
    pass


@pytest.mark.parametrize("inner", ["sketch", "subspace"])
def test_a_matrix_is_recovered_from_device_arrays(be, inner):
    rng = np.random.default_rng(5)
    X = rng.standard_normal((300, 40)) @ rng.standard_normal((40, 280))
    M = np.where(rng.random(X.shape) < 0.9, X, np.nan)
    options = {"method": "altmin", "inner": inner, "tol": 1e-9, "rng": 0}
    res = completion.alternating_minimization(be.xp.asarray(M), 40, **options)
    assert res.success
    np.testing.assert_allclose(be.host(res.todense()), X, atol=1e-6)


def test_the_mode_of_the_theory_runs_on_the_device(be):
    rng = np.random.default_rng(6)
    X = np.outer(rng.standard_normal(600), rng.standard_normal(600))
    res = completion.alternating_minimization(be.xp.asarray(X), 1, mode="theory", tol=1e-2, rng=0)
    assert res.success
