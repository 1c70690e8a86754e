"""The choice of an inner solver, once for a run."""

from .._matrices import LowRank, is_operator
from ._direct import Direct, is_thin
from ._minres import Minres
from ._pcg import ProjectedCG


class Auto:
    """The solver that suits the first matrix.

    Factorisations where B and G have entries and factors would not be of unreasonable size;
    projected conjugate gradients where B is known by products alone, or the factors would be too
    large; MINRES where G is known by products alone.
    """

    def __init__(self, options):
        self._options, self._chosen, self.name = options, None, "auto"

    def factor(self, saddle):
        """Choose, then factor."""
        if self._chosen is None:
            self._chosen = self._choice(saddle)
            self.name, self.factor = self._chosen.name, self._chosen.factor
            if hasattr(self._chosen, "took"):
                self.took = self._chosen.took
        return self._chosen.factor(saddle)

    def solve(self, r, *, d0=None, tol=0.0):
        """Solve with what was factored."""
        return self._chosen.solve(r, d0=d0, tol=tol)

    @property
    def singular(self):
        return getattr(self._chosen, "singular", False)

    def _choice(self, saddle):
        B, G = saddle.B, saddle.G
        if is_operator(G):
            return Minres(self._options)
        if isinstance(B, LowRank):
            return Direct(self._options)
        if is_operator(B):
            return ProjectedCG(self._options)
        direct = Direct(self._options)
        on_host = saddle.be.name == "numpy"
        if on_host and is_thin(B, G) and not direct.sparse.is_affordable(B, G):
            return ProjectedCG(self._options)
        return direct
