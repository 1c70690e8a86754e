"""A primal-dual interior point over a set of gates, for the last digits."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from .._core.result import Status
from . import _second_order as cones
from ._driver import train
from ._slopes import longest, slopes_of

# Part of the way to the nearest boundary that a step goes.
_REACH = 0.99
# The start's gap, relative to the objective at zero.
_START = 0.5
# Judged again when the gap has fallen by this factor.
_JUDGE = 0.3
# Steps without halving after which rounding errors are taken to rule.
_PATIENCE = 20
# Ridge on the blocks of the Newton system, relative to their diagonal.
_RIDGE = 1e-15
# Multiple of the size of vanishing blocks below which blocks vanish, and steps to get there.
_SMALL, _MORE = 1e3, 4
# Most numbers in the table of products of features.
_TABLE = 1 << 25


def interior_point(
    X, y, *, beta, loss="squared", n_gates=None, gates=None, scheme="gaussian", delta=1.35,
    logit_scale=1.0, loss_scale="sum", robust_eps=None, bias=False, tol=1e-6, maxiter=200,
    x0=None, callback=None, time_limit=None, progress=False, history=True, n_threads=None,
    rng=None,
):  # fmt: skip
    r"""Train a network over a set of gates by a primal-dual interior point.

    The programme is that of `admm`. Every Newton step solves one system of n equations per
    output, whose cost is linear in the number of gates; 25 to 40 steps reach a certified gap of
    1e-6 to 1e-9, where a first-order method would need thousands of cheap ones.

    Parameters
    ----------
    X : array, shape (n, d)
        Data, one sample a row.
    y : array, shape (n,) or (n, c)
        Targets; -1 and 1 for losses of margins. Several columns train separate outputs over the
        same gates.
    beta : float
        Weight of the penalty.
    loss : {"squared", "logistic", "hinge", "squared_hinge", "huber"}, default "squared"
        Loss, summed over samples.
    n_gates : int, optional
        Number of gates to draw. Default: chosen by the size of the data.
    gates : Gates or bool array of shape (n, P), optional
        The gates, instead of drawing them.
    scheme : {"gaussian", "sphere", "data", "sparse", "local"}, default "gaussian"
        Law of the gates that are drawn.
    delta : float, default 1.35
        Where the Huber loss becomes straight, in the unit of `y`.
    logit_scale : float, default 1.0
        Factor of the predictions in the logistic loss.
    loss_scale : {"sum", "mean"}, default "sum"
        Sum the loss over samples, or average it.
    robust_eps : None
        Robust training needs `admm`.
    bias : bool, default False
        Append a column of ones to X.
    tol : float, default 1e-6
        Tolerance of the certificate, the relative duality gap.
    maxiter : int, default 200
        Largest number of Newton steps.
    x0 : ReLUResult or (V, W), optional
        Start: weights over the same gates. Unless they are nearly optimal they save little.
    callback : callable, optional
        Called as ``callback(intermediate_result)`` after every step; a true return value or
        StopIteration ends the run.
    time_limit : float, optional
        Seconds after which the best weights so far are returned.
    progress : bool, default False
        Show progress.
    history : bool or int, default True
        Keep a row for every step, or for every so many.
    n_threads : int, optional
        Number of threads.
    rng : int or numpy.random.Generator, optional
        Source of the gates.

    Returns
    -------
    ReLUResult
        Weights V and W strictly inside their cones, the network, and bounds from both sides.

    Raises
    ------
    NotImplementedError
        If `robust_eps` is given.

    References
    ----------
    .. [1] M. Pilanci, T. Ergen. Neural networks are convex regularizers. ICML 2020.
           arXiv:2002.10553.
    .. [2] S. Mehrotra. On the implementation of a primal-dual interior point method. SIAM J.
           Optim. 2 (1992).
    .. [3] Y. Nesterov, M. Todd. Self-scaled barriers and interior-point methods for convex
           programming. Math. Oper. Res. 22 (1997).

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import relu
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((40, 3))
    >>> res = relu.interior_point(X, abs(X[:, 0]), beta=0.1, n_gates=20, tol=1e-8, rng=0)
    >>> res.success
    True
    """
    if robust_eps is not None:
        raise NotImplementedError("`robust_eps` is not offered here; use `admm`")
    return train(
        "interior_point", X, y, approach, beta=beta, loss=loss, n_gates=n_gates, gates=gates,
        scheme=scheme, delta=delta, logit_scale=logit_scale, loss_scale=loss_scale, bias=bias,
        tol=tol, maxiter=maxiter, x0=x0, callback=callback, time_limit=time_limit,
        progress=progress, history=history, n_threads=n_threads, rng=rng,
    )  # fmt: skip


def approach(programme, watch, options):
    """Make Newton steps until the watch ends the run."""
    programme = in_double(programme)
    if watch.gap <= options.tol:
        return watch.run.end(Status.CONVERGED)
    if follow(programme, Point.at(programme, options.x0), watch, options.tol):
        watch.run.end(Status.STALLED, "Rounding errors keep the Newton steps from going further.")
    return None


def follow(programme, point, watch, tol, enough=0.0):
    """Follow the central path until the watch ends the run, or the gap of the point is enough.

    Returns whether rounding errors have put an end to it before.
    """
    products, run = Products(programme.xp, programme.X), watch.run
    judged, progress = math.inf, Progress()
    for _ in run:
        try:
            forward(Newton(programme, point, products), point)
            gap, mu = point.gap(programme), point.mu
        except np.linalg.LinAlgError:
            gap = mu = math.nan
        if math.isnan(gap + mu):
            return True
        stuck = progress.ends(gap, mu)
        look = gap <= max(tol, _JUDGE * judged) or stuck or run.nit + 1 == run.maxiter
        V = point.settled(programme, tol) if gap <= tol else None
        if look:
            watch.judge(point.V if V is None else V, *point.dual(programme))
            judged = gap
        more = thin(programme, point, watch, products, tol) if gap <= tol and V is None else 0
        if watch.record(judged=look, iterations=1 + more, mu=mu) or gap <= enough:
            return False
        if stuck:
            return True
    return False


def thin(programme, point, watch, products, tol):
    """Go on until the blocks that tend to zero can be dropped; return the number of steps."""
    most = min(_MORE, watch.run.maxiter - watch.run.nit - 1)
    for more in range(most):
        try:
            forward(Newton(programme, point, products), point)
        except np.linalg.LinAlgError:
            return more
        if (V := point.settled(programme, tol)) is not None:
            watch.judge(V, *point.dual(programme))
            return more + 1
    return most


class Progress:
    """Tells when neither gap nor mu has halved for too long."""

    def __init__(self):
        self.gap = self.mu = math.inf
        self.age = 0

    def ends(self, gap, mu):
        """Take note of a step; tell whether the run must end."""
        self.age += 1
        if gap < 0.5 * self.gap:
            self.gap, self.age = gap, 0
        if mu < 0.5 * self.mu:
            self.mu, self.age = mu, 0
        return self.age == _PATIENCE


def in_double(programme):
    """Return the programme in float64, which the last digits need."""
    if programme.X.dtype == np.float64:
        return programme
    X, Y = programme.X.astype(np.float64), programme.Y.astype(np.float64)
    old = programme.loss
    loss = type(old)(Y, programme.xp, delta=old.delta, logit_scale=old.scale)
    return replace(programme, X=X, Y=Y, loss=loss)


@dataclass
class Step:
    """Moves of all parts of a `Point`."""

    V: Any
    tau: Any
    G: Any
    S: Any
    alpha: Any
    slopes: Any


@dataclass
class Point:
    """Weights and multipliers, all strictly inside their cones.

    Attributes
    ----------
    V : array, shape (c, 2, P, d)
        Weights; |V| < tau.
    tau : array, shape (c, 2, P)
        Bounds of their norms.
    G : array, shape (c, 2, P, d)
        Multipliers of those bounds; |G| < beta.
    S, alpha : array, shape (c, 2, P, n)
        What the cones' rows should be, positive, and their multipliers.
    slopes : Slopes or Logits
        Slopes of the loss at the predictions p.
    p : array, shape (c, n)
    signs : array, shape (P, n)
    """

    xp: Any
    beta: Any
    V: Any
    tau: Any
    G: Any
    S: Any
    alpha: Any
    slopes: Any
    p: Any
    signs: Any

    @classmethod
    def at(cls, programme, start=None):
        """Return a well-centred point; predictions and slopes of the start, if there is one."""
        xp, X, beta = programme.xp, programme.X, programme.beta
        c, P, (n, d) = len(programme.Y), len(programme.mask), X.shape
        V = xp.zeros((c, 2, P, d)) if start is None else start.astype(X.dtype)
        p = programme.predictions(V)
        tau = _START * programme.loss.value(xp.zeros_like(p)) / (2 * c * P * beta)
        mu = tau * beta
        rows = xp.sqrt(xp.square(X).sum(axis=1))
        rows = xp.where(rows > 0, rows, 1.0) * xp.ones((c, 2, P, n))
        return cls(
            xp=xp,
            beta=xp.full((c, 2, P), beta),
            V=V,
            tau=tau + xp.sqrt(cones.dot(V, V)),
            G=xp.zeros_like(V),
            S=tau * rows,
            alpha=beta / rows,
            slopes=slopes_of(programme.loss, -programme.loss.slope(p), mu),
            p=p,
            signs=2.0 * programme.mask - 1.0,
        )

    @property
    def mu(self):
        """The mean of the products that vanish at the optimum."""
        norms = self.tau * self.beta + cones.dot(self.V, self.G)
        parts = [norms, self.S * self.alpha, *self.slopes.products()]
        return float(sum(part.sum() for part in parts)) / sum(part.size for part in parts)

    def pull(self, programme, z=None):
        """Return what the loss and the cones pull at the weights: -G at the optimum."""
        F = programme.transpose(self.slopes.z if z is None else z)
        return self.xp.stack([F, -F], axis=1) + (self.alpha * self.signs) @ programme.X

    def dual(self, programme, z=None):
        """Return a dual point (z, alpha) that no gate exceeds; z is that of the slopes."""
        z = self.slopes.z if z is None else z
        norm = self.xp.sqrt(self.xp.square(self.pull(programme, z)).sum(axis=-1)).max()
        # A hair below, lest the judge looks for better multipliers on account of rounding.
        k = min(1.0, (1.0 - 1e-14 * self.p.shape[-1]) * float(self.beta.max() / norm))
        return k * z, k * self.alpha

    def settled(self, programme, tol):
        """Return the weights without those that vanish, None if they would lose their proof."""
        norms = self.xp.sqrt(cones.dot(self.V, self.V))
        # What vanishes is of the size mu / beta.
        V = self.xp.where((norms <= _SMALL * self.mu / self.beta)[..., None], 0.0, self.V)
        smooth = math.isfinite(programme.loss.curvature_bound)
        z = -programme.loss.slope(programme.predictions(V)) if smooth else None
        return V if self.gap(programme, V, z) <= tol else None

    def gap(self, programme, V=None, z=None):
        """Return the relative gap of the point or of V and z, infinite outside the cones."""
        V = self.V if V is None else V
        rows = (V @ programme.X.T) * self.signs
        if float(rows.min()) < -1e-9 * (1.0 + float(abs(V).max())):
            return math.inf
        upper = programme.objective(V)
        lower = programme.loss.dual(programme.loss.clip(self.dual(programme, z)[0]))
        return (upper - lower) / max(abs(upper), 1e-300)

    def longest(self, step):
        """Return how far a step can go, at most 1."""
        xp = self.xp
        return min(
            longest(xp, self.S, step.S),
            longest(xp, self.alpha, step.alpha),
            cones.longest(xp, (self.tau, self.V), (step.tau, step.V)),
            cones.longest(xp, (self.beta, self.G), (0.0 * self.beta, step.G)),
            self.slopes.longest(step.slopes),
        )

    def move(self, t, step, programme):
        """Go t times along a step."""
        self.V, self.tau = self.V + t * step.V, self.tau + t * step.tau
        self.G = self.G + t * step.G
        self.S, self.alpha = self.S + t * step.S, self.alpha + t * step.alpha
        self.slopes.move(t, step.slopes)
        self.p = programme.predictions(self.V)


@dataclass
class Goals:
    """What is to be added to the products that vanish at the optimum."""

    norms: tuple
    rows: Any
    slacks: list


def forward(newton, point):
    """Make one step of Mehrotra's: predict, centre by what the prediction achieves, correct."""
    xp, scaling, programme = point.xp, newton.scaling, newton.programme
    mu = point.mu
    head, tail = cones.product(scaling.scaled, scaling.scaled)
    rows, slacks = point.S * point.alpha, point.slopes.products()
    ahead = newton.step(Goals((-head, -tail), -rows, [-q for q in slacks]))

    centre = mu * (1.0 - point.longest(ahead)) ** 3
    more = cones.product(
        scaling.over((ahead.tau, ahead.V)), scaling.times((xp.zeros_like(head), ahead.G))
    )
    second = point.slopes.second_order(ahead.slopes)
    step = newton.step(
        Goals(
            (centre - head - more[0], -tail - more[1]),
            centre - rows - ahead.S * ahead.alpha,
            [centre - q - more for q, more in zip(slacks, second, strict=True)],
        )
    )
    point.move(min(1.0, _REACH * point.longest(step)), step, programme)


