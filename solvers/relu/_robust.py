"""Robust training: gates that samples cannot cross, and the books of a run."""

import warnings

import numpy as np

from .._core.result import ConvergenceWarning
from ._certificate_bounds import dual_bound, feasible
from ._certificate_data import RobustDual
from ._gates import Patterns, draw_into
from ._robust_cones import points_inside
from ._watch import Watch

EMPTY = (
    "The robust cones of all gates are empty: `robust_eps` is too large for these gates, and the "
    "network is zero. Pass a smaller one, other gates, or bias=True."
)
# Times that gates are drawn before fewer than asked for are returned.
_ROUNDS, _FEW = 5, 16


class RobustWatch(Watch):
    """Keeps the books of a robust run: only weights inside their robust cones count."""

    def __init__(self, programme, *others):
        super().__init__(programme, *others)
        # Gates whose robust cone has an interior.
        self.alive, _ = points_inside(programme.be, programme.X, programme.mask, programme.eps)
        self.infeasible = not programme.be.host(self.alive.any())

    @property
    def z(self):
        return self.best.z.z

    def judge(self, U, z, alpha=None):
        """Try an iterate: blocks U, in their cones or not, and a dual point."""
        host = self.programme.be.host
        parts = (U, z.z, z.w, z.eta, alpha)
        parts = [None if a is None else host(a).astype(np.float64) for a in parts]
        if not all(a is None or np.isfinite(a).all() for a in parts):
            return
        U, point, alpha = parts[0], RobustDual(*parts[1:4]), parts[4]
        best, data = self.best, self.data
        inside = feasible(data, U)
        upper = data.objective(inside)
        if upper < best.upper:
            best.U, best.upper = inside, upper
            best.network, best.value = inside, data.network_objective(inside)
        lower = dual_bound(data, point, alpha)
        if lower > best.lower:
            best.z, best.alpha, best.lower = point, alpha, lower


def draw_robust(be, X, eps, n, scheme, rng):
    """Return `n` gates whose robust cones are not empty, or as many as were found.

    The patterns that `scheme` draws, of the samples as they are and moved, are tried first. The
    more samples there are the nearer is one to every plane, until hardly a cone is left; then
    planes across few features are put where there are gaps between samples.
    """
    rows = be.host(X)
    found = Patterns(rows)
    for draw in (_drawn, _between):
        # A few tell whether it is worth while.
        for count in (min(n, _FEW), *[n] * _ROUNDS):
            mask = draw(rows, eps, count, scheme, rng)
            alive, points = points_inside(be, X, be.xp.asarray(mask), be.xp.asarray(eps))
            alive = be.host(alive)
            found.add(be.host(points)[alive].T)
            if len(found) >= n:
                return found.gates(n)
            if not alive.any():
                break
    message = (
        f"admm: found {len(found)} gates with robust cones that are not empty of the {n} asked "
        "for; a smaller robust_eps or bias=True leaves more."
    )
    warnings.warn(message, ConvergenceWarning, stacklevel=3)
    return found.gates(n)


def _drawn(rows, eps, n, scheme, rng):
    """Return the patterns that a scheme draws, a third of them each for three sets of samples."""
    masks = []
    for k in range(3):
        moves = rng.choice([-1.0, 1.0], size=rows.shape) if k else 0.0
        patterns = Patterns((rows + eps * moves).astype(rows.dtype))
        draw_into(patterns, n, scheme, rng)
        masks.append(patterns.gates(n).mask)
    return np.concatenate(masks)


def _between(rows, eps, n, scheme, rng):
    """Return the patterns of planes across up to three features, in gaps between samples."""
    constant = np.flatnonzero((eps == 0) & (rows[0] != 0) & (rows == rows[0]).all(axis=0))
    if not len(constant):
        return np.ones((1, len(rows)), dtype=np.uint8)
    d = rows.shape[1]
    moving = np.setdiff1d(np.arange(d), constant)
    G = np.zeros((n, d))
    rank = rng.random((n, len(moving))).argsort(axis=1).argsort(axis=1)
    kept = rank < rng.integers(1, 4, size=(n, 1))
    G[:, moving] = np.where(kept, rng.standard_normal(kept.shape), 0.0)
    T = G @ rows.T
    order = np.sort(T, axis=1)
    wide = np.diff(order, axis=1) > 2.0 * (abs(G) @ eps)[:, None]
    # A random one of the gaps that are wide enough.
    chosen = np.argmax(wide * rng.random(wide.shape), axis=1)
    pick = np.arange(n)
    middle = 0.5 * (order[pick, chosen] + order[pick, chosen + 1])
    return (middle[:, None] <= T)[wide.any(axis=1)].astype(np.uint8)
