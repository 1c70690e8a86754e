"""The convex programme over a set of gates: checked data and its maths.

Inside the family weights are blocks ``U`` of shape (c, 2, P, d): one for each output, side (the
v that add, then the w that subtract) and gate; `mask` (P, n) holds the gates as zeros and ones.
"""

import numbers
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._core.arrays import Ingest
from .._core.validation import check_array, check_choice, check_nonnegative, check_positive
from ._gates import Gates
from ._losses import LOSSES

# Losses that robust training knows.
ROBUST = ("squared", "logistic", "hinge")


@dataclass
class Programme:
    """Data, loss and gates of one programme, in one precision.

    Attributes
    ----------
    be : Backend
    X : array, shape (n, d)
    Y : array, shape (c, n)
    loss : Loss
    beta : float
    gates : Gates
    mask : array of uint8, shape (P, n)
    vector : bool
        Whether the caller's targets had columns.
    eps : array, shape (d,), optional
        How far every entry of a row may move, for robust training.
    rows, lengths : array, shapes (n, d) and (n,)
        What the cones see: ``X = lengths[:, None] * rows``. A row's length does not move its
        constraint, but the iteration's pace; X and ones until `equalise` is called.
    """

    be: Any
    X: Any
    Y: Any
    loss: Any
    beta: float
    gates: Gates
    mask: Any
    vector: bool
    eps: Any = None

    def __post_init__(self):
        self.rows = self.X
        self.lengths = self.xp.ones(len(self.X), dtype=self.X.dtype)

    @property
    def xp(self):
        return self.be.xp

    @property
    def kernels(self):
        return self.be.kernels("solvers.relu")

    def over(self, gates):
        """Return the programme over other gates."""
        return replace(self, gates=gates, mask=self.xp.asarray(gates.mask))

    def equalise(self):
        """Give all rows that cones see one length, those of zeros aside."""
        xp, X = self.xp, self.X
        squares = xp.square(X).sum(axis=1)
        usual = xp.sqrt(squares.mean())
        self.lengths = xp.sqrt(squares) / xp.where(usual > 0, usual, 1.0)
        self.rows = X / xp.where(self.lengths > 0, self.lengths, 1.0)[:, None]

    def predictions(self, U):
        """Return ``sum_i D_i X (v_i - w_i)``, shape (c, n)."""
        return self.masked_sum((U[:, 0] - U[:, 1]) @ self.X.T)

    def masked_sum(self, G):
        """Return the sum over gates of what each lets through.

        G is (c, P, n), or (c, 2, P, n): then its second side is taken off.
        """
        out = self.xp.empty((len(G), G.shape[-1]), dtype=G.dtype)
        sides = G.shape[1] if G.ndim == 4 else 1
        self.kernels.masked_sum(G.reshape(len(G), sides, *G.shape[-2:]), self.mask, out)
        return out

    def transpose(self, z):
        """Return ``X^T D_i z`` for all gates, shape (c, P, d)."""
        out = self.xp.empty((len(z), *self.mask.shape), dtype=z.dtype)
        self.kernels.spread(z, self.mask, out)
        return times(out, self.X)

    def objective(self, U):
        """Return loss plus penalty at blocks U."""
        norms = self.xp.sqrt(self.xp.square(U).sum(axis=-1))
        return self.loss.value(self.predictions(U)) + self.beta * float(norms.sum())

    def network_objective(self, U):
        """Return the objective of the network that blocks U stand for, in their cones or not."""
        xp = self.xp
        A = xp.maximum(U @ self.X.T, 0.0)
        norms = xp.sqrt(xp.square(U).sum(axis=-1))
        p = (A[:, 0] - A[:, 1]).sum(axis=1)
        return self.loss.value(p) + self.beta * float(norms.sum())


def times(A, B):
    """Return ``A @ B`` for a matrix B, as one product however many axes A has."""
    return (A.reshape(-1, A.shape[-1]) @ B).reshape(*A.shape[:-1], B.shape[1])


