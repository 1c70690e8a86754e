"""Solvers on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers import bilevel
from tests.bilevel import test_driver as host
from tests.bilevel.test_driver import solve

A, B, T, X0, Y0 = (cupy.asarray(getattr(host, name)) for name in ("A", "B", "T", "X0", "Y0"))


def lower(x, y):
    return 0.5 * y @ A @ y - y @ (B @ x), -B.T @ y, A @ y - B @ x


def upper(x, y):
    return 0.5 * (y - T) @ (y - T) + 0.5 * x @ x, 1.0 * x, y - T


@pytest.mark.parametrize("X", [None, bilevel.box(0.0, 1.0)])
def test_the_device_gives_what_the_host_gives(X):
    here, there = solve(X=X), bilevel.penalty(upper, lower, X0, Y0, X=X)
    assert there.success
    for name in ("x", "y", "y_sigma", "z", "jac"):
        assert isinstance(there[name], cupy.ndarray)
        assert np.allclose(there[name].get(), here[name], atol=1e-6)
    assert there.fun == pytest.approx(here.fun, rel=1e-9)
    assert all(isinstance(column, np.ndarray) for column in there.history.values())


def test_nested_variables_come_back_on_the_device():
    def split(level):
        def fun(x, y):
            value, gx, gy = level(cupy.concatenate([x["a"], x["b"]]), y[0])
            return value, {"a": gx[:1], "b": gx[1:]}, [gy]

        return fun

    start = {"a": X0[:1], "b": X0[1:]}
    res = bilevel.penalty(split(upper), split(lower), start, [Y0])
    assert isinstance(res.x["b"], cupy.ndarray)
    assert isinstance(res.y[0], cupy.ndarray)


def test_what_comes_from_the_host_is_put_on_the_device():
    def on_host(x, y):
        value, gx, gy = lower(x, y)
        return float(value), gx.get(), gy.get()

    assert bilevel.penalty(upper, on_host, X0, Y0).success


def test_device_memory_is_refused_where_the_start_is_on_the_host():
    with pytest.raises(TypeError, match="`lower` returned grad_y in device memory"):
        solve(lower=lambda x, y: (0.0, None, cupy.asarray(y)))
    with pytest.raises(TypeError, match="`y0` came as a cupy array and `x0` as a numpy array"):
        solve(y0=Y0)
