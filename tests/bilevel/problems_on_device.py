"""Ready-made problems on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers import bilevel
from solvers._core.backend import get_backend
from solvers.bilevel import problems
from tests.bilevel.test_problems import NAMES, P, data, point

cupy_be = get_backend("cupy")


def both(name, sparse=False):
    """Return a problem here and on the device."""
    args = data(name, sparse=sparse)
    cls = getattr(problems, name.split()[0])
    there = [on_device(a) for a in args]
    return cls(*args), cls(*there)


def on_device(a):
    if hasattr(a, "indptr"):
        parts = (cupy.asarray(v) for v in (a.data, a.indices, a.indptr))
        return cupy_be.sparse.csr_matrix(tuple(parts), shape=a.shape)
    return cupy.asarray(a) if np.ndim(a) else a


CASES = [(name, False) for name in NAMES] + [(name, True) for name in NAMES[1:]]


@pytest.mark.parametrize(("name", "sparse"), CASES)
def test_levels_are_those_for_numpy_arrays(device, name, sparse):
    device.block = 32
    here, there = both(name, sparse)
    x, y, z, v = point(here)
    X, Y, Z, V = (cupy.asarray(a) for a in (x, y, z, v))
    for a, b in ((here.upper, there.upper), (here.lower, there.lower)):
        for wanted, found in ((a(x, y), b(X, Y)), (a.pair(x, y, z), b.pair(X, Y, Z))):
            assert found[0] == pytest.approx(wanted[0], rel=1e-12)
            for wanted_part, found_part in zip(wanted[1:], found[1:], strict=True):
                assert isinstance(found_part, cupy.ndarray)
                part = cupy_be.host(found_part)
                np.testing.assert_allclose(part, wanted_part, rtol=1e-11, atol=1e-13)
    for product in ("hvp_yy", "hvp_xy"):
        wanted = getattr(here.lower, product)(x, y, v)
        found = cupy_be.host(getattr(there.lower, product)(X, Y, V))
        np.testing.assert_allclose(found, wanted, rtol=1e-11, atol=1e-13)
    found = cupy_be.host(there.lower.precond_y(X))
    np.testing.assert_allclose(found, here.lower.precond_y(x), rtol=1e-12)


def test_a_batch_of_samples_is_taken_on_the_device(device):
    here, there = both("WeightedTraining")
    x, y, *_ = point(here)
    idx = np.array([3, 1, 3])
    wanted = here.lower(x, y, idx)
    found = there.lower(cupy.asarray(x), cupy.asarray(y), idx)
    for a, b in zip(wanted, found, strict=True):
        np.testing.assert_allclose(cupy_be.host(b), a, rtol=1e-12, atol=1e-14)


def test_penalty_solves_a_problem_on_the_device(device):
    device.block = 32
    here, there = both("RidgeHPO")
    wanted, found = (bilevel.penalty(problem, tol=1e-2) for problem in (here, there))
    assert found.success
    assert isinstance(found.x, cupy.ndarray)
    assert found.fun == pytest.approx(wanted.fun, rel=1e-3)


def test_arrays_of_the_host_are_refused(device):
    _, there = both("LogisticHPO")
    with pytest.raises(TypeError, match="`x` came in memory of numpy"):
        there.lower(np.zeros(P), np.zeros(P))
