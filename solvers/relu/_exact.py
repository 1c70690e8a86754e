"""The global optimum for data of low rank: training over every gate there is."""

from dataclasses import replace

import numpy as np

from .._core.result import Status
from .._core.validation import check_count
from ._driver import train
from ._interior_point import approach
from ._watch import Watch

# Gates at first and new ones of a round, at least; otherwise as many as there are samples.
_LEAST = 100
# The gap over some of the gates, at first and from round to round, and at last by the tolerance.
_LOOSE, _TIGHTER, _LAST = 1e-3, 0.03, 0.25


def exact(
    X, y, *, beta, loss="squared", max_cells=200_000, delta=1.35, logit_scale=1.0,
    loss_scale="sum", bias=False, tol=1e-6, maxiter=2000, x0=None, callback=None,
    time_limit=None, progress=False, history=True, n_threads=None, rng=None,
):  # fmt: skip
    r"""Train a two-layer ReLU network to its global optimum, for data of low rank.

    The convex programme over all gates has the optimum of the training problem itself, and not
    only of what a sample of gates can express. Data of rank r have up to
    :math:`2 \sum_{k < r} \binom{n - 1}{k}` gates.

    Parameters
    ----------
    X : array, shape (n, d)
        Data, one sample a row.
    y : array, shape (n,) or (n, c)
        Targets; -1 and 1 for losses of margins. Several columns train separate outputs.
    beta : float
        Weight of the penalty.
    loss : {"squared", "logistic", "hinge", "squared_hinge", "huber"}, default "squared"
        Loss, summed over samples.
    max_cells : int, default 200_000
        Refuse data that may have more gates than that.
    delta : float, default 1.35
        Where the Huber loss becomes straight, in the unit of `y`.
    logit_scale : float, default 1.0
        Factor of the predictions in the logistic loss.
    loss_scale : {"sum", "mean"}, default "sum"
        Sum the loss over samples, or average it.
    bias : bool, default False
        Append a column of ones to X, which adds 1 to the rank.
    tol : float, default 1e-6
        Tolerance of the certificate, the relative duality gap.
    maxiter : int, default 2000
        Largest number of Newton steps.
    x0 : ReLUResult, optional
        Start: its gates are the first to be used.
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
        Source of the gates that are used first; the answer does not depend on it.

    Returns
    -------
    ReLUResult
        With ``gap_global``: no network, of any width, has an objective below ``dual_global``.

    Raises
    ------
    ValueError
        If the gates may be more than `max_cells`.

    Notes
    -----
    Few gates are used at the optimum, at most n + 1 for one output. An interior point solves the
    programme over some of them; those along which its dual point violates the constraints of the
    whole programme join them, until none does. The history tells of the gates in use at the time.

    References
    ----------
    .. [1] M. Pilanci, T. Ergen. Neural networks are convex regularizers: exact polynomial-time
           convex optimization formulations for two-layer networks. ICML 2020. arXiv:2002.10553.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import relu
    >>> x = np.linspace(-1.0, 1.0, 20)
    >>> res = relu.exact(x[:, None], abs(x), beta=0.01, bias=True)
    >>> res.success, bool(res.gap_global < 1e-6)
    (True, True)
    """
    return train(
        "exact", X, y, with_few_gates, beta=beta, loss=loss, delta=delta,
        logit_scale=logit_scale, loss_scale=loss_scale, bias=bias, tol=tol, maxiter=maxiter,
        x0=x0, callback=callback, time_limit=time_limit, progress=progress, history=history,
        n_threads=n_threads, rng=rng,
        max_cells=check_count(max_cells, "max_cells", minimum=1),
    )  # fmt: skip


def with_few_gates(programme, watch, options):
    """Solve over some gates, add those that are missing, until the watch ends the run."""
    run, P, last = watch.run, len(watch.data.gates), _LAST * options.tol
    count = max(len(programme.X), _LEAST)
    used = options.rng.permutation(P)[:count]
    # Those of a start, if there is one.
    used = np.union1d(used, np.nonzero((watch.best.U != 0).any(axis=(0, 1, 3)))[0])
    tol = max(_LOOSE, last) if len(used) < P else last
    while run.status is None:
        inner = solved(programme, watch, replace(options, tol=tol, x0=None), used)
        U = np.zeros_like(watch.best.U)
        U[:, :, used] = inner.best.U
        watch.judge(U, inner.best.z)
        if run.status is not None:
            break
        new = missing(watch.data, inner.best.z, used)[:count]
        if watch.gap <= options.tol:
            run.end(Status.CONVERGED)
        elif len(new) == 0 and tol == last:
            run.end(Status.STALLED, "No gate is missing, but rounding errors keep a gap.")
        tol = max(_TIGHTER * tol, last) if len(new) else last
        used = np.union1d(used, new)


def solved(programme, watch, options, used):
    """Return the watch of a run over some of the gates."""
    some = programme.over(watch.data.gates.select(used))
    inner = Watch(some, watch.data.over(some.gates), watch.run, options, watch.io, watch.unit)
    inner.enough = options.tol
    approach(some, inner, options)
    return inner


def missing(data, z, used):
    """Return the gates along which z is longer than beta, those first that are so most."""
    z = data.loss.clip(z)
    P, d = len(data.gates), data.X.shape[1]
    F = data.transpose(z).reshape(-1, d)
    far = np.nonzero(np.linalg.norm(F, axis=1) > data.beta)[0]
    inside, _ = data.cones.project(F[far], far % P, np.full(len(far), data.beta))
    norms = np.zeros(len(F))
    norms[far] = np.linalg.norm(inside, axis=1)
    norms = norms.reshape(-1, P).max(axis=0)
    norms[used] = 0.0
    order = np.argsort(-norms, kind="stable")
    return order[norms[order] > data.beta]
