"""Networks: what the weights of the convex programme stand for."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.arrays import Ingest, to_numpy
from ._losses import LOSSES


@dataclass(frozen=True)
class Net:
    """A two-layer ReLU network ``f(x) = sum_j (x @ hidden_j)_+ out_j``.

    Attributes
    ----------
    hidden : array, shape (d, m)
        Weights of the neurons, in columns.
    out : array, shape (m,) or (m, c)
        Weights of the output.
    bias : bool
        Whether the last row of `hidden` belongs to a column of ones.
    """

    hidden: Any
    out: Any
    bias: bool = False

    def predict(self, X):
        """Return the outputs for the rows of X."""
        io = Ingest(X=X, hidden=self.hidden, out=self.out)
        return io.out(outputs(io["X"], io["hidden"], io["out"], self.bias, io.xp))


def outputs(X, hidden, out, bias, xp):
    """Return the outputs of a network for the rows of X."""
    pre = X @ hidden[:-1] + hidden[-1] if bias else X @ hidden
    return xp.maximum(pre, 0.0) @ out


def recover(V, W):
    """Return the network that weights of the convex programme stand for."""
    io = Ingest(V=V, W=W)
    hidden, out = neurons(io["V"], io["W"], io.xp)
    return Net(io.out(hidden), io.out(out))


def neurons(V, W, xp):
    """Return hidden and output weights of the blocks that are not zero."""
    if V.ndim == 3:
        parts = [neurons(v, w, xp) for v, w in zip(V, W, strict=True)]
        hidden = xp.concatenate([h for h, _ in parts], axis=1)
        out = xp.zeros((hidden.shape[1], len(parts)), dtype=V.dtype)
        at = 0
        for k, (_, a) in enumerate(parts):
            out[at : at + a.size, k] = a
            at += a.size
        return hidden, out
    blocks = xp.concatenate([V, W], axis=1)
    sign = xp.concatenate([xp.ones(V.shape[1]), -xp.ones(W.shape[1])]).astype(V.dtype)
    norm = xp.sqrt(xp.square(blocks).sum(axis=0))
    kept = norm > 0
    root = xp.sqrt(norm[kept])
    return blocks[:, kept] / root, sign[kept] * root


def network_objective(X, y, net, beta, loss="squared", *, delta=1.35, logit_scale=1.0):
    """Return the training objective of a network."""
    X, y, hidden, out = (to_numpy(a).astype(np.float64) for a in (X, y, net.hidden, net.out))
    p = outputs(X, hidden, out, net.bias, np)
    value = LOSSES[loss](y.T, np, delta=delta, logit_scale=logit_scale).value(p.T)
    return value + 0.5 * beta * float(np.square(hidden).sum() + np.square(out).sum())
