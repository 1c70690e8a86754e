"""E5 of `paper_relu`: robust training against standard and adversarial training, under attack.

Bai, Gautam and Sojoudi compare convex robust training with networks that learn by gradients from
samples moved by an attack. Here also Adam is full batch, and has as many neurons as there are
gates' weights.
"""

import logging
import time
import warnings

import numpy as np

from benchmarks.peers import common
from solvers import relu

log = logging.getLogger(__name__)
HEADER = ["set", "n", "eps", "training", "gates", "s", "clean", "FGSM", "PGD-40", "worst case",
          "gap", "PGD-40, training loss"]  # fmt: skip


def sets():
    """Return robust problems by name: samples, labels and a radius."""
    from sklearn.datasets import load_breast_cancer, load_digits, make_moons

    found = {"moons": (*make_moons(160, noise=0.1, random_state=0), 0.08)}
    X, t = load_digits(return_X_y=True)
    for pair in ((3, 8), (4, 9)):
        chosen = np.isin(t, pair)
        found[f"digits {pair[0]}, {pair[1]}"] = X[chosen], t[chosen] == pair[0], 0.1
    found["breast cancer"] = (*load_breast_cancer(return_X_y=True), 0.1)
    return {name: (*prepared(X, t), eps) for name, (X, t, eps) in found.items()}


def prepared(X, t):
    """Return centred and scaled samples, and labels -1 and 1."""
    std = X.std(axis=0)
    return (X - X.mean(axis=0)) / np.where(std < 1e-3, 1.0, std), np.where(t, 1.0, -1.0)


def attacks(options):
    """E5: accuracy under attack, and the certified worst case of the training loss."""
    rows = []
    for name, (X, y, eps) in sets().items():
        if name not in options.robust:
            continue
        order = np.random.default_rng(0).permutation(len(X))[: options.samples]
        train, test = order[::2], order[1::2]
        data = X[train], y[train]
        for training, learn in contenders(options, eps).items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                net, result, seconds = learn(*data)
            gates = "-" if result is None else len(result.gates)
            cells = [name, len(train), eps, training, gates, common.significant(seconds)]
            cells += accuracies(net, X[test], y[test], eps)
            proof = ["-", "-"]
            if result is not None and result.robust_fun is not None:
                norms = sum(np.linalg.norm(A, axis=0).sum() for A in (result.V, result.W))
                worst = result.robust_fun - options.beta * norms
                proof = [common.significant(worst, 4), f"{result.gap:.1e}"]
            seen = relu.attack_pgd(net, *data, eps, restarts=3, rng=1).loss.sum()
            rows.append([*cells, *proof, common.significant(seen, 4)])
            log.info("E5 %s", rows[-1])
    return [{
        "title": "E5: under attack",
        "text": f"Hinge loss, beta = {options.beta}; one half of the samples trains, the other "
        "is attacked. Worst case: what training certifies of the loss wherever training samples "
        "move; no attack's loss, in the last column, can be larger.",
        "header": HEADER,
        "rows": rows,
    }]  # fmt: skip


def contenders(options, eps):
    """Return the ways to train, by name."""

    def convex(radius):
        def learn(X, y):
            task = {"beta": options.beta, "loss": "hinge", "bias": True, "n_gates": options.gates,
                    "robust_eps": radius, "tol": 1e-2, "time_limit": 60.0, "rng": 0}  # fmt: skip
            res = relu.admm(X, y, **task)
            return res.net, res, res.seconds

        return learn

    def descent(**attack):
        def learn(X, y):
            started = time.perf_counter()
            net = adam(X, y, options.beta, 2 * options.gates, options.descent, eps, attack)
            return net, None, time.perf_counter() - started

        return learn

    return {
        "convex": convex(None),
        "convex, robust": convex(eps),
        "Adam": descent(),
        "Adam, FGSM": descent(steps=1, step=eps, restarts=1),
        "Adam, PGD": descent(steps=10, restarts=1),
    }


def adam(X, y, beta, neurons, steps, eps, attack, rate=0.02):
    """Train by Adam; `attack` holds options of `attack_pgd`, or nothing."""
    rng = np.random.default_rng(0)
    d = X.shape[1] + 1
    parts = [rng.standard_normal((d, neurons)) / np.sqrt(d), rng.standard_normal(neurons) * 0.1]
    mean, square = ([np.zeros_like(part) for part in parts] for _ in range(2))
    for t in range(1, steps + 1):
        net = relu.Net(parts[0].copy(), parts[1].copy(), True)
        moved = relu.attack_pgd(net, X, y, eps, rng=rng, **attack).X_adv if attack else X
        Z = np.c_[moved, np.ones(len(X))]
        pre = Z @ parts[0]
        A = np.maximum(pre, 0.0)
        slope = -y * (y * (A @ parts[1]) < 1.0)
        hidden = Z.T @ (np.outer(slope, parts[1]) * (pre > 0)) + beta * parts[0]
        for k, g in enumerate((hidden, A.T @ slope + beta * parts[1])):
            mean[k] = 0.9 * mean[k] + 0.1 * g
            square[k] = 0.999 * square[k] + 0.001 * g * g
            scale = np.sqrt(square[k] / (1 - 0.999**t)) + 1e-8
            parts[k] = parts[k] - rate * (mean[k] / (1 - 0.9**t)) / scale
    return relu.Net(*parts, True)


def accuracies(net, X, y, eps):
    """Return the shares of samples that are right as they are, after FGSM and after PGD-40."""
    clean = np.where(net.predict(X) >= 0, 1.0, -1.0)
    step = relu.attack_pgd(net, X, y, eps, steps=1, step=eps, restarts=1, rng=0).pred
    steps = relu.attack_pgd(net, X, y, eps, steps=40, rng=0).pred
    return [f"{(pred == y).mean():.3f}" for pred in (clean, step, steps)]
