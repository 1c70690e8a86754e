"""Robust losses on CuPy arrays; runs where `cupy` is the stand-in (see `_cupy_standin`)."""

import cupy
import numpy as np
import pytest

from solvers._core.backend import get_backend
from solvers.completion import alternating_minimization

host = get_backend("cupy").host


@pytest.mark.parametrize(
    ("loss", "options"),
    [("huber", {}), ("l1", {"lam": 0.3, "bias": True}), ("tukey", {}), ("welsch", {"lam": 0.3})],
)
def test_robust_fits_are_those_for_numpy_arrays(device, loss, options):
    device.block = 32
    rng = np.random.default_rng(0)
    X = rng.standard_normal((14, 2)) @ rng.standard_normal((2, 12))
    rows, cols = np.nonzero(rng.random(X.shape) < 0.9)
    vals = X[rows, cols] + 0.1 * rng.standard_normal(rows.size)
    vals[::11] += 5.0
    data = rows.astype(np.int32), cols.astype(np.int32), vals
    options = {"shape": X.shape, "loss": loss, "delta": 0.5, "tol": 1e-7, "rng": 0, **options}
    expected = alternating_minimization(data, 2, **options)
    res = alternating_minimization(tuple(map(cupy.asarray, data)), 2, **options)
    assert res.success
    assert isinstance(res.outlier_weights, cupy.ndarray)
    U, s, V = host(res.U, res.s, res.V)
    close = (expected.U * expected.s) @ expected.V.T
    np.testing.assert_allclose((U * s) @ V.T, close, rtol=0, atol=1e-4)
    np.testing.assert_allclose(host(res.outlier_weights), expected.outlier_weights, atol=1e-3)
