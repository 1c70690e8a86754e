"""Kernels for blocks, and the models on them, for CuPy arrays; `cupy` is the stand-in here."""

import cupy
import numpy as np
import pytest

from solvers import bcd
from solvers._core.backend import get_backend
from solvers.bcd import _block_model
from tests.bcd.groups_kernel_tests import GroupsKernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 128])
class TestCudaKernels(GroupsKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


@pytest.mark.parametrize(
    ("model", "columns"),
    [("group", False), ("sparse group", True), ("l1", True), ("row", False)],
)
def test_the_device_gives_what_the_host_gives(model, columns, monkeypatch):
    if columns:
        monkeypatch.setattr(_block_model, "_LARGEST", 0)
    rng = np.random.default_rng(1)
    X = rng.standard_normal((24, 8))
    y = X[:, 0] - X[:, 3] + 0.3 * rng.standard_normal(24)
    options = {"fit_intercept": True, "tol": 1e-6}

    def solve(xp):
        if "group" in model:
            share = 0.3 if "sparse" in model else 0.0
            groups = [0, 0, 0, 1, 1, 1, 2, 2]
            call = xp.asarray(X), xp.asarray(y), 0.05, groups
            return bcd.group_lasso(*call, l1_ratio=share, **options)
        labels = xp.asarray(np.digitize(y, [-0.5, 0.5]))
        return bcd.multinomial(xp.asarray(X), labels, 0.05, penalty=model, **options)

    here, there = solve(np), solve(cupy)
    assert isinstance(there.x, cupy.ndarray)
    assert there.success
    assert there.fun == pytest.approx(here.fun, abs=2e-6 * here.scale)
