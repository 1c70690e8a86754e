"""Accuracy of convex networks beside scikit-learn's, on the same samples left out.

python -m benchmarks.accuracy_relu [--beta 1e-3] [wine breast_cancer digits]
"""

import argparse
import sys
import time
import warnings

import numpy as np
import sklearn.datasets
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from solvers import relu

SEEDS = range(10)


def compare(name, beta):
    """Return one row: both accuracies on the samples left out, gap and seconds."""
    X, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
    rows, left_out, label, truth = train_test_split(
        X, y, test_size=0.3, random_state=0, stratify=y
    )
    started = time.perf_counter()
    model = relu.ConvexReLUClassifier(beta, random_state=0).fit(rows, label)
    seconds = time.perf_counter() - started
    scores = [
        make_pipeline(StandardScaler(), MLPClassifier(random_state=seed))
        .fit(rows, label)
        .score(left_out, truth)
        for seed in SEEDS
    ]
    ours = model.score(left_out, truth)
    return (
        f"| {name} | {ours:.2%} | {max(scores):.2%} | {np.median(scores):.2%} "
        f"| {model.gap_:.1e} | {seconds:.1f} |"
    )


def main():
    """Compare on the tables asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", default=["wine", "breast_cancer", "digits"])
    parser.add_argument("--beta", type=float, default=1e-3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # the gap tells what was reached
    head = "| table | ours | MLPClassifier, best of 10 | median | our gap | our seconds |"
    sys.stdout.write(f"{head}\n|---|---|---|---|---|---|\n")
    for name in args.tables:
        sys.stdout.write(f"{compare(name, args.beta)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
