"""Direct solves: which factorisation suits a matrix."""

from ._dense import DenseLDL, DenseLU


class Direct:
    """The factorisation that suits the kind and the size of the first matrix.

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
        if self._solver is None:
            self._solver = DenseLDL() if saddle.be.name == "numpy" else DenseLU()
            self.solve = self._solver.solve
        return self._solver.factor(saddle)

    @property
    def singular(self):
        return self._solver.singular
