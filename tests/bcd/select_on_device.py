"""Choosing blocks on CuPy arrays; `cupy` is the stand-in here."""

from types import SimpleNamespace

import cupy
import numpy as np
import pytest

from solvers import bcd, penalties
from solvers._core.backend import get_backend
from solvers.bcd._state import open_state
from solvers.bcd.rules import PARTITIONS, SELECTIONS, check_rules, cut
from tests.bcd.select_kernel_tests import SelectKernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 256])
class TestCudaKernels(SelectKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


def choices(problem, x, partition, selection):
    """The first two blocks, on the host."""
    rules = check_rules(
        problem, partition=partition, block_size=3, selection=selection, update="auto"
    )
    options = SimpleNamespace(**rules, norm=2, rng=np.random.default_rng(0))
    xp = problem.xp
    state = open_state(problem, xp.asarray(x), problem.zeros()[1])
    rule = SELECTIONS[options.selection]
    select = rule.make(state, cut(problem, options), options.block_size, options.rng, options)
    blocks = []
    for _ in range(2):
        number, block = select()
        blocks.append((number, problem.be.host(block).tolist()))
        d = xp.full(block.size, 0.1)
        state.move(state.line(block, d))
    return blocks


PAIRS = [
    (partition, selection)
    for partition in ("variable", "sort", "havg")
    for selection, rule in SELECTIONS.items()
    if (rule.variable if PARTITIONS[partition].variable else rule.fixed) and not rule.single
]


@pytest.mark.parametrize(("partition", "selection"), PAIRS)
@pytest.mark.parametrize("penalty", [None, penalties.L1(0.05)])
def test_the_device_chooses_what_the_host_chooses(partition, selection, penalty):
    rng = np.random.default_rng(1)
    X, y, x = rng.standard_normal((20, 10)), rng.standard_normal(20), rng.standard_normal(10)
    here = bcd.Problem(X, y, penalty=penalty).model
    there = bcd.Problem(cupy.asarray(X), cupy.asarray(y), penalty=penalty).model
    assert choices(here, x, partition, selection) == choices(there, x, partition, selection)
