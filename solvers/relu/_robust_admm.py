"""Adversarially robust training: the iteration for samples that may move.

The loss sees weights through the predictions p and through ``eps^T |Q_k|``, with a row of
``Q = sum_i d_i (v_i - w_i)^T`` for each sample: these are split off, with penalties of their own.
The blocks' own step is exact, as the proximal operator of a norm on a cone is the projection,
shrunken. All iterates V thus lie in their robust cones, and no copies have to agree with rows.
"""

import contextlib
import math
from dataclasses import replace

import numpy as np

from .._core import threads
from .._core.validation import check_memory
from ._anderson import Anderson
from ._certificate_data import RobustDual
from ._robust_cones import Cones

# Penalties of blocks, predictions and rows, in the units of each; see `penalties`.
_RHO, _THETA, _TAU = 1.25, 0.1, 0.015
# Samples times gates times features up to which products are small.
_SMALL = 1e8
# Iterations at which rho is adapted; afterwards it stays, which convergence needs.
_ADAPT = (20, 40, 70, 100, 150, 200, 300, 400, 600, 800, 1200, 1600)
# Checks, the first few of them early.
_EARLY = (25, 50, 100, 150, 200, 300, 400)


def iterate(programme, watch, options):
    """Run the iteration until the watch ends it."""
    # Small products gain less from threads than they wait for them where others are busy.
    small = programme.mask.size * programme.X.shape[1] <= _SMALL
    with threads.serial_blas() if small else contextlib.nullcontext():
        _iterate(programme, watch, options)


def _iterate(programme, watch, options):
    own, xp, be = options.own, programme.xp, programme.be
    everything = Cones(be, programme.X, programme.mask, programme.eps, (len(programme.Y), 2))
    # The blocks of empty cones are zero.
    alive = xp.nonzero(watch.alive)[0]
    part = replace(programme, mask=programme.mask[alive])
    rho, theta, tau = penalties(programme, own)
    start = None if options.x0 is None else options.x0[:, :, alive]
    state = State(part, theta, tau, start)
    accel = Anderson(be, (1.0, theta, tau)) if own.accel else None
    U, before = xp.zeros(everything.shape, dtype=programme.X.dtype), 0
    for turn in watch.run:
        nit = turn + 1
        state.near(rho)
        if nit in _EARLY or nit % options.check_every == 0 or nit == watch.run.maxiter:
            U[:, :, alive] = state.V
            point = state.dual(rho)
            watch.judge(U, point, everything.multipliers(point, programme.beta))
            watch.fields.update(rho=rho)
            if watch.record(judged=True, iterations=nit - before, rho=rho):
                return
            before = nit
        if own.adapt_rho and nit in _ADAPT and (q := state.balance()) != 1.0:
            rho *= q
            state.rescale(q)
            if accel is not None:
                accel.reset()
        jumps = accel is not None and accel.due(nit)
        if jumps:
            accel.mark(state.parts)
        residual = state.reflect(own.relax)
        if accel is not None and not accel.stands(residual):
            accel.undo(state.parts)
        elif jumps:
            accel.jump(state.parts, residual)


def penalties(programme, own):
    """Return rho, and theta and tau in its units; they scale as the optimum's units do."""
    xp, X, Y = programme.xp, programme.X, programme.Y
    square, targets = programme.be.host(xp.square(X).sum() / len(X), xp.square(Y).mean())
    rho = own.rho or _RHO * programme.beta * (square / max(targets, 1e-300)) ** 0.5
    return rho, _THETA / rho, _TAU * _THETA * square / rho


