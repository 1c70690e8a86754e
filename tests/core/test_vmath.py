import math
import platform
import re

import numpy as np
import pytest
from numba import config

from solvers._core.kernels import jit, vmath
from solvers._core.kernels.jit import REDUCE, kernel

LOWEST = {"float64": -708.0, "float32": -87.0}
HIGHEST = {"float64": 709.0, "float32": 88.0}

needs_compiler = pytest.mark.skipif(config.DISABLE_JIT, reason="the compiler is off")
needs_long_double = pytest.mark.skipif(
    np.finfo(np.longdouble).eps > 2e-19, reason="no number type longer than double to compare with"
)


@kernel()
def exp_of_each(x, out):
    for i in range(x.size):
        out[i] = vmath.exp(x[i])


@kernel()
def log_of_each(x, out):
    for i in range(x.size):
        out[i] = vmath.log(x[i])


@kernel(fastmath=REDUCE)
def largest(x):
    top = x[0]
    for i in range(x.size):
        top = vmath.vmax(top, x[i])
    return top


@kernel(fastmath=REDUCE)
def smallest(x):
    bottom = x[0]
    for i in range(x.size):
        bottom = vmath.vmin(bottom, x[i])
    return bottom


@kernel(fastmath=REDUCE)
def sum_of_powers(x, shift):
    total = x.dtype.type(0)
    for i in range(x.size):
        total += vmath.exp(x[i] - shift)
    return total


@kernel(fastmath=REDUCE)
def sum_of_logs(x):
    total = 0.0
    for i in range(x.size):
        total += vmath.log(x[i])
    return total


def exp(x):
    out = np.empty_like(x)
    exp_of_each(x, out)
    return out


def log(x):
    out = np.empty(x.shape)
    log_of_each(x, out)
    return out


def units_in_the_last_place(got, exact):
    return float(np.max(np.abs(got - exact) / np.spacing(np.abs(exact.astype(got.dtype)))))


@needs_compiler
@needs_long_double
def test_exp_errs_by_one_unit_in_the_last_place_over_its_whole_domain(dtype, rng):
    for low, high in [(LOWEST[dtype], HIGHEST[dtype]), (-20, 0), (-1, 1), (-1e-3, 1e-3)]:
        x = np.append(rng.uniform(low, high, 100_000), [low, high]).astype(dtype)
        assert units_in_the_last_place(exp(x), np.exp(x.astype(np.longdouble))) <= 1.1


@needs_compiler
@needs_long_double
def test_exp_is_right_where_its_polynomial_changes(dtype):
    half = (np.arange(-120, 120) + 0.5) * math.log(2)
    x = np.concatenate([half * (1 + t) for t in (-1e-6, -1e-16, 0, 1e-16, 1e-6)]).astype(dtype)
    assert units_in_the_last_place(exp(x), np.exp(x.astype(np.longdouble))) <= 1.1


def test_exp_of_nothing_is_zero_and_of_nan_is_nan(dtype):
    low = np.array(LOWEST[dtype], dtype)
    x = np.array([-np.inf, 10 * low, np.nextafter(low, 10 * low), low, -0.0, 0.0, np.nan], dtype)
    y = exp(x)
    assert y.dtype == dtype
    assert list(y[:3]) == [0, 0, 0]
    assert y[3] >= np.finfo(dtype).tiny
    assert list(y[4:6]) == [1, 1]
    assert np.isnan(y[6])


@pytest.mark.parametrize(
    ("word", "payload"),
    [("uint64", 0x7FF8000000000001), ("uint64", 0x7FF00000000007A2), ("uint32", 0xFFC00ABC)],
)
def test_exp_keeps_every_nan_a_nan(word, payload):
    x = np.array([payload], word).view(word.replace("uint", "float"))
    assert np.isnan(exp(x))


@needs_long_double
def test_log_errs_by_less_than_two_units_in_the_last_place(rng):
    edges = np.array([2.0**k * s for k in (-1022, -1, 0, 1, 1023) for s in (1, math.sqrt(2))])
    edges = np.concatenate([edges, np.nextafter(edges, np.inf), np.nextafter(edges[1:], 0)])
    everywhere = np.exp(rng.uniform(-708, 709.7, 50_000))
    for x in (edges, everywhere, rng.uniform(0.5, 2, 100_000), rng.uniform(0.999, 1.001, 50_000)):
        exact = np.log(x.astype(np.longdouble))
        assert units_in_the_last_place(log(x), exact) <= 2


def test_log_of_float32_is_computed_in_float64(rng):
    x = rng.uniform(0.1, 10, 1000).astype(np.float32)
    np.testing.assert_allclose(log(x), np.log(x.astype(np.float64)), rtol=1e-15)


def test_log_outside_its_domain_is_minus_infinity_or_nan(dtype):
    y = log(np.array([np.inf, 0, -0.0, 1, np.nan, -np.inf, -1, -1e-30], dtype))
    assert list(y[:4]) == [np.inf, -np.inf, -np.inf, 0]
    assert np.isnan(y[4:]).all()


def test_extrema_are_those_of_numpy(dtype, rng):
    for n in (1, 7, 64, 1000):
        x = rng.standard_normal(n).astype(dtype)
        assert largest(x) == x.max()
        assert smallest(x) == x.min()


def test_one_nan_makes_the_extremum_nan_wherever_it_stands(dtype):
    for where in (0, 1, 50, 99):
        x = np.linspace(-1, 1, 100).astype(dtype)
        x[where] = np.nan
        assert np.isnan(largest(x))
        assert np.isnan(smallest(x))


@needs_compiler
def test_float_types_are_not_mixed():
    @jit.kernel()
    def mixed(x, y):
        return vmath.vmax(x, y)

    with pytest.raises(Exception, match="maximum needs floats of one type"):
        mixed(np.float32(1), 1.0)


@needs_compiler
@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="reads x86-64 assembly"
)
@pytest.mark.parametrize(
    ("loop", "instruction"),
    [(sum_of_powers, "vfmadd"), (largest, "vmax"), (smallest, "vmin"), (sum_of_logs, "vfmadd")],
)
def test_loops_run_in_vector_registers_and_call_nothing(monkeypatch, dtype, loop, instruction):
    # A function that came out of the disk cache has no assembly to show: compile it afresh.
    monkeypatch.setattr(jit, "_CACHE", False)
    afresh = jit.kernel(fastmath=REDUCE)(loop.py_func)
    x = np.ones(100, dtype)
    assert np.isfinite(afresh(x, x[0]) if loop is sum_of_powers else afresh(x))
    (assembly,) = afresh.inspect_asm().values()
    # What follows the function itself are its wrappers for calls from Python.
    body = assembly.partition(".Lfunc_end0")[0]
    suffix = "pd" if dtype == "float64" or loop is sum_of_logs else "ps"
    assert re.search(rf"\b{instruction}\w*{suffix}\s.*%[yz]mm", body), "the loop is not vectorised"
    assert not re.search(r"\bcall", body), "the loop calls a function"
