"""Train a network to tell tumours apart, and prove how far from the best it is.

A network with one hidden layer has a convex counterpart: its gap bounds what other weights could
gain. The intervals that its neurons can reach bound how far the measurements of a tumour may move
before the label changes.
"""

import time

import numpy as np

from .. import relu
from .._core.arrays import to_numpy
from ..datasets import standard_table
from ..relu._radius import radii
from ._estimators import multilayer_perceptron
from ._stop import Outcome, Peer

# Share of the samples to learn from; weight of the penalty, for the mean loss.
TRAIN, BETA = 0.7, 0.01
TOL = 1e-3
# Neurons of the other network, and measurements of a quick tour.
NEURONS, FEW = 100, 10


def visit(trip):
    """Train, let scikit-learn train a network under the same penalty, and compare."""
    X, y = standard_table("breast_cancer")
    # Offsets are penalised like weights: the smaller, the larger the ones.
    X = np.column_stack([X[:, : FEW if trip.quick else -1], np.ones(y.size)])
    order = np.random.default_rng(0).permutation(y.size)
    train, test = np.split(order, [round(TRAIN * y.size)])
    beta = BETA * train.size
    data = tuple(map(trip.be.xp.asarray, (X[train], y[train])))
    with trip.step("preparing kernels, which takes longer the first time"):
        _solve(*data, beta)
    result = _solve(*data, beta, progress=True)
    with trip.step("asking scikit-learn for the same"):
        hidden, out, seconds = _perceptron(X[train], y[train], beta)
    peer = Peer(
        "sklearn MLPClassifier", seconds, judge(X[train], y[train], beta, hidden, out, result)
    )
    ours = to_numpy(result.net.hidden), to_numpy(result.net.out)
    right, safe = {}, {}
    for name, net in (("ours", ours), ("scikit-learn's", (hidden, out))):
        right[name], safe[name] = prospects(X[test], y[test], *net)
    print("  tumours left out that are called right: "
          + ", ".join(f"{name} {share:.1%}" for name, share in right.items()))  # fmt: skip
    return Outcome(
        result,
        [peer],
        {
            "samples": train.size,
            "features": X.shape[1] - 1,
            "beta": beta,
            "gates": len(result.gates),
            "neurons": ours[1].size,
            "fun": result.fun,
            "dual_global": result.dual_global,
            "right_on_samples_left_out": right["ours"],
            "right_on_samples_left_out_sklearn": right["scikit-learn's"],
        },
        _picture(result, peer, safe),
    )


def _solve(X, y, beta, **options):
    return relu.admm(
        X, y, beta=beta, loss="logistic", scheme="local", refine="auto", tol=TOL, rng=0, **options
    )


def _perceptron(X, y, beta):
    """Return the weights of scikit-learn's network, offsets among them, and its seconds."""
    model = multilayer_perceptron(beta, NEURONS)
    started = time.perf_counter()
    model.fit(X[:, :-1], y)
    seconds = time.perf_counter() - started
    # The column of ones carries offsets, and makes a neuron of the last one.
    hidden = np.vstack([model.coefs_[0], model.intercepts_[0]])
    hidden = np.column_stack([hidden, np.eye(len(hidden))[-1]])
    return hidden, np.append(model.coefs_[1][:, 0], model.intercepts_[1]), seconds


def judge(X, y, beta, hidden, out, result):
    """Return the gap of a network over its own gates and those of a result."""
    mine = result.gates.D
    D = np.hstack([mine, X @ hidden >= 0])
    V, W = (
        np.hstack([np.zeros((len(hidden), mine.shape[1])), hidden * np.maximum(side * out, 0.0)])
        for side in (1.0, -1.0)
    )
    return relu.certify(
        X, y, beta=beta, loss="logistic", V=V, W=W, gates=D, tol=TOL, z=to_numpy(result.z)
    )


def prospects(X, y, hidden, out):
    """Return the share of labels that are right, and how far each of these is safe, sorted."""
    pre, reach = X @ hidden, abs(hidden[:-1]).sum(axis=0)
    score = np.maximum(pre, 0.0) @ out
    right = np.where(score > 0, 1.0, -1.0) == y
    radius = radii(pre, reach, np.column_stack([-out, out]) / 2, (score > 0).astype(int))
    return float(right.mean()), np.sort(np.where(right, radius, 0.0))


def _picture(result, peer, safe):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    bars = {
        "bound for every network": result.dual_global,
        "bound over the gates": result.dual,
        "ours": result.fun,
        "scikit-learn's": peer.certificate.details["fun_convex"],
    }
    colors = "0.7", "0.5", "tab:blue", "tab:green"
    shown = left.barh(list(bars), list(bars.values()), color=colors)
    left.bar_label(shown, fmt="%.1f", padding=3)
    left.margins(x=0.15)
    left.set(title=f"No weights over these gates gain {result.gap:.0e}", xlabel="objective")
    for (name, radius), color in zip(safe.items(), colors[2:], strict=True):
        share = 100 * np.arange(len(radius), 0, -1) / len(radius)
        right.step(radius, share, where="pre", color=color, label=name)
    right.set(
        title="All measurements may move this far",
        xlabel="radius, in the unit of the scaled features",
        ylabel="tumours left out, right and safe (%)",
        xlim=(0, None),
        ylim=(0, 100),
    )
    right.legend()
    return figure
