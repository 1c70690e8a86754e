"""Starts and row solvers for large ranks on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers import completion
from solvers._core.backend import get_backend
from solvers.completion._start import start
from tests.completion.sketch_kernel_tests import SketchKernelTests, expected, systems
from tests.completion.test_start import options, planted, problem

cupy_be = get_backend("cupy")


class TestCudaSketchKernels(SketchKernelTests):
    @pytest.fixture
    def be(self, device):
        device.block = 64
        return cupy_be


@pytest.mark.parametrize("block", [32, 256])
@pytest.mark.parametrize("method", ["sketch", "subspace"])
def test_blocks_of_threads_of_any_size_reach_the_minimisers(rng, device, method, block):
    device.block = block
    tests = SketchKernelTests()
    tests.be = cupy_be
    parts, A = systems(rng, [60, 80], 5 if method == "sketch" else 35, "all of it")
    x, *_ = tests.solve(method, parts, A)
    np.testing.assert_allclose(x, expected(parts, A)[0], atol=1e-8)


@pytest.mark.parametrize(
    ("given", "model"),
    [
        ({}, {}),
        ({"clip": "row"}, {}),
        ({"clip": "entry"}, {}),
        ({"init": "random"}, {}),
        ({}, {"nonnegative": True}),
        ({}, {"bias": True, "center": True}),
        ({}, {"loss": "huber"}),
    ],
    ids=str,
)
def test_starts_are_those_of_numpy_arrays(rng, given, model):
    M = planted(rng, 20, 15, 2)
    M[3] *= 20.0
    M[rng.random(M.shape) < 0.3] = np.nan
    on_host = start(problem(M, **model), 3, options(**given))
    on_device = start(problem(cupy.asarray(M), **model), 3, options(**given))
    for x, y in zip(on_host, on_device, strict=True):
        assert isinstance(y, cupy.ndarray)
        # Singular vectors are compared by what they make together.
        if x.ndim == 1:
            np.testing.assert_allclose(y.get(), x, atol=1e-10)
    A, B = on_host[:2]
    np.testing.assert_allclose((on_device[0] @ on_device[1].T).get(), A @ B.T, atol=1e-8)


@pytest.mark.parametrize("given", [{"inner": "sketch"}, {"inner": "subspace"}, {"mode": "theory"}],
                         ids=str)  # fmt: skip
def test_whole_runs_stay_on_the_device(rng, given):
    X = np.outer(1.0 + rng.random(50), 1.0 + rng.random(45))
    res = completion.alternating_minimization(
        cupy.asarray(X), 1, method="altmin", tol=1e-1 if "mode" in given else 1e-8, rng=0, **given
    )
    assert res.success
    assert isinstance(res.U, cupy.ndarray)
    np.testing.assert_allclose(res.todense().get(), X, atol=1e-1 * np.abs(X).max())
