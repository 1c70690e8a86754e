"""Tell benign from malignant tumours by few of many features, and prove that no choice is better.

The features are thirty measurements of cells and the products of every two of them. An L1 penalty
leaves most of them out; how many depends on its weight, so there is a path of answers, every one
of them with a duality gap.
"""

import time
import warnings

import numpy as np

from .. import bcd
from .._core.arrays import to_numpy
from ..datasets import breast_cancer_interactions
from ..penalties import L1
from ._estimators import sparse_logistic_regression
from ._stop import Outcome, Peer

# Share of the samples to learn from, and of the largest penalty in the answer shown.
TRAIN, SHARE = 0.7, 0.03
NUMBER, EPS = 40, 0.01
# Features of a quick tour.
FEW = 120
TOL = 1e-8
# How often the other solver may see the data.
PASSES = 1000


def visit(trip):
    """Solve for one penalty, with scikit-learn's solver too, and along a path of them."""
    X, y, names = breast_cancer_interactions()
    if trip.quick:
        X, names = X[:, :FEW], names[:FEW]
    order = np.random.default_rng(0).permutation(y.size)
    train, test = np.split(order, [round(TRAIN * y.size)])
    data = tuple(map(trip.be.xp.asarray, (X[train], y[train])))
    alpha = SHARE * bcd.alpha_max("logistic", *data, fit_intercept=True)
    with trip.step("preparing kernels, which takes longer the first time"):
        _solve(*data, alpha)
    result = _solve(*data, alpha, progress=True)
    with trip.step(f"following a path of {NUMBER} penalties"):
        path = bcd.path(bcd.logistic, *data, alphas=NUMBER, eps=EPS, fit_intercept=True, tol=TOL)
    with trip.step("asking scikit-learn for the same"):
        peer = _peer(X[train], y[train], alpha)
    wrong = mistakes(X[test], y[test], to_numpy(path.coefs), to_numpy(path.intercepts))
    w = to_numpy(result.x)
    (ours,) = mistakes(X[test], y[test], w[None], np.array([result.intercept]))
    print(f"  {np.count_nonzero(w)} of {w.size} features; "
          f"{ours:.1%} of {test.size} tumours left out are called wrong")  # fmt: skip
    return Outcome(
        result,
        [peer],
        {
            "samples": train.size,
            "features": w.size,
            "alpha": alpha,
            "support": int(np.count_nonzero(w)),
            "mistakes_on_samples_left_out": float(ours),
            "path_seconds": path.seconds,
            "path_gap": path.certificate.value,
        },
        _picture(path, wrong, alpha, names, w),
    )


def _solve(X, y, alpha, **options):
    return bcd.logistic(X, y, alpha, penalty="l1", fit_intercept=True, tol=TOL, **options)


def _peer(X, y, alpha):
    """Return what scikit-learn makes of the problem, judged like our answer."""
    problem = bcd.Problem(X, y, datafit="logistic", penalty=L1(alpha), fit_intercept=True)
    model = sparse_logistic_regression(alpha, y.size, max_iter=PASSES)
    started = time.perf_counter()
    with warnings.catch_warnings():
        # The certificate tells what it has reached.
        warnings.simplefilter("ignore")
        model.fit(X, y)
    seconds = time.perf_counter() - started
    judged = bcd.certify(problem, model.coef_[0], intercept=model.intercept_[0], tol=TOL)
    return Peer("sklearn LogisticRegression", seconds, judged)


def mistakes(X, y, coefs, intercepts):
    """Return the share of samples that each row of coefficients puts in the wrong class."""
    return np.mean(np.where(X @ coefs.T + intercepts > 0, 1.0, -1.0) != y[:, None], axis=0)


def _picture(path, wrong, alpha, names, w):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    alphas, coefs = to_numpy(path.alphas), to_numpy(path.coefs)
    largest = set(np.argsort(-np.abs(w))[:6])
    for j in np.flatnonzero(coefs.any(axis=0)):
        named = {"label": names[j], "lw": 2} if j in largest else {"color": "0.8", "lw": 0.8}
        above.plot(alphas, coefs[:, j], zorder=2 if j in largest else 1, **named)
    above.set(
        title=f"{coefs.shape[1]} features of a tumour: one after the other comes in",
        ylabel="coefficient",
        xscale="log",
    )
    above.legend(loc="upper left", fontsize="small")
    below.plot(alphas, 100 * wrong, label="wrong on samples left out (%)")
    below.plot(alphas, np.count_nonzero(coefs, axis=1), label="features in use")
    below.set(xlabel="alpha, weight of the penalty", ylim=(0, None))
    below.legend(loc="upper center", fontsize="small")
    for ax in (above, below):
        ax.axvline(alpha, color="black", ls="--", lw=1)
    above.invert_xaxis()
    return figure
