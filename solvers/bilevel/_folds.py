"""Cross-validation as a bilevel problem: one model per fold below, held-out losses above."""

import numpy as np

from ._envelope import Envelope
from ._oracle import Oracle
from ._problem import pose

# Curvatures of the losses by one prediction, at most.
_CURVATURE = {"squared": 1.0, "logistic": 0.25, "softmax": 0.5}


class Folds:
    """Linear models whose penalties, ``exp(x)`` by groups of features, minimise held-out losses.

    Model k minimises the sum of the losses weighted by ``train[:, k]`` plus
    ``sum_j exp(x[groups[j]]) |y_j|^2 / 2`` over its coefficients; the upper level weighs losses
    by ``hold``. Coefficients are a matrix (p, K c): c columns for each of K models.

    Parameters
    ----------
    X : array, shape (n, p)
        Features.
    T : array, shape (n, c)
        Targets; signs for "logistic", classes as columns of 0 and 1 for "softmax".
    loss : {"squared", "logistic", "softmax"}
        The loss.
    groups : array of int, shape (p,)
        Which penalty a feature has; -1 for none.
    train, hold : array, shape (n, K)
        Weights of the losses on both levels.
    """

    def __init__(self, X, T, loss, groups, train, hold):
        self.X, self.T, self.loss = X, T, loss
        self.groups, self.free = np.maximum(groups, 0), groups < 0
        self.train, self.hold = train, hold
        self.d, self.shape = int(self.groups.max()) + 1, (X.shape[1], hold.shape[1] * T.shape[1])
        self.y0 = np.zeros(self.shape)
        self._diagonal = self._bound()
        self.lower = Oracle(
            value_and_grads=self._lower, precond_y=lambda x: self._penalties(x) + self._diagonal
        )
        self.upper = Oracle(value_and_grads=self._upper)

    def _penalties(self, x):
        return np.where(self.free, 0.0, np.exp(x[self.groups]))[:, None]

    def _bound(self):
        """Bound the losses' second derivatives from above, entry by entry."""
        weights = np.repeat(self.train, self.T.shape[1], axis=1)
        bound = _CURVATURE[self.loss] * np.square(self.X).T @ weights
        return bound + (self.loss == "softmax") / self.T.shape[1]

    def _losses(self, y, weights):
        """Return the weighted sum of the losses and its gradient."""
        n, c = self.T.shape
        P = (self.X @ y).reshape(n, -1, c)
        values, slopes = losses(P, self.T[:, None], self.loss)
        gradient = self.X.T @ (slopes * weights[..., None]).reshape(n, -1)
        return float(np.vdot(values, weights)), gradient

    def _upper(self, x, y):
        value, gy = self._losses(y, self.hold)
        return value, None, gy

    def _lower(self, x, y):
        value, gy = self._losses(y, self.train)
        penalties = self._penalties(x)
        shares = 0.5 * (penalties * y * y).sum(axis=1)
        gx = np.bincount(self.groups, shares, minlength=self.d)
        gy = gy + penalties * y
        if self.loss == "softmax":
            # A minimiser sums to zero over classes. That this costs something leaves it alone,
            # and leaves no direction without curvature.
            sums = y.reshape(len(y), -1, self.T.shape[1]).sum(axis=2, keepdims=True)
            c = self.T.shape[1]
            value += 0.5 * float(np.vdot(sums, sums)) / c
            gy = gy + np.broadcast_to(sums / c, (*sums.shape[:2], c)).reshape(y.shape)
        return value + float(shares.sum()), gx, gy

    def solve(self, x, y):
        """Return the coefficients at penalties exp(x), from a start."""
        problem = pose(lambda x, y: (0.0, None, None), self.lower, x, y)
        env = Envelope(problem, maxiter=5000, tol_inner=1e-9)
        return problem.py.unpack(env.minimiser(problem.x0, problem.y0, env.tolerance(0.0)))


class LeaveOneOut(Folds):
    """One model of squared losses, each sample judged by the model that is fitted without it.

    With ``A = X'X / n + diag(exp(x))`` a sample's leverage is ``x_i' A^-1 x_i / n``, and its
    residual without it is ``1 / (1 - leverage)`` times that with it. The upper level therefore
    depends on the penalties by itself as well.
    """

    def __init__(self, X, T, groups):
        weights = np.full((len(X), 1), 1.0 / len(X))
        super().__init__(X, T, "squared", groups, weights, weights)
        self._gram = X.T @ X / len(X)
        self._known = None

    def _leverages(self, x):
        """Return ``1 - leverage`` of each sample, and ``X A^-1``; the lower level asks often."""
        if self._known is None or not np.array_equal(self._known[0], x):
            n, A = len(self.X), self._gram + np.diag(self._penalties(x)[:, 0])
            moved = np.linalg.solve(A, self.X.T).T
            self._known = x.copy(), 1.0 - (self.X * moved).sum(axis=1) / n, moved
        return self._known[1:]

    def _upper(self, x, y):
        n = len(self.X)
        rest, moved = self._leverages(x)
        missed = (self.X @ y - self.T)[:, 0] / rest
        push = self._penalties(x)[:, 0] * ((missed**2 / rest) @ moved**2)
        gx = -np.bincount(self.groups, push, minlength=self.d) / n**2
        gy = self.X.T @ (missed / rest) / n
        return 0.5 * float(missed @ missed) / n, gx, gy[:, None]


def losses(P, T, loss):
    """Return the losses of predictions (..., c) and their slopes by these."""
    if loss == "squared":
        slopes = P - T
        return 0.5 * (slopes * slopes)[..., 0], slopes
    if loss == "logistic":
        margins = T * P
        e = np.exp(-abs(margins))
        values = np.maximum(-margins, 0.0) + np.log1p(e)
        return values[..., 0], -T * np.where(margins < 0, 1.0, e) / (1.0 + e)
    P = P - P.max(axis=-1, keepdims=True)
    e = np.exp(P)
    total = e.sum(axis=-1, keepdims=True)
    return np.log(total[..., 0]) - (P * T).sum(axis=-1), e / total - T
