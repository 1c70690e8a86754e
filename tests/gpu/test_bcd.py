"""Block coordinate descent on a real device: its kernels, against the rules in Python."""

import pytest

from solvers._core.backend import get_backend
from tests.bcd.kernel_tests import KernelTests
from tests.bcd.select_kernel_tests import SelectKernelTests

pytestmark = pytest.mark.gpu


@pytest.fixture
def be():
    return get_backend("cupy")


class TestKernels(KernelTests):
    pass


class TestSelectKernels(SelectKernelTests):
    pass
