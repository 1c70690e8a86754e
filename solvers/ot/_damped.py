"""Kernels of unbalanced transport, and steps on them; the mathematics is that of `_unbalanced`."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .._core.linalg import pcg
from ._gibbs import LOST, Passes
from ._newton import GATE, LIGHT, LONGEST_STEP, MOST_COLUMNS, REACH, NewtonSteps

# Sweeps in a block of them.
SWEEPS = 8


class Look(NamedTuple):
    """What a pass shows: optimal row potentials `f`, and the column sums `c` for row sums `w`."""

    lam: float
    w: Any
    s: Any
    f: Any
    g: Any
    c: Any
    t: Any
    kernel: Any
    error: float = np.inf
    over: bool = False


class DampedPasses(Passes):
    """Passes whose row sums are predicted, because what they should be shows only afterwards."""

    def __init__(self, problem, store_plan, number=None):
        super().__init__(problem, store_plan, number)
        self._a = problem.a

    def look(self, f, g, reg, taus, cutoff=None):
        """Return what a pass shows; row sums are those that `f` asks for (None: the weights)."""
        a, b, xp = self._a, self.problem.b, self._xp
        w = a if f is None else wanted_marginal(xp, a, f, taus[0])
        # Neither may vanish where rounding or a bad prediction would have it so.
        w = xp.where(xp.isfinite(w), xp.clip(w, 1e-200 * a, 1e200 * a), a)
        self.problem = replace(self.problem, a=w)
        for _ in range(2):
            sums, kernel = self._once(g, reg, cutoff)
            wanted = xp.exp(-g / taus[1])
            ratio = sums / wanted
            lost = ~((ratio > 1 / LOST) & (ratio < LOST)) & (xp.maximum(sums, wanted) > 1e-200)
            lost = xp.flatnonzero(lost)
            if lost.size == 0:
                break
            # Their potentials are so far off that the kernel underflowed: set them directly.
            self.problem.cost_kernels.column_potential(
                self.problem.C, self._shift, w, reg, lost, g
            )
            g[lost] *= 1.0 - damping(reg, taus[1])
        s, lam = self._shift.copy(), damping(reg, taus[0])
        f = -reg * (1.0 - lam) * s
        return Look(lam, w, s, f, g, b * sums, b * wanted, kernel)


class _Point(NamedTuple):
    """Where a stored system stands: column log-factors, and the plan that belongs to them."""

    x: Any
    v: Any
    rho: Any
    s: Any
    r: Any
    c: Any
    t: Any


class System:
    """The optimality system on a stored kernel, corrected for what storing has changed."""

    def __init__(self, problem, reg, taus, look):
        self.be, self._a, self._b = problem.be, problem.a, problem.b
        self.kernel, self._look, self._reg, self._tau = look.kernel, look, reg, taus[1]
        self.lam, self.mu = look.lam, 0.0 if taus[1] == np.inf else reg / taus[1]
        xp = self.be.xp
        self.kernel.weigh(look.w)
        self._rho, sums = self.kernel.sweep(self._b)
        self._s = look.s - xp.log(self._rho)
        ratio = look.c / (self._b * sums)
        self._correction = xp.where(xp.isfinite(ratio), xp.clip(ratio, 0.5, 2.0), 1.0)

    def at(self, x):
        """Return the plan for column potentials ``g + reg x``."""
        xp, kernel = self.be.xp, self.kernel
        # Rows are normalised anyway; so no common factor may overflow.
        top = x.max()
        v = self._b * xp.exp(x - top)
        rho, sums = kernel.sweep(v)
        s = self._s + top + xp.log(rho)
        r = self._row_masses(s)
        if self.lam > 0.0:
            kernel.weigh(r)
            rho, sums = kernel.sweep(v)
        c, g = v * sums * self._correction, self._look.g + self._reg * x
        return _Point(x, v, rho, s, r, c, wanted_marginal(xp, self._b, g, self._tau))

    def exact(self):
        """Return where the pass was, without the rounding of stored entries.

        For a small residual: they only tell what correcting the row sums changes.
        """
        look, v = self._look, self._b
        r = self._row_masses(look.s)
        self.kernel.weigh(r - look.w)
        c = look.c + v * self.kernel.sweep(v)[1]
        return _Point(0.0 * v, v, self._rho, look.s, r, c, look.t)

    def moved(self, point, x):
        """Return an exact point moved by a small `x`; its column sums stay as they were."""
        drift = self.kernel.sweep(point.v * x)[0] / point.rho
        return point._replace(x=x, s=point.s + drift)

    def _row_masses(self, s):
        return self._a if self.lam == 0.0 else self._a * self.be.xp.exp(self.lam * s)

    def fix(self, point):
        """Make the kernel ready for products at a point."""
        self.kernel.weigh(point.r)
        self.kernel.fix(point.v, point.rho)

    def row_potentials(self, point):
        """Return the row potentials that are optimal for a point's columns."""
        return -self._reg * (1.0 - self.lam) * point.s

    def residual(self, point):
        """Return, on the device, the residual of the columns and the mass."""
        return self.be.xp.abs(point.t - point.c).sum(), point.c.sum()

    def mismatch(self, point):
        """Return the logarithms by which the column sums are off."""
        xp, g = self.be.xp, self._look.g + self._reg * point.x
        # Not of the targets, which underflow where potentials exceed prices many times.
        return xp.log(self._b / xp.maximum(point.c, 1e-300)) - g / self._tau

    def update(self, point):
        """Return the damped update of the column log-factors."""
        return (1.0 / (1.0 + self.mu)) * self.mismatch(point)

    def shifted(self, point):
        """Return log-factors with the common shift that gives the plan its optimal mass.

        Along a common shift both masses are exponentials, so the shift has a closed form.
        """
        xp = self.be.xp
        shift = xp.log(point.t.sum() / point.c.sum()) / (self.lam + self.mu)
        return point.x + xp.where(xp.isfinite(shift), shift, 0.0)


