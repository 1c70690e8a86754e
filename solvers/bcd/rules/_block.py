"""One block at a time: its part of the problem, small linear systems and line searches."""

import math
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np

from ... import penalties
from ._check import is_smooth

# Relative to the mean of the diagonal; what Cholesky needs for a matrix that is singular but for
# rounding errors.
_RIDGE = {np.dtype(np.float32): 1e-6, np.dtype(np.float64): 1e-12}
ARMIJO = 1e-4
_TRIALS = 40
_CACHE_BYTES = 1 << 28
# Above this, the largest eigenvalue comes from power iterations.
_DENSE_EIGENVALUES = 64
# Rounds of `block_sweeps` between two Newton steps, and rounds of both.
_SWEEPS, _ROUNDS = 5, 200


class BreakdownError(ArithmeticError):
    """An update found no step: the data or the point are beyond what numbers can hold."""


class Part(NamedTuple):
    """A block's part of the problem, in float64.

    Attributes
    ----------
    x, g : array, shape (tau,)
        Unknowns, and the gradient of the smooth part; all of it, if the problem is smooth.
    penalty : NamedTuple
        Of these unknowns.
    ridge : array or None
        What a smooth problem's penalty adds to the diagonal of the Hessian; None for others.
    """

    x: Any
    g: Any
    penalty: Any
    ridge: Any


class View:
    """How updates see the blocks of a state."""

    def __init__(self, state):
        self.state, self.problem = state, state.problem
        self.be, self.xp = state.problem.be, state.problem.xp
        self.kernels = self.be.kernels("solvers.bcd", "sweeps")
        self.smooth = is_smooth(state.problem)
        self.ridge = _RIDGE[np.dtype(state.problem.dtype)]
        self.rounding = 4.0 * np.finfo(state.problem.dtype).eps

    def part(self, block):
        """Return the `Part` of a block."""
        state = self.state
        x, g = state.x[block].astype(np.float64), state.partial(block).astype(np.float64)
        penalty = penalties.take(state.penalty, block)
        penalty = type(penalty)(*(field.astype(np.float64) for field in penalty))
        if not self.smooth:
            return Part(x, g, penalty, None)
        return Part(x, g + penalty.ridge * x, penalty, penalty.ridge)

    def prox_step(self, part, L):
        """Return the step that minimises ``g d + L/2 |d|^2 + penalty(x + d)``."""
        if part.ridge is not None:
            return -part.g / (L + part.ridge)
        new, steps = self.xp.empty_like(part.x), self.xp.full(part.x.size, 1.0 / L)
        self.problem.kernels.prox_all(part.penalty, part.x - part.g / L, steps, new)
        return new - part.x

    def newton_step(self, part, H):
        """Return the step that minimises ``g d + d H d / 2 + penalty(x + d)``."""
        if part.ridge is not None:
            return factorise(H + self.xp.diag(part.ridge), self.ridge, self.be)(-part.g)
        return self._composite_step(part, H)

    def excess(self, part, line, L):
        """Return by how much the smooth part rises above its model with curvature L."""
        d = line.d.astype(np.float64)
        g = part.g if part.ridge is None else part.g - part.ridge * part.x
        return line.change() - float(self.be.host(g @ d + 0.5 * L * (d @ d)))

    def predicted(self, part, d):
        """Return the first-order change ``g d + penalty(x + d) - penalty(x)``."""
        return float(self.be.host(part.g @ d)) + self.penalty_change(part, d)

    def penalty_change(self, part, d):
        """Return the change of what `part.g` leaves out."""
        if part.ridge is not None:
            return 0.0
        total = self.problem.kernels.penalty_sum
        return float(total(part.penalty, part.x + d)) - float(total(part.penalty, part.x))

    def change(self, part, line, t=1.0):
        """Return how the objective changes along a line."""
        d = t * line.d.astype(np.float64)
        if part.ridge is None:
            return line.change(t) + self.penalty_change(part, d)
        return line.change(t) + float(self.be.host(part.ridge @ (d * (part.x + 0.5 * d))))

    def take(self, part, block, d):
        """Take a step that is known to be good; return by how much the objective fell."""
        line = self.state.line(block, d)
        change = self.change(part, line)
        self.state.move(line)
        return -change

    def search(self, part, block, d):
        """Take as much of a step as lowers the objective enough; return by how much it fell."""
        slope = self.predicted(part, d)
        if not slope < 0.0 and not slope <= self.noise():
            return 0.0
        line = self.state.line(block, d)
        t, change = backtrack(lambda t: self.change(part, line, t), min(slope, 0.0), self.noise)
        if t > 0.0:
            self.state.move(line, t)
        return -change

    def noise(self):
        """Return below what a change of the objective cannot be told from rounding."""
        return self.rounding * abs(self.state.objective())

    def violation(self, part):
        """Return the largest distance of ``-g`` from the subdifferentials."""
        if part.ridge is not None:
            return float(self.be.host(abs(part.g).max()))
        out = self.xp.empty_like(part.g)
        self.problem.kernels.distances(part.penalty, part.x, part.g, out)
        return float(self.be.host(out.max()))

    def _composite_step(self, part, H):
        x, g = part.x.copy(), part.g.copy()
        limit = 1e-13 * float(self.be.host(abs(g).max() + (abs(H) @ abs(x)).max()))
        elastic = hasattr(part.penalty, "lo")
        for _ in range(_ROUNDS):
            worst = self.kernels.block_sweeps(part.penalty, H, g, x, _SWEEPS, limit)
            if float(worst) <= limit:
                break
            if elastic:
                self._face_step(part.penalty, H, g, x)
        return x - part.x

    def _face_step(self, penalty, H, g, x):
        """Minimise over the unknowns that are free to move, up to the first that meets a kink."""
        xp = self.xp
        inside = (x > penalty.lo) & (x < penalty.hi) & ((x != 0) | (penalty.alpha == 0))
        free = xp.flatnonzero(inside)
        if not free.size:
            return
        face = penalties.take(penalty, free)
        xf = x[free]
        kink = face.alpha > 0
        slope = g[free] + face.alpha * xp.sign(xf) + face.ridge * xf
        solve = factorise(H[free][:, free] + xp.diag(face.ridge), self.ridge, self.be)
        d = solve(-slope)
        lo = xp.where(kink & (xf > 0), xp.maximum(face.lo, 0.0), face.lo)
        hi = xp.where(kink & (xf < 0), xp.minimum(face.hi, 0.0), face.hi)
        end = xp.where(d > 0, hi, lo)
        room = xp.where(d != 0, (end - xf) / d, xp.inf)
        t = min(1.0, float(self.be.host(room.min())))
        new = xp.where(room <= t, end, xp.clip(xf + t * d, lo, hi))
        x[free] = new
        g += H[:, free] @ (new - xf)


