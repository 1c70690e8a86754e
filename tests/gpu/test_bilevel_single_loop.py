"""Stochastic loops on a real device, against a loop in NumPy."""

import pytest

from solvers._core.backend import get_backend
from tests.bilevel.single_loop_kernel_tests import SingleLoopKernelTests

pytestmark = pytest.mark.gpu


@pytest.fixture
def be():
    return get_backend("cupy")


class TestKernels(SingleLoopKernelTests):
    pass
