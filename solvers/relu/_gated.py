"""Gated networks: the convex programme without its cones."""

import numpy as np

from .._core import threads
from .._core.arrays import to_numpy
from .._core.validation import check_choice, check_count
from ._certificate_bounds import rounding, scaled_dual
from ._cone_parts import parts
from ._coneless import finish, pose, start
from ._designs import GatedData
from ._driver import choose_gates
from ._gates import SCHEMES
from ._groups import NORMS, PerOutput
from ._result import ReLUResult
from ._semismooth import minimise

GAP = "relative duality gap of the gated programme"


def gated(
    X, y, *, beta, loss="squared", n_gates=None, gates=None, scheme="gaussian",
    multi_output="separate", norm="frobenius", decomposition="minimal", delta=1.35,
    logit_scale=1.0, loss_scale="sum", bias=False, tol=1e-6, maxiter=10000, x0=None,
    callback=None, time_limit=None, progress=False, history=True, n_threads=None, rng=None,
):  # fmt: skip
    r"""Train a gated network to a certified optimum, and a ReLU network from it.

    Without the cones of `admm` one vector for each gate is left:

    .. math:: \min_u \; L\left(\sum_i D_i X u_i, \, y\right) + \beta \sum_i \|u_i\|

    It is a relaxation, equal as :math:`\beta \to 0`, and far easier: proximal steps, each solved
    by Newton's method on the dual, need some tens of linear systems. Each weight is then written
    as a difference :math:`u_i = v_i - w_i` of two in the gate's cone, which makes it a ReLU
    network with the same predictions and a larger penalty.

    Parameters
    ----------
    X : array, shape (n, d)
        Data, one sample in each row.
    y : array, shape (n,) or (n, c)
        Targets; -1 and 1 for "logistic", "hinge" and "squared_hinge".
    beta : float
        Weight of the penalty.
    loss : {"squared", "logistic", "hinge", "squared_hinge", "huber", "softmax"}
        Loss of a prediction, summed over samples. "softmax" is the cross entropy of c classes, of
        which `y` holds the probabilities.
    n_gates : int, optional
        How many gates to draw; by default a number that grows with the square root of n.
    gates : Gates or bool array of shape (n, P), optional
        The gates, in place of drawn ones.
    scheme : str, default "gaussian"
        How gates are drawn, see `sample_gates`.
    multi_output : {"separate", "joint"}
        For targets with c columns: one network for each, or one whose gates choose their outputs
        together, by the `norm` of a matrix of shape (d, c) for each gate. The ReLU programme has
        no such convex form; the gated one is its relaxation.
    norm : {"frobenius", "nuclear"}
        Norm of these matrices; the sum of singular values favours gates with few directions.
    decomposition : {"minimal", "shift"}
        How weights become differences: with the smallest sum of norms, or moved along a vector
        inside the cone until they are in it, which is quicker and costs a larger penalty.
    delta : float, default 1.35
        Where "huber" turns linear.
    logit_scale : float, default 1.0
        What "logistic" multiplies predictions by.
    loss_scale : {"sum", "mean"}
        Whether the loss is a sum or a mean over samples.
    bias : bool, default False
        Append a column of ones to X; its weights are penalised like the others.
    tol : float, default 1e-6
        Stop when the relative duality gap of the gated programme is at most this.
    maxiter : int, default 10000
        Largest number of Newton steps.
    x0 : array of shape (d, P) or (c, d, P), or ReLUResult, optional
        Start: weights of these gates, or an earlier result.
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
        For drawing gates.

    Returns
    -------
    ReLUResult
        With `U`, shape (d, P) or (c, d, P), the weights of the gated network; `fun_convex`, its
        objective; `dual`, a lower bound of it, hence of the ReLU programme over the same gates
        where outputs are separate; `V` and `W`, the parts of U inside the cones; `fun_relu`, the
        objective of the ReLU programme at them; `net`, the ReLU network, and `fun`, its
        objective.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or has an illegal value; the message names it.

    References
    ----------
    .. [1] A. Mishkin, A. Sahiner, M. Pilanci. Fast convex optimization for two-layer ReLU
       networks: equivalent model classes and cone decompositions. ICML 2022. arXiv:2202.01331.
    .. [2] Y. Zhang, N. Zhang, D. Sun, K.-C. Toh. An efficient Hessian based algorithm for solving
       large-scale sparse group Lasso problems. Mathematical Programming 179, 2020.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import relu
    >>> x = np.linspace(-1.0, 1.0, 20)
    >>> res = relu.gated(np.c_[x, np.ones(20)], abs(x), beta=0.1, n_gates=10, rng=0)
    >>> res.success
    True
    >>> bool(res.dual <= res.fun_convex <= res.fun_relu)
    True
    """
    n_gates = check_count(n_gates, "n_gates", minimum=1, allow_none=True)
    check_choice(scheme, "scheme", SCHEMES)
    joint = check_choice(multi_output, "multi_output", ("separate", "joint")) == "joint"
    check_choice(norm, "norm", tuple(NORMS))
    check_choice(decomposition, "decomposition", ("minimal", "shift"))
    call = pose(
        "gated", X, y, beta=beta, loss=loss, delta=delta, logit_scale=logit_scale,
        loss_scale=loss_scale, bias=bias, tol=tol, maxiter=maxiter, callback=callback,
        time_limit=time_limit, progress=progress, history=history, n_threads=n_threads, rng=rng,
        gates=gates,
    )  # fmt: skip
    norms = NORMS[norm] if joint else PerOutput
    with call.io.device, threads.limit(call.n_threads), np.errstate(all="ignore"):
        if gates is None and n_gates is None and isinstance(x0, ReLUResult):
            gates = x0.gates
        programme = call.programme()
        gates, _ = choose_gates(call.io, programme, gates, n_gates, scheme, call.rng, call.run)
        mask = call.xp.asarray(gates.mask).astype(call.X.dtype)
        task = call.task(GatedData(call.io.be, call.X, mask), norms(call.xp))
        P, d = task.design.shape
        U, z = start(x0, call, (d, P), "U")
        U = None if U is None else call.xp.ascontiguousarray(U.swapaxes(1, 2))
        best = minimise(task, call.run, call.tol, U, z)
        return _finished(call, call.data(gates), best, norms(np), decomposition)