def factorise(H, ridge, be):
    """Return a function that solves with H, positive semi-definite; a little is added to it."""
    xp, tau = be.xp, H.shape[0]
    mean = float(be.host(H.trace())) / tau
    if not mean > 0.0:
        # Nothing bends here: the step along the gradient is as good as any.
        return lambda v: v
    for power in range(4):
        try:
            R = be.cholesky(H + ridge * 100.0**power * mean * xp.eye(tau))
        except np.linalg.LinAlgError:
            continue
        if bool(be.host(xp.isfinite(R).all())):
            return lambda v: _solve_lower(be, R, v)
    if not bool(be.host(xp.isfinite(H).all())):
        raise BreakdownError("The Hessian of a block holds numbers that are not finite.")
    values, vectors = xp.linalg.eigh(H)
    inverse = xp.where(values > ridge * 1e8 * mean, 1.0 / values, 0.0)
    return lambda v: vectors @ (inverse * (vectors.T @ v))


def _solve_lower(be, R, v):
    half = be.linalg.solve_triangular(R, v, lower=True, check_finite=False)
    return be.linalg.solve_triangular(R, half, lower=True, trans=1, check_finite=False)


def largest_eigenvalue(H, be):
    """Return a bound of the largest eigenvalue, from above."""
    xp, tau = be.xp, H.shape[0]
    if tau == 1:
        return max(float(be.host(H[0, 0])), 0.0) or 1.0
    if tau <= _DENSE_EIGENVALUES:
        top = float(be.host(xp.linalg.eigvalsh(H)[-1])) * (1.0 + 1e-6)
    else:
        top = _power(H, be)
    # Where nothing bends any number is a bound.
    return top if top > 0.0 else 1.0


def _power(H, be, steps=50):
    """Power iterations; where they have not settled, a bound that needs none."""
    xp = be.xp
    v = xp.cos(xp.arange(H.shape[0], dtype=np.float64))
    before = 0.0
    for _ in range(steps):
        w = H @ v
        top, rest = be.host(v @ w / (v @ v), v @ v)
        size = float(be.host(xp.sqrt(w @ w)))
        # The residual bounds the distance to an eigenvalue, which is the largest as a rule.
        residual = float(be.host(abs(w - top * v).max()))
        if size == 0.0 or not rest > 0.0:
            break
        if abs(top - before) <= 1e-7 * top and residual <= 1e-3 * size:
            return top * (1.0 + 1e-6) + residual
        before, v = top, w / size
    return float(be.host(xp.minimum(H.trace(), abs(H).sum(axis=1).max())))


def backtrack(change, slope, noise):
    """Return a step length with enough decrease, and the change there; 0 if there is none.

    Parameters
    ----------
    change : callable
        ``change(t)``: the objective at t less that at 0.
    slope : float
        Its derivative at 0, or for composite objectives what stands for it.
    noise : callable
        Returns how much a change may be too large by rounding; asked if the first trial fails.
    """
    t, value, last = 1.0, change(1.0), None
    if value <= ARMIJO * slope:
        return t, value
    slack = noise()
    for _ in range(_TRIALS):
        if value <= ARMIJO * t * slope + slack:
            return t, value
        guess = _interpolated(slope, t, value, last)
        last = t, value
        t = min(max(guess, 0.1 * t), 0.5 * t) if math.isfinite(guess) else 0.1 * t
        value = change(t)
    return 0.0, 0.0


def _interpolated(slope, t, value, last):
    """Return the minimiser of a parabola, or of a cubic once there are two trials."""
    if not math.isfinite(value):
        return 0.1 * t
    if last is None or not math.isfinite(last[1]):
        return -slope * t * t / (2.0 * (value - slope * t))
    s, other = last
    near, far = (value - slope * t) / (t * t), (other - slope * s) / (s * s)
    a = (near - far) / (t - s)
    b = (far * t - near * s) / (t - s)
    root = b * b - 3.0 * a * slope
    if a == 0.0 or root < 0.0:
        return 0.5 * t
    return (-b + math.sqrt(root)) / (3.0 * a)


class Memory:
    """Keeps what was computed for fixed blocks, the least used goes when there is no room."""

    def __init__(self, compute, size=lambda value: value.nbytes):
        self._compute, self._size = compute, size
        self._kept, self._bytes = OrderedDict(), 0

    def __call__(self, number, block):
        """Return what belongs to a block; blocks without a number are not remembered."""
        if number is None:
            return self._compute(block)
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        value = self._kept[number] = self._compute(block)
        self._bytes += self._size(value)
        while self._bytes > _CACHE_BYTES and len(self._kept) > 1:
            self._bytes -= self._size(self._kept.popitem(last=False)[1])
        return value
