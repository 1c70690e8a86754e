"""Tell handwritten digits apart without looking at where and how straight they stand.

In a softmax model the weights of each digit have length 1, and to first order its score must not
change when its mean image is shifted, turned or enlarged a little: five equations for each digit,
and one for the offsets, of which only differences matter.
"""

import time
import warnings
from functools import partial

import numpy as np

from .._core.arrays import to_numpy
from .._core.threads import serial_blas
from ..constrained import certify, minimize
from ._stop import Outcome, Peer

# Ink is measured in sixteenths; weights of length 1 need scores of some size to be sure.
STRETCH = 0.5
# Which digits are told apart, on a quick tour and on a whole one: those that look alike.
FEW, MANY = (3, 5, 8), (1, 3, 5, 8, 9)
TOL = 1e-8
# Iterations after which the others have had their chance, and how many of them are drawn.
MAXITER, DRAWN = 1000, 60


def visit(trip):
    """Solve, and let two methods of SciPy do the same."""
    wanted = FEW if trip.quick else MANY
    X, y, T = digits(wanted)
    problem, host = pose(X, y, T, trip.be.xp), pose(X, y, T, np)
    start = trip.be.xp.asarray(first_guess(T))
    curves, peers = {}, []
    # All on one thread: products of this size gain little from more, and wait for them.
    with serial_blas():
        with trip.step("a rehearsal"):
            solve(problem, start)
        result = solve(problem, start, progress=True)
        curves["ours"] = result.history["seconds"], result.history["kkt"]
        for method in ("SLSQP", "trust-constr"):
            with trip.step(f"scipy.optimize.minimize, {method}"):
                curves[method], peer = scipy_run(method, host, first_guess(T))
            peers.append(peer)
        free = solve(pose(X, y, T[:, :0], np), first_guess(T)).x
    ours = to_numpy(result.x)
    numbers = {
        "samples": len(y),
        "unknowns": len(ours),
        "equations": len(result.lam),
        "fun": result.fun,
        "mistakes": mistakes(X, y, ours),
        "mistakes_without_equations": mistakes(X, y, free),
    }
    print(f"  mistakes: {numbers['mistakes']:.1%}, with equations for lengths only "
          f"{numbers['mistakes_without_equations']:.1%}")  # fmt: skip
    return Outcome(result, peers, numbers, _picture(ours, free, curves, wanted))


def digits(wanted):
    """Return images, classes from 0, and for each class what must not count, (K, 4, 64)."""
    from ._estimators import handwritten_digits

    images, label = handwritten_digits()
    images, label = images[np.isin(label, wanted)], label[np.isin(label, wanted)]
    y = np.searchsorted(sorted(wanted), label)
    X = STRETCH * images
    return X, y, np.array([tangents(X[y == k].mean(axis=0)) for k in range(len(wanted))])


