"""scikit-learn estimators for classes: sparse logistic regression, and labels of a graph."""

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics.pairwise import rbf_kernel
from sklearn.neighbors import NearestNeighbors
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ... import bcd
from ..._core._estimators import DTYPES, LinearClassifier
from ..._core.validation import check_choice, check_positive
from .._estimators import FORMATS, n_iter, settings, weights_like


class SparseClassifier(LinearClassifier, BaseEstimator):
    """What both classifiers share; `_solve` returns a result for labels 0, 1, ..., C - 1."""

    formats = FORMATS

    def fit(self, X, y, sample_weight=None):
        """Fit the model.

        Parameters
        ----------
        X : array or sparse matrix, shape (n, p)
            Rows are samples.
        y : array, shape (n,)
            Labels of two or more classes.
        sample_weight : array, shape (n,), optional
            Weights of the samples.

        Returns
        -------
        object
            Itself.
        """
        X, y = validate_data(self, X, y, dtype=DTYPES, accept_sparse=FORMATS)
        check_classification_targets(y)
        s = weights_like(X, sample_weight)
        if s is not None and not s.any():
            raise ValueError("`sample_weight` holds zeros only; expected a positive weight")
        counted = y if s is None or s.shape != y.shape else y[s != 0]
        self.classes_, numbers = np.unique(counted), np.zeros(y.size, np.int64)
        if self.classes_.size < 2:
            raise ValueError(
                f"`y` holds {self.classes_.size} class(es) with a weight; expected two or more"
            )
        # Samples that do not count may be of any class.
        known = np.isin(y, self.classes_)
        numbers[known] = np.searchsorted(self.classes_, y[known])
        self.result_ = self._solve(X, numbers, s)
        self.coef_, self.intercept_ = shown(self.result_)
        self.dual_gap_ = self.result_.gap
        self.n_iter_ = n_iter(self.result_)
        return self


class SparseLogisticRegression(SparseClassifier):
    r"""Logistic regression with an L1 penalty, certified by a duality gap.

    A scikit-learn estimator around `logistic`, and around `multinomial` for more than two
    classes. `C` is that of `sklearn.linear_model.LogisticRegression`, whose objective
    :math:`\|w\|_1 + C \sum_i s_i \log(1 + e^{-y_i z_i})` is ours times :math:`1 / \alpha` with
    :math:`\alpha = 1 / (C \sum_i s_i)`.

    Parameters
    ----------
    C : float, default 1.0
        Inverse weight of the penalty.
    alpha : float, optional
        Weight of the penalty relative to the *mean* loss, in place of `C`.
    penalty : {"l1", "row"}
        With "row", features of more than two classes are left out of all of them or of none.
    fit_intercept : bool, default True
        Whether to fit intercepts.
    tol : float, optional
        Largest duality gap, relative to the objective at zero. Default: 1e-8, in float32 1e-6.
    max_iter : int, optional
        Largest number of iterations; by default that of `logistic`.
    n_jobs : int, optional
        Number of threads; -1 for Numba's setting, which is the default.

    Attributes
    ----------
    coef_ : ndarray, shape (1, p) or (C, p)
        Coefficients; for two classes those of the second.
    intercept_ : ndarray, shape (1,) or (C,)
        Intercepts.
    classes_ : ndarray
        Labels.
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
    >>> X, y, w = solvers.datasets.autoregressive(100, 300, classes=True, rng=0)
    >>> model = solvers.bcd.SparseLogisticRegression(C=0.5).fit(X, y)
    >>> model.result_.success, bool(model.score(X, y) > 0.9)
    (True, True)
    """

    def __init__(
        self,
        C=1.0,
        *,
        alpha=None,
        penalty="l1",
        fit_intercept=True,
        tol=None,
        max_iter=None,
        n_jobs=None,
    ):
        self.C = C
        self.alpha = alpha
        self.penalty = penalty
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs

    def _solve(self, X, y, sample_weight):
        check_choice(self.penalty, "penalty", ("l1", "row"))
        alpha = self.alpha
        if alpha is None:
            total = y.size if sample_weight is None else float(sample_weight.sum())
            alpha = 1.0 / (check_positive(self.C, "C") * total)
        many = self.classes_.size > 2
        fun = bcd.multinomial if many else bcd.logistic
        return fun(
            X,
            y,
            alpha,
            penalty=self.penalty if many else "l1",
            fit_intercept=self.fit_intercept,
            sample_weight=sample_weight,
            **settings(self),
        )


