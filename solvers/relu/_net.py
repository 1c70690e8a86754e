"""Networks: what the weights of the convex programme stand for."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.arrays import Ingest, to_numpy
from .._core.validation import check_array, check_flag, check_positive, describe
from ._problem import check_data
from ._softmax import EVERY

# A neuron sees a sample if its input exceeds this, relative to the norms of both: what rounding
# makes of zero does not count.
_SEEN = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class Net:
    """A two-layer ReLU network ``f(x) = sum_j (x @ hidden_j)_+ out_j``.

    Parameters
    ----------
    hidden : array, shape (d, m)
        Weights of the neurons, in columns.
    out : array, shape (m,) or (m, c)
        Weights of the output.
    bias : bool, default False
        Whether the last row of `hidden` belongs to a column of ones.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import relu
    >>> net = relu.Net(np.array([[1.0, -1.0]]), np.array([1.0, 1.0]))
    >>> net
    Net(2 neurons of 1 feature)
    >>> net.predict(np.array([[-2.0], [3.0]]))
    array([2., 3.])
    """

    hidden: Any
    out: Any
    bias: bool = False

    def __post_init__(self):
        hidden, out = (tuple(getattr(a, "shape", ())) for a in (self.hidden, self.out))
        if len(hidden) != 2 or len(out) not in (1, 2) or out[0] != hidden[1]:
            raise ValueError(
                f"`hidden` and `out` came with shapes {hidden} and {out}; expected (d, m) and "
                "(m,) or (m, c)"
            )

    def predict(self, X):
        """Return the outputs for the rows of X.

        Parameters
        ----------
        X : array, shape (k, d)
            Samples; with `bias` without the column of ones.

        Returns
        -------
        array, shape (k,) or (k, c)
            Outputs.
        """
        io = Ingest(X=X, hidden=self.hidden, out=self.out)
        X = check_array(io, "X", ndim=2)
        _check_width(X, self)
        with io.device:
            return io.out(outputs(X, io["hidden"], io["out"], self.bias, io.xp))

    def __repr__(self):
        features, neurons = self.hidden.shape
        words = f"{neurons} neurons of {features - self.bias} feature"
        words += "s" * (features - self.bias != 1) + " and a bias" * self.bias
        if self.out.ndim == 2:
            words += f", {self.out.shape[1]} outputs"
        return f"Net({words})"


def outputs(X, hidden, out, bias, xp):
    """Return the outputs of a network for the rows of X."""
    pre = X @ hidden[:-1] + hidden[-1] if bias else X @ hidden
    return xp.maximum(pre, 0.0) @ out


def recover(V, W, *, X=None, bias=False):
    r"""Return the network that weights of the convex programme stand for.

    A block :math:`v` becomes a neuron :math:`v / \sqrt{\|v\|}` whose output weighs
    :math:`\sqrt{\|v\|}`, a block :math:`w` one whose output weighs :math:`-\sqrt{\|w\|}`; the
    penalty of both is then that of the block. Inside their cones, weights and network predict the
    same and have the same objective.

    Parameters
    ----------
    V, W : array, shape (d, P) or (c, d, P)
        Weights that add and that subtract, inside their cones or not.
    X : array, shape (n, d), optional
        The data. With them, neurons of one output and sign that see the same samples become one,
        and those that see none go: the predictions for X stay, the penalty does not grow, other
        predictions may change.
    bias : bool, default False
        Whether the last feature of `V` and `W` is a column of ones, which `X` does not have.

    Returns
    -------
    Net
        With one neuron for each block that is not zero, or fewer; `out` has shape (m,), or (m, c)
        with one nonzero in each row.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or has an illegal value; the message names it.

    References
    ----------
    .. [1] M. Pilanci, T. Ergen. Neural networks are convex regularizers: exact polynomial-time
       convex optimization formulations for two-layer networks. ICML 2020. arXiv:2002.10553.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import relu
    >>> net = relu.recover(np.array([[4.0, 0.0]]), np.array([[0.0, -9.0]]))
    >>> net.hidden, net.out
    (array([[ 2., -3.]]), array([ 2., -3.]))
    """
    bias = check_flag(bias, "bias")
    io = Ingest(V=V, W=W, X=X)
    V = check_array(io, "V", ndim=(2, 3))
    W = check_array(io, "W", shape=V.shape, means="V.shape")
    X = check_array(io, "X", shape=(None, V.shape[-2] - bias), means="(n, features of V)")
    with io.device:
        if X is not None and bias:
            X = with_ones(X, io.xp)
        hidden, out = neurons(V, W, io.xp, X)
        return Net(io.out(hidden), io.out(out), bias)


def neurons(V, W, xp, X=None):
    """Return hidden and output weights of the blocks that are not zero.

    With X, which has all features, neurons of one output that see the same samples are joined.
    """
    if V.ndim == 2:
        sides = [_joined(block, xp, X) for block in (V, W)]
        blocks = xp.concatenate(sides, axis=1)
        root = xp.sqrt(xp.sqrt(xp.square(blocks).sum(axis=0)))
        signs = xp.ones_like(root)
        signs[sides[0].shape[1] :] = -1.0
        return blocks / root, signs * root
    parts = [neurons(v, w, xp, X) for v, w in zip(V, W, strict=True)]
    hidden = xp.concatenate([h for h, _ in parts], axis=1)
    out = xp.zeros((hidden.shape[1], len(parts)), dtype=V.dtype)
    at = 0
    for k, (_, a) in enumerate(parts):
        out[at : at + len(a), k] = a
        at += len(a)
    return hidden, out


def _joined(blocks, xp, X):
    """Return the blocks (d, P) that are not zero; with X, those that see the same as one."""
    blocks = blocks[:, xp.flatnonzero(abs(blocks).max(axis=0))]
    if X is None or not blocks.shape[1]:
        return blocks
    reach = xp.sqrt(xp.square(X).sum(axis=1))[:, None] * xp.sqrt(xp.square(blocks).sum(axis=0))
    seen = to_numpy(X @ blocks > _SEEN * reach)
    patterns = np.packbits(seen, axis=0)
    _, first, group = np.unique(patterns, axis=1, return_index=True, return_inverse=True)
    # Groups in the order of their first members, without those that see nothing.
    kept = sorted(k for k in range(len(first)) if seen[:, first[k]].any())
    kept.sort(key=first.__getitem__)
    member = group.reshape(-1)[:, None] == np.array(kept, dtype=int)
    return blocks @ xp.asarray(member.astype(blocks.dtype))


def with_ones(X, xp):
    """Return the data with a column of ones."""
    return xp.concatenate([X, xp.ones((X.shape[0], 1), dtype=X.dtype)], axis=1)


def check_net(net):
    """Raise unless `net` has the parts of a network."""
    if not (hasattr(net, "hidden") and hasattr(net, "out")):
        raise TypeError(f"`net` came as {describe(net)}; expected a Net")


def network_objective(X, y, net, beta, loss="squared", *, delta=1.35, logit_scale=1.0):
    r"""Return the training objective of a network, in double precision.

    .. math:: L\left(\sum_j (X u_j)_+ \alpha_j, \, y\right)
              + \tfrac{\beta}{2} \sum_j \left(\|u_j\|^2 + \|\alpha_j\|^2\right)

    Parameters
    ----------
    X : array, shape (n, d)
        Data, one sample in each row; of a net with a bias without the column of ones.
    y : array, shape (n,) or (n, c)
        Targets; -1 and 1 for "logistic", "hinge" and "squared_hinge".
    net : Net
        The network: any object with `hidden`, `out` and perhaps `bias`.
    beta : float
        Weight of the penalty.
    loss : {"squared", "logistic", "hinge", "squared_hinge", "huber", "softmax"}
        Loss of a prediction, summed over samples.
    delta : float, default 1.35
        Where "huber" turns linear.
    logit_scale : float, default 1.0
        What "logistic" multiplies predictions by.

    Returns
    -------
    float
        The objective.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or has an illegal value; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import relu
    >>> net = relu.Net(np.array([[1.0]]), np.array([1.0]))
    >>> relu.network_objective(np.array([[-2.0], [3.0]]), np.array([0.0, 2.0]), net, 0.1)
    0.6
    """
    beta = check_positive(beta, "beta")
    check_net(net)
    io, X, Y, vector, parameters = check_data(
        X, y, loss, delta=delta, logit_scale=logit_scale, hidden=net.hidden, out=net.out,
        losses=EVERY,
    )  # fmt: skip
    bias = getattr(net, "bias", False)
    _check_width(X, net)
    hidden = check_array(io, "hidden", ndim=2, nonempty=False)
    width = (hidden.shape[1], Y.shape[0]) if vector else (hidden.shape[1],)
    out = check_array(io, "out", shape=width, means="of `hidden` and `y`", nonempty=False)
    X, Y, hidden, out = (io.be.host(a).astype(np.float64) for a in (X, Y, hidden, out))
    model = EVERY[loss](Y, np, **parameters)
    return objective(X, model, beta, hidden, out, bias)


def objective(X, loss, beta, hidden, out, bias=False):
    """Return the objective of a network whose parts are on the host, in float64."""
    p = outputs(X, hidden, out, bias, np)
    penalty = 0.5 * beta * float(np.square(hidden).sum() + np.square(out).sum())
    return loss.value(p.T.reshape(loss.y.shape)) + penalty


def _check_width(X, net):
    """Raise where the data do not have the features of the network."""
    features = net.hidden.shape[0] - getattr(net, "bias", False)
    if X.shape[1] != features:
        raise ValueError(f"`X` has {X.shape[1]} features; expected those of the net: {features}")
