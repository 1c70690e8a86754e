"""What scikit-learn estimators of several families share."""

import numpy as np
from scipy.special import expit, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.extmath import safe_sparse_dot
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

DTYPES = [np.float64, np.float32]


def numbered(y):
    """Return the labels of two or more classes, sorted, and the number of each sample's class."""
    check_classification_targets(y)
    classes, place = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        raise ValueError("`y` holds one class; expected two classes or more")
    return classes, place


class Classifier(ClassifierMixin):
    """Chooses labels by scores; `_scores` returns one for each class, for two classes one."""

    def decision_function(self, X):
        """Return the scores of samples.

        Parameters
        ----------
        X : array, shape (q, p)
            Rows are samples; a sparse matrix where `fit` takes one.

        Returns
        -------
        ndarray, shape (q,) or (q, c)
            For two classes, positive where the second is likelier; else one for each class.
        """
        scores = self._scores(X)
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict(self, X):
        """Predict labels.

        Parameters
        ----------
        X : array, shape (q, p)
            Rows are samples; a sparse matrix where `fit` takes one.

        Returns
        -------
        ndarray, shape (q,)
            Labels.
        """
        scores = self.decision_function(X)
        return self.classes_[scores.argmax(axis=1) if scores.ndim == 2 else (scores > 0) * 1]


class LinearClassifier(Classifier):
    """What classifiers with scores ``X @ coef_.T + intercept_`` share.

    Attributes
    ----------
    formats : list of str or False
        Sparse formats that they take.
    """

    formats: list[str] | bool = False

    def _scores(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=DTYPES, accept_sparse=self.formats)
        return safe_sparse_dot(X, self.coef_.T) + self.intercept_

    def predict_proba(self, X):
        """Return the probabilities of classes.

        Parameters
        ----------
        X : array, shape (q, p)
            Rows are samples; a sparse matrix where `fit` takes one.

        Returns
        -------
        ndarray, shape (q, c)
            In the order of `classes_`.
        """
        scores = self.decision_function(X)
        if scores.ndim == 1:
            return np.stack([expit(-scores), expit(scores)], axis=1)
        return softmax(scores, axis=1)

    def predict_log_proba(self, X):
        """Return the logarithms of the probabilities of classes.

        Parameters
        ----------
        X : array, shape (q, p)
            Rows are samples; a sparse matrix where `fit` takes one.

        Returns
        -------
        ndarray, shape (q, c)
            In the order of `classes_`.
        """
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = bool(self.formats)
        return tags