class DampedSteps(NewtonSteps):
    """Solves stored systems by damped sweeps where far off, by Newton steps where near."""

    def __init__(self, be, b, run):
        super().__init__(be, b, run, precond="auto", tol=None, maxiter=None, sweeps=SWEEPS)

    def solve(self, system, tol, floor, patience):
        """Find the log-factors at which a stored system holds, as far as rounding shows it.

        Returns
        -------
        _Point
            Where the residual is at most `tol`, relative to the mass, or what was reached.
        float, float
            The residuals at the start and at the end.
        """
        xp, host = self._be.xp, self._be.host
        self._factor, first, weak = None, None, 0
        before = worst_before = np.inf
        point = system.at(system.shifted(system.at(0.0 * self._b)))
        for move in range(patience + 1):
            total = point.t + point.c
            error, mass = system.residual(point)
            heavy = total >= LIGHT / total.size * error
            error, mass, worst, low, high = host(
                error,
                mass,
                xp.abs(xp.where(heavy, system.mismatch(point), 0.0)).max(),
                xp.where(heavy, point.x, np.inf).min(),
                xp.where(heavy, point.x, -np.inf).max(),
            )
            left = error / max(mass, 1e-300)
            first = left if first is None else first
            if left <= max(tol, floor) or high - low > REACH or move == patience:
                break
            rounded = 0.5 * before < left < 30 * floor
            if rounded or not np.isfinite(left) or self._run.late:
                break
            before = left
            # What sweeps do not mend soon is slow for them: a common shift of distant parts.
            if (worst > GATE and worst < 0.5 * worst_before) or weak == 2:
                point, weak = self._block(system, point, heavy), 0
                worst_before = worst
            else:
                point, step = self._step(system, point, heavy, left)
                weak, worst_before = weak + 1 if step < 0.3 else 0, np.inf
        return point, first, left

    def refine(self, system, error):
        """Return where one Newton step leads from a residual that is known exactly."""
        point = system.exact()
        system.fix(point)
        x = self._solve(system, point, point.t - point.c, error)
        return system.moved(point, x * min(1.0, 1.0 / self._be.host(self._be.xp.abs(x).max())))

    def _block(self, system, point, heavy):
        """Make a few damped sweeps, each followed by the best common shift."""
        xp = self._be.xp
        for _ in range(self._sweeps):
            point = system.at(point.x + xp.clip(system.update(point), -60.0, 60.0))
            self.counts["nsinkhorn"] += 1
            worst = xp.abs(xp.where(heavy, system.mismatch(point), 0.0)).max()
            if self._be.host(worst) < 0.5 * GATE:
                break
        return system.at(system.shifted(point))

    def _step(self, system, point, heavy, error):
        """Make one damped Newton step."""
        xp, host = self._be.xp, self._be.host
        system.fix(point)
        mismatch = xp.where(heavy, 0.0, system.mismatch(point))
        # Columns of no weight whose sums are far off follow the sweeps instead.
        aside = xp.abs(mismatch) > GATE
        gap = xp.where(aside, 0.0, point.t - point.c)
        x = self._solve(system, point, gap, error)
        x = xp.where(aside, xp.clip(mismatch, -LONGEST_STEP, LONGEST_STEP), x)
        part = xp.where(aside, 0.0, x)
        spread, largest, slope = host(xp.ptp(part), xp.abs(part).max(), gap @ part)
        # A common shift acts on the masses only through `lam` and `mu`.
        length = max(spread / LONGEST_STEP, largest * max(system.lam, system.mu) / 3.0)
        step = min(1.0, 1.0 / max(length, 1e-30))
        self.counts["nnewton"] += 1
        for _ in range(10):
            new = system.at(point.x + step * x)
            # By the slope of the concave dual, whose gain drops below rounding long before.
            end = host(xp.where(aside, 0.0, new.t - new.c) @ part)
            if end >= -0.5 * slope:
                self._trust(step)
                return new, step
            shrink = slope / (slope - end) if np.isfinite(end) else 0.0
            step *= min(max(shrink, 0.1), 0.7)
        self._damping = min(10 * self._damping, 1e3)
        return point, 0.0

    def _solve(self, system, point, gap, error):
        """Return the Newton direction, by conjugate gradients."""
        xp, kernel, c = self._be.xp, system.kernel, point.c
        kappa = 1.0 - system.lam
        shift = min(max(self._damping * error, 1e-13), 0.3)
        diagonal = (system.lam + shift) * c + system.mu * point.t
        jacobi = kappa * kernel.diagonal(c) + diagonal
        total = diagonal.sum()

        def solve(precond, tol, maxiter):
            result = pcg(
                lambda x: kappa * kernel.laplacian(x) + diagonal * x,
                gap,
                be=self._be,
                # The Laplacian does not see constants: they get a step of their own.
                precond=lambda r: precond(r) + r.sum() / total,
                norm=lambda r: xp.abs(r).sum(),
                tol=tol,
                maxiter=maxiter,
            )
            self.counts["ncg"] += result.iterations
            return result

        tol = max(0.1 * min(1.0, error / 1e-2) ** 0.5, 1e-3)
        factorise = c.size <= MOST_COLUMNS
        most = min(max(c.size // 5, 100), 600) if factorise else 2000
        if self._factor is not None:
            result = solve(self._factor, tol, 15)
            if result.flag == "converged":
                return result.x
        result = solve(lambda r: r / jacobi, tol, most)
        if result.flag == "converged" or not factorise:
            return result.x
        # Divided by kappa: the factor is that of the balanced problem with this diagonal.
        factor = self._factorised(kernel, c, diagonal / kappa)
        if factor is None:
            return result.x
        self._factor = lambda r: factor(r) / kappa
        return solve(self._factor, tol, most).x


def damping(reg, tau):
    return 0.0 if tau == np.inf else reg / (reg + tau)


def wanted_marginal(xp, weights, potential, tau):
    """Return the marginal that a potential asks for."""
    return weights if tau == np.inf else weights * xp.exp(-potential / tau)
