"""Networks whose hidden layer is random: only the output layer is trained."""

import numpy as np

from .._core import threads
from .._core.validation import check_count
from ._certificate_bounds import rounding, scaled_dual
from ._coneless import finish, pose, start
from ._designs import Neurons
from ._gates import Gates, required_gates
from ._groups import PerOutput
from ._semismooth import minimise

GAP = "relative duality gap over the sampled neurons"
# Neurons that are drawn unless the caller says how many.
_NEURONS = 1000
# Numbers in a block of their outputs, for the judge.
_ROOM = 10**7


def sampled_convex(
    X, y, *, beta, loss="squared", n_neurons=None, xi=None, psi=None, delta=1.35,
    logit_scale=1.0, loss_scale="sum", bias=False, tol=1e-6, maxiter=10000, x0=None,
    callback=None, time_limit=None, progress=False, history=True, n_threads=None, rng=None,
):  # fmt: skip
    r"""Train the output layer over random neurons to a certified optimum.

    With N directions :math:`u_j` drawn uniformly from the sphere and
    :math:`H = (X u_j)_+`, solves

    .. math:: \min_\alpha \; L(H \alpha, \, y) + \beta \|\alpha\|_1,

    which is the training of a two-layer network whose neurons point in these directions: the
    penalty of both layers is, at its least, the sum of absolute values. Proximal steps, each
    solved by Newton's method on the dual, touch only the neurons that are not zero.

    Parameters
    ----------
    X : array, shape (n, d)
        Data, one sample in each row.
    y : array, shape (n,) or (n, c)
        Targets; -1 and 1 for "logistic", "hinge" and "squared_hinge". Columns share the neurons
        and are trained side by side.
    beta : float
        Weight of the penalty.
    loss : {"squared", "logistic", "hinge", "squared_hinge", "huber", "softmax"}
        Loss of a prediction, summed over samples. "softmax" is the cross entropy of c classes, of
        which `y` holds the probabilities.
    n_neurons : int, optional
        How many neurons to draw; by default ``required_gates(n, xi, psi)`` where both are given,
        else 1000.
    xi, psi : float, optional
        Between 0 and 1: draw so many neurons that with probability ``1 - psi`` a further one
        would improve the optimum with probability at most `xi`. That says nothing about how much.
    delta : float, default 1.35
        Where "huber" turns linear.
    logit_scale : float, default 1.0
        What "logistic" multiplies predictions by.
    loss_scale : {"sum", "mean"}
        Whether the loss is a sum or a mean over samples.
    bias : bool, default False
        Append a column of ones to X; its weights are penalised like the others.
    tol : float, default 1e-6
        Stop when the relative duality gap is at most this.
    maxiter : int, default 10000
        Largest number of Newton steps.
    x0 : array of shape (N,) or (c, N), or ReLUResult, optional
        Start: output weights, or an earlier result over the same neurons (same `rng`).
    callback : callable, optional
        ``callback(intermediate_result)`` after every Newton step; a true return value or
        StopIteration ends the run.
    time_limit : float, optional
        Seconds.
    progress : bool, default False
        Show a progress bar.
    history : bool or int, default True
        Keep the history of every Newton step, or of every so many.
    n_threads : int, optional
        Threads of BLAS.
    rng : int or numpy.random.Generator, optional
        For drawing neurons.

    Returns
    -------
    ReLUResult
        With `alpha`, shape (N,) or (c, N), the output weights of neurons of length 1; `gates`,
        the patterns of the neurons, their directions as `gates.vectors`; `V` and `W`, the
        directions times the positive and negative parts of `alpha`; `net`, the network.
        `fun_convex` is the objective, `dual` a lower bound over these neurons.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or has an illegal value; the message names it.
    MemoryError
        If the neurons' outputs, kept up to a size and computed in blocks beyond, do not fit.

    References
    ----------
    .. [1] Y. Bai, T. Gautam, S. Sojoudi. Efficient global optimization of two-layer ReLU
       networks: quadratic-time algorithms and adversarial training. SIAM Journal on Mathematics
       of Data Science 5(2), 2023. arXiv:2201.01965.
    .. [2] X. Li, D. Sun, K.-C. Toh. A highly efficient semismooth Newton augmented Lagrangian
       method for solving Lasso problems. SIAM Journal on Optimization 28(1), 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import relu
    >>> x = np.linspace(-1.0, 1.0, 20)
    >>> res = relu.sampled_convex(np.c_[x, np.ones(20)], abs(x), beta=0.1, n_neurons=50, rng=0)
    >>> res.success, res.n_active < 10
    (True, True)
    """
    n_neurons = check_count(n_neurons, "n_neurons", minimum=1, allow_none=True)
    call = pose(
        "sampled_convex", X, y, beta=beta, loss=loss, delta=delta, logit_scale=logit_scale,
        loss_scale=loss_scale, bias=bias, tol=tol, maxiter=maxiter, callback=callback,
        time_limit=time_limit, progress=progress, history=history, n_threads=n_threads, rng=rng,
    )  # fmt: skip
    N = _how_many(n_neurons, xi, psi, len(call.X))
    with call.io.device, threads.limit(call.n_threads), np.errstate(all="ignore"):
        directions = call.rng.standard_normal((N, call.X.shape[1]))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        directions = call.rounded(directions)
        be = call.io.be
        design = Neurons(be, call.X, call.xp.asarray(directions.astype(call.X.dtype)))
        alpha, z = start(x0, call, (N,), "alpha")
        task = call.task(design, PerOutput(call.xp))
        U = None if alpha is None else alpha[:, :, None]
        return _finished(call, directions, minimise(task, call.run, call.tol, U, z))


