"""The alternating direction method of multipliers over a set of gates."""

import math
from dataclasses import dataclass
from typing import Any

from .._core.result import Status
from .._core.validation import check_choice, check_flag, check_positive
from . import _robust_admm
from ._driver import train
from ._splits import check_split, make_split

# Iterations at which rho is adapted; afterwards it stays, which convergence needs.
_ADAPT = (50, 100, 150, 200, 300, 400, 600, 800, 1200, 1600)
# Checks, the first two of them early.
_EARLY = (50, 100, 200, 400)


@dataclass(frozen=True)
class Steps:
    """Options of `admm` alone, checked."""

    rho: float | None
    sigma: float | None
    relax: float
    adapt_rho: bool
    split: str
    usolver: str
    accel: str | None


def admm(
    X, y, *, beta, loss="squared", n_gates=None, gates=None, scheme="gaussian", rho="auto",
    sigma="auto", relax=1.6, adapt_rho=True, split="auto", usolver="auto", accel="anderson",
    delta=1.35, logit_scale=1.0, loss_scale="sum", robust_eps=None, bias=False,
    multi_output="separate", refine=0, polish=True, tol=1e-4, maxiter=5000, check_every=200,
    x0=None, keep_best=True, callback=None, time_limit=None, progress=False, history=True,
    n_threads=None, rng=None,
):  # fmt: skip
    """Train a network over a set of gates; ground floor, to be completed."""
    split, usolver = check_split(split, usolver, loss)
    own = Steps(
        rho=None if rho == "auto" else check_positive(rho, "rho"),
        sigma=None if sigma == "auto" else check_positive(sigma, "sigma"),
        relax=check_positive(relax, "relax"),
        adapt_rho=check_flag(adapt_rho, "adapt_rho"),
        split=split,
        usolver=usolver,
        accel=check_choice(accel, "accel", ("anderson", None)),
    )
    return train(
        "admm", X, y, iterate, beta=beta, loss=loss, n_gates=n_gates, gates=gates, scheme=scheme,
        delta=delta, logit_scale=logit_scale, loss_scale=loss_scale, robust_eps=robust_eps, bias=bias, tol=tol,
        maxiter=maxiter, check_every=check_every, x0=x0, keep_best=keep_best, callback=callback,
        time_limit=time_limit, progress=progress, history=history, n_threads=n_threads, rng=rng,
        own=own,
    )  # fmt: skip


def iterate(programme, watch, options):
    """Run the iteration until the watch ends it."""
    if programme.eps is not None:
        _robust_admm.iterate(programme, watch, options)
        return
    if watch.gap <= options.tol:
        return watch.run.end(Status.CONVERGED)
    own, X = options.own, programme.X
    d = X.shape[1]
    sigma = own.sigma or 200.0 * d / float((X * X).sum())
    rho = own.rho or 0.1 * programme.beta
    split = make_split(programme, own.split, own.usolver, sigma, options.rng)
    state = State.at(programme, options.x0)
    before = 0
    for turn in watch.run:
        nit = turn + 1
        residuals = step(programme, split, state, rho, sigma, own.relax)
        if nit in _EARLY or nit % options.check_every == 0 or nit == watch.run.maxiter:
            watch.judge(state.V, split.dual(rho), state.alpha(rho * sigma))
            if watch.record(judged=True, iterations=nit - before, rho=rho):
                return None
            before = nit
        if own.adapt_rho and nit in _ADAPT:
            q = balance(programme, split, state, residuals, sigma)
            if q != 1.0:
                rho *= q
                state.rescale(q)
                split.rescale(q)
    return None


@dataclass
class State:
    """What passes from one iteration to the next.

    With ``S = max(T_s, 0)`` and its scaled dual ``min(T_s, 0)`` one array holds both; so does
    `T_v`, whose shrunken value is V.

    Attributes
    ----------
    V, T_v : array, shape (c, 2, P, d)
    T_s : array, shape (c, 2, P, n)
    """

    xp: Any
    V: Any
    T_v: Any
    T_s: Any
    signs: Any

    @classmethod
    def at(cls, programme, start):
        xp, X, mask = programme.xp, programme.X, programme.mask
        signs = (2.0 * mask - 1.0).astype(X.dtype)
        shape = (programme.Y.shape[0], 2, len(mask), X.shape[1])
        V = xp.zeros(shape, dtype=X.dtype) if start is None else start.astype(X.dtype)
        return cls(xp, V, V.copy(), signs * (V @ X.T), signs)

    def alpha(self, penalty):
        """Return the multipliers of the cones."""
        return -penalty * self.xp.minimum(self.T_s, 0.0)

    def rescale(self, q):
        """Keep the duals in the caller's unit when rho becomes ``q rho``."""
        self.T_s = self.xp.maximum(self.T_s, 0.0) + self.xp.minimum(self.T_s, 0.0) / q
        self.T_v = self.V + (self.T_v - self.V) / q


def step(programme, split, state, rho, sigma, relax):
    """Make one iteration in place; return the squared residuals, each primal and dual."""
    xp, X = programme.xp, programme.X
    R = 2.0 * state.V - state.T_v + sigma * ((state.signs * abs(state.T_s)) @ X)
    U = split.solve(R, rho)
    XU = U @ X.T
    F = programme.masked_sum(XU[:, 0] - XU[:, 1])

    GU, S = state.signs * XU, xp.maximum(state.T_s, 0.0)
    state.T_s = relax * GU + (1.0 - relax) * S + (state.T_s - S)
    new = xp.maximum(state.T_s, 0.0)
    cones = xp.square(GU - new).sum(), xp.square(new - S).sum()

    V = state.V
    state.T_v = relax * U + (1.0 - relax) * V + (state.T_v - V)
    state.V = shrink(xp, state.T_v, programme.beta / rho)
    blocks = xp.square(U - state.V).sum(), xp.square(state.V - V).sum()
    return blocks, cones, split.absorb(U, F, rho, relax)


def shrink(xp, T, t):
    """Return every block of T moved by t towards zero."""
    norms = xp.sqrt(xp.square(T).sum(axis=-1, keepdims=True))
    return T * xp.maximum(1.0 - t / xp.maximum(norms, 1e-300), 0.0)


def balance(programme, split, state, residuals, sigma):
    """Return the factor of rho that balances primal and dual residuals, 1 if they are near."""
    host, xp = programme.be.host, programme.xp
    weights = 1.0, sigma, split.theta
    primal = math.sqrt(sum(w * host(r) for w, (r, _) in zip(weights, residuals, strict=True)))
    dual = math.sqrt(sum(w * host(s) for w, (_, s) in zip(weights, residuals, strict=True)))
    size = math.sqrt(
        host(xp.square(state.V).sum()) + sigma * host(xp.square(xp.maximum(state.T_s, 0.0)).sum())
    )
    duals = math.sqrt(
        host(xp.square(state.T_v - state.V).sum())
        + sigma * host(xp.square(xp.minimum(state.T_s, 0.0)).sum())
    )
    if not (size > 0 and duals > 0 and dual > 0 and primal > 0):
        return 1.0
    q = math.sqrt((primal / size) / (dual / duals))
    return 1.0 if 2 / 3 <= q <= 3 / 2 else min(max(q, 0.2), 5.0)
