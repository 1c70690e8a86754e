"""scikit-learn estimators: linear models that choose many penalties, or weights, themselves."""

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin, is_classifier
from sklearn.model_selection import check_cv, train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from .. import bilevel
from .._core._estimators import DTYPES, LinearClassifier, numbered
from .._core.random import check_rng
from .._core.validation import check_count, check_positive, describe
from ._folds import Folds, LeaveOneOut, losses

# Logarithms of the penalty at which the search begins, and of the largest, for features of
# variance 1. The smallest weighs as much as a hundredth of a sample: with less, classes that can
# be told apart send coefficients to infinity.
_START, _HIGHEST, _LEAST_SHARE = -3.0, np.log(1e3), 1e-2


class PenalisedModel(BaseEstimator):
    """What both penalised models share: folds, the search, early stopping and the last fit."""

    def __init__(
        self,
        penalty,
        *,
        cv,
        fit_intercept,
        early_stopping,
        validation_fraction,
        n_iter_no_change,
        tol,
        max_iter,
        random_state,
    ):
        self.penalty = penalty
        self.cv = cv
        self.fit_intercept = fit_intercept
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state

    def _search(self, X, T, labels, loss):
        """Choose penalties, fit all samples with them; return coefficients (p, c) and offsets."""
        X, T = X.astype(np.float64, copy=False), T.astype(np.float64, copy=False)
        rng = check_random_state(self.random_state)
        groups = self._groups(X.shape[1])
        features = Scaling(X, groups, self.fit_intercept)
        Z, marks = features(X), features.marks
        used, third = np.arange(len(X)), None
        if self._stops_early(len(X), int(groups.max()) + 1):
            used, third = self._third(len(X), labels if is_classifier(self) else None, rng)
        problem = self._problem(Z[used], T[used], labels[used], loss, marks, rng)
        x0 = np.full(problem.d, _START)
        watch = Third(self, Z, T, loss, marks, used, third) if third is not None else None
        self.result_ = bilevel.penalty(
            problem.upper,
            problem.lower,
            x0,
            problem.y0,
            X=bilevel.box(min(np.log(_LEAST_SHARE / len(Z)), _START), _HIGHEST),
            tol=self.tol,
            maxiter=self.max_iter,
            callback=watch,
        )
        x = self.result_.x if watch is None or watch.x is None else watch.x
        last = _one_model(Z, T, loss, marks)
        coefficients = last.solve(x, last.y0)
        self.certificate_ = self.result_.certificate
        # A start that is good enough counts as one iteration, as scikit-learn wants it.
        self.n_iter_ = max(self.result_.nit, 1)
        self.penalties_ = np.exp(x[groups]) * features.scale**2
        return features.back(coefficients)

    def _groups(self, p):
        if isinstance(self.penalty, str):
            if self.penalty not in ("per-feature", "single"):
                raise ValueError(
                    f"`penalty` came as {self.penalty!r}; expected 'per-feature', 'single' or the "
                    "group of each feature"
                )
            return np.arange(p) if self.penalty == "per-feature" else np.zeros(p, int)
        groups = np.asarray(self.penalty)
        if groups.shape != (p,) or groups.dtype.kind not in "iu" or groups.min() < 0:
            raise ValueError(
                f"`penalty` came as {describe(self.penalty)}; expected 'per-feature', 'single' or "
                f"a whole number >= 0 for each of {p} features"
            )
        return np.unique(groups, return_inverse=True)[1]

    def _stops_early(self, n, d):
        if isinstance(self.early_stopping, str) and self.early_stopping == "auto":
            return 10 * d > n >= 20
        if not isinstance(self.early_stopping, bool | np.bool_):
            raise TypeError(
                f"`early_stopping` came as {self.early_stopping!r}; expected True, False or 'auto'"
            )
        return self.early_stopping

    def _third(self, n, labels, rng):
        """Set samples aside that neither level sees."""
        check_count(self.n_iter_no_change, "n_iter_no_change", minimum=1)
        return _parts(n, self.validation_fraction, "validation_fraction", labels, rng)

    def _problem(self, Z, T, labels, loss, marks, rng):
        if isinstance(self.cv, str) and self.cv == "loo" and loss == "squared":
            return LeaveOneOut(Z, T, marks)
        train, hold = _weights(self._splits(T, labels, rng), len(T))
        return Folds(Z, T, loss, marks, train, hold)

    def _splits(self, T, labels, rng):
        """Return pairs of samples to train on and to hold out."""
        stratified = labels if is_classifier(self) else None
        cv = self.cv
        if isinstance(cv, str):
            raise ValueError(f"`cv` came as {cv!r}; expected folds, a fraction or a splitter")
        if isinstance(cv, float):
            return [_parts(len(T), cv, "cv", stratified, rng)]
        if not hasattr(cv, "split"):
            cv = min(check_count(cv, "cv", minimum=2), len(T))
        splitter = check_cv(cv, labels, classifier=stratified is not None)
        return list(splitter.split(T, labels))


