"""Entropic transport under linear conditions on the plan: Newton steps on their multipliers.

A plan under constraints is a free one for the tilted cost ``C - sum_k w_k D_k``. The free value as
a function of the multipliers `w`, plus ``<beta, w>``, is concave, with gradient
``beta - <D, P>`` and a negated Hessian that is a Schur complement of the potentials' one. So each
point of the method is an ordinary transport problem, warm from the last, and each step a small
quadratic programme, in which multipliers of inequalities stay non-negative.
"""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .._core import threads
from .._core.arrays import to_numpy
from .._core.monitor import Monitor
from .._core.result import Status
from ._certificate_entropic import largest_value
from ._constraints import TiltedCost
from ._problem import DUST, gibbs_block, row_blocks, softmin
from ._result import Answer

# Temperatures fall by this factor, from the given fraction of the spread of the costs.
FACTOR, FIRST = 8.0, 1 / 16
# Residual at which all temperatures but the last are left, and the marginal error on the way.
ANNEALING_TOL, ROUGH = 1e-3, 1e-3
# By how much the step of one multiplier may tilt exponents, at first and at least. Each step that
# ends where the dual still rises lets the next be longer, by the third number: where entries of
# the plan have to vanish, its model holds for one unit of the exponent only, and contradictory
# constraints have no end.
REACH, SHORTEST_REACH, STRETCH = 10.0, 1e-3, 4.0
# Smallest eigenvalue that counts, relative to the largest variance of a constraint's matrix.
SMALLEST = 1e-12
# Steps at one temperature, and trials of a step.
MOST_STEPS, MOST_TRIALS = 100, 8
# Passes without progress after which balancing one plan has stalled.
STALL = 20

_CONTRADICTION = "The `dual` value exceeds the `largest_value` of a plan, which proves it."


class Point(NamedTuple):
    """Multipliers, balanced potentials for them, and how well their plan does.

    `slack` holds ``<D_k - beta_k, P>`` in units of the constraints' scales; `descent` is what
    balanced the plan.
    """

    w: Any
    f: Any
    g: Any
    slack: Any
    residual: float
    dual: float
    density: float
    descent: Any


