"""The greedy rule of coordinate descent as a search for the nearest neighbour."""

import numpy as np

from . import _scores

# In more dimensions a tree looks at nearly all points.
_DIMENSIONS = 20


def nearest(state, blocks, size, rng, options):
    """Return the rule: with a tree where it helps, else by a scan."""
    problem = state.problem
    if problem.be.name == "numpy" and problem.y.size <= _DIMENSIONS:
        return Nearest(state)
    return Scan(state)


class Scan:
    """The unknown with the largest ``|g_j| / sqrt(L_j)``, from all of them."""

    used = "nn by a scan"

    def __init__(self, state):
        self._state = state

    def __call__(self):
        self.scores = _scores.score_all(self._state, _scores.gain, self._state.lipschitz)
        return None, self.scores.argmax().reshape(1)


class Nearest:
    """The same unknown, as the column nearest to the direction of the residual.

    For unit vectors ``|u - v|^2 = 2 - 2 u . v``: among all columns and their negatives, scaled to
    length 1, the nearest to the residual has the largest product with it.
    """

    used = "nn by a tree"

    def __init__(self, state):
        from scipy.spatial import cKDTree

        self._state, problem = state, state.problem
        X = problem.design.columns(np.arange(state.x.size))
        X = (X.toarray() if problem.design.sparse else X).astype(np.float64)
        self._root = np.sqrt(problem.s.astype(np.float64))
        X = self._root[:, None] * X
        if problem.fit_intercept:
            # The slopes add up to zero: the mean of a column makes no difference.
            unit = self._root / np.sqrt(self._root @ self._root)
            X = X - np.outer(unit, unit @ X)
        length = np.sqrt((X * X).sum(axis=0))
        self._columns = np.flatnonzero(length > 1e-12 * length.max(initial=0.0))
        points = (X[:, self._columns] / length[self._columns]).T
        self._tree = cKDTree(np.concatenate([points, -points]))

    def __call__(self):
        r = self._state._r.astype(np.float64) / self._root
        size = np.sqrt(r @ r)
        if self._columns.size == 0 or size == 0.0:
            return None, np.zeros(1, np.int64)
        # A few, as ties go to the lowest index.
        many = min(4, 2 * self._columns.size)
        far, who = self._tree.query(r / size, k=many)
        far, who = np.atleast_1d(far), np.atleast_1d(who) % self._columns.size
        return None, self._columns[[who[far <= far[0] * (1.0 + 1e-12)].min()]]
