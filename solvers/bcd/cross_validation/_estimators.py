"""scikit-learn estimators that choose a penalty by cross-validation, along warm-started paths."""

import numbers

import numpy as np
import scipy.sparse as sp
from scipy.special import log_expit, log_softmax
from sklearn.model_selection import check_cv
from sklearn.utils.extmath import safe_sparse_dot

from ... import bcd
from .._estimators import LinearRegressor, settings
from ..classification._estimators import SparseClassifier


class _PathRegressor(LinearRegressor):
    """Chooses `alpha` by cross-validation: one warm-started path for each fold and ratio."""

    def _solve(self, X, y, sample_weight):
        ratios = np.atleast_1d(self._ratios())
        data = "quadratic", X, y, self.fit_intercept, sample_weight
        grids = [descending(self.alphas, self.eps, *data, float(ratio)) for ratio in ratios]
        folds = list(check_cv(self.cv).split(X, y))
        errors = np.empty((len(ratios), len(grids[0]), len(folds)))
        X_rows = X.tocsr() if sp.issparse(X) else X
        for k, (train, test) in enumerate(folds):
            s = None if sample_weight is None else sample_weight[train]
            s_test = np.ones(len(test)) if sample_weight is None else sample_weight[test]
            for i, (ratio, alphas) in enumerate(zip(ratios, grids, strict=True)):
                run = self._path(X_rows[train], y[train], s, ratio, alphas)
                miss = (
                    safe_sparse_dot(X_rows[test], run.coefs.T) + run.intercepts - y[test][:, None]
                )
                errors[i, :, k] = s_test @ miss**2 / (s_test.sum() or 1.0)
        # Folds count alike, as in scikit-learn.
        mean = errors.mean(axis=-1)
        i, j = np.unravel_index(mean.argmin(), mean.shape)
        self.alpha_, self._ratio = float(grids[i][j]), float(ratios[i])
        single = np.ndim(self._ratios()) == 0
        self.alphas_ = grids[0] if single else np.array(grids)
        self.mse_path_ = errors[0] if single else errors
        return self._final(X, y, sample_weight)


class LassoCV(_PathRegressor):
    """Lasso with `alpha` chosen by cross-validation along a regularisation path.

    A scikit-learn estimator around `path` and `lasso`; every point of every path is certified.

    Parameters
    ----------
    eps : float, default 1e-3
        Smallest over largest `alpha` of the path.
    alphas : int or array, default 100
        How many there are, or the values.
    fit_intercept : bool, default True
        Whether to fit an intercept.
    positive : bool, default False
        Whether coefficients must not be negative.
    cv : int, splitter or iterable, optional
        How to split the data, as in scikit-learn; five folds by default.
    tol : float, optional
        Largest duality gap, relative to the objective at zero. Default: 1e-8, in float32 1e-6.
    max_iter : int, optional
        Largest number of iterations; by default that of `lasso`.
    n_jobs : int, optional
        Number of threads; -1 for Numba's setting, which is the default.

    Attributes
    ----------
    alpha_ : float
        The chosen one.
    alphas_ : ndarray, shape (n_alphas,)
        All of them, descending.
    mse_path_ : ndarray, shape (n_alphas, n_folds)
        Mean squared errors on the samples left out.
    coef_, intercept_, dual_gap_, result_, n_iter_, n_features_in_, feature_names_in_ : object
        As in `Lasso`, of all samples at `alpha_`.

    Examples
    --------
    >>> import solvers
    >>> X, y, w = solvers.datasets.autoregressive(100, 50, informative=5, rng=0)
    >>> model = solvers.bcd.LassoCV(alphas=20).fit(X, y)
    >>> bool(model.alpha_ in model.alphas_), model.mse_path_.shape
    (True, (20, 5))
    """

    def __init__(
        self,
        *,
        eps=1e-3,
        alphas=100,
        fit_intercept=True,
        positive=False,
        cv=None,
        tol=None,
        max_iter=None,
        n_jobs=None,
    ):
        self.eps = eps
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.positive = positive
        self.cv = cv
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs

    def _ratios(self):
        return 1.0

    def _own(self):
        return {"fit_intercept": self.fit_intercept, "positive": self.positive, **settings(self)}

    def _path(self, X, y, sample_weight, ratio, alphas):
        return bcd.path(bcd.lasso, X, y, alphas=alphas, sample_weight=sample_weight, **self._own())

    def _final(self, X, y, sample_weight):
        return bcd.lasso(X, y, self.alpha_, sample_weight=sample_weight, **self._own())


