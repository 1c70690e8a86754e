"""Value and gradient of psi by plain lower solves: for any Y, and without second derivatives."""

import math
from typing import NamedTuple

import numpy as np

from ._second_order import Found

_MAXITER, _PATIENCE = 20_000, 2000
_LARGE = 2000
# The lower level is not taken for more than this times steeper than near the candidate.
_STEEPEST = 1e12
# Nor is it followed farther than this times the candidate's size.
_FAR = 1e3
# How far from the candidate its check starts, so that no saddle point can hold it.
_NUDGE = 1e-3


class Solved(NamedTuple):
    """A minimiser over Y and the largest entry of its projected gradient."""

    y: object
    residual: float


class Plain:
    """The lower level at one x, alone or with a penalty.

    Parameters
    ----------
    problem : Bilevel
    x, y : array
        A candidate.
    tol : float
    units : Units
    """

    def __init__(self, problem, x, y, tol, units):
        self.problem, self.x, self.y, self.tol, self.units = problem, x, y, tol, units
        # Of large levels, a proof must not cost more than the answer did.
        self.most = _MAXITER if len(y) <= _LARGE else _MAXITER // 10

    def minimise(self, sigma, y, goal):
        """Minimise ``sigma f + g`` over Y: Nesterov's method, restarted where it turns."""
        unit = self.units.lower + sigma * self.units.upper
        L, steepest = unit, _STEEPEST * unit
        blur = 100 * self.problem.eps * unit * self.units.size
        best, v, momentum, since = Solved(y, math.inf), y, 1.0, 0
        for _ in range(self.most):
            grad = self._gradient(sigma, v)
            while steepest > L:
                new = stepped(self.problem, v, grad, 1 / L)
                move, change = new - v, self._gradient(sigma, new) - grad
                # By gradients: values say nothing near a solution.
                if _norm(change) <= L * _norm(move) + blur:
                    break
                L *= 2
            residual = _largest(move) * L + _largest(change)
            since = 0 if residual < 0.9 * best.residual else since + 1
            if residual < best.residual:
                best = Solved(new, residual)
            lost = math.isnan(residual) or _largest(new) > _FAR * self.units.size
            # Rounding leaves what it leaves.
            if residual <= goal or lost or since > _PATIENCE or not steepest > L:
                break
            after = 0.5 * (1 + math.sqrt(1 + 4 * momentum**2))
            if float((v - new) @ (new - y)) > 0:
                after, momentum = 1.0, 1.0
            y, v, momentum = new, new + (momentum - 1) / after * (new - y), after
        # Short steps may have made it look small.
        moved = stepped(self.problem, best.y, self._gradient(sigma, best.y), 1 / unit)
        return Solved(best.y, _largest(best.y - moved) * unit)

    def _gradient(self, sigma, y):
        g = self.problem.lower.look(self.x, y).gy
        return g + sigma * self.problem.upper.look(self.x, y).gy if sigma else g

    def found(self):
        """Return what penalties tell about psi, and by how much y is not a lower solution."""
        units, eps = self.units, self.problem.eps
        natural = units.lower / units.upper if units.upper > 0 else units.lower
        sigma, floor = max(1e-3, eps**0.25) * natural, eps ** (1 / 3) * natural
        best = None
        while True:
            trial = self._at(sigma)
            if best is None or trial[0].error < best[0].error:
                best = trial
            size = max(units.value, float(np.linalg.norm(best[0].grad)))
            sigma /= 10
            # Where one penalty finds no solution, a smaller one does not.
            solved = math.isfinite(trial[0].error)
            if best[0].error <= self.tol * size or sigma < floor or not solved:
                return best

    def _at(self, sigma):
        problem, units, x = self.problem, self.units, self.x
        eps, host = problem.eps, problem.io.be.host
        least = 4 * eps * units.lower * units.size
        goal = max(0.01 * sigma * self.tol * units.value, least)
        start = self.y + self._nudge()
        z = self.minimise(0.0, problem.Y.project(start), goal)
        at_z = problem.lower.look(x, z.y)
        sides, solved, y = [], [z], z
        sigmas = sigma, sigma, 0.5 * sigma, 0.25 * sigma
        for s in sigmas[1:]:
            y = self.minimise(s, y.y, goal)
            solved.append(y)
            f, g = problem.upper.look(x, y.y), problem.lower.look(x, y.y)
            grad = host(f.gx + (g.gx - at_z.gx) / s).astype(float)
            sides.append((f.value, f.value + (g.value - at_z.value) / s, grad, y.residual, g))
        error = self._error([side[2] for side in sides], z, sides, at_z, sigma)
        # What creeps along a flat direction, or off a saddle point, is no solution.
        steep = max(units.value, *(_largest(problem.upper.look(x, one.y).gy) for one in solved))
        if max(one.residual / s for one, s in zip(solved, sigmas, strict=True)) > self.tol * steep:
            error = math.inf
        (f1, _, d1, *_), (f2, psi2, d2, *_) = sides[:2]
        smooth = problem.lower.oracle.prox_y is None
        value = 2 * psi2 - f2 if smooth else 2 * f2 - f1
        blur = 4 * eps * abs(at_z.value) / (0.5 * sigma)
        lower = psi2 - blur if smooth else math.nan
        found = Found(
            value, 2 * d2 - d1, error, None, 0.0, 0.0, lower, 0.5 * sigma, np.zeros((0, len(x)))
        )
        excess = problem.lower.look(x, self.y).value - at_z.value
        excess -= 8 * eps * abs(at_z.value)
        scale = units.lower * units.size**2
        return found, max(0.0, excess / scale) if smooth else 0.0

    def _error(self, grads, z, sides, at_z, sigma):
        """Estimate the error of the extrapolated gradient from three penalties."""
        d1, d2, d4 = grads
        e1, e2 = np.linalg.norm(d2 - d1), np.linalg.norm(d4 - d2)
        g = sides[0][4]
        steep = _norm(g.gy - at_z.gy)
        mixed = _norm(g.gx - at_z.gx) / steep if steep > 0 else 0.0
        solves = 3 * mixed * (sides[0][3] + z.residual) / sigma * math.sqrt(len(self.y))
        rest = 2 * solves + 4 * self.problem.eps * _norm(g.gx) / sigma
        q = e2 / e1 if e1 > 0 else 1.0
        if e1 <= rest:
            return float(rest + e1)
        regular = 0.45 <= q <= 0.55
        own = 2 * np.linalg.norm(2 * d2 - d1 - (2 * d4 - d2))
        return float(rest + (own if regular else 4 * max(e1, e2) / max(0.1, 1 - q)))

    def _nudge(self):
        xp = self.problem.io.xp
        r = np.random.default_rng(0).standard_normal(len(self.y))
        r *= _NUDGE * self.units.size / np.linalg.norm(r)
        return xp.asarray(r, dtype=self.y.dtype)


def answer(problem, x, y, tol, units):
    """Return a solution of the lower level, of several one that suits the upper level."""
    plain = Plain(problem, x, y, tol, units)
    natural = units.lower / units.upper if units.upper > 0 else units.lower
    goal = 1e-3 * tol * units.lower * units.size
    z = plain.minimise(0.0, y, goal).y
    preferred = plain.minimise(1e-3 * natural, z, goal).y
    return plain.minimise(0.0, preferred, goal).y


def stepped(problem, y, grad, t):
    """Return the projected, or proximal, gradient step of length t."""
    prox, py = problem.lower.oracle.prox_y, problem.py
    if prox is None:
        return problem.Y.project(y - t * grad)
    moved = prox(py.unpack(y - t * grad), t)
    return problem.Y.project(py.pack(moved, "`lower`.prox_y returned a point"))


def _norm(v):
    return math.sqrt(float(v @ v))


def _largest(v):
    return float(abs(v).max())