def _weights(splits, n):
    """Return the weights of samples on both levels, (n, K) each.

    Below it is 1 / n whatever the size of a fold, so that penalties mean the same for all models
    and for the last one.
    """
    train, hold = np.zeros((2, n, len(splits)))
    for k, (kept, out) in enumerate(splits):
        train[kept, k] = 1.0 / n
        hold[out, k] = 1.0
    return train, hold / hold.sum()


def _one_model(Z, T, loss, marks):
    weights = np.full((len(Z), 1), 1.0 / len(Z))
    return Folds(Z, T, loss, marks, weights, weights)


def _parts(n, share, name, labels, rng):
    """Draw a share of samples; return the indices of the others and of these."""
    m = min(max(round(_fraction(share, name) * n), 1), n - 1)
    if labels is not None:
        counts = np.bincount(labels)
        # Each part gets its share of each class, as long as the parts are not too small.
        labels = labels if counts.min() > 1 and min(m, n - m) >= len(counts) else None
    return train_test_split(np.arange(n), test_size=m, random_state=rng, stratify=labels)


def _fraction(value, name):
    if check_positive(value, name) >= 1:
        raise ValueError(f"`{name}` came as {value}; expected a number between 0 and 1")
    return float(value)


class Scaling:
    """Features as the search sees them: centred, of variance 1 by groups, with a one at the end.

    A scale for each group leaves the model as it is: its penalty takes it up.
    """

    def __init__(self, X, groups, intercept):
        deviation = X.std(axis=0)
        # What is left of a constant feature is rounding.
        deviation[deviation <= 1e3 * np.finfo(float).eps * abs(X).max(axis=0)] = 0.0
        squares = np.bincount(groups, deviation**2) / np.bincount(groups)
        self.scale = np.sqrt(np.where(squares > 0, squares, 1.0))[groups]
        self.mean = X.mean(axis=0) if intercept else np.zeros(X.shape[1])
        self.intercept = bool(intercept)
        self.marks = np.r_[groups, np.full(int(self.intercept), -1)]

    def __call__(self, X):
        Z = (X - self.mean) / self.scale
        return np.c_[Z, np.ones(len(Z))] if self.intercept else Z

    def back(self, coefficients):
        """Return coefficients (p, c) and offsets (c,) for the features as they came."""
        coef = coefficients[: len(self.scale)] / self.scale[:, None]
        offset = coefficients[len(self.scale) :].sum(axis=0)
        return coef, offset - self.mean @ coef


class Third:
    """Watches a search on samples that neither level sees, and ends it when these get worse."""

    def __init__(self, estimator, Z, T, loss, marks, used, third):
        self.model = _one_model(Z[used], T[used], loss, marks)
        self.Z, self.T, self.loss = Z[third], T[third], loss
        self.patience = estimator.n_iter_no_change
        self.x, self.best, self.worse, self.y = None, np.inf, 0, self.model.y0

    def __call__(self, intermediate_result):
        x = np.array(intermediate_result.x)
        self.y = self.model.solve(x, self.y)
        value = losses(self.Z @ self.y, self.T, self.loss)[0].mean()
        if value < self.best:
            self.x, self.best, self.worse = x, value, 0
        else:
            self.worse += 1
        return self.worse >= self.patience


