"""Choosing blocks on CuPy arrays; `cupy` is the stand-in here."""

from types import SimpleNamespace

import cupy
import numpy as np
import pytest

from solvers import bcd
from solvers._core.backend import get_backend
from solvers.bcd.rules import PARTITIONS, SELECTIONS, check_rules, cut
from tests.bcd.select_kernel_tests import SelectKernelTests

cupy_be = get_backend("cupy")


@pytest.mark.parametrize("block", [32, 256])
class TestCudaKernels(SelectKernelTests):
    @pytest.fixture
    def be(self, device, block):
        device.block = block
        return cupy_be


class State:
    """A point of a dense quadratic, with no kernels of its own."""

    def __init__(self, problem, x):
        self.problem, self.penalty, self.lipschitz = problem, problem.bound, problem.lipschitz
        self.x = problem.xp.array(x)

    def gradient(self):
        return self.problem.gradient(self.x)

    def bound(self, block):
        return self.problem.A[block][:, block]


def choices(problem, x, partition, selection):
    """The first two blocks, on the host."""
    rules = check_rules(
        problem, partition=partition, block_size=3, selection=selection, update="auto"
    )
    options = SimpleNamespace(**rules, norm=2, rng=np.random.default_rng(0))
    state = State(problem, x)
    rule = SELECTIONS[options.selection]
    select = rule.make(state, cut(problem, options), options.block_size, options.rng, options)
    blocks = []
    for _ in range(2):
        number, block = select()
        blocks.append((number, problem.be.host(block).tolist()))
        state.x[block] += 0.1
    return blocks


PAIRS = [
    (partition, selection)
    for partition in ("variable", "sort", "havg")
    for selection, rule in SELECTIONS.items()
    if (rule.variable if PARTITIONS[partition].variable else rule.fixed) and not rule.single
]


@pytest.mark.parametrize(("partition", "selection"), PAIRS)
@pytest.mark.parametrize("l1", [0.0, 0.05])
def test_the_device_chooses_what_the_host_chooses(partition, selection, l1):
    rng = np.random.default_rng(1)
    X, b, x = rng.standard_normal((20, 10)), rng.standard_normal(10), rng.standard_normal(10)
    A = X.T @ X / 20
    here = bcd.Problem.quadratic(A, b, l1=l1).model
    there = bcd.Problem.quadratic(cupy.asarray(A), cupy.asarray(b), l1=l1).model
    assert choices(here, x, partition, selection) == choices(there, x, partition, selection)
