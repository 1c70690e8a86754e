"""The cones of gates: the nearest point inside, and so how long a vector is along them.

Host arrays in float64, many cones at a time: products of matrices find the rows that are violated,
a kernel solves small problems with some of them, and both take turns until no row is violated.
"""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from .._core import threads
from .._core.backend import get_backend

# What a violation may be, for vectors and rows of length 1, and still be left to rounding.
_ROUNDING = 1e-13
# Numbers in one of the arrays that a batch of cones makes, and cones in it at least.
_BATCH, _LEAST = 1 << 20, 16
_ROUNDS = 200
# Rows that a round adds to a problem at most.
_NEW = 64
# Operations from which problems are shared among threads: starting these takes as long as many.
_SHARED = 1e9


class Cones:
    """The cones ``E_i X u >= eps^T |u|`` of a set of gates.

    Parameters
    ----------
    X : array, shape (n, d)
    mask : array, shape (P, n)
        The gates, as zeros and ones.
    eps : array, shape (d,), optional
        How far every entry of a row may move; zero if left out.
    """

    def __init__(self, X, mask, eps=None):
        self.X, self.mask, self.eps = X, mask, eps
        length = np.linalg.norm(X, axis=1)
        # A row of zeros holds for every u.
        self.length = length
        self.scale = np.divide(1.0, length, out=np.zeros_like(length), where=length > 0)

    def slack(self, U, gates):
        """Return by how much points U (B, d) satisfy the rows of gates (B,), as lengths."""
        T = (U @ self.X.T) * (2.0 * self.mask[gates] - 1.0)
        if self.eps is not None:
            T -= (abs(U) @ self.eps)[:, None]
        return T * self.scale

    def project(self, F, gates, goals=None):
        """Return the points nearest to F (B, d) in the cones of gates (B,).

        Each is ``f + A^T alpha`` for rows A of its cone and ``alpha >= 0``: its length is an
        upper bound of f's length along the cone whether or not the search has ended. Where
        `goals` (B,) are given, it ends once that length is at most the goal.

        Returns
        -------
        U : array, shape (B, d)
            The points.
        added : array, shape (B,)
            The sums of the multipliers of rows of length 1: what rounding takes a share of.
        """
        U, added = np.empty_like(F), np.zeros(len(F))
        goals = np.zeros(len(F)) if goals is None else goals
        for part in self.batches(len(F)):
            U[part], added[part] = self._batch(F[part], gates[part], goals[part])
        return U, added

    def batches(self, count):
        """Yield slices of `count` vectors whose slacks are few enough for the cache."""
        n, d = self.X.shape
        # A few at least: reading the samples costs as much for one as for several.
        step = max(_LEAST, _BATCH // max(n, 2 * d * d))
        for low in range(0, count, step):
            yield slice(low, low + step)

    def interior(self, gates):
        """Return points G (B, d) well inside the cones of gates, and whether each is inside.

        They are the shortest with slack 1; a cone without any has no interior.
        """
        G, inside = np.zeros((len(gates), self.X.shape[1])), np.zeros(len(gates), dtype=bool)
        for part in self.batches(len(gates)):
            G[part], _ = self._search(np.zeros_like(G[part]), gates[part], np.zeros(1), floor=1.0)
            slack = self.slack(G[part], gates[part])[:, self.length > 0]
            inside[part] = slack.min(axis=1, initial=np.inf) > 0.5
        return np.where(inside[:, None], G, 0.0), inside

    def _batch(self, F, gates, goals):
        """Project one batch; everything is scaled to vectors of length 1."""
        size = np.linalg.norm(F, axis=1)
        unit = np.where(size > 0, size, 1.0)
        U, added = self._search(F / unit[:, None], gates, goals / unit)
        return U * unit[:, None], added * unit

    def _search(self, F, gates, goals, floor=0.0):
        """Add violated rows to problems until none is left."""
        goals = np.broadcast_to(goals, len(F))
        out, added, open_ = F.copy(), np.zeros(len(F)), np.arange(len(F))
        problems = Problems(F, floor)
        for _ in range(_ROUNDS):
            U = problems.points()
            out[open_], added[open_] = U, problems.alpha.sum(axis=1)
            size = np.linalg.norm(U, axis=1)
            T = self.slack(U, gates[open_]) - floor * (self.length > 0)
            hair = _ROUNDING * (1.0 + size)[:, None]
            T = np.where(-hair > T, T, 0.0)
            left = problems.moved & (T < 0.0).any(axis=1) & ((size > goals[open_]) | (floor > 0))
            if not left.any():
                break
            open_ = open_[left]
            problems.keep(left)
            problems.add(self._worst(T[left], U[left], gates[open_]))
            problems.solve(goals[open_])
        return out, added

    def _worst(self, T, U, gates):
        """Return the rows (B, k, d) that points U violate most; rows that hold become zero."""
        k = min(T.shape[1], max(8, min(self.X.shape[1], _NEW)))
        where = np.argpartition(T, k - 1, axis=1)[:, :k]
        violated = np.take_along_axis(T, where, axis=1) < 0.0
        signs = 2.0 * np.take_along_axis(self.mask[gates], where, axis=1) - 1.0
        rows = self.X[where] * (signs * self.scale[where] * violated)[..., None]
        if self.eps is not None:
            # The sample moved to where it hurts U most; its sign is a cut of the cone.
            moved = (self.scale[where] * violated)[..., None]
            rows -= moved * (self.eps * np.sign(U))[:, None]
        return rows


class Problems:
    """Nearest points to F with ``A u >= floor`` for some rows each, solved anew with more."""

    def __init__(self, F, floor):
        B, d = F.shape
        self.floor = floor
        self.F, self.A, self.alpha = F, np.zeros((B, 0, d)), np.zeros((B, 0))
        self.moved = np.ones(B, dtype=bool)

    def points(self):
        """Return ``f + A^T alpha``."""
        return self.F + (self.alpha[:, None] @ self.A)[:, 0]

    def keep(self, which):
        """Forget the other problems, and rows without a multiplier."""
        self.F, A, alpha = self.F[which], self.A[which], self.alpha[which]
        order = np.argsort(-alpha, axis=1, kind="stable")
        order = order[:, : int((alpha > 0).sum(axis=1).max(initial=0))]
        self.A = np.take_along_axis(A, order[..., None], axis=1)
        self.alpha = np.take_along_axis(alpha, order, axis=1)

    def add(self, rows):
        """Add rows (B, k, d)."""
        self.A = np.concatenate([self.A, rows], axis=1)
        self.alpha = np.pad(self.alpha, ((0, 0), (0, rows.shape[1])))

    def solve(self, goals):
        """Find the multipliers; note which points have moved."""
        before = self.points()
        alpha, U = self.alpha.copy(), self.F.copy()
        # No length ends a search for a point inside.
        goals = np.full(len(U), -1.0) if self.floor > 0 else np.ascontiguousarray(goals)
        _project(self.A, self.floor, goals, alpha, U)
        self.alpha = np.maximum(alpha, 0.0)
        # Rounding alone may make the kernel refuse every new row.
        self.moved = (abs(self.points() - before) > 1e-15).any(axis=1)


def _project(A, floor, goals, alpha, U):
    """Run the kernel on strips of problems, on as many threads as they are worth."""
    B, m, d = A.shape
    project = get_backend("numpy").kernels("solvers.relu", "cones").project

    def run(strip):
        room = np.empty((d + 1, d)), np.empty((d + 1, d + 1)), np.empty(d + 1)
        marks = np.empty(d + 1, dtype=np.int64), np.empty(m, dtype=np.int8)
        project(A[strip], floor, goals[strip], alpha[strip], U[strip], *room, *marks)

    work = float(A.size) * d
    count = min(threads.strips(work), B) if work > _SHARED else 1
    ends = [B * k // count for k in range(count + 1)]
    strips = [slice(low, high) for low, high in pairwise(ends)]
    if count == 1:
        run(strips[0])
        return
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(run, strips))
