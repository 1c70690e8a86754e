"""Greedy rules for single unknowns of a sparse quadratic, without a look at all of them."""

import numpy as np

from ... import penalties

# Now and then all scores are computed anew, as the gradient is, whose increments drift.
_REBUILD = 500


class Heap:
    """The unknown with the largest score, from a heap that knows where each one is.

    A step changes the gradient of the neighbours only; each new score costs logarithmic time.

    Attributes
    ----------
    scores : array, float64
        Of each unknown.
    """

    def __init__(self, state, rule, L):
        self._state, self._rule, self._L = state, rule, L
        self._kernels = state.problem.be.kernels("solvers.bcd", "heap")
        self._last, self._count = None, 0

    @staticmethod
    def fits(state):
        """Tell whether a state is one whose gradient changes here and there only."""
        problem = state.problem
        return problem.quadratic and problem.sparse and problem.be.name == "numpy"

    def __call__(self):
        if self._count % _REBUILD == 0:
            self._build()
        else:
            self._renew()
        self._count += 1
        self._last = int(self._heap[0])
        return None, self._heap[:1].copy()

    def _build(self):
        """Score all unknowns."""
        size = self._state.x.size
        self.scores = self._scored(slice(None))
        self._heap, self._place = np.empty(size, np.int64), np.empty(size, np.int64)
        self._kernels.heap_build(self.scores, self._heap, self._place)

    def _renew(self):
        """Score again what the last unknown reaches, itself among it."""
        A, last = self._state.problem.A, self._last
        items = A.indices[A.indptr[last] : A.indptr[last + 1]]
        items = np.append(items, last).astype(np.int64)
        new = self._scored(items)
        self._kernels.heap_update(self.scores, self._heap, self._place, items, new)

    def _scored(self, where):
        state = self._state
        args = state.x[where], state.gradient()[where], self._L[where]
        return self._rule(state.problem.kernels, penalties.take(state.penalty, where), *args)
