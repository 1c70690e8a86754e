"""What all engines share: judging iterates, keeping the best of them, and when to stop."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._certificate import dual_bound, feasible
from ._certificate_bounds import rough_bound
from ._problem import theirs

# Relative gaps above this one are far from any goal: not worth a projection.
_FAR = 0.5


@dataclass
class Best:
    """The best so far, on the host in float64.

    Attributes
    ----------
    U, upper : array (c, 2, P, d) and float
        Blocks inside their cones with the lowest objective, and that objective.
    z, lower : array (c, n) and float
        The dual point with the highest bound, and that bound.
    alpha : array (c, 2, P, n), optional
        Multipliers of the cones that were given with z.
    network, value : array (c, 2, P, d) and float
        Blocks, inside their cones or not, of the network with the lowest objective.
    """

    U: Any
    upper: float
    z: Any
    lower: float
    network: Any
    value: float
    alpha: Any = None


class Watch:
    """Keeps the books of a run.

    Parameters
    ----------
    programme : Programme
    data : Data
        The same programme on the host in float64, for the judge.
    run : Monitor
    options : Options
    io : Ingest
        The door that the data came in through.
    unit : float
        Objectives of the caller in terms of ours, which are sums over samples.

    Attributes
    ----------
    fields : dict
        Fields of the result that an engine alone knows.
    enough : float or None
        The gap at which an engine is done with gates that others will follow.
    """

    def __init__(self, programme, data, run, options, io, unit=1.0):
        self.programme, self.data, self.run, self.options = programme, data, run, options
        self.unit, self.fields, self.io = unit, {}, io
        self.enough = None
        zero = np.zeros((programme.Y.shape[0], 2, len(data.gates), programme.X.shape[1]))
        nothing, z = data.objective(zero), data.slope(zero)
        lower = rough_bound(data, z) if data.eps is None else -math.inf
        if nothing - lower <= _FAR * abs(nothing) or data.eps is not None:
            # Projections can show that nothing is better than zero.
            lower = dual_bound(data, z)
        self.best = Best(zero, nothing, z, lower, zero, nothing)

    # Whether no weights but zero are allowed.
    infeasible = False

    @property
    def z(self):
        """The best dual point's part for predictions, (c, n)."""
        return self.best.z

    @property
    def gap(self):
        """The relative gap between the best bounds."""
        best = self.best
        return (best.upper - best.lower) / max(abs(best.upper), 1e-300)

    def judge(self, U, z, alpha=None):
        """Try an iterate: blocks U, in their cones or not, and a dual point."""
        host = self.programme.be.host
        U = host(U).astype(np.float64)
        z = host(z).astype(np.float64)
        alpha = None if alpha is None else host(alpha).astype(np.float64)
        if not (np.isfinite(U).all() and np.isfinite(z).all()):
            return
        best, data = self.best, self.data
        value = data.network_objective(U)
        if value < best.value:
            best.network, best.value = U, value
        inside = feasible(data, U)
        upper = data.objective(inside)
        if upper < best.upper:
            best.U, best.upper = inside, upper
            value = data.network_objective(inside)
            if value < best.value:
                best.network, best.value = inside, value
        lower = dual_bound(data, z, alpha)
        if lower > best.lower:
            best.z, best.alpha, best.lower = z, alpha, lower

    def promises(self, U, z, alpha):
        """Tell, without a projection, whether an iterate is worth a judgement; keep its bound."""
        host, best, data = self.programme.be.host, self.best, self.data
        U, z, alpha = (host(a).astype(np.float64) for a in (U, z, alpha))
        upper, lower = data.objective(U), rough_bound(data, z, alpha)
        if lower > best.lower:
            best.z, best.alpha, best.lower = z, alpha, lower
        return upper - lower <= _FAR * abs(upper)

    def suggest(self, U):
        """Try a network alone, of neurons that need not belong to the gates."""
        value = self.data.network_objective(U)
        if value < self.best.value:
            self.best.network, self.best.value = U, value

    def enter(self, programme, U):
        """Go on with the programme over other gates, where blocks U lie in their cones."""
        network, value, z = self.best.network, self.best.value, self.best.z
        self.programme, self.data = programme, self.data.over(programme.gates)
        upper, lower = self.data.objective(U), dual_bound(self.data, z)
        self.best = Best(U, upper, z, lower, network, value)
        self.suggest(U)

    def record(self, *, judged, iterations=1, **series):
        """Count iterations; tell whether the engine must end."""
        gap = self.gap
        best = self.best
        ended = self.run.record(
            gap if math.isfinite(gap) else 1e300,
            judge=judged and self.enough is None,
            iterations=iterations,
            state=self._shown,
            fun=best.value * self.unit,
            fun_convex=best.upper * self.unit,
            dual=best.lower * self.unit,
            **series,
        )
        return ended or (self.enough is not None and judged and gap <= self.enough)

    def _shown(self):
        """Return what a callback sees beside the numbers of the history."""
        io = self.io
        V, W = theirs(io.xp.asarray(self.best.U), self.programme.vector)
        return {"V": io.out(V), "W": io.out(W)}
