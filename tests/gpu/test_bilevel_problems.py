"""Ready-made bilevel problems on a real device: the kernels, and levels against NumPy."""

import numpy as np
import pytest

from solvers import bilevel
from solvers._core.backend import get_backend
from tests.bilevel.losses_kernel_tests import LossesKernelTests

pytestmark = pytest.mark.gpu


@pytest.fixture
def be():
    return get_backend("cupy")


class TestKernels(LossesKernelTests):
    pass


@pytest.mark.parametrize("size", [(300, 40), (5000, 3000)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_device_gives_what_the_host_gives(be, size, dtype):
    rng = np.random.default_rng(0)
    X, t = rng.standard_normal(size).astype(dtype), np.sign(rng.standard_normal(size[0]))
    Xv, tv = rng.standard_normal((50, size[1])).astype(dtype), np.sign(rng.standard_normal(50))
    y, z = rng.standard_normal((2, size[1])).astype(dtype) / size[1] ** 0.5
    t, tv = t.astype(dtype), tv.astype(dtype)
    here = bilevel.problems.LogisticHPO(X, t, Xv, tv)
    there = bilevel.problems.LogisticHPO(*map(be.xp.asarray, (X, t, Xv, tv)))
    wanted = here.lower.pair(here.x0, y, z)
    found = there.lower.pair(there.x0, be.xp.asarray(y), be.xp.asarray(z))
    again = there.lower.pair(there.x0, be.xp.asarray(y), be.xp.asarray(z))
    tol = 1e-4 if dtype == "float32" else 1e-11
    for answers in zip(wanted, found, again, strict=True):
        a, b, c = map(be.host, answers)
        np.testing.assert_allclose(b, a, rtol=tol, atol=tol * np.abs(a).max())
        # The same bits every time.
        np.testing.assert_array_equal(b, c)


def test_penalty_solves_a_problem_on_the_device(be):
    rng = np.random.default_rng(1)
    X = rng.standard_normal((300, 12))
    t = X[:, 0] - X[:, 3] + 0.5 * rng.standard_normal(300)
    args = X[:200], t[:200], X[200:].copy(), t[200:]
    here = bilevel.penalty(bilevel.problems.RidgeHPO(*args), tol=1e-5)
    there = bilevel.penalty(bilevel.problems.RidgeHPO(*map(be.xp.asarray, args)), tol=1e-5)
    assert there.success
    assert there.fun == pytest.approx(here.fun, rel=1e-5)
