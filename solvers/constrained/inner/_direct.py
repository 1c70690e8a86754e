"""Direct solves: which factorisation suits a matrix."""

from functools import cached_property

from .._matrices import LowRank
from ._dense import DenseLDL, DenseLU

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
        if isinstance(saddle.B, LowRank) and saddle.n + saddle.m > _SMALL:
            self._solver = self._low_rank
        elif is_thin(saddle.B, saddle.G):
            self._solver = self.sparse
        else:
            self._solver = self._dense if saddle.be.name == "numpy" else self._on_device
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
    def _on_device(self):
        return DenseLU()

    @cached_property
    def _low_rank(self):
        from ._low_rank import LowRankDirect

        return LowRankDirect(Direct())

    @cached_property
    def sparse(self):
        """The solver of sparse matrices on the host."""
        from ._sparse import SparseDirect

        return SparseDirect()


def is_thin(B, G):
    """Tell whether a sparse factorisation is faster than a dense one."""
    if not hasattr(B, "nnz") or not (hasattr(G, "nnz") or G.shape[0] == 0):
        return False
    N = sum(G.shape)
    return N > _SMALL and B.nnz + 2 * getattr(G, "nnz", 0) <= _FULL * N * N
