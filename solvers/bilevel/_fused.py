"""Many stochastic steps in one kernel, for problems that are ready made of linear models."""

import numpy as np


class Fused:
    """Runs steps of "shared" and "f2sa" on one ready-made problem.

    Parameters
    ----------
    problem : Bilevel
        One that `fits`.
    own : Own
        Options of `penalty_sgd`.
    """

    def __init__(self, problem, own):
        be, xp, X = problem.io.be, problem.io.xp, problem.X
        d, p = len(problem.x0), len(problem.y0)
        train, valid = problem.lower.direct.losses, problem.upper.direct.losses
        which = problem.lower.direct.groups.which
        which = np.arange(p) if which is None else np.asarray(be.host(which))
        full = xp.zeros(d, problem.io.dtype)
        lo, hi = (full - np.inf, full + np.inf) if X.whole else (X.lo, X.hi)
        self.xp, self.d, self.p = xp, d, p
        self._upper, self._lower = problem.upper, problem.lower
        self._loop = be.kernels("solvers.bilevel", "single_loop").single_loop
        self._data = train.kind, train.X, train.t, valid.X, valid.t
        self._bounds = lo, hi, own.normalize
        start = np.searchsorted(np.sort(which), np.arange(d + 1))
        self._groups = xp.asarray(start), xp.asarray(np.argsort(which, kind="stable"))
        self._base = problem.lower.direct.diagonal(full - np.inf)

    @staticmethod
    def fits(problem, method):
        """Tell whether the kernel knows a problem and a method."""
        upper, lower = problem.upper.direct, problem.lower.direct
        if upper is None or lower is None or method not in ("shared", "f2sa"):
            return False
        from .problems._levels import MeanLoss, PenalisedLoss

        return (
            type(upper) is MeanLoss
            and type(lower) is PenalisedLoss
            and upper.losses.kind == lower.losses.kind
            and lower.losses.k == 1
            and not (hasattr(lower.losses.X, "indptr") or hasattr(upper.losses.X, "indptr"))
            and (problem.X.whole or problem.X.lo is not None)
            and problem.Y.whole
        )

    def run(self, s, low, up, rates, weights):
        """Take a step for each row of sample numbers; return the sum of upper losses.

        Parameters
        ----------
        s : namespace
            State of the loop; its arrays are replaced.
        rates : list of Rate
        weights : list of float
            Weight of each step's end in the means; 0 before there are any.
        """
        xp, d, p = self.xp, self.d, self.p
        table = np.array([(*r[:4], w, r.reach) for r, w in zip(rates, weights, strict=True)])
        x, D, both = s.x.copy(), s.D.copy(), xp.stack([s.y, s.z])
        means = xp.zeros(d + 2 * p, x.dtype) if s.means is None else xp.concatenate(s.means)
        work = xp.empty((4, p), x.dtype), xp.empty(d, x.dtype)
        batches = xp.asarray(low), xp.asarray(up), xp.asarray(table)
        total = self._loop(
            *self._data,
            *batches,
            *self._groups,
            self._base,
            *self._bounds,
            x,
            D,
            both,
            means,
            *work,
        )
        s.x, s.D, s.y, s.z = x, D, both[0], both[1]
        for level, points in ((self._upper, 1), (self._lower, 2)):
            for kind in ("n", "n_gx", "n_gy"):
                level.counts[kind] += points * len(rates)
            level.counts["n_samples"] += low.size
        if weights[-1] > 0:
            s.means = means[:d], means[d : d + p], means[d + p :]
        return float(total)
