"""Levels of many blocks on a real device."""

import numpy as np
import pytest

from solvers import bilevel
from solvers._core.backend import get_backend
from tests.bilevel.blocks_kernel_tests import BlocksKernelTests
from tests.bilevel.test_borep import Cosh
from tests.bilevel.test_bsvrb import classifiers, quiet

pytestmark = pytest.mark.gpu


class TestCudaKernels(BlocksKernelTests):
    @pytest.fixture
    def be(self):
        return get_backend("cupy")


@pytest.mark.parametrize("variant", ["v1", "v2", "v3"])
def test_a_run_on_the_device_takes_the_steps_of_one_on_the_host(variant):
    be, data = get_backend("cupy"), classifiers()

    def solve(xp):
        problem = bilevel.problems.MultiBlockLogistic(*map(xp.asarray, data))
        return quiet(bilevel.bsvrb, problem, variant=variant, blocks=2, batch=5, epochs=2, rng=0)

    here, there = solve(np), solve(be.xp)
    assert isinstance(there.x, be.xp.ndarray)
    np.testing.assert_allclose(be.host(there.x), here.x, rtol=1e-6)


def test_normalised_steps_on_the_device_are_those_on_the_host():
    be, problem = get_backend("cupy"), Cosh()

    def solve(xp):
        A, B, mean, t = (xp.asarray(a) for a in (problem.A, problem.B, problem.mean, problem.t))

        def upper(x, y):
            e = 3 * (y - t)
            return xp.cosh(e).sum(), None, 3 * xp.sinh(e)

        def lower(x, y):
            r = y - B @ x - mean
            return 0.5 * r @ A @ r, -B.T @ A @ r, A @ r

        start = xp.zeros(problem.d), xp.zeros(problem.p)
        return quiet(bilevel.borep, upper, lower, *start, lr_upper=0.02, maxiter=20)

    here, there = solve(np), solve(be.xp)
    np.testing.assert_allclose(be.host(there.x), here.x, rtol=1e-6)
