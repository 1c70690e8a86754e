from pathlib import Path

import pytest
from _cuda_on_cpu import missing
from _cupy_standin import run_with_standin

has_compiler = pytest.mark.skipif(missing() is not None, reason=missing() or "")


@has_compiler
def test_cuda_twins_pass_their_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "numerics_on_device.py")
