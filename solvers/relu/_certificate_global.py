r"""Bounds of the optimum over all networks, whatever the gates.

A z with :math:`|z^T (X u)_+| \le \beta` for all u of length 1 bounds it from below; what is
needed is a bound of the left side over all u.
"""

import math

import numpy as np

from ._certificate_bounds import rounding, scaled_dual
from ._certificate_branch import longest_neuron

_EPS = np.finfo(np.float64).eps
# Rank up to which the longest neuron is found by branch and bound, and the work for it: a
# certificate over sampled gates, which shows the bound beside its own, may not wait for much.
_RANK, _QUICK, _THOROUGH = 10, 1e6, 1e8
# Operations that a search for neurons may take, its steps, and its starts at most.
_WORK, _STEPS, _STARTS = 2e9, 40, 300


class Everywhere:
    """All neurons, for bounds by several z.

    Parameters
    ----------
    data : Data
    thorough : bool
        Whether a sharp bound is worth its time.
    """

    def __init__(self, data, thorough):
        self.data, self.work = data, _THOROUGH if thorough else _QUICK
        self.reduced, self.outside = _reduced(data.X)
        n, r = self.reduced.shape
        self.branches = 0 < r <= _RANK and 2.0**r * n * r <= self.work

    def bound(self, z, found=0.0):
        """Return a lower bound of the optimum from any z (c, n).

        `found` is the most that z gives along any neuron known, from `search`.
        """
        z = self.data.loss.clip(z)
        if not np.isfinite(z).all():
            return 0.0
        norm = crude_norm(self.data, z)
        if self.branches:
            norm = min(norm, self._branched(z, found))
        return scaled_dual(self.data, z, norm)

    def estimate(self, z, found):
        """Return what `bound` would be if nothing gave more than `found`; no bound itself."""
        return scaled_dual(self.data, self.data.loss.clip(z), found)

    def _branched(self, z, found):
        norm = 0.0
        for row in z:
            for side in (row, -row):
                try:
                    found = max(found, norm)
                    norm = max(norm, longest_neuron(self.reduced, side, found, work=self.work))
                except np.linalg.LinAlgError:
                    # Rounding has laid the rays of a node into a plane.
                    return math.inf
        lost = float((abs(z) @ self.outside).max())
        return norm + lost + rounding(self.data) * float(self.data.lengths_of(z).max())


def _reduced(X):
    """Return rows in coordinates of their span, if that is small, and the lengths left out."""
    n, d = X.shape
    if d > _RANK:
        # A glance at the squares spares large data the decomposition.
        squares = np.linalg.eigvalsh(X.T @ X)
        if (squares > 1e-10 * squares[-1]).sum() > _RANK:
            return X, np.zeros(n)
    _, s, Vt = np.linalg.svd(X, full_matrices=False)
    basis = Vt[s > max(n, d) * _EPS * s[0]].T
    reduced = X @ basis
    return reduced, np.linalg.norm(X - reduced @ basis.T, axis=1)


def crude_norm(data, z):
    """Return a bound of ``|z^T (X u)_+|`` over all u of length 1, by ``2 t_+ = t + |t|``."""
    X, norm = data.X, 0.0
    for row in z:
        for side in (row, -row):
            s = np.maximum(side, 0.0)
            top = float(np.linalg.eigvalsh((X.T * s) @ X)[-1])
            half = np.linalg.norm(X.T @ s) + np.sqrt(np.maximum(s.sum() * top, 0.0))
            # Unlike `max`, this keeps what is not a number.
            norm = float(np.maximum(norm, 0.5 * half))
    return norm + rounding(data) * float(data.lengths_of(z).max())


def search(data, z, U=None):
    """Return the most that z (c, n) gives along neurons of length 1, and the neurons found.

    The search climbs from the neurons in use, the gates' points, the samples and at random. A
    value above beta proves that a gate is missing: the neuron's own.

    Returns
    -------
    best : float
    neurons : array, shape (c, 2, B, d)
        For each output and each sign of z, where B starts have led.
    values : array, shape (c, 2, B)
    """
    starts = _starts(data, U)
    found = [[_climb(data.X, side, starts) for side in (row, -row)] for row in data.loss.clip(z)]
    values = np.array([[value for _, value in pair] for pair in found])
    return float(values.max()), np.array([[u for u, _ in pair] for pair in found]), values


def _starts(data, U):
    n, d = data.X.shape
    rng = np.random.default_rng(0)
    most = int(min(max(_WORK / (8.0 * n * d * _STEPS), 8), _STARTS))
    groups = [] if U is None else [U[data.blocks(U)][: most // 2]]
    if data.gates.vectors is not None:
        groups.append(data.gates.vectors.T[: most // 4].astype(np.float64))
    rows = data.X[rng.permutation(n)[: max(most // 8, 1)]]
    groups += [rows, -rows]
    groups.append(rng.standard_normal((max(most - sum(map(len, groups)), most // 4), d)))
    return _normalised(np.concatenate(groups))


def _climb(X, z, u):
    """Return where starts u (B, d) lead on the sphere, and the values of ``z^T (X u)_+`` there."""
    G = u @ X.T
    value, step = np.maximum(G, 0.0) @ z, np.ones(len(u))
    for _ in range(_STEPS):
        goal = _normalised(((G >= 0) * z) @ X)
        # The whole step to the goal is not monotone where z has both signs.
        new = _normalised(u + step[:, None] * (goal - u))
        G_new = new @ X.T
        reached = np.maximum(G_new, 0.0) @ z
        better = reached > value
        if not (reached > value + 1e-12 * abs(value)).any() and step.max() < 0.1:
            break
        u, G = np.where(better[:, None], new, u), np.where(better[:, None], G_new, G)
        value = np.where(better, reached, value)
        step = np.where(better, np.minimum(1.3 * step, 1.0), 0.5 * step)
    return u, value


def _normalised(u):
    length = np.linalg.norm(u, axis=1, keepdims=True)
    return np.divide(u, length, out=np.zeros_like(u), where=length > 0)
