"""Adversarially robust training: the iteration for samples that may move.

The loss sees weights through the predictions p and through ``eps^T |Q_k|``, with a row of
``Q = sum_i d_i (v_i - w_i)^T`` for each sample: these are split off, with penalties of their own.
The blocks' own step is exact, as the proximal operator of a norm on a cone is the projection,
shrunken. All iterates V thus lie in their robust cones, and no copies have to agree with rows.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ._certificate_data import RobustDual
from ._robust_cones import Cones, points_inside

# Penalties of blocks, predictions and rows, in the units of each; see `penalties`.
_RHO, _THETA, _TAU = 1.25, 0.1, 0.015
# Iterations at which rho is adapted; afterwards it stays, which convergence needs.
_ADAPT = (20, 40, 70, 100, 150, 200, 300, 400, 600, 800, 1200, 1600)
# Checks, the first few of them early.
_EARLY = (25, 50, 100, 150, 200, 300, 400)


def iterate(programme, watch, options):
    """Run the iteration until the watch ends it."""
    own, xp, X, eps = options.own, programme.xp, programme.X, programme.eps
    lead = len(programme.Y), 2
    everything = Cones(programme.be, X, programme.mask, eps, lead)
    # The blocks of empty cones are zero.
    alive = xp.nonzero(points_inside(programme.be, X, programme.mask, eps)[0])[0]
    part = replace(programme, mask=programme.mask[alive])
    cones = Cones(programme.be, X, part.mask, eps, lead)
    rho, theta, tau = penalties(programme, own)
    split = Rows(part, theta, tau)
    state = State.at(part, None if options.x0 is None else options.x0[:, :, alive])
    U = xp.zeros(everything.shape, dtype=X.dtype)
    before = 0
    for turn in watch.run:
        nit = turn + 1
        residuals = step(part, split, cones, state, rho, own.relax)
        if nit in _EARLY or nit % options.check_every == 0 or nit == watch.run.maxiter:
            U[:, :, alive] = state.V
            point = split.dual(rho)
            watch.judge(U, point, everything.multipliers(point, programme.beta))
            watch.fields.update(rho=rho)
            if watch.record(judged=True, iterations=nit - before, rho=rho):
                return
            before = nit
        if own.adapt_rho and nit in _ADAPT:
            q = balance(part, split, state, residuals)
            if q != 1.0:
                rho *= q
                state.rescale(q)
                split.rescale(q)
                cones.rescale(q)


def penalties(programme, own):
    """Return rho, and theta and tau in its units; they scale as the optimum's units do."""
    xp, X, Y = programme.xp, programme.X, programme.Y
    square, targets = programme.be.host(xp.square(X).sum() / len(X), xp.square(Y).mean())
    rho = own.rho or _RHO * programme.beta * (square / targets) ** 0.5
    return rho, _THETA / rho, _TAU * _THETA * square / rho


@dataclass
class State:
    """What passes from one iteration to the next; ``T_v - V`` is the scaled dual of ``U = V``.

    Attributes
    ----------
    V, T_v : array, shape (c, 2, P, d)
    """

    V: Any
    T_v: Any

    @classmethod
    def at(cls, programme, start):
        xp, X = programme.xp, programme.X
        shape = (len(programme.Y), 2, len(programme.mask), X.shape[1])
        V = xp.zeros(shape, dtype=X.dtype)
        if start is not None:
            V[...] = start
        return cls(V, V.copy())

    def rescale(self, q):
        """Keep the duals in the caller's unit when rho becomes ``q rho``."""
        self.T_v = self.V + (self.T_v - self.V) / q


def step(programme, split, cones, state, rho, relax):
    """Make one iteration in place; return the squared residuals, each primal and dual."""
    xp, V, t = programme.xp, state.V, programme.beta / rho
    U, F = split.solve(2.0 * V - state.T_v)
    state.T_v = relax * U + (1.0 - relax) * V + (state.T_v - V)
    inner, norm = cones.project(state.T_v, enough=t)
    kept = xp.maximum(norm - t, 0.0) / xp.maximum(norm, t)
    state.V = inner * kept[..., None].astype(V.dtype)
    blocks = xp.square(U - state.V).sum(), xp.square(state.V - V).sum()
    return blocks, *split.absorb(F, rho, relax)


