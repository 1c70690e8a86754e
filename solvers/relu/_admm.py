"""The alternating direction method of multipliers over a set of gates."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.result import Status
from .._core.validation import check_choice, check_flag, check_positive
from . import _robust_admm
from ._anderson import Anderson
from ._driver import train
from ._polish import pays, polish, stuck
from ._problem import times
from ._splits import check_split, make_split

# Iterations at which rho is adapted; afterwards it stays, which convergence needs.
_ADAPT = (20, 50, 100, 150, 200, 300, 400, 600, 800, 1200, 1600)
# Ratios of residuals that are near enough, and the largest change of rho at a time.
_NEAR, _CHANGE = 1.5, 5.0
# The first checks, and how often it is looked whether one promises to be the last.
_EARLY, _LOOK = (50, 100, 200, 400), 25
# Starts of rho and sigma, in units that scale with the data, and the penalty of predictions, in
# that of the loss's curvature.
_RHO, _SIGMA, _THETA = 0.3, 100.0, 1.0
# The most by which predictions may be bound more tightly than cones.
_TIGHT = 2.0


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
    polish: bool


def admm(
    X, y, *, beta, loss="squared", n_gates=None, gates=None, scheme="gaussian", rho="auto",
    sigma="auto", relax=1.6, adapt_rho=True, split="auto", usolver="auto", accel="anderson",
    delta=1.35, logit_scale=1.0, loss_scale="sum", robust_eps=None, bias=False,
    multi_output="separate", refine=0, polish=True, tol=1e-4, maxiter=5000, check_every=200,
    x0=None, keep_best=True, callback=None, time_limit=None, progress=False, history=True,
    n_threads=None, rng=None,
):  # fmt: skip
    r"""Train a two-layer ReLU network over a set of gates to a certified optimum.

    .. math:: \min_{v, w} \; L\left(\sum_i D_i X (v_i - w_i), \, y\right)
              + \beta \sum_i \left(\|v_i\| + \|w_i\|\right)
              \quad \text{with} \quad (2 D_i - 1) X v_i \ge 0, \; (2 D_i - 1) X w_i \ge 0

    by the alternating direction method of multipliers. With all gates of the data this is the
    training problem of the network itself; with a sample of them, its optimum is an upper bound.
    An iteration costs a few products with X for each gate and one linear system with an unknown
    for each sample, whose factor is computed once. Every so often blocks are moved into their
    cones and multipliers scaled into the dual's domain: what is returned is proven.

    Parameters
    ----------
    X : array, shape (n, d)
        Data, one sample in each row; columns of similar size make the fewest iterations.
    y : array, shape (n,) or (n, c)
        Targets; -1 and 1 for "logistic", "hinge" and "squared_hinge".
    beta : float
        Weight of the penalty.
    loss : {"squared", "logistic", "hinge", "squared_hinge", "huber"}
        Loss of a prediction, summed over samples.
    n_gates : int, optional
        How many gates to draw; by default a number that grows with the square root of n.
    gates : Gates or bool array of shape (n, P), optional
        The gates, in place of drawn ones.
    scheme : str, default "gaussian"
        How gates are drawn, see `sample_gates`.
    rho : float or "auto"
        Penalty of the constraints, at the start.
    sigma : float or "auto"
        Weight of the cones' constraints in it, those of samples of the usual length. Like `split`
        and `usolver`, it must be "auto" with `robust_eps`: cones are then met exactly.
    relax : float, default 1.6
        Over-relaxation, between 0 and 2; 1 is the plain method.
    adapt_rho : bool, default True
        Balance primal and dual residuals by `rho` in the first 1600 iterations.
    split : {"auto", "p", "Q", "paper"}
        What copies the loss sees: predictions, rows of weights for each sample, or none; the last
        leaves constraints unscaled, as in [1]_.
    usolver : {"auto", "woodbury", "cg", "sylvester", "dense", "rbcd"}
        How the linear step is solved: by a Cholesky factor or conjugate gradients in one unknown
        for each sample ("p"), by eigenvectors ("Q"), or as in the paper ("dense", "rbcd").
    accel : {"anderson", None}
        Whether the iteration jumps ahead by Anderson's method.
    delta : float, default 1.35
        Where "huber" turns linear.
    logit_scale : float, default 1.0
        What "logistic" multiplies predictions by.
    loss_scale : {"sum", "mean"}
        Whether the loss is a sum or a mean over samples.
    robust_eps : float or array of shape (d,), optional
        Radius, for each feature, within which an adversary may move every sample.
    bias : bool, default False
        Append a column of ones to X; its weights are penalised like the others.
    multi_output : {"separate"}
        For targets with c columns: one programme for each, over the same gates. See `gated` for
        a joint one.
    refine : int or "auto", default 0
        Rounds in which gates that lower the optimum take the place of those that do not; "auto"
        starts from the gates of a short descent.
    polish : bool, default True
        Let an interior point finish what the iteration would not; not with `robust_eps`.
    tol : float, default 1e-4
        Stop when the relative duality gap is at most this.
    maxiter : int, default 5000
        Largest number of iterations.
    check_every : int, default 200
        Iterations between two computations of the gap at most; residuals may ask for more.
    x0 : ReLUResult or tuple (V, W), optional
        Start: an earlier result, or weights of these gates.
    keep_best : bool, default True
        Return the network with the lowest objective that was met, be its weights in their cones
        or not, in place of the one that V and W stand for.
    callback : callable, optional
        ``callback(intermediate_result)`` after every computation of the gap; a true return value
        or StopIteration ends the run.
    time_limit : float, optional
        Seconds.
    progress : bool, default False
        Show a progress bar.
    history : bool or int, default True
        Keep the history of every computation of the gap.
    n_threads : int, optional
        Threads of kernels and BLAS.
    rng : int or numpy.random.Generator, optional
        For drawing gates.

    Returns
    -------
    ReLUResult
        With `V`, `W`, shape (d, P) or (c, d, P), inside their cones; `fun_convex`, their
        objective; `dual`, a lower bound of it; `net`, the network, and `fun`, its objective;
        `dual_global`, a lower bound of what any network can reach.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or has an illegal value; the message names it.

    Notes
    -----
    A gap of 1e-3 takes some 500 to 1000 iterations, and each further digit as many again:
    `interior_point` is the better choice for small gaps where n is at most a few thousand.

    References
    ----------
    .. [1] Y. Bai, T. Gautam, S. Sojoudi. Efficient global optimization of two-layer ReLU
       networks: quadratic-time algorithms and adversarial training. SIAM J. Math. Data Sci. 5,
       2023. arXiv:2201.01965.
    .. [2] M. Pilanci, T. Ergen. Neural networks are convex regularizers. ICML 2020.
       arXiv:2002.10553.
    .. [3] J. Zhang, B. O'Donoghue, S. Boyd. Globally convergent type-I Anderson acceleration for
       nonsmooth fixed-point iterations. SIAM J. Optim. 30, 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import relu
    >>> x = np.linspace(-1.0, 1.0, 20)
    >>> res = relu.admm(np.c_[x, np.ones(20)], abs(x), beta=0.1, n_gates=10, tol=1e-3, rng=0)
    >>> res.success
    True
    >>> bool(res.dual <= res.fun_convex <= res.dual * 1.01)
    True
    """
    if multi_output != "separate":
        raise ValueError(
            f"`multi_output` came as {multi_output!r}; expected 'separate': the programme has no "
            "convex joint form, but its relaxation has: use relu.gated"
        )
    if not (robust_eps is None or (np.isscalar(robust_eps) and robust_eps == 0)):
        for name, value in (("sigma", sigma), ("split", split), ("usolver", usolver)):
            if value != "auto":
                raise ValueError(
                    f"`{name}` came as {value!r}; expected 'auto' with `robust_eps`, for which "
                    "there is one split"
                )
    split, usolver = check_split(split, usolver, loss)
    own = Steps(
        rho=_positive_or_auto(rho, "rho"),
        sigma=_positive_or_auto(sigma, "sigma"),
        relax=_relaxation(relax),
        adapt_rho=check_flag(adapt_rho, "adapt_rho"),
        split=split,
        usolver=usolver,
        accel=check_choice(accel, "accel", ("anderson", None)),
        polish=check_flag(polish, "polish"),
    )
    return train(
        "admm", X, y, iterate, beta=beta, loss=loss, n_gates=n_gates, gates=gates, scheme=scheme,
        delta=delta, logit_scale=logit_scale, loss_scale=loss_scale, robust_eps=robust_eps,
        bias=bias, refine=refine, tol=tol, maxiter=maxiter, check_every=check_every, x0=x0,
        keep_best=keep_best, callback=callback, time_limit=time_limit, progress=progress,
        history=history, n_threads=n_threads, rng=rng, own=own,
    )  # fmt: skip


def _positive_or_auto(value, name):
    return None if isinstance(value, str) and value == "auto" else check_positive(value, name)


def _relaxation(relax):
    relax = check_positive(relax, "relax")
    if relax >= 2.0:
        raise ValueError(f"`relax` came as {relax}; expected a number between 0 and 2")
    return relax


def iterate(programme, watch, options):
    """Run the iteration until the watch ends it."""
    if programme.eps is not None:
        return _robust_admm.iterate(programme, watch, options)
    if watch.gap <= options.tol:
        return watch.run.end(Status.CONVERGED)
    own, host = options.own, programme.be.host
    rho, sigma = penalties(programme, own)
    if own.split != "paper":
        programme.equalise()
    theta = tightness(programme, rho, sigma)
    split = make_split(programme, own.split, own.usolver, sigma, theta, options.rng)
    state = State.at(programme, options.x0, split, rho)
    accel = Anderson(programme.be, (1.0, sigma, split.theta)) if own.accel else None
    before, size, gaps, polishes = 0, None, [], own.polish
    for turn in watch.run:
        nit = turn + 1
        jumps = accel is not None and accel.due(nit)
        if jumps:
            accel.mark(state.parts(split))
        residuals = step(programme, split, state, rho, sigma, own.relax)
        if accel is not None and not accel.stands(residuals[2]):
            accel.undo(state.parts(split))
            state.settle(programme, split, rho)
            jumps = False
        ends = nit == watch.run.maxiter or watch.run.late
        must = ends or nit in _EARLY or nit % options.check_every == 0
        if must or nit % _LOOK == 0 or nit in _ADAPT:
            r, s = state.relative(programme.be, *host(residuals)[:2], sigma)
            hopes = size is not None and watch.gap * max(r, s) <= options.tol * size
            if must or hopes:
                point = state.V, split.dual(rho), state.alpha(programme, rho * sigma)
                if ends or watch.promises(*point):
                    watch.judge(*point)
                watch.fields.update(rho=rho, sigma=sigma)
                if watch.record(judged=True, iterations=nit - before, r=r, s=s, rho=rho):
                    return None
                before, size = nit, max(r, s)
                gaps.append((nit, watch.gap))
                if polishes and pays(programme, watch, gaps, options.tol):
                    polish(programme, watch, watch.best.U, watch.best.z, options.tol)
                    polishes = False
                if stuck(gaps):
                    watch.run.end(Status.STALLED, "Its last checks have not lowered it.")
                if watch.run.status is not None or watch.gap <= options.tol:
                    return None
            if own.adapt_rho and nit in _ADAPT and (q := balance(r, s)) != 1.0:
                rho *= q
                state.rescale(programme, split, q)
                if accel is not None:
                    accel.reset()
                continue
        if jumps:
            accel.jump(state.parts(split), residuals[2])
            state.settle(programme, split, rho)
    return None


def penalties(programme, own):
    """Return rho and sigma; those that are not given scale as the optimum's units do."""
    xp, X, Y = programme.xp, programme.X, programme.Y
    square, targets = programme.be.host(xp.square(X).sum(), xp.square(Y).mean())
    row = (square / len(X)) ** 0.5
    rho = own.rho or _RHO * programme.beta * row / targets**0.5
    return rho, own.sigma or _SIGMA * X.shape[1] / square