def theirs(U, vector):
    """Return blocks as the caller's V and W: (d, P), or (c, d, P)."""
    V, W = (U[:, s].swapaxes(-1, -2) for s in (0, 1))
    return (V, W) if vector else (V[0], W[0])


def ours(V, W, xp):
    """Return V and W as blocks."""
    V, W = (a if a.ndim == 3 else a[None] for a in (V, W))
    return xp.stack([V.swapaxes(-1, -2), W.swapaxes(-1, -2)], axis=1)


def check_data(
    X, y, loss, *, losses=LOSSES, gates=None, delta=1.35, logit_scale=1.0, bias=False, **more
):
    """Return the door, X (n, d), Y (c, n) and the loss's class and parameters, checked."""
    # Gates are bits on the host, wherever the data are.
    D = None if isinstance(gates, Gates) else gates
    io = Ingest(sparse_hint={"X": "use X.toarray()"}, X=X, y=y, gates=D, **more)
    X = check_array(io, "X", ndim=2)
    y = check_array(io, "y", ndim=(1, 2))
    _check_squares(io, "X")
    _check_squares(io, "y")
    if y.shape[0] != X.shape[0]:
        raise ValueError(f"`y` has {y.shape[0]} samples, `X` has {X.shape[0]}")
    check_choice(loss, "loss", tuple(losses))
    Y = io.xp.ascontiguousarray(y.T if y.ndim == 2 else y[None])
    losses[loss].check(Y)
    if losses[loss].margin and not bool((abs(Y) == 1).all()):
        raise ValueError(
            f"`y` holds other values than -1 and 1; loss={loss!r} needs y in {{-1, +1}} "
            "(estimators encode labels)"
        )
    parameters = {
        "delta": check_positive(delta, "delta"),
        "logit_scale": check_positive(logit_scale, "logit_scale"),
    }
    if bias:
        X = io.xp.concatenate([X, io.xp.ones((X.shape[0], 1), dtype=X.dtype)], axis=1)
    return io, X, Y, y.ndim == 2, parameters


def _check_squares(io, name):
    """Raise where sums of squares would overflow in the precision of the call."""
    largest, limit = max(map(abs, io.bounds[name])), float(np.finfo(io.dtype).max) ** 0.45
    if largest > limit:
        raise ValueError(
            f"`{name}` holds {largest:.3g}; expected entries up to {limit:.3g}, whose squares are "
            "finite: rescale it"
        )


def check_eps(robust_eps, loss, d):
    """Return how far each of d features may move as a float64 host array, None for not at all."""
    if robust_eps is None:
        return None
    eps = check_box(robust_eps, "robust_eps", d)
    if not eps.any():
        return None
    if loss not in ROBUST:
        raise NotImplementedError(
            f"`robust_eps` came with loss={loss!r}; robust training knows {', '.join(ROBUST)}"
        )
    return eps


def check_box(far, name, d):
    """Return how far each of d features may move as a float64 host array."""
    if isinstance(far, numbers.Real) and not isinstance(far, bool):
        return np.full(d, check_nonnegative(far, name))
    io = Ingest(**{name: far})
    far = check_array(io, name, shape=(d,), means="(d,), one for each feature", minimum=0.0)
    return io.be.host(far).astype(np.float64)


def check_gates(io, gates, n):
    """Return the caller's gates as Gates."""
    if isinstance(gates, Gates):
        if gates.n != n:
            raise ValueError(f"`gates` has {gates.n} samples, `X` has {n}")
        return gates
    D = io.raw("gates")
    expected = f"expected Gates or booleans of shape ({n}, P)"
    if D.dtype.kind != "b":
        raise TypeError(f"`gates` came with dtype {D.dtype}; {expected}")
    if D.ndim != 2 or D.shape[0] != n or D.shape[1] == 0:
        raise ValueError(f"`gates` came with shape {tuple(D.shape)}; {expected}")
    return Gates(io.be.host(D))
