"""scikit-learn estimators for regression on top of the solvers."""

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.validation import check_is_fitted, validate_data

from .. import bcd
from .._core._estimators import DTYPES
from .._core.validation import describe

FORMATS = ["csc", "csr", "coo"]


class LinearRegressor(RegressorMixin, BaseEstimator):
    """What regressors share; `_solve` returns a result for checked data."""

    def fit(self, X, y, sample_weight=None):
        """Fit the model.

        Parameters
        ----------
        X : array or sparse matrix, shape (n, p)
            Rows are samples.
        y : array, shape (n,)
            Targets.
        sample_weight : array, shape (n,), optional
            Weights of the samples; only their ratios matter.

        Returns
        -------
        object
            Itself.
        """
        X, y = validate_data(self, X, y, dtype=DTYPES, accept_sparse=FORMATS, y_numeric=True)
        # The precision is that of X.
        y = y.astype(X.dtype, copy=False)
        self.result_ = self._solve(X, y, weights_like(X, sample_weight))
        self.coef_, self.intercept_ = self.result_.x, self.result_.intercept
        self.dual_gap_ = self.result_.gap
        self.n_iter_ = n_iter(self.result_)
        return self

    def predict(self, X):
        """Predict targets.

        Parameters
        ----------
        X : array or sparse matrix, shape (q, p)
            Rows are samples.

        Returns
        -------
        ndarray, shape (q,)
            Predictions.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=DTYPES, accept_sparse=FORMATS)
        return safe_sparse_dot(X, self.coef_) + self.intercept_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


class Lasso(LinearRegressor):
    r"""Least squares with an L1 penalty, certified by a duality gap.

    A scikit-learn estimator around `lasso`, with the objective of `sklearn.linear_model.Lasso`:
    :math:`\tfrac{1}{2n} \|y - Xw - c\|^2 + \alpha \|w\|_1`.

    Parameters
    ----------
    alpha : float, default 1.0
        Weight of the penalty.
    fit_intercept : bool, default True
        Whether to fit an intercept.
    positive : bool, default False
        Whether coefficients must not be negative.
    weights : array, shape (p,), optional
        Feature weights: they multiply `alpha`, 0 leaves a feature free.
    method : str, default "auto"
        The algorithm, see `lasso`.
    tol : float, optional
        Largest duality gap, relative to the objective at zero. Default: 1e-8, in float32 1e-6.
    max_iter : int, optional
        Largest number of iterations; by default that of `lasso`.
    n_jobs : int, optional
        Number of threads; -1 for Numba's setting, which is the default.

    Attributes
    ----------
    coef_ : ndarray, shape (p,)
        Coefficients.
    intercept_ : float
        Intercept.
    dual_gap_ : float
        How far the objective is from its minimum at most.
    result_ : BlockResult
        Everything else about the answer, with its certificate.
    n_iter_ : int
        Iterations.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Their names, where `X` had any.

    Examples
    --------
    >>> import solvers
    >>> X, y, w = solvers.datasets.autoregressive(100, 300, informative=5, rng=0)
    >>> model = solvers.bcd.Lasso(alpha=0.1).fit(X, y)
    >>> model.result_.success, bool(model.score(X, y) > 0.9)
    (True, True)
    """

    def __init__(
        self,
        alpha=1.0,
        *,
        fit_intercept=True,
        positive=False,
        weights=None,
        method="auto",
        tol=None,
        max_iter=None,
        n_jobs=None,
    ):
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.positive = positive
        self.weights = weights
        self.method = method
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs

    def _solve(self, X, y, sample_weight):
        return bcd.lasso(
            X,
            y,
            self.alpha,
            fit_intercept=self.fit_intercept,
            positive=self.positive,
            weights=self.weights,
            method=self.method,
            sample_weight=sample_weight,
            **settings(self),
        )


class ElasticNet(LinearRegressor):
    r"""Least squares with L1 and squared L2 penalties, certified by a duality gap.

    A scikit-learn estimator around `elastic_net`, with the objective of
    `sklearn.linear_model.ElasticNet`: :math:`\tfrac{1}{2n} \|y - Xw - c\|^2 + \alpha \rho
    \|w\|_1 + \tfrac{1}{2} \alpha (1 - \rho) \|w\|^2`, where :math:`\rho` is `l1_ratio`.

    Parameters
    ----------
    alpha : float, default 1.0
        Weight of both penalties.
    l1_ratio : float, default 0.5
        Share of the L1 penalty, in [0, 1].
    fit_intercept : bool, default True
        Whether to fit an intercept.
    tol : float, optional
        Largest duality gap, relative to the objective at zero. Default: 1e-8, in float32 1e-6.
    max_iter : int, optional
        Largest number of iterations; by default that of `elastic_net`.
    n_jobs : int, optional
        Number of threads; -1 for Numba's setting, which is the default.

    Attributes
    ----------
    coef_, intercept_, dual_gap_, result_, n_iter_, n_features_in_, feature_names_in_ : object
        As in `Lasso`.

    Examples
    --------
    >>> import solvers
    >>> X, y, w = solvers.datasets.block_correlated(100, 300, informative=5, rng=0)
    >>> solvers.bcd.ElasticNet(alpha=0.1, l1_ratio=0.7).fit(X, y).result_.success
    True
    """

    def __init__(
        self,
        alpha=1.0,
        *,
        l1_ratio=0.5,
        fit_intercept=True,
        tol=None,
        max_iter=None,
        n_jobs=None,
    ):
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs

    def _solve(self, X, y, sample_weight):
        return bcd.elastic_net(
            X,
            y,
            self.alpha,
            l1_ratio=self.l1_ratio,
            fit_intercept=self.fit_intercept,
            sample_weight=sample_weight,
            **settings(self),
        )


class HuberL1(LinearRegressor):
    r"""Robust regression with an L1 penalty: the loss of a large residual is linear.

    A scikit-learn estimator around `huber`.

    Parameters
    ----------
    alpha : float, default 0.1
        Weight of the penalty.
    delta : float, default 1.35
        Where the loss becomes linear, in the unit of the targets.
    fit_intercept : bool, default True
        Whether to fit an intercept.
    tol : float, optional
        Largest duality gap, relative to the objective at zero. Default: 1e-8, in float32 1e-6.
    max_iter : int, optional
        Largest number of iterations; by default that of `huber`.
    n_jobs : int, optional
        Number of threads; -1 for Numba's setting, which is the default.

    Attributes
    ----------
    coef_, intercept_, dual_gap_, result_, n_iter_, n_features_in_, feature_names_in_ : object
        As in `Lasso`.

    Examples
    --------
    >>> import solvers
    >>> X, y, w = solvers.datasets.autoregressive(100, 30, informative=5, rng=0)
    >>> y[:5] += 100.0
    >>> model = solvers.bcd.HuberL1(alpha=0.01).fit(X, y)
    >>> bool(abs(model.coef_ - w).max() < 0.2)
    True
    """

    def __init__(
        self,
        alpha=0.1,
        *,
        delta=1.35,
        fit_intercept=True,
        tol=None,
        max_iter=None,
        n_jobs=None,
    ):
        self.alpha = alpha
        self.delta = delta
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs

    def _solve(self, X, y, sample_weight):
        return bcd.huber(
            X,
            y,
            self.alpha,
            delta=self.delta,
            fit_intercept=self.fit_intercept,
            sample_weight=sample_weight,
            **settings(self),
        )


class GroupLasso(LinearRegressor):
    r"""Least squares whose coefficients vanish group by group.

    A scikit-learn estimator around `group_lasso`.

    Parameters
    ----------
    groups : array of shape (p,), or list of lists of int, optional
        A label for each feature, or the features of each group. Default: each on its own.
    alpha : float, default 1.0
        Weight of the penalty.
    l1_ratio : float, default 0.0
        Share of the absolute values: above 0, single coefficients of a group vanish too.
    fit_intercept : bool, default True
        Whether to fit an intercept.
    tol : float, optional
        Largest duality gap, relative to the objective at zero. Default: 1e-8, in float32 1e-6.
    max_iter : int, optional
        Largest number of iterations; by default that of `group_lasso`.
    n_jobs : int, optional
        Number of threads; -1 for Numba's setting, which is the default.

    Attributes
    ----------
    coef_, intercept_, dual_gap_, result_, n_iter_, n_features_in_, feature_names_in_ : object
        As in `Lasso`.

    Examples
    --------
    >>> import numpy as np, solvers
    >>> X, y, w = solvers.datasets.block_correlated(100, 60, block=6, informative=3, rng=0)
    >>> model = solvers.bcd.GroupLasso(np.arange(60) // 6, alpha=0.1).fit(X, y)
    >>> model.result_.success, bool((model.coef_.reshape(10, 6).any(axis=1)).sum() < 10)
    (True, True)
    """

    def __init__(
        self,
        groups=None,
        *,
        alpha=1.0,
        l1_ratio=0.0,
        fit_intercept=True,
        tol=None,
        max_iter=None,
        n_jobs=None,
    ):
        self.groups = groups
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs

    def _solve(self, X, y, sample_weight):
        return bcd.group_lasso(
            X,
            y,
            self.alpha,
            np.arange(X.shape[1]) if self.groups is None else self.groups,
            l1_ratio=self.l1_ratio,
            fit_intercept=self.fit_intercept,
            sample_weight=sample_weight,
            **settings(self),
        )


class MCPRegression(LinearRegressor):
    r"""Least squares with the minimax concave penalty, which does not shrink large coefficients.

    A scikit-learn estimator around `sparse_regression`. The problem is not convex: the answer is
    stationary, reached from zero.

    Parameters
    ----------
    alpha : float, default 1.0
        Slope of the penalty at zero.
    gamma : float, default 3.0
        The penalty is constant from ``gamma * alpha`` on.
    standardize : bool, default True
        Whether to penalise coefficients in the unit of their feature's standard deviation. If
        not, `gamma` must exceed the inverse of the smallest variance.
    fit_intercept : bool, default True
        Whether to fit an intercept.
    tol : float, optional
        Largest violation of the optimality conditions, relative to that at zero. Default: 1e-8,
        in float32 1e-6.
    max_iter : int, optional
        Largest number of iterations; by default that of `sparse_regression`.
    n_jobs : int, optional
        Number of threads; -1 for Numba's setting, which is the default.

    Attributes
    ----------
    coef_, intercept_, n_iter_, n_features_in_, feature_names_in_ : object
        As in `Lasso`.
    result_ : BlockResult
        Everything else about the answer, in the unit of standardised features.

    Examples
    --------
    >>> import solvers
    >>> X, y, w = solvers.datasets.autoregressive(200, 50, informative=5, rng=0)
    >>> model = solvers.bcd.MCPRegression(alpha=0.2).fit(X, y)
    >>> bool(((model.coef_ != 0) <= (w != 0)).all())
    True
    """

    def __init__(
        self,
        alpha=1.0,
        *,
        gamma=3.0,
        standardize=True,
        fit_intercept=True,
        tol=None,
        max_iter=None,
        n_jobs=None,
    ):
        self.alpha = alpha
        self.gamma = gamma
        self.standardize = standardize
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs

    def fit(self, X, y, sample_weight=None):
        """Fit the model.

        Parameters
        ----------
        X : array or sparse matrix, shape (n, p)
            Rows are samples.
        y : array, shape (n,)
            Targets.
        sample_weight : array, shape (n,), optional
            Weights of the samples; only their ratios matter.

        Returns
        -------
        MCPRegression
            Itself.
        """
        super().fit(X, y, sample_weight)
        self.coef_ = self.coef_ / self._unit
        return self

    def _solve(self, X, y, sample_weight):
        self._unit = np.ones(X.shape[1], X.dtype)
        if self.standardize:
            self._unit = _deviations(X, sample_weight, self.fit_intercept)
            X = X.multiply(1.0 / self._unit).tocsc() if sp.issparse(X) else X / self._unit
        return bcd.sparse_regression(
            X,
            y,
            self.alpha,
            penalty="mcp",
            gamma=self.gamma,
            fit_intercept=self.fit_intercept,
            sample_weight=sample_weight,
            **settings(self),
        )


class NNLS(LinearRegressor):
    r"""Least squares without negative coefficients and without an intercept.

    A scikit-learn estimator around `nnls`.

    Parameters
    ----------
    tol : float, optional
        Largest violation of the optimality conditions, relative to that at zero. Default: 1e-8,
        in float32 1e-6.
    max_iter : int, optional
        Largest number of iterations; by default that of `nnls`.
    n_jobs : int, optional
        Number of threads; -1 for Numba's setting, which is the default.

    Attributes
    ----------
    coef_, intercept_, dual_gap_, result_, n_iter_, n_features_in_, feature_names_in_ : object
        As in `Lasso`; the intercept is 0.

    Examples
    --------
    >>> import numpy as np, solvers
    >>> A = np.random.default_rng(0).random((20, 5))
    >>> model = solvers.bcd.NNLS().fit(A, A @ [1.0, 0.0, 2.0, 0.0, 0.5])
    >>> model.coef_.round(6)
    array([1. , 0. , 2. , 0. , 0.5])
    """

    def __init__(self, *, tol=None, max_iter=None, n_jobs=None):
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs

    def _solve(self, X, y, sample_weight):
        if sample_weight is not None:
            if not sample_weight.any():
                raise ValueError("`sample_weight` holds zeros only; expected a positive weight")
            root = np.sqrt(sample_weight)
            X = X.multiply(root[:, None]).tocsc() if sp.issparse(X) else X * root[:, None]
            y = y * root
        return bcd.nnls(X, y, **settings(self))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        # Where the best coefficients are negative, it has nothing to offer.
        tags.regressor_tags.poor_score = True
        return tags


def settings(estimator):
    """Return the options of an estimator that every solver takes."""
    n_jobs = estimator.n_jobs
    return {
        "tol": estimator.tol,
        "maxiter": estimator.max_iter,
        "n_threads": None if n_jobs == -1 else n_jobs,
    }


def weights_like(X, sample_weight):
    """Return weights of samples in the precision of X, or None."""
    if sample_weight is None:
        return None
    try:
        return np.asarray(sample_weight, X.dtype)
    except (TypeError, ValueError):
        raise TypeError(
            f"`sample_weight` came as {describe(sample_weight)}; expected numbers"
        ) from None


def n_iter(result):
    """Return iterations; a start that is good enough counts as one, as scikit-learn wants it."""
    return max(result.nit, 1)


def _deviations(X, sample_weight, centred):
    """Return the standard deviation of each feature, or its root mean square; 1 in place of 0."""
    s = np.ones(X.shape[0]) if sample_weight is None else sample_weight.astype(np.float64)
    s = s / (s.sum() or 1.0)
    if sp.issparse(X):
        square, mean = X.multiply(X).T @ s, X.T @ s
        variance = np.maximum(square - mean * mean, 0.0) if centred else square
    else:
        variance = s @ (X - s @ X if centred else X) ** 2
    # What is left of a constant feature is rounding.
    scale = np.abs(X).max(axis=0)
    scale = scale.toarray().ravel() if sp.issparse(scale) else scale
    constant = variance <= (np.finfo(X.dtype).eps * scale) ** 2 * X.shape[0]
    return np.where(constant, 1.0, np.sqrt(variance)).astype(X.dtype)