class LabelPropagation(ClassifierMixin, BaseEstimator):
    """Labels of a few samples, spread over a graph of neighbours.

    A scikit-learn estimator around `label_propagation`, with the words of
    `sklearn.semi_supervised.LabelPropagation`. Scores of a class are harmonic: of an unlabelled
    sample, the weighted mean of its neighbours'.

    Parameters
    ----------
    kernel : {"knn", "rbf"}
        Edges: to the nearest neighbours, in both directions and without weights; or between all
        pairs, with weights ``exp(-gamma * distance**2)``.
    gamma : float, default 20.0
        Of "rbf".
    n_neighbors : int, default 7
        Of "knn".
    alpha : float, optional
        How much labels count where they may be wrong; by default they are kept.
    method : str, default "auto"
        The algorithm, see `label_propagation`.
    tol : float, optional
        Largest relative residual. Default: 1e-8, in float32 1e-6.
    max_iter : int, optional
        Largest number of iterations; by default that of `label_propagation`.
    n_jobs : int, optional
        Number of threads; -1 for Numba's setting, which is the default.

    Attributes
    ----------
    transduction_ : ndarray, shape (n,)
        Labels of all samples of `fit`.
    label_distributions_ : ndarray, shape (n, C)
        Scores, normalised to sum 1; zeros where no labelled sample can be reached.
    classes_ : ndarray
        Labels.
    X_ : ndarray, shape (n, p)
        The samples.
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
    >>> import numpy as np, solvers
    >>> W, labels, truth, points = solvers.datasets.moons_graph(300, labelled=20, noise=0.1, rng=0)
    >>> model = solvers.bcd.LabelPropagation().fit(points, labels)
    >>> bool(np.mean(model.transduction_ == truth) > 0.95)
    True
    """

    def __init__(
        self,
        kernel="knn",
        *,
        gamma=20.0,
        n_neighbors=7,
        alpha=None,
        method="auto",
        tol=None,
        max_iter=None,
        n_jobs=None,
    ):
        self.kernel = kernel
        self.gamma = gamma
        self.n_neighbors = n_neighbors
        self.alpha = alpha
        self.method = method
        self.tol = tol
        self.max_iter = max_iter
        self.n_jobs = n_jobs

    def fit(self, X, y):
        """Spread labels.

        Parameters
        ----------
        X : array, shape (n, p)
            Rows are samples.
        y : array, shape (n,)
            Labels, -1 where unknown.

        Returns
        -------
        LabelPropagation
            Itself.
        """
        X, y = validate_data(self, X, y, dtype=DTYPES)
        check_classification_targets(y)
        check_choice(self.kernel, "kernel", ("knn", "rbf"))
        # Words have no -1.
        known = y != -1 if y.dtype.kind in "iuf" else np.ones(y.size, bool)
        self.classes_ = np.unique(y[known])
        numbers = np.full(y.size, -1)
        numbers[known] = np.searchsorted(self.classes_, y[known])
        self.X_ = X
        W = self._edges(X, 1)
        W = W.maximum(W.T) if self.kernel == "knn" else np.maximum(W, W.T)
        self.result_ = bcd.label_propagation(
            W,
            numbers,
            alpha=self.alpha,
            method=self.method,
            isolated="zero",
            # Its own limit is no None.
            **{word: value for word, value in settings(self).items() if value is not None},
        )
        self.label_distributions_ = _shares(self.result_.x)
        self.transduction_ = self.classes_[self.label_distributions_.argmax(axis=1)]
        self.n_iter_ = n_iter(self.result_)
        return self

    def predict_proba(self, X):
        """Return the mean scores of a sample's neighbours among those of `fit`.

        Parameters
        ----------
        X : array, shape (q, p)
            Rows are samples.

        Returns
        -------
        ndarray, shape (q, C)
            In the order of `classes_`; all alike where no neighbour has a score.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=DTYPES)
        shares = _shares(self._edges(X, 0) @ self.label_distributions_)
        shares[shares.sum(axis=1) == 0] = 1.0 / self.classes_.size
        return shares

    def predict(self, X):
        """Predict classes.

        Parameters
        ----------
        X : array, shape (q, p)
            Rows are samples.

        Returns
        -------
        ndarray, shape (q,)
            Labels.
        """
        chosen = self.predict_proba(X).argmax(axis=1)
        return self.classes_[chosen]

    def _edges(self, X, itself):
        """Return weights from samples to those of `fit`, of which they are one or are not."""
        if self.kernel == "rbf":
            W = rbf_kernel(X, self.X_, gamma=check_positive(self.gamma, "gamma"))
            if itself:
                np.fill_diagonal(W, 0.0)
            return W
        number = min(self.n_neighbors, len(self.X_) - itself)
        if number == 0:
            return sp.csr_array((len(X), len(self.X_)))
        near = NearestNeighbors(n_neighbors=number).fit(self.X_)
        # Without a question, a sample is no neighbour of its own.
        return near.kneighbors_graph(None if itself else X)


def shown(result):
    """Return coefficients and intercepts in the shapes of scikit-learn, (C, p) and (C,)."""
    coef = result.x
    if coef.ndim == 1:
        return coef[None, :], np.array([result.intercept], coef.dtype)
    return np.ascontiguousarray(coef.T), np.zeros(coef.shape[1]) + np.asarray(result.intercept)


def _shares(scores):
    """Return rows divided by their sums, where these are not zero."""
    total = scores.sum(axis=1, keepdims=True)
    return np.divide(scores, total, out=np.zeros_like(scores), where=total > 0)