class BilevelRidge(RegressorMixin, PenalisedModel):
    r"""Ridge regression that tunes a penalty for each feature, or group, by cross-validation.

    Minimises :math:`\tfrac{1}{2n} \|t - Xw - c\|^2 + \tfrac12 \sum_j \lambda_j w_j^2` with the
    :math:`\lambda` that make the squared errors of held-out samples least, found by `penalty`
    with a certificate rather than on a grid.

    Parameters
    ----------
    penalty : {"per-feature", "single"} or array of int, shape (p,), default "per-feature"
        Which features share a penalty; these should be of one scale.
    cv : int, "loo", float or splitter, default 5
        What is held out: folds, as scikit-learn cuts them; each sample in turn; or a fraction,
        drawn once.
    fit_intercept : bool, default True
        Whether to fit an intercept, which is not penalised.
    early_stopping : bool or "auto", default "auto"
        Whether to set a third part of the samples aside, and to take the penalties that serve it
        best. Many penalties fit the held-out samples too well. "auto" does so with more than one
        penalty for 10 samples.
    validation_fraction : float, default 0.1
        Size of that part.
    n_iter_no_change : int, default 10
        Iterations without progress there after which the search ends.
    tol : float, default 1e-5
        Largest error of the certificate, see `penalty`.
    max_iter : int, default 100
        Largest number of iterations.
    random_state : int, RandomState or None, default None
        Where parts are drawn from.

    Attributes
    ----------
    coef_ : ndarray, shape (p,)
        Coefficients.
    intercept_ : float
        Intercept.
    penalties_ : ndarray, shape (p,)
        The penalties of the features.
    certificate_ : Certificate
        How far from stationary the search ended.
    result_ : BilevelResult
        Everything else about the search, in units of scaled features.
    n_iter_ : int
        Iterations.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Their names, where `X` had any.

    Examples
    --------
    >>> import solvers
    >>> from sklearn.datasets import load_diabetes
    >>> X, t = load_diabetes(return_X_y=True)
    >>> model = solvers.bilevel.BilevelRidge().fit(X, t)
    >>> model.result_.success, model.penalties_.shape
    (True, (10,))
    """

    def __init__(
        self,
        penalty="per-feature",
        *,
        cv=5,
        fit_intercept=True,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-5,
        max_iter=100,
        random_state=None,
    ):
        super().__init__(
            penalty,
            cv=cv,
            fit_intercept=fit_intercept,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            max_iter=max_iter,
            random_state=random_state,
        )

    def fit(self, X, y):
        """Choose penalties and fit the model.

        Parameters
        ----------
        X : array, shape (n, p)
            Rows are samples.
        y : array, shape (n,)
            Targets.

        Returns
        -------
        BilevelRidge
            Itself.
        """
        X, y = validate_data(self, X, y, dtype=DTYPES, y_numeric=True, ensure_min_samples=2)
        t = y.astype(np.float64, copy=False)
        mean = t.mean() if self.fit_intercept else 0.0
        unit = np.sqrt(np.square(t - mean).mean()) or 1.0
        coef, offset = self._search(X, ((t - mean) / unit)[:, None], t, "squared")
        self.coef_ = (unit * coef[:, 0]).astype(X.dtype)
        self.intercept_ = float(mean + unit * offset[0])
        return self

    def predict(self, X):
        """Predict targets.

        Parameters
        ----------
        X : array, shape (q, p)
            Rows are samples.

        Returns
        -------
        ndarray, shape (q,)
            Predictions.
        """
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=DTYPES)
        return X @ self.coef_ + self.intercept_


