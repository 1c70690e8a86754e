"""Weights of training samples, chosen by a validation set."""

import math

from ..._core.validation import check_positive
from .._sets import box
from . import _data
from ._levels import Groups, MeanLoss, WeightedLoss
from ._linear import HINGE, LOGISTIC, SOFTMAX, LinearLosses
from ._ready import ready


def _sigmoid(xp, x):
    e = xp.exp(-abs(x))
    w = xp.where(x >= 0, 1, e) / (1 + e)
    return w, e / ((1 + e) * (1 + e))


def _exponential(xp, x):
    w = xp.exp(x)
    return w, w


class _Weighted:
    """What the problems below share."""

    def _build(self, io, train, valid, kind, k, groups, weigh, mean, l2):
        n, p = train.X.shape
        y_shape = (p,) if kind != SOFTMAX else (p, k)
        losses = [LinearLosses(io.be, samples, kind, k) for samples in (train, valid)]
        scale = 1.0 / n if mean else 1.0
        lower = WeightedLoss(io, losses[0], groups, y_shape, weigh, scale, l2)
        self.upper = ready(MeanLoss(io, losses[1], lower.x_shape, y_shape))
        self.lower = ready(lower)
        self.x0 = io.out(io.xp.zeros(groups.count, io.dtype))
        self.y0 = io.out(io.xp.zeros(y_shape, io.dtype))

    def __repr__(self):
        flat = self.lower.flat
        return f"{type(self).__name__}(x {flat.x_shape}, y {flat.y_shape})"


class WeightedTraining(_Weighted):
    r"""Training with a weight for each group of samples, such as their sources.

    .. math:: g(x, y) = \frac1n \sum_i s(x_{\mathrm{group}(i)}) \ell_i(y)
              + \frac{\lambda}{2} \|y\|^2, \qquad s(a) = \frac{1}{1 + e^{-a}},

    with the mean loss of validation samples as the upper level. Losses are logistic: of labels -1
    and 1, or of classes 0 to k - 1 with coefficients (p, k).

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
        Training samples.
    t : array, shape (n,)
        Training labels.
    Xv, tv : array or sparse matrix, shape (m, p), and array, shape (m,)
        Validation samples and labels.
    groups : array of int, shape (n,)
        The group of each training sample, from 0.
    l2 : float, default 1e-3
        The ridge penalty.

    Attributes
    ----------
    upper, lower : Oracle
    x0, y0 : array
        Starts: weights 1/2 and no coefficients.
    X : Set
        Entries between -8 and 8.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((60, 3))
    >>> t = np.sign(A[:, 0])
    >>> t[:20] *= -1  # a source with wrong labels
    >>> source = np.arange(40) // 20
    >>> problem = bilevel.problems.WeightedTraining(A[:40], t[:40], A[40:], t[40:], source)
    >>> x = bilevel.penalty(problem, tol=1e-3).x
    >>> bool(x[0] < x[1])
    True
    """

    def __init__(self, X, t, Xv, tv, groups, l2=1e-3):
        if groups is None:
            raise TypeError("`groups` came as NoneType; expected the group of each sample")
        self._read(X, t, Xv, tv, groups, l2)

    def _read(self, X, t, Xv, tv, groups, l2):
        l2 = check_positive(l2, "l2")
        io, train, valid = _data.read(X, t, Xv, tv, groups=groups)
        with io.device:
            kind, k = LOGISTIC, 1
            if _data.are_signs(io, "t"):
                train, valid = train._replace(t=io["t"]), valid._replace(t=_data.signs(io, "tv"))
            else:
                kind, k = SOFTMAX, _data.classes(io, "t", "tv")
            which = _data.check_groups(io, "groups", train.X.shape[0], "(X rows,)")
            groups = Groups(io.be, *which)
            self._build(io, train, valid, kind, k, groups, _sigmoid, True, l2)
        self.X = box(-8.0, 8.0)

    def predict(self, X, y):
        """Return the labels of the rows of X by a model with coefficients y.

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
        z = X @ y
        return 2 * (z > 0) - 1 if len(self.lower.flat.y_shape) == 1 else z.argmax(1)


class HyperCleaning(WeightedTraining):
    r"""Training with a weight for each sample, which tells wrong labels from right ones.

    As `WeightedTraining`, where each sample is a group: a few samples with labels that can be
    trusted decide which of many others to learn from.

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
        Training samples.
    t : array, shape (n,)
        Training labels, -1 and 1, or 0 to k - 1.
    Xv, tv : array or sparse matrix, shape (m, p), and array, shape (m,)
        Validation samples and labels.
    l2 : float, default 1e-3
        The ridge penalty.

    Attributes
    ----------
    upper, lower : Oracle
    x0, y0 : array
        Starts: weights 1/2 and no coefficients.
    X : Set
        Entries between -8 and 8.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((60, 3))
    >>> t = np.sign(A[:, 0])
    >>> t[:8] *= -1
    >>> problem = bilevel.problems.HyperCleaning(A[:40], t[:40], A[40:], t[40:])
    >>> x = bilevel.penalty(problem, tol=1e-2).x
    >>> bool(x[:8].mean() < x[8:].mean())
    True
    """

    def __init__(self, X, t, Xv, tv, l2=1e-3):
        self._read(X, t, Xv, tv, None, l2)


class SvmHPO(_Weighted):
    r"""A support vector machine with a price for the slack of each sample.

    .. math:: g(x, y) = \frac12 \|y\|^2
              + \frac12 \sum_i e^{x_i} \max(0, 1 - t_i X_i y)^2,

    with half the mean squared slack of validation samples as the upper level. For an intercept,
    add a column of ones. The value :math:`\psi` has kinks, where slacks become positive.

    Parameters
    ----------
    X : array or sparse matrix, shape (n, p)
        Training samples.
    t : array, shape (n,)
        Training labels, -1 or 1.
    Xv, tv : array or sparse matrix, shape (m, p), and array, shape (m,)
        Validation samples and labels.

    Attributes
    ----------
    upper, lower : Oracle
    x0, y0 : array
        Starts: prices 1 and no coefficients.
    X : Set
        Prices between 1e-4 and 1e4.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> rng = np.random.default_rng(0)
    >>> A = rng.standard_normal((60, 3))
    >>> t = np.sign(A[:, 0] + 0.5 * rng.standard_normal(60))
    >>> problem = bilevel.problems.SvmHPO(A[:40], t[:40], A[40:], t[40:])
    >>> value, prices, slopes = problem.lower(problem.x0, problem.y0)
    >>> float(value)
    20.0
    """

    def __init__(self, X, t, Xv, tv):
        io, train, valid = _data.read(X, t, Xv, tv)
        with io.device:
            t, tv = (_data.signs(io, name) for name in ("t", "tv"))
            groups = Groups(io.be, None, train.X.shape[0])
            train, valid = train._replace(t=t), valid._replace(t=tv)
            self._build(io, train, valid, HINGE, 1, groups, _exponential, False, 1.0)
        self.X = box(math.log(1e-4), math.log(1e4))

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
