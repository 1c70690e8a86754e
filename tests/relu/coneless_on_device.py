"""Programmes without cones on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers import relu
from solvers._core.backend import get_backend

host = get_backend("cupy").host


@pytest.fixture
def data(rng):
    X = rng.standard_normal((20, 3))
    Y = np.maximum(X @ rng.standard_normal((3, 2)), 0)
    return X, Y, relu.sample_gates(X, 6, rng=0)


@pytest.mark.parametrize("options", [{}, {"multi_output": "joint"}, {"norm": "nuclear"}])
@pytest.mark.parametrize("loss", ["squared", "hinge"])
def test_gated_networks_are_those_of_the_host(data, options, loss):
    X, Y, gates = data
    options = {"multi_output": "joint", **options} if options else options
    Y = Y if loss == "squared" else np.where(Y > 0.5, 1.0, -1.0)
    there = relu.gated(
        cupy.asarray(X), cupy.asarray(Y), beta=0.3, loss=loss, gates=gates, **options
    )
    here = relu.gated(X, Y, beta=0.3, loss=loss, gates=gates, **options)
    assert there.success
    assert isinstance(there.U, cupy.ndarray)
    assert isinstance(there.net.hidden, cupy.ndarray)
    assert there.fun_convex == pytest.approx(here.fun_convex, rel=2e-6)
    again = relu.gated(
        cupy.asarray(X), cupy.asarray(Y), beta=0.3, loss=loss, gates=gates, x0=there, **options
    )
    assert again.nit == 0


def test_large_problems_do_without_factors_there_too(data, monkeypatch):
    monkeypatch.setattr("solvers.relu._designs._DENSE", 5)
    X, Y, gates = data
    there = relu.gated(cupy.asarray(X), cupy.asarray(Y), beta=0.3, gates=gates)
    assert there.fun_convex == pytest.approx(relu.gated(X, Y, beta=0.3, gates=gates).fun_convex)


@pytest.mark.parametrize("kept", [10**8, 100])
def test_random_neurons_are_those_of_the_host(data, monkeypatch, kept):
    monkeypatch.setattr("solvers.relu._designs._KEPT", kept)
    X, Y, _ = data
    there = relu.sampled_convex(cupy.asarray(X), cupy.asarray(Y), beta=0.3, n_neurons=30, rng=0)
    here = relu.sampled_convex(X, Y, beta=0.3, n_neurons=30, rng=0)
    assert there.success
    assert isinstance(there.alpha, cupy.ndarray)
    assert there.fun_convex == pytest.approx(here.fun_convex, rel=2e-6)
    np.testing.assert_array_equal(there.gates.D, here.gates.D)


def test_paths_and_networks_stay_on_the_device(data):
    X, Y, _ = data
    X, Y = cupy.asarray(X), cupy.asarray(Y)
    for method in ("gated", "sampled_convex"):
        for res in relu.path(X, Y, betas=3, method=method, rng=0):
            assert isinstance(res.V, cupy.ndarray)
    net = relu.recover(res.V, res.W, X=X)
    assert isinstance(net.predict(X), cupy.ndarray)
    np.testing.assert_allclose(host(net.predict(X)), host(res.net.predict(X)), atol=1e-8)
    value = relu.network_objective(X, Y, res.net, res.beta)
    assert value == pytest.approx(res.fun, rel=1e-8)