def _how_many(n_neurons, xi, psi, n):
    """Return the number of neurons to draw."""
    if (xi is None) != (psi is None):
        name, other = ("psi", "xi") if psi is None else ("xi", "psi")
        raise ValueError(f"`{name}` is missing; expected one together with `{other}`")
    if xi is None:
        return n_neurons or _NEURONS
    needed = required_gates(n, xi, psi)
    if n_neurons is not None:
        raise ValueError(
            f"`n_neurons` came with `xi` and `psi`, which ask for {needed}; expected one or the "
            "other"
        )
    return needed


def _finished(call, directions, best):
    X = call.io.be.host(call.X).astype(np.float64)
    data = call.data(Gates(_patterns(directions, X), directions.T.astype(call.io.dtype)))
    alpha, z = call.rounded(best.U)[:, :, 0], data.loss.clip(call.rounded(best.z))
    active = np.flatnonzero(abs(alpha).max(axis=0))
    p = alpha[:, active] @ np.maximum(directions[active] @ X.T, 0.0)
    upper = data.loss.value(p) + call.beta * float(abs(alpha).sum())
    blocks = (np.maximum(rows @ X.T, 0.0) @ z.T for rows in _some(directions, X))
    noise = rounding(data) * float(data.lengths_of(z).max())
    lower = scaled_dual(data, z, max(float(abs(F).max()) for F in blocks) + noise)
    sides = np.stack([np.maximum(alpha, 0.0), np.maximum(-alpha, 0.0)], axis=1)
    return finish(
        call, GAP, data, sides[:, :, :, None] * directions, z, upper, lower,
        merge=False,
        alpha=call.out(alpha if call.vector else alpha[0]),
    )  # fmt: skip


def _patterns(directions, X):
    """Return which samples the neurons see, shape (n, N)."""
    return np.concatenate([(rows @ X.T >= 0).T for rows in _some(directions, X)], axis=1)


def _some(directions, X):
    """Yield the neurons, as many at a time as their outputs have room."""
    width = max(1, _ROOM // len(X))
    for first in range(0, len(directions), width):
        yield directions[first : first + width]