class Products:
    """Products of pairs of features, from which ``X^T diag(w) X`` is one row of a GEMM."""

    def __init__(self, xp, X):
        self.xp, self.X = xp, X
        n, d = X.shape
        first, second = np.triu_indices(d)
        where = np.zeros((d, d), dtype=np.int64)
        where[first, second] = where[second, first] = np.arange(len(first))
        small = n * len(first) <= _TABLE
        self.table = X[:, first] * X[:, second] if small else None
        self.where = xp.asarray(where)

    def gram(self, weights):
        """Return ``X^T diag(w) X`` for every row w of the weights."""
        if self.table is not None:
            return (weights @ self.table)[..., self.where]
        X, d = self.X, self.X.shape[1]
        out = self.xp.empty((*weights.shape[:-1], d, d))
        flat, into = weights.reshape(-1, len(X)), out.reshape(-1, d, d)
        size = max(1, _TABLE // X.size)
        for at in range(0, len(flat), size):
            part = flat[at : at + size]
            into[at : at + size] = (part[:, None, :] * X.T) @ X
        return out


def _factor(be, K):
    """Return the Cholesky factor of K, with a ridge where rounding asks for one."""
    try:
        return be.cholesky(K)
    except np.linalg.LinAlgError:
        samples = be.xp.arange(len(K))
        K[samples, samples] *= 1.0 + len(K) * _RIDGE
        return be.cholesky(K)


class Newton:
    """The Newton system at a point, factorised.

    With the norms and the rows of the cones eliminated, block j has the matrix H_j, and

        H dV + F^T dz' = right,    w F dV = dz'

    is solved through ``I + sqrt(w) F H^-1 F^T sqrt(w)``, n x n for every output.
    """

    def __init__(self, programme, point, products):
        xp, X, mask = programme.xp, programme.X, programme.mask
        self.programme, self.point, self.xp = programme, point, xp
        self.scaling = cones.Scaling.of(xp, (point.tau, point.V), (point.beta, point.G))
        self.ratio = point.alpha / point.S
        self.H = products.gram(self.ratio) + self._norms()
        diagonal = xp.arange(X.shape[1])
        self.H[..., diagonal, diagonal] *= 1.0 + _RIDGE
        # H^-1 = half^T half
        self.half = xp.linalg.inv(programme.be.cholesky(self.H))
        both = (self.half.swapaxes(-1, -2) @ self.half).sum(axis=1)
        self.root = xp.sqrt(point.slopes.weights())
        lower = programme.be.cholesky(both)
        self.factors = []
        for L, root in zip(lower, self.root, strict=True):
            Z = (L.swapaxes(-1, -2) @ X.T) * (mask * root)[:, None, :]
            Z = Z.reshape(-1, len(X))
            K = Z.T @ Z
            K[xp.arange(len(K)), xp.arange(len(K))] += 1.0
            self.factors.append(_factor(programme.be, K))
        # What keeps the point from being feasible.
        self.rows = (point.V @ X.T) * point.signs - point.S
        self.duals = -point.pull(programme) - point.G

    def _norms(self):
        """Return the part of H that comes from the norms, with tau eliminated."""
        scaling, eye = self.scaling, self.xp.eye(self.point.V.shape[-1])
        tail = scaling.tail
        bent = (2.0 / (2.0 * scaling.head**2 - 1.0))[..., None] * tail
        outer = bent[..., :, None] * tail[..., None, :]
        return (eye - outer) / (scaling.size**2)[..., None, None]

    def step(self, goals):
        """Return the step to where the products have changed by the goals."""
        point, programme, scaling = self.point, self.programme, self.scaling
        X, signs, square = programme.X, point.signs, scaling.size**2
        head, tail = scaling.divide(goals.norms)
        # The row of tau: top dtau + side.dV = head, and dG = tail - side dtau - ... dV.
        top = (2.0 * scaling.head**2 - 1.0) / square
        side = (-2.0 * scaling.head / square)[..., None] * scaling.tail
        tail = tail - side * (head / top)[..., None]

        w = self.root**2
        fixed = w * point.slopes.drift(point.p, goals.slacks)
        push = (goals.rows - point.alpha * self.rows) / point.S
        right = tail + self._adjoint(fixed) + (signs * push) @ X - self.duals
        dV, x = self._solve(right)

        dS = (dV @ X.T) * signs + self.rows
        along = (2.0 / (2.0 * scaling.head**2 - 1.0)) * cones.dot(scaling.tail, dV)
        return Step(
            V=dV,
            tau=(head - cones.dot(side, dV)) / top,
            # Not from the dual equation: rounding there would push G out of its ball.
            G=tail - (dV - along[..., None] * scaling.tail) / square[..., None],
            S=dS,
            alpha=(goals.rows - point.alpha * dS) / point.S,
            slopes=point.slopes.step(fixed - self.root * x, goals.slacks),
        )

    def _adjoint(self, z):
        """Return ``F^T z``."""
        F = self.programme.transpose(z)
        return self.xp.stack([F, -F], axis=1)

    def _solve(self, right):
        """Solve ``H V + F^T sqrt(w) x = right``, ``sqrt(w) F V = x``, refined once."""
        V, x = self._solve_once(right, 0.0)
        left = right - (self.H @ V[..., None])[..., 0] - self._adjoint(self.root * x)
        dV, dx = self._solve_once(left, self.root * self.programme.predictions(V) - x)
        return V + dV, x + dx

    def _solve_once(self, right, short):
        V = self._blocks(right)
        f = self.root * self.programme.predictions(V) + short
        solve = partial(self.programme.be.linalg.solve_triangular, lower=True, check_finite=False)
        x = self.xp.stack(
            [solve(L, solve(L, b), trans=1) for L, b in zip(self.factors, f, strict=True)]
        )
        return V - self._blocks(self._adjoint(self.root * x)), x

    def _blocks(self, right):
        """Return ``H^-1 right``."""
        return (self.half.swapaxes(-1, -2) @ (self.half @ right[..., None]))[..., 0]
