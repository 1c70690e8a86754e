"""Barycentres on one Gibbs kernel for all measures, where `reg` is not small.

Products with all measures at once are matrix products, and nothing is computed anew; the
mathematics is that of `_barycenter`.
"""

from typing import Any, NamedTuple

import numpy as np

from .._core.linalg import logsumexp, pcg
from .._core.validation import check_memory
from ._newton import GATE, LIGHT, LONGEST_STEP
from ._problem import row_blocks

# Costs may range over this many `reg`: neither the kernel nor its factors underflow then.
WIDEST = 600.0
# Projections before their rate is known, and what a Newton step costs in units of them.
SWEEPS, NEWTON_COST = 6, 40
# Most conjugate-gradient iterations in a Newton step.
MOST_INNER = 200


class _Point(NamedTuple):
    """Column factors as logarithms, shape (m, K), and the plans that belong to them."""

    log_v: Any
    V: Any
    U: Any
    s: Any
    log_x: Any
    x: Any
    c: Any


class SharedKernel:
    """Computes a barycentre by projections and Newton steps on one kernel.

    Parameters
    ----------
    data : Measures
        With one cost for all measures.
    reg : float
    tol : float
        Largest residual.
    run : Monitor
    out : callable
        Turns an array into the caller's kind.
    """

    def __init__(self, data, reg, tol, run, out):
        self._data, self._be, self._reg, self._tol = data, data.be, reg, tol
        self._run, self._out = run, out
        xp = self._be.xp
        used = [k for k, _ in data.used]
        self._weights = xp.asarray(data.weights[used])
        self._B = xp.ascontiguousarray(data.B[used].T)
        self._heavy, self._found = self._B > 0.0, None
        self.counts = {"nsinkhorn": 0, "nnewton": 0, "ncg": 0}
        self.levels = [reg]
        # With the smallest cost for zero no entry exceeds one.
        self._low = data.everything.extent.low
        C = data.costs[0]
        self._K = xp.empty(C.shape)
        for rows in row_blocks(self._be, C):
            self._K[rows] = xp.exp((self._low - C[rows].astype(np.float64)) / reg)

    @staticmethod
    def suits(data, reg):
        """Tell whether a problem can be solved in this way."""
        extent, C = data.everything.extent, data.costs[0]
        if extent.forbidden or extent.high - extent.low > WIDEST * reg:
            return False
        if any(cost is not C for cost in data.costs):
            return False
        try:
            check_memory(8 * C.size, "The kernel", be=data.be)
        except MemoryError:
            return False
        return True

    def solve(self, start, _annealing):
        """Solve from a barycentre and column potentials, or from scratch (None)."""
        xp, run = self._be.xp, self._run
        log_v = xp.zeros_like(self._B) if start is None else self._log_factors(start[1])
        point, damping, newton, errors, before = self._at(log_v), 1e-2, False, [], np.inf
        while True:
            gap = self._B - point.c
            weights = self._weights
            mismatch = self._mismatch(point)
            error = xp.abs(gap).sum(axis=0) @ weights
            heavy = self._B + point.c >= LIGHT / self._B.size * error
            error, worst = self._be.host(error, xp.abs(xp.where(heavy, mismatch, 0.0)).max())
            if np.isfinite(error):
                self._found = point
            if run.record(error, state=self._state, fun=self._dual(point), reg=self._reg):
                return
            errors.append(error)
            newton = newton or self._projections_are_slow(errors)
            # What projections do not mend soon is slow for them: a shift of distant parts.
            stuck, before = worst > 0.5 * before, worst
            if newton and (worst <= GATE or stuck):
                point, damping = self._newton_step(point, gap, damping, error)
            else:
                point = self._at(point.log_v + mismatch)
                self.counts["nsinkhorn"] += 1

    def answer(self):
        """Return logarithms of the barycentre, and by measure what `_finish` needs.

        These are the kernel's log-sums, and where column potentials are known with their values.
        """
        data, xp, reg = self._data, self._be.xp, self._reg
        if self._found is None:
            return xp.log(xp.full(self._K.shape[0], 1.0 / self._K.shape[0])), {}, {}
        log_x, s, columns = self._found.log_x, {}, {}
        for i, (k, kept) in enumerate(data.used):
            where = slice(None) if kept is None else kept
            log_b = xp.log(data.B[k][where])
            columns[k] = where, reg * (self._found.log_v[where, i] - log_b) + self._low
            s[k] = self._found.s[:, i]
        return log_x, s, columns

    def _log_factors(self, h):
        """Return the logarithms of the factors that belong to column potentials."""
        xp, at = self._be.xp, 0
        log_v = xp.zeros_like(self._B)
        for i, (_, kept) in enumerate(self._data.used):
            where = slice(None) if kept is None else kept
            size = self._B.shape[0] if kept is None else kept.size
            log_b = xp.log(self._B[where, i])
            log_v[where, i] = (h[at : at + size] - self._low) / self._reg + log_b
            at += size
        return log_v

    def _at(self, log_v):
        """Return the plans for given factors, shifted to a mass of one."""
        xp, K = self._be.xp, self._K
        log_v = xp.where(self._heavy, log_v, -np.inf)
        top = log_v.max(axis=0)
        V = xp.exp(log_v - top)
        KV = K @ V
        s = xp.log(KV) + top
        log_x = s @ self._weights
        shift = -logsumexp(log_x, be=self._be, axis=0)
        log_x, log_v, s = log_x + shift, log_v + shift, s + shift
        x = xp.exp(log_x)
        U = x[:, None] / KV
        return _Point(log_v, V, U, s, log_x, x, V * (K.T @ U))

    def _mismatch(self, point):
        xp = self._be.xp
        ratio = xp.where(self._heavy, self._B / xp.maximum(point.c, 1e-300), 1.0)
        return xp.log(ratio)

    def _projections_are_slow(self, errors):
        """Tell whether projections would cost more than Newton steps, by their rate."""
        if len(errors) < SWEEPS:
            return False
        rate = (errors[-1] / errors[-4]) ** (1 / 3)
        return not rate < 1.0 or np.log(self._tol / errors[-1]) / np.log(rate) > NEWTON_COST

    def _newton_step(self, point, gap, damping, error):
        """Make one damped Newton step; return the point and the next damping."""
        xp, host, weights = self._be.xp, self._be.host, self._weights
        shift = min(max(damping * error, 1e-11), 0.3)
        right = weights * gap
        D = self._direction(point, right, shift, max(0.1 * min(1.0, error / 1e-2) ** 0.5, 1e-2))
        self.counts["nnewton"] += 1
        spread, slope = host(xp.ptp(D, axis=0).max(), (right * D).sum())
        step = min(1.0, LONGEST_STEP / max(spread, 1e-30))
        for _ in range(10):
            new = self._at(point.log_v + step * D)
            # By the slope of the concave dual, whose gain drops below rounding long before.
            end = host((weights * (self._B - new.c) * D).sum())
            if end >= -0.5 * slope:
                return new, max(damping / 4, 1e-6) if step == 1.0 else min(4 * damping, 1e3)
            shrink = slope / (slope - end) if np.isfinite(end) else 0.0
            step *= min(max(shrink, 0.1), 0.7)
        return self._at(point.log_v + self._mismatch(point)), min(10 * damping, 1e3)

    def _direction(self, point, right, shift, tol):
        """Solve for the Newton direction by conjugate gradients."""
        xp, K, weights = self._be.xp, self._K, self._weights
        _, V, U, _, _, x, c = point
        share = U / xp.maximum(x, 1e-300)[:, None]
        diagonal = xp.where(self._heavy, weights * c, 1.0)

        def hessian(d):
            D = d.reshape(c.shape)
            means = share * (K @ (V * D))
            # The mean over the measures comes back: it moves the barycentre.
            back = V * (K.T @ (U * (means - (means @ weights)[:, None])))
            return (weights * ((1.0 + shift) * c * D - back)).ravel()

        def project(z):
            # Constants for one measure, at the expense of another, change nothing.
            Z = z.reshape(c.shape)
            means = (c * Z).sum(axis=0) / c.sum(axis=0)
            return (Z - xp.where(self._heavy, means - means @ weights, 0.0)).ravel()

        result = pcg(
            hessian,
            right.ravel(),
            be=self._be,
            precond=lambda r: r / diagonal.ravel(),
            project=project,
            norm=lambda r: xp.abs(r).sum(),
            tol=tol,
            maxiter=MOST_INNER,
        )
        self.counts["ncg"] += result.iterations
        return result.x.reshape(c.shape)

    def _dual(self, point):
        """Return the dual value in the caller's unit of mass, on the device."""
        xp, mass = self._be.xp, self._data.mass
        g = self._reg * (xp.where(self._heavy, point.log_v, 0.0) + np.log(mass)) + self._low
        return mass * ((self._B * g).sum(axis=0) @ self._weights - self._reg)

    def _state(self):
        return {"x": self._out(self._data.mass * self._found.x)}
