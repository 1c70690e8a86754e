"""Direct solves: the ground floor, dense and slow."""

from .._matrices import to_dense
from ._saddle import InnerSolve


class Direct:
    """Dense factorisation."""

    name = "direct"

    def __init__(self, options):
        self._saddle = None

    def factor(self, saddle):
        """Look at the inertia of the whole matrix."""
        self._saddle, be = saddle, saddle.be
        xp = be.xp
        B, G = to_dense(saddle.B, be=be), to_dense(saddle.G, be=be)
        lower = -saddle.delta * xp.eye(saddle.m)
        self._K = xp.block([[B, G.T], [G, lower]])
        w = xp.linalg.eigvalsh(self._K)
        tiny = 1e-14 * abs(w).max()
        self.singular = bool((abs(w) <= tiny).any())
        return bool((w > tiny).sum() == saddle.n) and bool((w < -tiny).sum() == saddle.m)

    def solve(self, r, *, d0=None, tol=0.0):
        """Solve with one step of refinement."""
        xp = self._saddle.be.xp
        try:
            d = xp.linalg.solve(self._K, r)
        except xp.linalg.LinAlgError:
            return InnerSolve(xp.zeros_like(r), -r, 1, "breakdown")
        d = d - xp.linalg.solve(self._K, self._K @ d - r)
        return InnerSolve(d, self._saddle @ d - r, 1, "converged")
