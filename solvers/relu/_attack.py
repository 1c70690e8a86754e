"""Attacks on a network: samples moved, within what they may, to where it errs most."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.random import check_rng
from .._core.validation import check_count, check_positive
from ._losses import LOSSES
from ._net import check_net, outputs
from ._problem import check_box, check_data


@dataclass(frozen=True)
class Attack:
    """What an attack found.

    Attributes
    ----------
    X_adv : array, shape (n, d)
        The samples, moved.
    pred : array, shape (n,) or (n, c)
        The network's answers there: labels -1 and 1 for losses of labels, else its outputs.
    loss : array, shape (n,)
        The loss of each sample there, which the worst case is not below.
    """

    X_adv: Any
    pred: Any
    loss: Any


def attack_pgd(
    net, X, y, eps, *, loss="hinge", steps=40, restarts=5, step=None, delta=1.35,
    logit_scale=1.0, rng=None,
):  # fmt: skip
    r"""Attack a network by projected gradient ascent in the box :math:`|x' - x| \le` `eps`.

    Every sample moves by steps along the signs of its loss's gradient. What is found bounds the
    worst case from below; ``robust_fun`` of robust training bounds that of the training samples
    from above.

    Parameters
    ----------
    net : Net
        The network.
    X : array, shape (n, d)
        Samples, without the column of ones if the network has a bias.
    y : array, shape (n,) or (n, c)
        Their targets.
    eps : float or array, shape (d,)
        How far every entry of a sample may move.
    loss : {"hinge", "logistic", "squared", "squared_hinge", "huber"}
        The loss to raise.
    steps : int
        Steps from each start.
    restarts : int
        Starts: the samples themselves, then random points of their boxes. The fast gradient sign
        method is ``steps=1, step=eps, restarts=1``.
    step : float, optional
        Length of a step, ``2.5 eps / steps`` if left out. Where `eps` is an array its largest
        entry moves so far, the others in proportion.
    delta, logit_scale : float
        Parameters of the loss, as in `admm`.
    rng : None, int, SeedSequence, BitGenerator or Generator
        Source of randomness.

    Returns
    -------
    Attack
        With `X_adv`, `pred` and `loss`, the worst of all points that were visited.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import relu
    >>> net = relu.recover(np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]]))
    >>> relu.attack_pgd(net, np.array([[1.0, 0.5]]), np.array([1.0]), 0.3, rng=0).pred
    array([-1.])
    """
    check_net(net)
    io, X, _, _, parameters = check_data(
        X, y, loss, delta=delta, logit_scale=logit_scale, hidden=net.hidden, out=net.out
    )
    y, hidden, out, xp = io["y"], io["hidden"], io["out"], io.xp
    if hidden.shape[0] != X.shape[1] + net.bias:
        raise ValueError(
            f"`X` has {X.shape[1]} features; expected {hidden.shape[0] - net.bias}, as `net` has"
        )
    far = check_box(eps, "eps", X.shape[1])
    steps, restarts = (
        check_count(v, k, minimum=1) for v, k in ((steps, "steps"), (restarts, "restarts"))
    )
    step, rng = check_positive(step, "step", allow_none=True), check_rng(rng)
    largest = far.max(initial=0.0)
    share = 2.5 / steps if step is None else step / largest if largest > 0 else 0.0
    with io.device, np.errstate(all="ignore"):
        target = _Target(xp, hidden, out, net.bias, y, loss, parameters)
        box = xp.asarray(far.astype(X.dtype))
        best, worst = X, target.losses(X)
        for start in range(restarts):
            moves = rng.uniform(-1.0, 1.0, X.shape) if start else np.zeros(X.shape)
            Z = X + box * xp.asarray(moves.astype(X.dtype))
            for _ in range(steps):
                Z = Z + share * box * xp.sign(target.gradient(Z))
                Z = xp.clip(Z, X - box, X + box)
                found = target.losses(Z)
                better = found >= worst
                best, worst = xp.where(better[:, None], Z, best), xp.where(better, found, worst)
        pred = outputs(best, hidden, out, net.bias, xp)
        if LOSSES[loss].margin:
            pred = xp.where(pred >= 0, 1.0, -1.0).astype(X.dtype)
        return Attack(io.out(best), io.out(pred), io.out(worst))


class _Target:
    """The loss of each sample under a network, and a direction in which it grows."""

    def __init__(self, xp, hidden, out, bias, y, loss, parameters):
        self.xp, self.hidden, self.out, self.bias = xp, hidden, out, bias
        self.loss = LOSSES[loss](y, xp, **parameters)

    def losses(self, X):
        each = self.loss.each(outputs(X, self.hidden, self.out, self.bias, self.xp))
        return each if each.ndim == 1 else each.sum(axis=1)

    def gradient(self, X):
        xp, weights = self.xp, self.hidden[:-1] if self.bias else self.hidden
        pre = X @ weights + (self.hidden[-1] if self.bias else 0.0)
        # A loss of labels grows against the label, also where it has no slope yet.
        if self.loss.margin:
            slope = -self.loss.y
        else:
            slope = self.loss.slope(xp.maximum(pre, 0.0) @ self.out)
        by_neuron = slope[:, None] * self.out if slope.ndim == 1 else slope @ self.out.T
        return (by_neuron * (pre > 0)) @ weights.T