def tangents(image):
    """Return what shifts, a turn and a change of size add to an 8 x 8 image, as unit rows."""
    down, right = np.gradient(image.reshape(8, 8))
    i, j = np.mgrid[-3.5:4.5, -3.5:4.5]
    rows = np.array([down, right, j * down - i * right, i * down + j * right]).reshape(4, 64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def first_guess(T):
    """Return equal weights of length 1 and no offsets."""
    classes, _, n = T.shape
    return np.tile(np.append(np.full(n, n**-0.5), 0.0), classes)


def pose(X, y, T, xp):
    """Return the problem as keywords of `minimize`, on arrays of a module.

    The unknowns are weights and offset of each class, one class after the other.
    """
    from scipy.optimize import NonlinearConstraint

    (classes, few, _), (samples, n) = T.shape, X.shape
    X = xp.asarray(np.column_stack([X, np.ones(samples)]))
    Y = xp.asarray(np.eye(classes)[y])
    # Rows of equations that are linear: tangents of each class, then the sum of the offsets.
    A = np.zeros((few * classes + 1, classes, n + 1))
    for k in range(classes):
        A[few * k : few * (k + 1), k, :n] = T[k]
    A[-1, :, n] = 1.0
    A = xp.asarray(A.reshape(len(A), -1))
    own = xp.asarray(np.kron(np.eye(classes), np.append(np.ones(n), 0.0)))
    m = len(A) + classes

    def chances(x):
        scores = X @ x.reshape(classes, n + 1).T
        p = xp.exp(scores - scores.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)

    def fun(x):
        scores = X @ x.reshape(classes, n + 1).T
        top = scores.max(axis=1)
        return float(
            (top + xp.log(xp.exp(scores.T - top).sum(axis=0)) - (scores * Y).sum(1)).mean()
        )

    def hess(x):
        p = chances(x)
        H = xp.empty((classes, n + 1, classes, n + 1))
        for k in range(classes):
            for j in range(k + 1):
                H[k, :, j] = (X.T * (p[:, k] * ((k == j) - p[:, j]) / samples)) @ X
                H[j, :, k] = H[k, :, j]
        return H.reshape(classes * (n + 1), -1)

    con = NonlinearConstraint(
        lambda x: xp.concatenate([A @ x, own @ x**2 - 1.0]),
        np.zeros(m),
        np.zeros(m),
        jac=lambda x: xp.concatenate([A, 2.0 * own * x]),
        hess=lambda x, v: xp.diag(2.0 * (own.T @ v[-classes:])),
    )
    return {
        "fun": fun,
        "jac": lambda x: ((chances(x) - Y).T @ X / samples).reshape(-1),
        "hess": hess,
        "constraints": con,
    }


def solve(problem, start, **options):
    """Solve with our method."""
    return minimize(x0=start, **problem, tol=TOL, **options)


def scipy_run(method, problem, start):
    """Return the residuals of SciPy's iterates against seconds, and its final answer, judged."""
    from scipy.optimize import minimize as scipy_minimize

    seen, began = [], time.perf_counter()

    def note(x, *state):
        seen.append((time.perf_counter() - began, x.copy()))

    settings = {
        "SLSQP": {"options": {"ftol": 1e-14, "maxiter": MAXITER}},
        "trust-constr": {
            "hess": problem["hess"],
            "options": {"gtol": 1e-9, "xtol": 1e-15, "maxiter": MAXITER},
        },
    }[method]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = scipy_minimize(
            problem["fun"], start, jac=problem["jac"], constraints=problem["constraints"],
            method=method, callback=note, **settings,
        )  # fmt: skip
    seconds = time.perf_counter() - began
    # Curvature is not asked for.
    judge = partial(certify, **{k: v for k, v in problem.items() if k != "hess"}, tol=TOL)
    shown = seen[:: max(1, len(seen) // DRAWN)] + seen[-1:]
    curve = np.array([(taken, judge(x).value) for taken, x in shown]).T
    return curve, Peer(f"scipy.optimize.minimize, {method}", seconds, judge(answer.x))


def mistakes(X, y, x):
    """Return the fraction of samples whose highest score is another class's."""
    W = x.reshape(-1, X.shape[1] + 1)
    return float(np.mean((X @ W[:, :-1].T + W[:, -1]).argmax(axis=1) != y))


def _picture(ours, free, curves, classes):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.6))
    eight = -65 * (len(classes) - classes.index(8))
    weights = {
        "Weights of pixels for an eight": free[eight : eight + 64],
        "... that shifts and turns leave alone": ours[eight : eight + 64],
    }
    top = max(abs(w).max() for w in weights.values())
    for ax, (title, w) in zip((left, middle), weights.items(), strict=True):
        drawn = ax.imshow(w.reshape(8, 8), cmap="RdBu", vmin=-top, vmax=top)
        ax.set(title=title, xticks=[], yticks=[])
    figure.colorbar(drawn, ax=(left, middle), shrink=0.8)
    for name, (seconds, kkt) in curves.items():
        right.loglog(seconds, kkt, marker=".", label=name)
    right.axhline(TOL, color="grey", linestyle=":", label="tolerance")
    right.set(title="Optimality of the iterates", xlabel="seconds", ylabel="KKT residual")
    right.legend()
    return figure
