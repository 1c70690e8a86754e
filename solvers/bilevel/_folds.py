"""Cross-validation as a bilevel problem: one model per fold below, held-out losses above."""

import numpy as np

from ._envelope import Envelope
from ._oracle import Oracle
from ._problem import pose

# Logarithms of the smallest and largest penalty.
LOWEST, HIGHEST = np.log(1e-12), np.log(1e8)
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


class LeaveOneOut:
    """The same for squared losses with each sample a fold, by leverages.

    With ``A = X'X / n + diag(exp(x))`` the lower level solves ``A Y = X'`` for all samples at
    once. A sample's leverage is ``1 / n + x_i' Y_i / n``, and its residual without it ``1 / (1 -
    leverage)`` times that with it.

    Parameters
    ----------
    X : array, shape (n, p)
        Features of mean zero.
    t : array, shape (n,)
        Targets of mean zero.
    groups : array of int, shape (p,)
        Which penalty a feature has.
    """

    def __init__(self, X, t, groups):
        self.X, self.t, self.groups = X, t, groups
        self.n, self.gram = len(X), X.T @ X / len(X)
        self.d, self.y0 = int(groups.max()) + 1, np.zeros(X.T.shape)
        self.lower = Oracle(
            value_and_grads=self._lower,
            precond_y=lambda x: np.broadcast_to(
                ((np.diag(self.gram) + np.exp(x[groups])) / self.n)[:, None], X.T.shape
            ),
        )
        self.upper = Oracle(value_and_grads=self._upper)

    def _lower(self, x, y):
        penalties = np.exp(x[self.groups])
        AY = self.gram @ y + penalties[:, None] * y
        value = 0.5 * np.vdot(y, AY) - np.vdot(y, self.X.T)
        shares = 0.5 * penalties * (y * y).sum(axis=1)
        gx = np.bincount(self.groups, shares, minlength=self.d)
        return float(value) / self.n, gx / self.n, (AY - self.X.T) / self.n

    def _upper(self, x, y):
        X, t, n = self.X, self.t, self.n
        rest = 1.0 - 1.0 / n - np.einsum("ij,ji->i", X, y) / n
        missed = (t - X @ (y @ t) / n) / rest
        by_coefficients = -X.T @ (missed / rest) / n
        by_leverage = missed**2 / rest / n
        gy = (np.outer(by_coefficients, t) + X.T * by_leverage) / n
        return 0.5 * float(missed @ missed) / n, None, gy


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
