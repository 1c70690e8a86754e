"""Find the wrong ones among a thousand labels, half of which are wrong, by fifty that are right.

A wrong label is one digit too high: whoever believes all labels learns the mistake. Each label has
a weight. The lower level trains a classifier with these weights; the upper level moves them until
that classifier is best for the fifty images whose labels can be trusted.
"""

import time

import numpy as np

from .. import bilevel
from .._core.arrays import to_numpy
from ._estimators import handwritten_digits, softmax_regression
from ._stop import Outcome, Peer

TRUSTED, LABELLED, FEW = 50, 1000, 300
WRONG = 0.5
L2, TOL = 5e-3, 1e-5
# Penalties to choose from, in hindsight, where only trusted labels are used.
PENALTIES = np.geomspace(1e-3, 1.0, 7)
SHOWN = 8


def visit(trip):
    """Weigh the labels, compare with a model that believes them all, and with a cautious one."""
    X, y, labels, wrong, parts = mislabelled(FEW if trip.quick else LABELLED)
    trusted, labelled, test = parts
    xp = trip.be.xp
    problem = bilevel.problems.HyperCleaning(
        *(xp.asarray(a) for a in (X[labelled], labels, X[trusted], y[trusted])), l2=L2
    )
    with trip.step("preparing kernels, which takes longer the first time"):
        bilevel.penalty(problem, tol=1.0)
    result = bilevel.penalty(problem, tol=TOL, progress=True)
    with trip.step("asking scikit-learn to believe every label, or the trusted ones alone"):
        started = time.perf_counter()
        believing = softmax_regression(X[labelled], labels, L2)
        seconds = time.perf_counter() - started
        cautious = [softmax_regression(X[trusted], y[trusted], l2) for l2 in PENALTIES]
        knowing = softmax_regression(X[labelled][~wrong], y[labelled][~wrong], L2)
    judged = bilevel.certify(
        problem.upper, problem.lower, problem.X.project(problem.x0 + 99.0), problem.y0,
        X=problem.X, tol=TOL,
    )  # fmt: skip
    right = {
        "every label": share_right(believing, X[test], y[test]),
        "trusted labels alone": max(share_right(Y, X[test], y[test]) for Y in cautious),
        "weighed labels": share_right(to_numpy(result.y), X[test], y[test]),
        "right labels alone": share_right(knowing, X[test], y[test]),
    }
    weight = 1.0 / (1.0 + np.exp(-to_numpy(result.x)))
    told = float(((weight > 0.5) == ~wrong).mean())
    print(f"  labels told apart: {told:.1%}; images left out that are called right, by a model of "
          + ", ".join(f"{name} {share:.1%}" for name, share in right.items()))  # fmt: skip
    return Outcome(
        result,
        [Peer("sklearn LogisticRegression, every label believed", seconds, judged)],
        {
            "labels": len(labels),
            "wrong_labels": int(wrong.sum()),
            "trusted_labels": TRUSTED,
            "labels_told_apart": told,
            **{f"right_with_{name.replace(' ', '_')}": share for name, share in right.items()},
        },
        _picture(X[labelled], labels, wrong, weight, right),
    )


def mislabelled(n):
    """Return digits as rows that end with a one; of n of them, half the labels are one too high.

    Returns
    -------
    tuple
        Images, true labels, given labels, which of these are wrong, and the positions of trusted,
        labelled and other images.
    """
    X, y = handwritten_digits()
    rng = np.random.default_rng(0)
    parts = np.split(rng.permutation(len(y)), [TRUSTED, TRUSTED + LABELLED])
    wrong = rng.random(LABELLED) < WRONG
    labels = (y[parts[1]] + wrong) % 10
    parts[1] = parts[1][:n]
    return np.column_stack([X / 16, np.ones(len(X))]), y, labels[:n], wrong[:n], parts


def share_right(Y, X, y):
    """Return the share of rows whose largest score is that of their class."""
    return float(((X @ Y).argmax(axis=1) == y).mean())


def _picture(X, labels, wrong, weight, right):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.5), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(3, 1.3))
    left, middle = above.subplots(1, 2)
    bins = np.linspace(0, 1, 26)
    for chosen, name, color in ((~wrong, "right", "tab:blue"), (wrong, "wrong", "tab:red")):
        left.hist(weight[chosen], bins, color=color, alpha=0.6, label=f"{name} labels")
    left.set(title="What labels weigh in the end", xlabel="weight", ylabel="labels")
    left.legend()
    colors = "0.6", "0.6", "tab:blue", "0.8"
    shown = middle.barh(list(right), [100 * share for share in right.values()], color=colors)
    middle.bar_label(shown, fmt="%.1f", padding=3)
    middle.set(
        title="Images left out that are called right",
        xlabel="%, by a model trained on",
        xlim=(0, 110),
    )
    below.suptitle("Labels that weigh least")
    for ax, i in zip(below.subplots(1, SHOWN), np.argsort(weight), strict=False):
        ax.imshow(X[i, :64].reshape(8, 8), cmap="gray_r")
        ax.set_xlabel(f"'{labels[i]}'", color="tab:red" if wrong[i] else "tab:blue")
        ax.set(xticks=[], yticks=[])
    return figure
