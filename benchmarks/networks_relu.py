"""Networks beside those of descent: objectives within equal time, and labels of samples left out.

Run from the repository's root; `--only` runs some parts and keeps the others::

    python -m benchmarks.networks_relu [--only objectives labels memory]
"""

import argparse
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import sklearn.datasets
from scipy.optimize import minimize
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from solvers import datasets, relu

SEEDS, NEURONS = range(10), 100
TABLES = ("iris", "wine", "breast_cancer", "diabetes", "digits")
OUT = Path(__file__).parent / "results" / "networks_relu.md"


def objectives(beta=0.5):
    """Compare with L-BFGS on the network: ten seeds within the same time and a fifth more."""
    lines = [
        "## Objectives",
        "",
        f'Squared loss, beta = {beta}, `admm(refine="auto", tol=1e-3)` against SciPy\'s L-BFGS on '
        f"networks of {NEURONS} neurons: the best of ten starts, as many of them as end within "
        "1.2 times our seconds, and of all ten, with their seconds. Excess over ours.",
        "",
        "| table | ours | gap | s | L-BFGS in 1.2 times as long | all ten | s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in TABLES:
        X, y = datasets.standard_table(name)
        started = time.perf_counter()
        res = relu.admm(X, y, beta=beta, refine="auto", tol=1e-3, rng=0, history=False)
        seconds = time.perf_counter() - started
        values, spent = [], []
        started = time.perf_counter()
        for seed in SEEDS:
            values.append(descent(X, y, beta, seed))
            spent.append(time.perf_counter() - started)
        early = [v for v, s in zip(values, spent, strict=True) if s <= 1.2 * seconds]
        best = f"{min(early) / res.fun - 1:+.2%}" if early else "none has ended"
        lines.append(
            f"| {name} | {res.fun:.4f} | {res.gap:.1e} | {seconds:.1f} | {best} "
            f"| {min(values) / res.fun - 1:+.2%} | {spent[-1]:.1f} |"
        )
    return lines


def descent(X, y, beta, seed):
    """Return the objective at which L-BFGS ends."""
    d, rng = X.shape[1], np.random.default_rng(seed)
    size = d * NEURONS

    def value_and_gradient(theta):
        A, a = theta[:size].reshape(d, NEURONS), theta[size:]
        H = X @ A
        active = np.maximum(H, 0.0)
        e = active @ a - y
        slope = X.T @ ((e[:, None] * a) * (H > 0))
        gradient = np.r_[(slope + beta * A).ravel(), active.T @ e + beta * a]
        return 0.5 * (e @ e) + 0.5 * beta * (theta @ theta), gradient

    start = rng.standard_normal(size + NEURONS)
    start[:size] /= np.sqrt(d)
    start[size:] /= np.sqrt(NEURONS)
    options = {"maxiter": 2000, "maxfun": 10000}
    return minimize(value_and_gradient, start, jac=True, method="L-BFGS-B", options=options).fun


def labels():
    """Compare labels of samples left out with those of scikit-learn's networks."""
    lines = [
        "## Labels of samples left out",
        "",
        "A split of 70 to 30, stratified; `ConvexReLUClassifier(random_state=0)` as it is, and "
        "`StandardScaler` with `MLPClassifier(random_state=seed)` for ten seeds.",
        "",
        "| table | ours | best of ten | median | our gap | our s | s of all ten |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in ("wine", "breast_cancer", "digits"):
        X, y = getattr(sklearn.datasets, f"load_{name}")(return_X_y=True)
        rows, left, label, truth = train_test_split(
            X, y, test_size=0.3, random_state=0, stratify=y
        )
        started = time.perf_counter()
        model = relu.ConvexReLUClassifier(random_state=0).fit(rows, label)
        seconds = time.perf_counter() - started
        peers = [
            make_pipeline(StandardScaler(), MLPClassifier(random_state=seed)) for seed in SEEDS
        ]
        started = time.perf_counter()
        scores = [peer.fit(rows, label).score(left, truth) for peer in peers]
        spent = time.perf_counter() - started
        lines.append(
            f"| {name} | {model.score(left, truth):.2%} | {max(scores):.2%} "
            f"| {np.median(scores):.2%} | {model.gap_:.1e} | {seconds:.1f} | {spent:.1f} |"
        )
    return lines


def memory(n=60_000, d=784, gates=100, iterations=4):
    """Measure the memory of a large programme in single precision."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d), dtype=np.float32) / np.float32(np.sqrt(d))
    y = np.maximum(X @ rng.standard_normal((d, 5), dtype=np.float32), 0).sum(axis=1)
    times = []

    def note(intermediate_result):
        times.append(time.perf_counter())
        return len(times) == 2

    started = time.perf_counter()
    res = relu.admm(X, y, beta=10.0, n_gates=gates, rng=0, check_every=iterations, callback=note)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    each = (times[1] - times[0]) / iterations if len(times) > 1 else float("nan")
    return [
        "## Memory",
        "",
        f"n = {n}, d = {d}, P = {gates}, float32, {res.nit} iterations with the checks and the "
        f"certificate: {peak:.1f} GB in all, {seconds:.0f} s, of which {each:.1f} s for an "
        "iteration, its share of a check included.",
    ]


PARTS = {"objectives": objectives, "labels": labels, "memory": memory}


def page(sections):
    """Return the page of sections by part."""
    parts = [f"{sections[p]}\n\n`python -m benchmarks.networks_relu --only {p}`" for p in sections]
    return "\n\n".join(["# Convex networks beside descent", *parts]) + "\n"


def earlier():
    """Return the sections of the page that is there, by part."""
    found = {}
    for text in OUT.read_text().split("\n## ")[1:] if OUT.exists() else ():
        body, command = text.rstrip().rsplit("\n\n", 1)
        found[command.strip("`").split()[-1]] = f"## {body}"
    return found


def main():
    """Run the parts asked for and put them in the page's place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=list(PARTS), choices=PARTS)
    warnings.simplefilter("ignore")  # the gaps tell what was reached
    found = earlier()
    for part in parser.parse_args().only:
        found[part] = "\n".join(PARTS[part]())
        sys.stdout.write(f"{found[part]}\n\n")
        sys.stdout.flush()
        OUT.write_text(page({p: found[p] for p in PARTS if p in found}))


if __name__ == "__main__":
    main()