class Rows:
    """Copies ``p = X o F U`` and ``Q = F U`` of what the loss sees, a row for each sample.

    Parameters
    ----------
    programme : Programme
    theta, tau : float
        Penalties of p and of Q, in units of rho.
    """

    def __init__(self, programme, theta, tau):
        xp, X = programme.xp, programme.X
        self.programme, self.theta, self.tau = programme, theta, tau
        self.mask = mask = programme.mask.astype(X.dtype)
        gram = 2.0 * tau * (mask @ mask.T).astype(np.float64)
        _add_to_diagonal(xp, gram, 1.0)
        self.inverse = xp.linalg.inv(gram).astype(X.dtype)
        K = 2.0 * (X @ X.T) * (mask.T @ (self.inverse @ mask))
        K = K.astype(np.float64)
        _add_to_diagonal(xp, K, 1.0 / theta)
        self.factor = programme.be.linalg.cho_factor(K, lower=True)
        self.p, self.w = xp.zeros_like(programme.Y), xp.zeros_like(programme.Y)
        self.Q = xp.zeros((len(programme.Y), *X.shape), dtype=X.dtype)
        self.mu_p, self.mu_q = xp.zeros_like(self.p), xp.zeros_like(self.Q)

    def solve(self, R):
        """Return the U that minimises the augmented Lagrangian, and ``F U``."""
        programme, xp, mask = self.programme, self.programme.xp, self.mask
        apart = R[:, 0] - R[:, 1]
        W = self.inverse @ (apart + 2.0 * self.tau * (mask @ (self.Q - self.mu_q)))
        right = self.p - self.mu_p - (programme.X * (mask.T @ W)).sum(axis=-1)
        e = programme.be.linalg.cho_solve(self.factor, right.T.astype(np.float64)).T
        W += self.inverse @ (mask @ (2.0 * e.astype(R.dtype)[..., None] * programme.X))
        half = 0.5 * (apart - W)
        return xp.stack([R[:, 0] - half, R[:, 1] + half], axis=1), mask.T @ W

    def absorb(self, F, rho, relax):
        """Update the copies from ``F = F U``; return the squared residuals."""
        xp, programme = self.programme.xp, self.programme
        f = (programme.X * F).sum(axis=-1)
        p0 = relax * f + (1.0 - relax) * self.p + self.mu_p
        q0 = relax * F + (1.0 - relax) * self.Q + self.mu_q
        p, Q = xp.empty_like(p0), xp.empty_like(q0)
        programme.be.kernels("solvers.relu", "robust").rows(
            programme.loss.robust, programme.Y, programme.eps, programme.loss.scale,
            rho * self.theta, rho * self.tau, p0, q0, p, Q, self.w,
        )  # fmt: skip
        residuals = (
            (xp.square(f - p).sum(), xp.square(p - self.p).sum()),
            (xp.square(F - Q).sum(), xp.square(Q - self.Q).sum()),
        )
        self.p, self.mu_p, self.Q, self.mu_q = p, p0 - p, Q, q0 - Q
        return residuals

    def rescale(self, q):
        """Keep the duals in the caller's unit when rho becomes ``q rho``."""
        self.mu_p, self.mu_q = self.mu_p / q, self.mu_q / q

    def dual(self, rho):
        """Return the dual point."""
        return RobustDual(-rho * self.theta * self.mu_p, self.w, -rho * self.tau * self.mu_q)


def _add_to_diagonal(xp, A, x):
    A[xp.arange(len(A)), xp.arange(len(A))] += x


def balance(programme, split, state, residuals):
    """Return the factor of rho that balances primal and dual residuals, 1 if they are near."""
    host, xp = programme.be.host, programme.xp
    weights = 1.0, split.theta, split.tau

    def size(squares):
        return math.sqrt(sum(w * s for w, s in zip(weights, host(*squares), strict=True)))

    primal, dual = (size(squares) for squares in zip(*residuals, strict=True))
    iterates, duals = (
        size([xp.square(part).sum() for part in parts])
        for parts in (
            (state.V, split.p, split.Q),
            (state.T_v - state.V, split.mu_p, split.mu_q),
        )
    )
    if not min(primal, dual, iterates, duals) > 0:
        return 1.0
    q = math.sqrt((primal / iterates) / (dual / duals))
    return 1.0 if 2 / 3 <= q <= 3 / 2 else min(max(q, 0.2), 5.0)