class ElasticNetCV(_PathRegressor):
    """Elastic net with `alpha` and `l1_ratio` chosen by cross-validation along paths.

    A scikit-learn estimator around `path` and `elastic_net`; every point of every path is
    certified.

    Parameters
    ----------
    l1_ratio : float or array, default 0.5
        Share of the L1 penalty, or those to choose from, in (0, 1].
    eps : float, default 1e-3
        Smallest over largest `alpha` of a path.
    alphas : int or array, default 100
        How many there are, or the values.
    fit_intercept : bool, default True
        Whether to fit an intercept.
    cv : int, splitter or iterable, optional
        How to split the data, as in scikit-learn; five folds by default.
    tol : float, optional
        Largest duality gap, relative to the objective at zero. Default: 1e-8, in float32 1e-6.
    max_iter : int, optional
        Largest number of iterations; by default that of `elastic_net`.
    n_jobs : int, optional
        Number of threads; -1 for Numba's setting, which is the default.

    Attributes
    ----------
    alpha_, l1_ratio_ : float
        The chosen ones.
    alphas_ : ndarray, shape (n_alphas,) or (n_ratios, n_alphas)
        All of them, descending.
    mse_path_ : ndarray, shape (n_alphas, n_folds) or (n_ratios, n_alphas, n_folds)
        Mean squared errors on the samples left out.
    coef_, intercept_, dual_gap_, result_, n_iter_, n_features_in_, feature_names_in_ : object
        As in `Lasso`, of all samples at `alpha_`.

    Examples
    --------
    >>> import solvers
    >>> X, y, w = solvers.datasets.block_correlated(100, 50, informative=5, rng=0)
    >>> solvers.bcd.ElasticNetCV(alphas=10, l1_ratio=[0.5, 1.0]).fit(X, y).alphas_.shape
    (2, 10)
    """

    def __init__(
        self,
        *,
        l1_ratio=0.5,
        eps=1e-3,
        alphas=100,
        fit_intercept=True,
        cv=None,
        tol=None,
        max_iter=None,
        n_jobs=None,
    ):
        self.l1_ratio = l1_ratio
        self.eps = eps
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.cv = cv
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs

    def _ratios(self):
        return self.l1_ratio

    def _path(self, X, y, sample_weight, ratio, alphas):
        return bcd.path(
            bcd.elastic_net,
            X,
            y,
            alphas=alphas,
            l1_ratio=float(ratio),
            fit_intercept=self.fit_intercept,
            sample_weight=sample_weight,
            **settings(self),
        )

    def _final(self, X, y, sample_weight):
        self.l1_ratio_ = self._ratio
        return bcd.elastic_net(
            X,
            y,
            self.alpha_,
            l1_ratio=self.l1_ratio_,
            fit_intercept=self.fit_intercept,
            sample_weight=sample_weight,
            **settings(self),
        )


