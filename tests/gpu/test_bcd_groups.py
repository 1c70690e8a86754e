"""Models with groups or classes on a real device: the kernels, and solves against NumPy."""

import numpy as np
import pytest

from solvers import bcd
from solvers._core.backend import get_backend
from tests.bcd.groups_kernel_tests import GroupsKernelTests

pytestmark = pytest.mark.gpu


@pytest.fixture
def be():
    return get_backend("cupy")


class TestKernels(GroupsKernelTests):
    pass


@pytest.mark.parametrize("size", [40, 4000])
@pytest.mark.parametrize("penalty", ["group", "row", "l1"])
def test_the_device_gives_what_the_host_gives(be, penalty, size):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, size))
    y = X[:, 0] - X[:, 3] + 0.3 * rng.standard_normal(300)

    def solve(xp):
        if penalty == "group":
            return bcd.group_lasso(xp.asarray(X), xp.asarray(y), 0.05, np.arange(size) // 4)
        labels = xp.asarray(np.digitize(y, [-0.5, 0.5]))
        return bcd.multinomial(xp.asarray(X), labels, 0.01, penalty=penalty, fit_intercept=True)

    here, there = solve(np), solve(be.xp)
    assert there.success
    assert isinstance(there.x, be.xp.ndarray)
    assert there.fun == pytest.approx(here.fun, abs=2e-8 * here.scale)
