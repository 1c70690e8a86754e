"""Robust losses on a real device: planted outliers are found as with NumPy arrays."""

import numpy as np
import pytest

from solvers._core.backend import get_backend
from solvers.completion import alternating_minimization

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("loss", ["huber", "l1", "welsch", "tukey"])
def test_exact_data_is_recovered_from_under_gross_outliers(loss):
    be, rng = get_backend("cupy"), np.random.default_rng(0)
    X = rng.standard_normal((300, 4)) @ rng.standard_normal((4, 250))
    rows, cols = np.nonzero(rng.random(X.shape) < 0.3)
    out = rng.random(rows.size) < 0.15
    vals = X[rows, cols] + 10.0 * out * rng.standard_normal(rows.size)
    arrays = tuple(map(be.xp.asarray, (rows, cols, vals)))
    options = {"shape": X.shape, "loss": loss, "tol": 1e-12, "rng": 0}
    res = alternating_minimization(arrays, 4, **options)
    assert res.success
    U, s, V, w = be.host(res.U, res.s, res.V, res.outlier_weights)
    assert np.linalg.norm((U * s) @ V.T - X) < 1e-10 * np.linalg.norm(X)
    assert w[out].mean() < 0.01 * w[~out].mean()