class State:
    """A point of the iteration, in the form of Douglas and Rachford.

    `parts` determine all that follows: what the proximal steps are taken from. They hold copies
    and scaled duals, ``T = V + (T - V)``, of the blocks, the predictions and the rows.

    Parameters
    ----------
    programme : Programme
    theta, tau : float
        Penalties of predictions and of rows, in units of rho.
    start : array, shape (c, 2, P, d), or None
        Blocks.
    """

    def __init__(self, programme, theta, tau, start):
        xp, X, Y = programme.xp, programme.X, programme.Y
        P, n = programme.mask.shape
        what = f"Matrices of {n} samples and {P} gates"
        check_memory(24 * (n * n + P * P), what, be=programme.be)
        self.programme, self.weights = programme, (1.0, theta, tau)
        self.mask = mask = programme.mask.astype(X.dtype)
        self.cones = Cones(programme.be, X, programme.mask, programme.eps, (len(Y), 2))
        gram = 2.0 * tau * (mask @ mask.T).astype(np.float64)
        _add_to_diagonal(xp, gram, 1.0)
        self.inverse = xp.linalg.inv(gram).astype(X.dtype)
        K = 2.0 * (X @ X.T).astype(np.float64) * (mask.T @ (self.inverse @ mask))
        _add_to_diagonal(xp, K, 1.0 / theta)
        self.middle = xp.linalg.inv(K)

        V = xp.zeros(self.cones.shape, dtype=X.dtype)
        if start is not None:
            V[...] = start
        F = mask.T @ (V[:, 0] - V[:, 1])
        self.parts = V, (X * F).sum(axis=-1), F
        self.copies = tuple(map(xp.zeros_like, self.parts))
        self.w = xp.zeros_like(Y)
        self.changes = self.residuals = None

    @property
    def V(self):  # noqa: N802 (the name in the papers)
        """The blocks, inside their cones."""
        return self.copies[0]

    def near(self, rho):
        """Take the proximal steps; all copies are new."""
        programme, xp = self.programme, self.programme.xp
        _, theta, tau = self.weights
        T, p0, q0 = self.parts
        t = programme.beta / rho
        inner, norm = self.cones.project(T, enough=t)
        kept = xp.maximum(norm - t, 0.0) / xp.maximum(norm, t)
        V, p, Q = inner * kept[..., None].astype(T.dtype), xp.empty_like(p0), xp.empty_like(q0)
        programme.be.kernels("solvers.relu", "robust").rows(
            programme.loss.robust, programme.Y, programme.eps, programme.loss.scale,
            rho * theta, rho * tau, p0, q0, p, Q, self.w,
        )  # fmt: skip
        copies = V, p, Q
        self.changes = [xp.square(a - b).sum() for a, b in zip(copies, self.copies, strict=True)]
        self.copies = copies

    def reflect(self, relax):
        """Go to the weights that agree with the reflected copies, and beyond.

        Returns the square of the residual.
        """
        programme, xp, mask = self.programme, self.programme.xp, self.mask
        tau, X = self.weights[2], programme.X
        R, a, B = (2.0 * copy - part for copy, part in zip(self.copies, self.parts, strict=True))
        apart = R[:, 0] - R[:, 1]
        W = self.inverse @ (apart + 2.0 * tau * (mask @ B))
        right = a - (X * (mask.T @ W)).sum(axis=-1)
        e = (right.astype(np.float64) @ self.middle).astype(R.dtype)
        W += self.inverse @ (mask @ (2.0 * e[..., None] * X))
        half, F = 0.5 * (apart - W), mask.T @ W
        U = xp.stack([R[:, 0] - half, R[:, 1] + half], axis=1)
        agreed = U, (X * F).sum(axis=-1), F
        gaps = [x - copy for x, copy in zip(agreed, self.copies, strict=True)]
        for part, gap in zip(self.parts, gaps, strict=True):
            part[...] += relax * gap
        self.residuals = [xp.square(gap).sum() for gap in gaps]
        return sum(w * r for w, r in zip(self.weights, self.residuals, strict=True))

    def balance(self):
        """Return the factor of rho that balances primal and dual residuals, 1 if they are near."""
        xp = self.programme.xp
        duals = [part - copy for part, copy in zip(self.parts, self.copies, strict=True)]
        sizes = ([xp.square(a).sum() for a in arrays] for arrays in (self.copies, duals))
        r, s, size, dual = map(self._weighted, (self.residuals, self.changes, *sizes))
        if not min(r, s, size, dual) > 0:
            return 1.0
        q = math.sqrt((r / size) / (s / dual))
        return 1.0 if 2 / 3 <= q <= 3 / 2 else min(max(q, 0.2), 5.0)

    def _weighted(self, squares):
        squares = self.programme.be.host(*squares)
        return math.sqrt(sum(w * s for w, s in zip(self.weights, squares, strict=True)))

    def rescale(self, q):
        """Keep the duals in the caller's unit when rho becomes ``q rho``."""
        for part, copy in zip(self.parts, self.copies, strict=True):
            part[...] = copy + (part - copy) / q
        self.cones.rescale(q)

    def dual(self, rho):
        """Return the dual point: minus the scaled duals of predictions and rows, times rho."""
        _, p0, q0 = self.parts
        _, p, Q = self.copies
        _, theta, tau = self.weights
        return RobustDual(rho * theta * (p - p0), self.w, rho * tau * (Q - q0))


def _add_to_diagonal(xp, A, x):
    A[xp.arange(len(A)), xp.arange(len(A))] += x
