"""Tell eights from other digits without looking at where and how straight they stand.

The weights of a logistic model have length 1, and to first order its score must not change when
the mean eight, or the mean of the other digits, is shifted, turned or enlarged a little: nine
equations for the weights of 64 pixels and an offset.
"""

import time

import numpy as np

from .._core.arrays import to_numpy
from ..constrained import certify, minimize
from ._stop import Outcome, Peer

# Ink is measured in sixteenths; weights of length 1 need scores of some size to be sure.
STRETCH = 0.5
EIGHT = 8
TOL = 1e-8
# Iterations after which the others have had their chance.
MAXITER = 1000


def visit(trip):
    """Solve, and let two methods of SciPy do the same."""
    X, y, T = digits(quick=trip.quick)
    with trip.step("preparing"):
        problem = pose(X, y, T, trip.be.xp)
        start = trip.be.xp.asarray(first_guess(X))
        minimize(problem["fun"], start, **options(problem), maxiter=500)
    result = minimize(problem["fun"], start, **options(problem), tol=TOL, progress=True)
    host = pose(X, y, T, np)
    curves, peers = {"ours": (result.history["seconds"], result.history["kkt"])}, []
    for method in ("SLSQP", "trust-constr"):
        with trip.step(f"scipy.optimize.minimize, {method}"):
            curve, peer = scipy_run(method, host, first_guess(X))
        curves[method] = curve
        peers.append(peer)
    free = unconstrained(X, y)
    w = to_numpy(result.x)
    numbers = {
        "samples": len(y),
        "unknowns": len(w),
        "equations": len(T) + 1,
        "fun": result.fun,
        "mistakes": mistakes(X, y, w),
        "mistakes_without_constraints": mistakes(X, y, free),
        "change_of_score": float(abs(T @ w[:-1]).max()),
        "change_of_score_without_constraints": float(abs(T @ free[:-1]).max()),
    }
    print(f"  mistakes: {numbers['mistakes']:.1%}, "
          f"without constraints {numbers['mistakes_without_constraints']:.1%}")  # fmt: skip
    return Outcome(result, peers, numbers, _picture(w, free, curves))


def digits(*, quick):
    """Return images as rows, labels +1 and -1, and the directions that must not count."""
    from sklearn.datasets import load_digits

    images, label = load_digits(return_X_y=True)
    if quick:
        kept = np.isin(label, (3, EIGHT))
        images, label = images[kept], label[kept]
    y = np.where(label == EIGHT, 1.0, -1.0)
    X = STRETCH * images
    return X, y, np.concatenate([tangents(X[y == side].mean(axis=0)) for side in (1.0, -1.0)])


def tangents(image):
    """Return what shifts, a turn and a change of size add to an 8 x 8 image, as unit rows."""
    down, right = np.gradient(image.reshape(8, 8))
    i, j = np.mgrid[-3.5:4.5, -3.5:4.5]
    rows = np.array([down, right, j * down - i * right, i * down + j * right]).reshape(4, 64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def first_guess(X):
    """Return equal weights of length 1 and no offset."""
    n = X.shape[1]
    return np.concatenate([np.full(n, n**-0.5), [0.0]])


def pose(X, y, T, xp):
    """Return the problem as keywords of `minimize`, on arrays of a module."""
    from scipy.optimize import NonlinearConstraint

    m = len(T) + 1
    X, y = xp.asarray(np.column_stack([X, np.ones(len(X))])), xp.asarray(y)
    T = xp.asarray(np.column_stack([T, np.zeros(len(T))]))
    square = xp.asarray(np.append(np.ones(X.shape[1] - 1), 0.0))

    def off(x):
        """How much each sample adds to the gradient, and to the Hessian."""
        p = 1.0 / (1.0 + xp.exp(xp.clip(y * (X @ x), -500.0, 500.0)))
        return y * p / len(y), p * (1.0 - p) / len(y)

    con = NonlinearConstraint(
        lambda x: xp.concatenate([T @ x, (square @ x**2 - 1.0).reshape(1)]),
        np.zeros(m),
        np.zeros(m),
        jac=lambda x: xp.concatenate([T, (2.0 * square * x)[None]]),
        hess=lambda x, v: xp.diag(2.0 * v[-1] * square),
    )
    return {
        "fun": lambda x: float(xp.logaddexp(0.0, -y * (X @ x)).mean()),
        "jac": lambda x: -(X.T @ off(x)[0]),
        "hess": lambda x: (X.T * off(x)[1]) @ X,
        "constraints": con,
    }


def options(problem):
    """Return a problem without its objective."""
    return {key: value for key, value in problem.items() if key != "fun"}


def scipy_run(method, problem, start):
    """Return the residuals of SciPy's iterates against seconds, and its final answer, judged."""
    import warnings

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
    judged = [certify(x, **problem, tol=TOL).value for _, x in seen]
    curve = np.array([taken for taken, _ in seen]), np.array(judged)
    name = f"scipy.optimize.minimize, {method}"
    return curve, Peer(name, seconds, certify(answer.x, **problem, tol=TOL))


def unconstrained(X, y):
    """Return the logistic model whose weights have length 1, free otherwise."""
    problem = pose(X, y, np.zeros((0, X.shape[1])), np)
    return minimize(problem["fun"], first_guess(X), **options(problem), tol=1e-6).x


def mistakes(X, y, x):
    """Return the fraction of samples on the wrong side."""
    return float(np.mean(y * (X @ x[:-1] + x[-1]) <= 0))


def _picture(w, free, curves):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.6))
    top = max(abs(w[:-1]).max(), abs(free[:-1]).max())
    panels = {"Weights of pixels for an eight": free, "... that shifts and turns leave alone": w}
    for ax, (title, x) in zip((left, middle), panels.items(), strict=True):
        drawn = ax.imshow(x[:-1].reshape(8, 8), cmap="RdBu", vmin=-top, vmax=top)
        ax.set(title=title, xticks=[], yticks=[])
    figure.colorbar(drawn, ax=(left, middle), shrink=0.8)
    for name, (seconds, kkt) in curves.items():
        right.loglog(seconds, kkt, marker=".", label=name)
    right.axhline(TOL, color="grey", linestyle=":", label="tolerance")
    right.set(title="Optimality of the iterates", xlabel="seconds", ylabel="KKT residual")
    right.legend()
    return figure
