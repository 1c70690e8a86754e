from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
from _cuda_on_cpu import missing
from _cupy_standin import run_with_standin

from solvers._core.kernels import cpu


@pytest.mark.parametrize(("n", "d"), [(1, 5), (2, 1), (8, 3), (512, 70), (1024, 1), (2048, 2)])
def test_the_hadamard_kernel_multiplies_by_the_matrix(n, d, dtype, rng):
    X = rng.standard_normal((n, d)).astype(dtype)
    got = X.copy()
    cpu.hadamard(got)
    expected = scipy.linalg.hadamard(n) @ X.astype(float)
    level = 1e-5 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(got, expected, rtol=0, atol=level * np.abs(expected).max())


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_sketches_and_conjugate_gradients_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "numerics_on_device.py")