class SparseLogisticRegressionCV(SparseClassifier):
    """Sparse logistic regression with its penalty chosen by cross-validation along a path.

    A scikit-learn estimator around `path` and `logistic`, or `multinomial` for more than two
    classes; every point of every path is certified.

    Parameters
    ----------
    eps : float, default 1e-2
        Smallest over largest `alpha` of the path.
    alphas : int or array, default 30
        How many there are, or the values: weights of the penalty relative to the mean loss.
    fit_intercept : bool, default True
        Whether to fit intercepts.
    cv : int, splitter or iterable, optional
        How to split the data, as in scikit-learn; five stratified folds by default.
    tol : float, optional
        Largest duality gap, relative to the objective at zero. Default: 1e-8, in float32 1e-6.
    max_iter : int, optional
        Largest number of iterations; by default that of `logistic`.
    n_jobs : int, optional
        Number of threads; -1 for Numba's setting, which is the default.

    Attributes
    ----------
    alpha_, C_ : float
        The chosen penalty, and what it is called in `SparseLogisticRegression`.
    alphas_ : ndarray, shape (n_alphas,)
        All of them, descending.
    loss_path_ : ndarray, shape (n_alphas, n_folds)
        Mean logarithmic losses on the samples left out.
    coef_, intercept_, classes_, dual_gap_, result_, n_iter_, n_features_in_ : object
        As in `SparseLogisticRegression`, of all samples at `alpha_`.
    feature_names_in_ : ndarray of str
        Names of the features, where `X` had any.

    Examples
    --------
    >>> import solvers
    >>> X, y, w = solvers.datasets.autoregressive(100, 50, informative=5, classes=True, rng=0)
    >>> model = solvers.bcd.SparseLogisticRegressionCV(alphas=8).fit(X, y)
    >>> bool(model.alpha_ in model.alphas_), model.loss_path_.shape
    (True, (8, 5))
    """

    def __init__(
        self,
        *,
        eps=1e-2,
        alphas=30,
        fit_intercept=True,
        cv=None,
        tol=None,
        max_iter=None,
        n_jobs=None,
    ):
        self.eps = eps
        self.alphas = alphas
        self.fit_intercept = fit_intercept
        self.cv = cv
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs

    def _solve(self, X, y, sample_weight):
        fun = bcd.multinomial if self.classes_.size > 2 else bcd.logistic
        options = {"fit_intercept": self.fit_intercept, **settings(self)}
        datafit = "multinomial" if self.classes_.size > 2 else "logistic"
        self.alphas_ = descending(
            self.alphas, self.eps, datafit, X, y, self.fit_intercept, sample_weight
        )
        folds = list(check_cv(self.cv, y, classifier=True).split(X, y))
        s = np.ones(y.size, X.dtype) if sample_weight is None else sample_weight
        losses = np.empty((self.alphas_.size, len(folds)))
        rows = X.tocsr() if sp.issparse(X) else X
        for k, (train, test) in enumerate(folds):
            run = bcd.path(
                fun, rows[train], y[train], alphas=self.alphas_, sample_weight=s[train], **options
            )
            for i, (coef, intercept) in enumerate(zip(run.coefs, run.intercepts, strict=True)):
                z = safe_sparse_dot(rows[test], coef) + intercept
                losses[i, k] = np.average(_log_loss(z, y[test]), weights=s[test])
        self.loss_path_ = losses
        self.alpha_ = float(self.alphas_[losses.mean(axis=1).argmin()])
        self.C_ = 1.0 / (self.alpha_ * float(s.sum()))
        return fun(X, y, self.alpha_, sample_weight=sample_weight, **options)


def descending(alphas, eps, datafit, X, y, fit_intercept, sample_weight, l1_ratio=1.0):
    """Return penalties in descending order: those given, or that many below the largest."""
    if not isinstance(alphas, numbers.Integral):
        return np.sort(np.asarray(alphas, float))[::-1]
    largest = bcd.alpha_max(
        datafit,
        X,
        y,
        penalty="enet",
        l1_ratio=l1_ratio,
        fit_intercept=fit_intercept,
        sample_weight=sample_weight,
    )
    # A constant target has no coefficient at any alpha.
    return (float(largest) or 1.0) * np.geomspace(1.0, eps, alphas)


def _log_loss(z, y):
    """Return the logarithmic loss of each sample: scores (q,) or (q, C), classes 0, 1, ..."""
    if z.ndim == 1:
        return -log_expit(np.where(y == 1, z, -z))
    return -log_softmax(z, axis=1)[np.arange(y.size), y]
