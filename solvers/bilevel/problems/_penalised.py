"""Penalties of linear models, chosen by a validation set."""

import math

from .._sets import box
from . import _data
from ._levels import Groups, MeanLoss, PenalisedLoss
from ._linear import LOGISTIC, SOFTMAX, SQUARED, LinearLosses
from ._ready import ready

# Where penalties exp(x) may lie, and where they start.
_LEAST, _MOST, _START = math.log(1e-12), math.log(1e8), -3.0


class _Penalised:
    """What the problems below share: a subclass says how labels are read."""

    def __init__(self, X, t, Xv, tv, groups=None):
        io, train, valid = _data.read(X, t, Xv, tv, groups=groups)
        with io.device:
            train, valid, kind, k = self._labels(io, train, valid)
            p = train.X.shape[1]
            y_shape = (p,) if kind != SOFTMAX else (p, k)
            groups = Groups(io.be, *_data.check_groups(io, "groups", p, "(X columns,)"))
            losses = [LinearLosses(io.be, samples, kind, k) for samples in (train, valid)]
            lower = PenalisedLoss(io, losses[0], groups, y_shape)
            self.upper = ready(MeanLoss(io, losses[1], lower.x_shape, y_shape))
            self.lower = ready(lower)
            self.x0 = io.out(io.xp.full(groups.count, _START, io.dtype))
            self.y0 = io.out(io.xp.zeros(y_shape, io.dtype))
        self.X = box(_LEAST, _MOST)

    def __repr__(self):
        flat = self.lower.flat
        return f"{type(self).__name__}(x {flat.x_shape}, y {flat.y_shape})"


class RidgeHPO(_Penalised):
    r"""Ridge regression with a penalty for each feature, or each group of them.

    .. math:: g(x, y) = \frac{1}{2n} \|X y - t\|^2
              + \frac12 \sum_j e^{x_{\mathrm{group}(j)}} y_j^2,
              \qquad f(x, y) = \frac{1}{2m} \|X_v y - t_v\|^2.

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
        Training samples.
    t : array, shape (n,)
        Training targets.
    Xv, tv : array or sparse matrix, shape (m, p), and array, shape (m,)
        Validation samples and targets.
    groups : array of int, shape (p,), optional
        The group of each feature, from 0; by default each is its own.

    Attributes
    ----------
    upper, lower : Oracle
    x0, y0 : array
        Starts: penalties ``exp(-3)`` and no coefficients.
    X : Set
        Penalties between 1e-12 and 1e8.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((60, 3))
    >>> t = A[:, 0] + 0.5 * rng.standard_normal(60)
    >>> problem = bilevel.problems.RidgeHPO(A[:40], t[:40], A[40:], t[40:])
    >>> bilevel.penalty(problem, tol=1e-5).success
    True
    """

    def _labels(self, io, train, valid):
        return train, valid, SQUARED, 1

    def predict(self, X, y):
        """Return predictions of the model with coefficients y for the rows of X.

        Parameters
        ----------
        X : array or sparse matrix, shape (q, p)
            Rows are samples.
        y : array
            Coefficients.

        Returns
        -------
        array, shape (q,)
            Predictions.
        """
        return X @ y


class LogisticHPO(_Penalised):
    """Logistic regression with a penalty for each feature, or each group of them.

    As `RidgeHPO`, with the mean of ``log(1 + exp(-t_i X_i y))`` in place of half the mean square.

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
        Training samples.
    t : array, shape (n,)
        Training labels, -1 or 1.
    Xv, tv : array or sparse matrix, shape (m, p), and array, shape (m,)
        Validation samples and labels.
    groups : array of int, shape (p,), optional
        The group of each feature, from 0; by default each is its own.

    Attributes
    ----------
    upper, lower : Oracle
    x0, y0 : array
        Starts: penalties ``exp(-3)`` and no coefficients.
    X : Set
        Penalties between 1e-12 and 1e8.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((60, 3))
    >>> t = np.sign(A[:, 0] + 0.5 * rng.standard_normal(60))
    >>> problem = bilevel.problems.LogisticHPO(A[:40], t[:40], A[40:], t[40:])
    >>> bilevel.penalty(problem, tol=1e-4).success
    True
    """

    def _labels(self, io, train, valid):
        t, tv = (_data.signs(io, name) for name in ("t", "tv"))
        return train._replace(t=t), valid._replace(t=tv), LOGISTIC, 1

    def predict(self, X, y):
        """Return the labels, -1 or 1, of the rows of X by a model with coefficients y.

        Parameters
        ----------
        X : array or sparse matrix, shape (q, p)
            Rows are samples.
        y : array
            Coefficients.

        Returns
        -------
        array, shape (q,)
            Labels.
        """
        return 2 * (X @ y > 0) - 1


class SoftmaxHPO(_Penalised):
    """Logistic regression of several classes with a penalty for each feature or group of them.

    As `RidgeHPO`, with coefficients (p, k) and the mean of ``log(sum_c exp(z_c)) - z_t``, where
    ``z = X_i y`` are the predictions of a sample.

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
        Training samples.
    t : array, shape (n,)
        Training labels, 0 to k - 1.
    Xv, tv : array or sparse matrix, shape (m, p), and array, shape (m,)
        Validation samples and labels.
    groups : array of int, shape (p,), optional
        The group of each feature, from 0; by default each is its own.

    Attributes
    ----------
    upper, lower : Oracle
    x0, y0 : array
        Starts: penalties ``exp(-3)`` and no coefficients.
    X : Set
        Penalties between 1e-12 and 1e8.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((60, 3))
    >>> t = np.argmax(A + 0.5 * rng.standard_normal((60, 3)), axis=1)
    >>> problem = bilevel.problems.SoftmaxHPO(A[:40], t[:40], A[40:], t[40:])
    >>> bilevel.penalty(problem, tol=1e-3).y.shape
    (3, 3)
    """

    def _labels(self, io, train, valid):
        return train, valid, SOFTMAX, _data.classes(io, "t", "tv")

    def predict(self, X, y):
        """Return the labels, 0 to k - 1, of the rows of X by a model with coefficients y.

        Parameters
        ----------
        X : array or sparse matrix, shape (q, p)
            Rows are samples.
        y : array
            Coefficients.

        Returns
        -------
        array, shape (q,)
            Labels.
        """
        return (X @ y).argmax(1)