def _finished(call, data, best, norm, decomposition):
    U, z = call.rounded(best.U), data.loss.clip(call.rounded(best.z))
    alone = np.stack([U, np.zeros_like(U)], axis=1)
    upper = data.loss.value(data.predictions(alone)) + call.beta * norm.total(U)
    noise = rounding(data) * float(data.lengths(z).sum(axis=0).max())
    lower = scaled_dual(data, z, norm.dual(data.transpose(z)[:, 0]) + noise)
    blocks, lost = _differences(data, U, decomposition)
    blocks = call.rounded(blocks)
    weights = U.swapaxes(-1, -2)
    return finish(
        call, GAP, data, blocks, z, upper, lower,
        merge=True,
        note=f"The ReLU network leaves out {lost} gates whose cones are too thin." * bool(lost),
        details={"fun_relu": data.objective(blocks)},
        U=call.out(weights if call.vector else weights[0]),
    )  # fmt: skip


def _differences(data, U, how):
    """Return blocks (c, 2, P, d) inside the cones whose differences are U; how many are lost."""
    blocks, lost = np.zeros((U.shape[0], 2, *U.shape[1:])), 0
    vectors = data.gates.vectors
    for o, i in np.argwhere(abs(U).max(axis=-1) > 0):
        signs = 2.0 * data.mask[i] - 1.0
        g = None if vectors is None else to_numpy(vectors)[:, i].astype(np.float64)
        pair = parts(signs[:, None] * data.X, U[o, i], g, how)
        if pair is None:
            lost += 1
        else:
            blocks[o, :, i] = pair
    return blocks, lost
