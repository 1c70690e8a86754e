"""Sweeps of block coordinate descent on a real device, against loops in Python."""

import pytest

from solvers._core.backend import get_backend
from tests.bcd.sweeps_kernel_tests import SweepsKernelTests

pytestmark = pytest.mark.gpu


@pytest.fixture
def be():
    return get_backend("cupy")


class TestKernels(SweepsKernelTests):
    pass