class BilevelLogisticRegression(LinearClassifier, PenalisedModel):
    r"""Logistic regression that tunes a penalty for each feature, or group, by cross-validation.

    Minimises the mean log-loss plus :math:`\tfrac12 \sum_j \lambda_j |w_j|^2` with the
    :math:`\lambda` that make the log-loss of held-out samples least, found by `penalty` with a
    certificate rather than on a grid. With more than two classes, a feature has a coefficient for
    each (softmax).

    Parameters
    ----------
    penalty, cv, fit_intercept, early_stopping : object
        As in `BilevelRidge`, without ``cv="loo"``.
    validation_fraction, n_iter_no_change, tol, max_iter, random_state : object
        As in `BilevelRidge`.

    Attributes
    ----------
    classes_ : ndarray
        Labels, sorted.
    coef_ : ndarray, shape (1, p) or (c, p)
        Coefficients: for two classes of the second, else of each.
    intercept_ : ndarray, shape (1,) or (c,)
        Intercepts.
    penalties_, certificate_, result_, n_iter_, n_features_in_, feature_names_in_ : object
        As in `BilevelRidge`.

    Examples
    --------
    >>> import solvers
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> model = solvers.bilevel.BilevelLogisticRegression(tol=1e-4).fit(X, y)
    >>> bool(model.score(X, y) > 0.95)
    True
    """

    def __init__(
        self,
        penalty="per-feature",
        *,
        cv=5,
        fit_intercept=True,
        early_stopping="auto",
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-5,
        max_iter=100,
        random_state=None,
    ):
        super().__init__(
            penalty,
            cv=cv,
            fit_intercept=fit_intercept,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            n_iter_no_change=n_iter_no_change,
            tol=tol,
            max_iter=max_iter,
            random_state=random_state,
        )

    def fit(self, X, y):
        """Choose penalties and fit the model.

        Parameters
        ----------
        X : array, shape (n, p)
            Rows are samples.
        y : array, shape (n,)
            Labels of any kind, of two classes or more.

        Returns
        -------
        BilevelLogisticRegression
            Itself.
        """
        X, y = validate_data(self, X, y, dtype=DTYPES, ensure_min_samples=2)
        self.classes_, place = numbered(y)
        hot = place[:, None] == np.arange(len(self.classes_))
        if len(self.classes_) == 2:
            coef, offset = self._search(X, np.where(hot[:, 1:], 1.0, -1.0), place, "logistic")
        else:
            coef, offset = self._search(X, hot, place, "softmax")
        self.coef_, self.intercept_ = coef.T.astype(X.dtype), offset.astype(X.dtype)
        return self


