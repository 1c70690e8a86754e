"""What the completion solvers return."""

from typing import Any

import numpy as np

from .._core.result import Result


class CompletionResult(Result):
    """Outcome of a completion: ``X = U diag(s) V^T``, beside the mean and the biases."""

    U: Any
    s: Any
    V: Any
    mu: float
    rank: int

    def factors(self):
        """Return ``U sqrt(s)`` and ``V sqrt(s)``."""
        root = self.s**0.5
        return self.U * root, self.V * root

    def predict(self, rows, cols):
        """Return some entries."""
        rows, cols = np.asarray(rows), np.asarray(cols)
        X = ((self.U[rows] * self.s) * self.V[cols]).sum(1)
        return self.mu + self.row_bias[rows] + self.col_bias[cols] + X
