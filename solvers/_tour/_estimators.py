"""What the tour compares with, and tells apart, from scikit-learn."""

import inspect

from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier


def sparse_logistic_regression(alpha, n, **options):
    """Return scikit-learn's model for the objective ``mean(loss) + alpha |w|_1`` of n samples.

    Its solver "liblinear" would penalise the intercept too.
    """
    # The name of the penalty is about to go.
    old = inspect.signature(LogisticRegression).parameters["penalty"].default == "l2"
    words = {"penalty": "l1"} if old else {"l1_ratio": 1.0}
    return LogisticRegression(
        C=1.0 / (alpha * n), solver="saga", random_state=0, **words, **options
    )


def handwritten_digits():
    """Return 1797 images as rows of 64 pixels, and the digits that they show."""
    return load_digits(return_X_y=True)


def multilayer_perceptron(beta, neurons):
    """Return scikit-learn's network for the objective ``sum(loss) + beta / 2 |weights|^2``.

    It does not penalise offsets.
    """
    return MLPClassifier((neurons,), solver="lbfgs", alpha=beta, max_iter=5000, random_state=0)


def softmax_regression(X, y, l2):
    """Return coefficients (p, c) for ``mean(loss) + l2 / 2 |Y|^2`` over rows that end with a one.

    Like any other, the coefficient of that one is penalised; all classes must occur.
    """
    model = LogisticRegression(C=1.0 / (l2 * len(y)), fit_intercept=False, max_iter=5000)
    return model.fit(X, y).coef_.T
