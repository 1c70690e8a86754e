"""Direct solves of saddle-point systems on a real device, against NumPy."""

import numpy as np
import pytest
import scipy.sparse as sp

from solvers._core.backend import get_backend
from solvers.constrained import solve_kkt

pytestmark = pytest.mark.gpu


@pytest.fixture
def be():
    return get_backend("cupy")


@pytest.mark.parametrize("form", ["dense", "csr"])
@pytest.mark.parametrize("inner", ["auto", "direct", "condensed"])
def test_systems_are_solved_on_the_device(be, inner, form):
    rng = np.random.default_rng(0)
    n, m = 400, 150
    off = np.ones(n - 1)
    B = sp.diags_array([off, 4 + rng.random(n), off], offsets=[-1, 0, 1]).tocsr()
    G = sp.diags_array([rng.uniform(1, 2, m)] * 3, offsets=[0, 2, 4], shape=(m, n)).tocsr()
    K = sp.block_array([[B, G.T], [G, None]]).tocsr()
    x = rng.standard_normal(n + m)
    if form == "csr":
        B, G = (be.sparse.csr_matrix(sp.csr_matrix(A)) for A in (B, G))
    else:
        B, G = (be.xp.asarray(A.toarray()) for A in (B, G))
    res = solve_kkt(B, G, be.xp.asarray(K @ x), inner=inner)
    assert res.success
    assert isinstance(res.x, be.xp.ndarray)
    np.testing.assert_allclose(be.host(res.x), x, rtol=0, atol=1e-7)
