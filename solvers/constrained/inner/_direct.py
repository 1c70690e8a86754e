"""Direct solves: which factorisation suits a matrix."""

from functools import cached_property

from ..._core.backend import get_backend
from .._matrices import LowRank
from ._dense import DenseLDL, DenseLU
from ._saddle import Saddle

# Below this size, or with more than this share of entries, the dense factorisation is faster.
_SMALL, _FULL = 200, 0.1


class Direct:
    """The factorisation that suits the kind and the size of each matrix.

    Attributes
    ----------
    singular : bool
        Whether the last matrix has a zero pivot.
    """

    name = "direct"

    def __init__(self, options=None):
        self._solver = None

    def factor(self, saddle):
        """Factor; tell whether B is positive definite on the kernel of G."""
        on_host, thin = saddle.be.name == "numpy", is_thin(saddle.B, saddle.G)
        if isinstance(saddle.B, LowRank) and saddle.n + saddle.m > _SMALL:
            self._solver = self._low_rank
        elif thin:
            self._solver = self.sparse if on_host else self._sparse_on_device
        else:
            self._solver = self._dense if on_host else self._dense_on_device
        # The caller's next call, without a detour.
        self.solve = self._solver.solve
        return self._solver.factor(saddle)

    @property
    def singular(self):
        return self._solver.singular

    @cached_property
    def _dense(self):
        return DenseLDL()

    @cached_property
    def _dense_on_device(self):
        return DenseLU()

    @cached_property
    def _low_rank(self):
        from ._low_rank import LowRankDirect

        return LowRankDirect(Direct())

    @cached_property
    def _sparse_on_device(self):
        return Hosted(self.sparse)

    @cached_property
    def sparse(self):
        """The solver of sparse matrices on the host."""
        from ._sparse import SparseDirect

        return SparseDirect()


class Hosted:
    """A sparse solver of the host for matrices in device memory.

    CuPy's sparse factorisations run on the host as well; these know more of saddle matrices.
    """

    def __init__(self, sparse):
        self._sparse = sparse

    def factor(self, saddle):
        """Bring the matrix to the host and factor it there."""
        self._be = saddle.be
        B, G = (_on_host(A, saddle.be) for A in (saddle.B, saddle.G))
        hosted = Saddle(B, G, saddle.delta, saddle.tau, be=get_backend("numpy"))
        return self._sparse.factor(hosted)

    def solve(self, r, *, d0=None, tol=0.0):
        """Solve on the host."""
        solved = self._sparse.solve(self._be.host(r), tol=tol)
        d, residual = map(self._be.xp.asarray, (solved.d, solved.residual))
        return solved._replace(d=d, residual=residual)

    @property
    def singular(self):
        return self._sparse.singular


def _on_host(A, be):
    from scipy.sparse import csr_array

    if not hasattr(A, "nnz"):  # no rows
        return csr_array(A.shape)
    return csr_array(be.host(A.data, A.indices, A.indptr), shape=A.shape)


def is_thin(B, G):
    """Tell whether a sparse factorisation is faster than a dense one."""
    if not hasattr(B, "nnz") or not (hasattr(G, "nnz") or G.shape[0] == 0):
        return False
    N = sum(G.shape)
    return N > _SMALL and B.nnz + 2 * getattr(G, "nnz", 0) <= _FULL * N * N