class ConstrainedDescent:
    """Follows plan and multipliers from a high temperature down to `reg`.

    Parameters
    ----------
    problem : Transport
    constraints : Constraints
    reg : float
        The last temperature.
    tol : float
        Largest residual there, marginal error included, relative to the mass.
    run : Monitor
    time_limit : float or None
        Seconds that `run` has.
    descend : callable
        Makes the `Descent` for a problem without constraints, a temperature, a tolerance, and a
        monitor.
    annealing : bool
    out : callable
        Turns an array into the caller's kind.
    """

    def __init__(self, problem, constraints, reg, tol, run, time_limit, descend, annealing, out):
        self._problem, self._constraints, self._run = problem, constraints, run
        # A little below the tolerance, for the judge rounds differently.
        self._reg, self._tol = reg, 0.8 * tol
        self._time_limit, self._descend = time_limit, descend
        self._annealing, self._out = annealing, out
        self._scales = constraints.scales(problem)
        self._counts = {"nsinkhorn": 0, "nnewton": 0, "ncg": 0, "nfactor": 0}
        self._cost = problem.be.xp.empty(problem.C.shape)
        # Passes that are not counted yet.
        self._owed, self._best = 0, None

    def solve(self, start, w):
        """Return the answer, from column potentials (None: from scratch) and multipliers."""
        problem, run = self._problem, self._run
        if problem.cut_off:
            run.end(Status.INFEASIBLE)
            return Answer(0.0 * problem.a, 0.0 * problem.b, [], w=w)
        temperatures = self._temperatures() if start is None else [self._reg]
        g, levels, before = start, [], None
        for reg in temperatures:
            last = reg == self._reg
            run.stage("final temperature" if last else "annealing")
            levels.append(reg)
            point = self._solve_level(reg, g, w, last)
            if run.status is not None:
                break
            g, w = point.g, point.w
            if before is not None and not last:
                # Potentials and multipliers are smooth in the temperature.
                ahead = (temperatures[len(levels)] - reg) / (reg - levels[-2])
                g = g + ahead * (g - before.g)
                w = self._allowed(w + ahead * (w - before.w))
            before = point
        best = self._best
        if best is None:
            # Something ended the run above the last temperature: make the rows exact there.
            tilted = self._constraints.tilt(problem.C, point.w)
            f = softmin(problem.be, tilted, point.g, problem.b, self._reg)
            best = point._replace(f=f)
        return Answer(best.f, best.g, levels, best.density, **self._counts, w=best.w)

    def _temperatures(self):
        highest = FIRST * self._problem.spread
        if not self._annealing or highest < 2.0 * self._reg:
            return [self._reg]
        ratio = highest / self._reg
        steps = math.ceil(math.log(ratio) / math.log(FACTOR))
        return [*(highest / ratio ** (k / steps) for k in range(steps)), self._reg]

    def _solve_level(self, reg, g, w, last):
        """Maximise the dual over the multipliers at one temperature."""
        goal = self._tol if last else ANNEALING_TOL
        # Noise in the values of the constraints adds up.
        finest = 0.3 * goal / math.sqrt(1 + w.size)
        point = self._look(reg, g, w, ROUGH if w.any() else min(finest, ROUGH), last)
        reach, stretch = REACH, 1.0
        for _ in range(MOST_STEPS):
            if self._run.status is not None or point.residual <= goal:
                break
            bound = largest_value(self._problem, reg)
            if point.dual > bound + 1e-9 * (abs(bound) + abs(point.dual)):
                # More than any plan can cost. At a higher temperature that is a proof as well,
                # but the potentials that are returned are to show it at the last one.
                if last:
                    self._best = point._replace(descent=None)
                    self._run.end(Status.INFEASIBLE, _CONTRADICTION)
                break
            if self._run.nit + 2 > self._run.maxiter:
                # A step and its end take a pass each, at least.
                self._run.end(Status.MAXITER)
                break
            step, answers = self._newton_step(point, reg, reach)
            tol = min(max(0.1 * point.residual**2, finest), ROUGH)
            if not step.any():
                tol = finest
            point, reach, stretch = self._advance(
                point, step, answers, reg, tol, reach, stretch, last
            )
        return point

    def _advance(self, point, step, answers, reg, tol, reach, stretch, last):
        """Go along a step; return the point reached, and how far the next may go."""
        gradient = -point.slack * self._scales
        longest = np.abs(step * self._scales).max() / reg
        length = min(stretch, reach / max(longest, 1e-300))
        # Its memory is needed for the next point.
        start = point._replace(descent=None)
        full = length
        for _ in range(MOST_TRIALS):
            w = self._allowed(start.w + length * step)
            move = w - start.w
            g = start.g + sum(float(move[k]) * answer for k, answer in answers.items())
            point = self._look(reg, g, w, tol, last)
            before, after = gradient @ move, -(point.slack * self._scales) @ move
            if self._run.status is not None or after >= -0.5 * before:
                break
            length *= min(max(before / (before - after), 0.1), 0.7)
        if length < full:
            return point, max(2.0 * length * longest, SHORTEST_REACH), 1.0
        if after > 0.3 * before > 0:
            return point, STRETCH * reach, STRETCH * stretch
        return point, reach, 1.0

    def _newton_step(self, point, reg, reach):
        """Return a step of the multipliers, and how column potentials answer to a unit of each."""
        step = np.zeros(len(self._constraints))
        equal = self._constraints.equal
        active = np.flatnonzero(equal | (point.w > 0) | (point.slack < 0))
        if active.size == 0:
            return step, {}
        scales = self._scales[active]
        flows, covariance = self._curvature(point, reg, active)
        replies = point.descent.responses(point.g, flows)
        self._owed += 1
        hessian = covariance - self._problem.be.host(flows @ replies.T)
        # Where a plan is nearly a vertex, or constraints say the same, rounding decides the sign
        # of the smallest eigenvalues.
        values, vectors = np.linalg.eigh(0.5 * (hessian + hessian.T))
        values = np.maximum(values, SMALLEST * max(np.diag(covariance).max(), SMALLEST))
        hessian = (vectors * (values / reg)) @ vectors.T
        # A box, not a shorter step: what is well determined must not wait for what is not.
        upper = np.full(active.size, reach * reg)
        lower = np.where(equal[active], -upper, -np.minimum(point.w[active] * scales, upper))
        step[active] = bounded_minimum(hessian, point.slack[active], lower, upper) / scales
        answers = {
            k: -float(scale) * reply
            for k, scale, reply in zip(active, scales, replies, strict=True)
        }
        return step, answers

    def _look(self, reg, g, w, tol, last):
        """Balance the plan for given multipliers, and report what it shows."""
        problem, run = self._problem, self._run
        tilted = TiltedCost(problem.C, self._constraints.matrices, w)
        for rows in row_blocks(problem.be, tilted):
            self._cost[rows] = tilted[rows]
        left = None if self._time_limit is None else self._time_limit - run.seconds
        inner = Monitor(
            run.method,
            run.kind,
            be=problem.be,
            tol=0.8 * tol,
            maxiter=run.maxiter - run.nit - self._owed,
            time_limit=None if left is None else max(left - run.compile_seconds, 0.0),
            history=False,
            stall=STALL,
        )
        descent = self._descend(replace(problem, C=self._cost), reg, tol, inner)
        answer = descent.solve(None if g is None else g.copy(), self._annealing)
        for name in self._counts:
            self._counts[name] += getattr(answer, name)
        slack, mass, error = self._measure(answer, reg)
        equal = self._constraints.equal
        held = np.minimum(slack, w * self._scales / reg)
        residual = error + np.abs(np.where(equal, slack, held)).sum()
        linear = problem.be.host(problem.a @ answer.f + problem.b @ answer.g)
        dual = linear + w @ self._constraints.beta + reg * (1.0 - mass)
        point = Point(w, answer.f, answer.g, slack, residual, dual, answer.density, descent)
        if last and (self._best is None or residual < self._best.residual):
            self._best = point._replace(descent=None)
        passes, self._owed = inner.nit + self._owed, 0
        run.record(
            residual,
            iterations=passes,
            judge=last,
            state=lambda: self._state(point),
            fun=dual,
            reg=reg,
        )
        return point

    def _measure(self, answer, reg):
        """Return the scaled slacks of a plan, its mass, and its marginal error."""
        problem, count = self._problem, len(self._constraints)
        sums, columns = 0.0, 0.0
        for rows, P in self._plan(answer.f, answer.g, reg):
            inner = [(D[rows] * P).sum() for D in self._constraints.matrices]
            lack = abs(P.sum(axis=1) - problem.a[rows]).sum()
            sums = sums + self._xp.stack([*inner, P.sum(), lack])
            columns = columns + P.sum(axis=0)
        sums, lack = problem.be.host(sums, abs(columns - problem.b).sum())
        mass = sums[count]
        slack = (sums[:count] - self._constraints.beta * mass) / self._scales
        return slack, mass, sums[count + 1] + lack

    def _curvature(self, point, reg, active):
        """Return what changes of the multipliers do to a plan whose rows stay exact.

        Returns
        -------
        array, shape (active.size, m)
            By how much the column sums rise, times the temperature.
        numpy.ndarray, shape (active.size, active.size)
            Covariances of the constraints' matrices within rows, likewise.
        """
        xp, flows, covariance = self._xp, 0.0, 0.0
        matrices = [(self._constraints.matrices[k], 1.0 / self._scales[k]) for k in active]
        # A product with so few rows and columns makes several threads of BLAS wait for each other
        # most of the time: on a busy machine a hundred times longer than one takes.
        with threads.limit(1):
            for rows, P in self._plan(point.f, point.g, reg, active.size):
                D = xp.stack([factor * matrix[rows] for matrix, factor in matrices])
                row_sums = P.sum(axis=1)
                means = (D * P).sum(axis=2) / xp.where(row_sums > 0, row_sums, 1.0)
                D -= means[:, :, None]
                weighted = D * P
                flows = flows + weighted.sum(axis=1)
                flat = active.size, P.size
                covariance = covariance + weighted.reshape(flat) @ D.reshape(flat).T
        return flows, np.reshape(self._problem.be.host(covariance), (active.size,) * 2)

    def _plan(self, f, g, reg, stacked=1):
        """Yield (rows, block of the plan) for the cost that was balanced last."""
        problem, xp = self._problem, self._xp
        a, b = problem.a, problem.b
        f, g = xp.where(a > DUST, f, -np.inf), xp.where(b > DUST, g, -np.inf)
        for whole in row_blocks(problem.be, problem.C):
            step = -(-(whole.stop - whole.start) // stacked)
            for first in range(whole.start, whole.stop, step):
                rows = slice(first, min(first + step, whole.stop))
                E = gibbs_block(problem.be, self._cost, f, g, reg, rows)
                yield rows, a[rows, None] * E * b

    def _state(self, point):
        """Return what a callback sees."""
        f, g = self._out(point.f), self._out(point.g)
        if self._problem.flipped:
            f, g = g, f
        return {"f": f, "g": g, "w": self._out(self._xp.asarray(point.w))}

    def _allowed(self, w):
        return np.where(self._constraints.equal, w, np.maximum(w, 0.0))

    @property
    def _xp(self):
        return self._problem.be.xp


def start_multipliers(constraints, x0):
    """Return those of a previous result that had as many constraints, or zeros."""
    given = getattr(x0, "w", None)
    w = np.zeros(len(constraints)) if given is None else to_numpy(given).astype(np.float64)
    if w.shape != constraints.equal.shape or not np.isfinite(w).all():
        w = np.zeros(len(constraints))
    return np.where(constraints.equal, w, np.maximum(w, 0.0))


def bounded_minimum(H, v, lower, upper):
    """Return the smallest point of ``x H x / 2 + v x`` between bounds that contain 0.

    By a primal active-set method; `H` is positive definite and small.
    """
    x, held = np.zeros_like(v), (lower >= 0.0) | (upper <= 0.0)
    for _ in range(20 * v.size + 20):
        free = np.flatnonzero(~held)
        target = x.copy()
        if free.size:
            pull = v[free] + H[np.ix_(free, np.flatnonzero(held))] @ x[held]
            target[free] = np.linalg.solve(H[np.ix_(free, free)], -pull)
        beyond = (target < lower) | (target > upper)
        if beyond.any():
            end = np.where(target < lower, lower, upper)
            room = np.where(beyond, (end - x) / np.where(beyond, target - x, 1.0), np.inf)
            first = int(np.argmin(room))
            x = x + room[first] * (target - x)
            x[first], held[first] = end[first], True
            continue
        x = target
        slope = v + H @ x
        # By how much the value would fall if a component left its bound.
        gain = np.where(held, np.where(x <= lower, -slope, slope), 0.0)
        most = int(np.argmax(gain))
        if gain[most] <= 1e-12 * np.abs(v).max():
            break
        held[most] = False
    return x