class CleanLogisticRegression(LinearClassifier, BaseEstimator):
    r"""Logistic regression that learns which labels to believe.

    A few samples with labels that can be trusted form the upper level: `penalty` finds the weights
    between 0 and 1 of all other samples under which training on these serves the trusted ones
    best. The model is then fitted to both, the trusted ones at weight 1.

    Compare it with a model of the trusted samples alone: where these are many, that is hard to
    beat.

    Parameters
    ----------
    l2 : float, default 1e-3
        The ridge penalty beside the mean loss, for rows of length 1 on average.
    val_fraction : float, default 0.1
        Without `clean_idx`, the share of samples, drawn at random, that judges the others.
    fit_intercept : bool, default True
        Whether to centre the features and fit an intercept.
    tol : float, default 1e-4
        Largest error of the certificate, see `penalty`.
    max_iter : int, default 50
        Largest number of iterations.
    rng : int, Generator or None, default 0
        Where samples are drawn from.

    Attributes
    ----------
    classes_ : ndarray
        Labels, sorted.
    coef_ : ndarray, shape (1, p) or (c, p)
        Coefficients: for two classes of the second, else of each.
    intercept_ : ndarray, shape (1,) or (c,)
        Intercepts.
    sample_weight_ : ndarray, shape (n,)
        How far each label was believed.
    clean_idx_ : ndarray of int
        The samples that judged.
    certificate_ : Certificate
        How far from stationary the search ended.
    result_ : BilevelResult
        Everything else about the search, in units of scaled features.
    n_iter_ : int
        Iterations.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Their names, where `X` had any.

    Examples
    --------
    >>> import numpy as np
    >>> import solvers
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((200, 2))
    >>> right = X[:, 0] > 0
    >>> wrong = np.arange(200) % 4 == 3
    >>> clean = np.flatnonzero(~wrong)[:30]
    >>> model = solvers.bilevel.CleanLogisticRegression().fit(X, right ^ wrong, clean_idx=clean)
    >>> bool(model.sample_weight_[wrong].mean() < 0.3)
    True
    """

    def __init__(
        self,
        *,
        l2=1e-3,
        val_fraction=0.1,
        fit_intercept=True,
        tol=1e-4,
        max_iter=50,
        rng=0,
    ):
        self.l2 = l2
        self.val_fraction = val_fraction
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.rng = rng

    def fit(self, X, y, clean_idx=None):
        """Weigh the samples and fit the model.

        Parameters
        ----------
        X : array, shape (n, p)
            Rows are samples.
        y : array, shape (n,)
            Labels of any kind, some of them wrong, of two classes or more.
        clean_idx : array of int or bool, optional
            The samples whose labels can be trusted.

        Returns
        -------
        CleanLogisticRegression
            Itself.
        """
        X, y = validate_data(self, X, y, dtype=DTYPES, ensure_min_samples=2)
        self.classes_, place = numbered(y)
        self.clean_idx_ = clean = self._trusted(clean_idx, len(X))
        other = np.setdiff1d(np.arange(len(X)), clean)
        features = Scaling(X.astype(np.float64), np.zeros(X.shape[1], int), self.fit_intercept)
        # Rows of length 1 on average: `l2` means the same for few features and for many.
        features.scale *= np.sqrt(X.shape[1])
        Z = features(X)
        two = len(self.classes_) == 2
        t = 2 * place - 1 if two else place
        problem = bilevel.problems.HyperCleaning(
            Z[other], t[other], Z[clean], t[clean], l2=check_positive(self.l2, "l2")
        )
        self.result_ = bilevel.penalty(problem, tol=self.tol, maxiter=self.max_iter)
        self.certificate_, self.n_iter_ = self.result_.certificate, max(self.result_.nit, 1)
        weight = np.ones(len(X))
        weight[other] = 1.0 / (1.0 + np.exp(-self.result_.x))
        self.sample_weight_ = weight.astype(X.dtype)
        coef, offset = features.back(self._last(Z, t, place, weight))
        self.coef_, self.intercept_ = coef.T.astype(X.dtype), offset.astype(X.dtype)
        return self

    def _trusted(self, clean_idx, n):
        """Return the indices of the samples that judge, sorted."""
        if clean_idx is None:
            share = _fraction(self.val_fraction, "val_fraction")
            m = min(max(round(share * n), 1), n - 1)
            return np.sort(check_rng(self.rng).choice(n, m, replace=False))
        clean = np.asarray(clean_idx)
        if clean.dtype == bool and clean.shape == (n,):
            clean = np.flatnonzero(clean)
        if clean.ndim != 1 or clean.dtype.kind not in "iu":
            raise TypeError(
                f"`clean_idx` came as {describe(clean_idx)}; expected indices of samples, or True "
                f"or False for each of {n}"
            )
        clean = np.unique(clean)
        if not 0 < len(clean) < n or clean[0] < 0 or clean[-1] >= n:
            raise ValueError(
                f"`clean_idx` came as {describe(clean_idx)}; expected some, not all, of the "
                f"samples 0 to {n - 1}"
            )
        return clean

    def _last(self, Z, t, place, weight):
        """Fit all samples with their weights; return coefficients (p, c)."""
        two = len(self.classes_) == 2
        T = t[:, None] if two else place[:, None] == np.arange(len(self.classes_))
        marks = np.zeros(Z.shape[1], int)
        weights = (weight / len(Z))[:, None]
        model = Folds(
            Z, T.astype(np.float64), "logistic" if two else "softmax", marks, *[weights] * 2
        )
        return model.solve(np.log([self.l2]), model.y0)