def tightness(programme, rho, sigma):
    """Return theta: with a small beta, the loss's curvature alone would ask for far too much."""
    xp = programme.xp
    squares = xp.square(programme.X).sum(axis=1)
    # A few long rows have a say in sigma, but none here.
    mean, usual = programme.be.host(squares.mean(), xp.median(squares))
    most = _TIGHT * sigma * mean / usual if usual > 0 else math.inf
    return min(_THETA / rho, most)


@dataclass
class State:
    """What passes from one iteration to the next, besides the split's part of it.

    With ``S = max(T_s, 0)`` and its scaled dual ``min(T_s, 0)`` one array holds both; so does
    `T_v`, whose shrunken value is V.

    Attributes
    ----------
    V, T_v : array, shape (c, 2, P, d)
    T_s : array, shape (c, 2, P, n)
    H : array, shape (c, 2, P, n)
        The gates' signs times ``|T_s|``.
    """

    V: Any
    T_v: Any
    T_s: Any
    H: Any

    @classmethod
    def at(cls, programme, start, split, rho):
        """Return the state at blocks `start`, or at zero."""
        xp, X = programme.xp, programme.X
        shape = (len(programme.Y), 2, len(programme.mask))
        V = xp.zeros((*shape, X.shape[1]), dtype=X.dtype)
        T_s = xp.zeros((*shape, len(X)), dtype=X.dtype)
        state = cls(V, V.copy(), T_s, xp.zeros_like(T_s))
        if start is not None:
            V[...] = start
            norms = xp.sqrt(xp.square(V).sum(axis=-1, keepdims=True))
            # At the optimum a block's dual is its subgradient.
            t = programme.beta / rho
            state.T_v[...] = V + V * (t / xp.where(norms > 0, norms, 1.0))
            T_s[...] = (2.0 * programme.mask - 1.0) * times(V, programme.rows.T)
            split.start(V, rho)
            state.settle(programme, split, rho)
        return state

    def parts(self, split):
        """Return the arrays whose values determine the next iteration."""
        return self.T_v, self.T_s, split.q

    def settle(self, programme, split, rho):
        """Make all else anew from `parts`."""
        xp, t = programme.xp, programme.beta / rho
        norms = xp.sqrt(xp.square(self.T_v).sum(axis=-1, keepdims=True))
        self.V[...] = self.T_v * (1.0 - t / xp.maximum(norms, t))
        self._reflect(programme)
        split.settle(split.q, rho)

    def alpha(self, programme, penalty):
        """Return the multipliers of the cones, whose rows are those of X."""
        xp, lengths = programme.xp, programme.lengths
        alpha = -penalty * xp.minimum(self.T_s, 0.0)
        return alpha / xp.where(lengths > 0, lengths, xp.inf)

    def rescale(self, programme, split, q):
        """Keep the duals in the caller's unit when rho becomes ``q rho``."""
        xp = programme.xp
        self.T_s[...] = xp.maximum(self.T_s, 0.0) + xp.minimum(self.T_s, 0.0) / q
        self.T_v[...] = self.V + (self.T_v - self.V) / q
        split.rescale(q)
        self._reflect(programme)

    def _reflect(self, programme):
        # A step of no length leaves the copies where they are.
        programme.kernels.advance(flat(self.H), flat(self.T_s), programme.mask, 0.0)

    def relative(self, be, left, changed, sigma):
        """Return primal and dual residual, from their squares, relative to the iterates."""
        xp = be.xp
        T_s, dual = self.T_s, self.T_v - self.V
        size, duals = be.host(
            xp.square(self.V).sum() + sigma * xp.square(xp.maximum(T_s, 0.0)).sum(),
            xp.square(dual).sum() + sigma * xp.square(xp.minimum(T_s, 0.0)).sum(),
        )
        return tuple((a / b) ** 0.5 if b > 0 else 0.0 for a, b in ((left, size), (changed, duals)))


def step(programme, split, state, rho, sigma, relax):
    """Make one iteration in place.

    Returns the squares of the primal and the dual residual and of the fixed-point residual
    (over `relax`), as one array.
    """
    kernels, mask = programme.kernels, programme.mask
    R = times(state.H, programme.rows)
    R *= sigma
    R += 2.0 * state.V - state.T_v
    U = split.solve(R, rho)

    G = state.H
    programme.xp.matmul(flat(U), programme.rows.T, out=flat(G))
    F = programme.masked_sum(G) * programme.lengths
    cones = kernels.advance(flat(G), flat(state.T_s), mask, relax)
    blocks = kernels.shrink(flat(U), flat(state.T_v), flat(state.V), programme.beta / rho, relax)
    return blocks + sigma * cones + split.theta * split.absorb(U, F, rho, relax)


def balance(r, s):
    """Return the factor of rho that balances primal and dual residuals, 1 if they are near."""
    if not (r > 0 and s > 0):
        return 1.0
    q = (r / s) ** 0.5
    return 1.0 if 1 / _NEAR <= q <= _NEAR else min(max(q, 1 / _CHANGE), _CHANGE)


def flat(a):
    """Return an array with one row for each output, side and gate."""
    return a.reshape(-1, a.shape[-1])
