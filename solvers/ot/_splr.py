"""Sparse-plus-low-rank quasi-Newton steps, on both potentials at once."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .._core.linalg import pcg
from .._core.result import Status
from .._core.validation import check_memory
from ._problem import BestPotentials, softmin
from ._result import Answer
from ._sns_paper import largest_entries, plan

# The fraction of the plan that the Hessian keeps at first and at most: this, but so many entries
# for each row and column, which matters for small plans.
DENSEST, FEWEST = 0.01, 10
# It grows by the first factor after a step that raised the error, and falls by the second after
# another.
GROWTH, DECAY = 1.1, 0.99
# The shift is the error, relative to the mass, up to this; in units of the Hessian's diagonal.
LARGEST_SHIFT = 1e-3
# A secant pair is used if its curvature exceeds this.
CURVATURE = 1e-6
# Wolfe conditions on the slope at a step's end, relative to that at its start: the second in the
# form of Hager and Zhang, which needs no values and so holds out down to rounding level.
STEEPEST, RISING = 0.9, 0.8
# Temperatures fall by this factor, and all but the last are left at this error.
COOLING, ANNEALING_TOL = 4.0, 1e-2
# The first temperature, relative to the spread of the costs.
FIRST = 1 / 16
# No trial step moves potentials by more than so many temperatures.
LONGEST_STEP = 30.0
# Trial steps in a line search.
MOST_TRIALS = 25


def splr(
    problem, out, reg, tol, start, run, sparsity, n_sinkhorn, tol_inner, maxiter_inner, annealing
):
    """Run the quasi-Newton method; unknowns are both potentials, in the counting convention.

    Minimises ``F(z) = reg * sum(P) - <a, x> - <b, y>`` with ``P = exp((x + y - C) / reg)`` and
    ``z = (x, y)``, at a few temperatures. Each is entered by Sinkhorn sweeps.
    """
    best = BestPotentials(problem, reg, max(1e-4 * tol, 1e-15), out)
    part, be = best.part, best.part.be
    if part.cut_off:
        run.end(Status.INFEASIBLE)
        return Answer(*best.potentials(), [])
    steps = _Steps(part, reg, best, run, sparsity, tol_inner, maxiter_inner)
    level, levels = reg, []
    if start is None and annealing:
        level = max(reg, FIRST * part.spread)
    g = be.xp.zeros_like(part.b) if start is None else best.restrict(start)
    while run.status is None:
        run.stage("final temperature" if level == reg else "annealing")
        levels.append(level)
        g = steps.descend(g, level, n_sinkhorn)
        level = max(reg, level / COOLING)
    if not best.found:
        # Something ended the run above the last temperature: make the rows exact there.
        best.replace(softmin(be, part.C, g, part.b, reg), g)
    return Answer(*best.potentials(), levels, steps.density, **steps.counts)


class _Point(NamedTuple):
    """Potentials, their plan, and the gradient there with its L1 norm."""

    z: Any
    P: Any
    gradient: Any
    error: float


class _Steps:
    """Quasi-Newton steps; the Hessian's density goes on from one temperature to the next."""

    def __init__(self, part, reg, best, run, sparsity, tol_inner, maxiter_inner):
        n, m = part.C.shape
        # Two plans, and a copy whose entries are ranked.
        remedy = "Use method='auto'."
        check_memory(24 * n * m, "The plans of method='splr'", remedy, be=part.be)
        # Of a point cloud, the costs.
        self._C = part.C[:]
        self._part, self._last, self._best, self._run = part, reg, best, run
        self._be, self._xp = part.be, part.be.xp
        self._densest = min(sparsity or max(DENSEST, FEWEST * (n + m) / (n * m)), 1.0)
        self.density = self._densest
        self._tol = tol_inner or 1e-2
        self._maxiter = maxiter_inner or n + m
        self.counts = {"nsinkhorn": 0, "nnewton": 0, "ncg": 0}

    def descend(self, g, reg, n_sinkhorn):
        """Return column potentials of the KL convention that fit one temperature."""
        part, xp, last = self._part, self._xp, reg == self._last
        n, shift = part.a.size, reg * xp.log(xp.concatenate([part.a, part.b]))
        for _ in range(n_sinkhorn):
            f = softmin(self._be, self._C, g, part.b, reg)
            g = softmin(self._be, self._C.T, f, part.a, reg)
            self.counts["nsinkhorn"] += 1
            point = self._look(xp.concatenate([f, g]) + shift, shift, reg)
            if self._over(point, last):
                return g
        pair, step = None, 1.0
        while True:
            direction = self._direction(point, pair, reg)
            new, step = self._search(point, direction, min(1.0, 1.5 * step), shift, reg)
            self.counts["nnewton"] += 1
            if new is None:
                if last:
                    self._run.end(Status.STALLED, "No step lowers the slope.")
                return (point.z - shift)[n:]
            if self._over(new, last):
                return (new.z - shift)[n:]
            factor = GROWTH if new.error > point.error else DECAY
            self.density = min(factor * self.density, self._densest)
            pair, point = (new.z - point.z, new.gradient - point.gradient), new

    def _over(self, point, last):
        return self._run.status is not None or (not last and point.error <= ANNEALING_TOL)

    def _look(self, z, shift, reg):
        """Evaluate the plan once, and report."""
        part, xp, n = self._part, self._xp, self._part.a.size
        P = plan(xp, z[:n], z[n:], self._C, reg)
        gradient = xp.concatenate([P.sum(axis=1) - part.a, P.sum(axis=0) - part.b])
        error = self._be.host(xp.abs(gradient).sum())
        h = z - shift
        f, g, last = h[:n], h[n:], reg == self._last
        if last:
            self._best.offer(error, f, g)
        dual = part.a @ f + part.b @ g - reg * gradient[:n].sum()
        state = partial(self._best.state, f, g, reg)
        # A trial step may have gone too far for numbers.
        finite = error if np.isfinite(error) else 2.0
        self._run.record(finite, judge=last, state=state, fun=dual, reg=reg)
        return _Point(z, P, gradient, error)

    def _direction(self, point, pair, reg):
        """Return ``-B^-1 gradient``.

        ``B = B0 - B0 s s^T B0 / (s^T B0 s) + y y^T / (y^T s)``, where ``B0`` is the sparsified
        Hessian with its true diagonal and a shift; the inverse is that of the BFGS update.
        """
        xp, P, n = self._xp, point.P, self._part.a.size
        size = self.density * P.size
        kept, transposed = largest_entries(self._be, P, min(int(np.ceil(size)), P.size))
        diagonal = xp.concatenate([P.sum(axis=1), P.sum(axis=0)])
        diagonal *= 1.0 + min(point.error, LARGEST_SHIFT)

        def solve(v):
            result = pcg(
                lambda z: diagonal * z + xp.concatenate([kept @ z[n:], transposed @ z[:n]]),
                v,
                be=self._be,
                precond=lambda r: r / diagonal,
                norm=lambda r: xp.abs(r).sum(),
                tol=self._tol,
                maxiter=self._maxiter,
            )
            self.counts["ncg"] += result.iterations
            return reg * result.x

        gradient = point.gradient
        if pair is not None:
            s, y = pair
            curvature, length = self._be.host(y @ s, y @ y)
            if curvature > CURVATURE * reg * length:
                along = (s @ gradient) / curvature
                r = solve(gradient - along * y)
                return (y @ r / curvature - along) * s - r
        return -solve(gradient)

    def _search(self, point, direction, step, shift, reg):
        """Return the point at the end of a step that fulfils the Wolfe conditions, and the step.

        None if there is none.
        """
        xp, host = self._xp, self._be.host
        slope, longest = host(point.gradient @ direction, xp.abs(direction).max())
        step = min(step, LONGEST_STEP * reg / longest)
        short, far = 0.0, np.inf
        for _ in range(MOST_TRIALS):
            new = self._look(point.z + step * direction, shift, reg)
            end = host(new.gradient @ direction)
            if STEEPEST * slope <= end <= -RISING * slope or self._run.status is not None:
                return new, step
            if end < STEEPEST * slope:
                short = step
            else:
                far = step
            step = 2.0 * short if far == np.inf else 0.5 * (short + far)
        return None, step
