"""One penalty per feature, and weights of noisy samples, against jaxopt, TorchOpt and higher.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.bilevel --cases "logistic 1500x500" --threads 1

All contenders minimise the same validation loss psi over the same box from the same start. The
error is how far psi lies above the lowest that is known, relative to it: the lower level is solved
anew here, by SciPy in float64, for the x that a contender returns. Every contender gets the
smallest number of outer iterations that suffices; certificates are not in the clock.
"""

import argparse
import functools
import itertools
import logging
import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax

from benchmarks.peers import common

OURS = "solvers"
DISTRIBUTIONS = ("numpy", "scipy", "numba", "jax", "jaxopt", "torch", "torchopt", "higher")
BOX = (-10.0, 4.0)
_CHUNK = 2000

log = logging.getLogger(__name__)


class Tuning(NamedTuple):
    """Training and validation data, and the loss: "logistic", "squared" or "cleaning"."""

    X: np.ndarray
    t: np.ndarray
    Xv: np.ndarray
    tv: np.ndarray
    loss: str

    @property
    def x0(self):
        return np.zeros(len(self.X)) if self.loss == "cleaning" else np.full(self.X.shape[1], -3.0)

    @property
    def box(self):
        return (-8.0, 8.0) if self.loss == "cleaning" else BOX

    def ours(self):
        from solvers.bilevel import problems

        makers = {
            "logistic": problems.LogisticHPO,
            "squared": problems.RidgeHPO,
            "cleaning": problems.HyperCleaning,
        }
        return makers[self.loss](self.X, self.t, self.Xv, self.tv)

    def psi(self, x):
        """Return the validation loss of the model that x trains, solved here."""
        x = np.clip(np.asarray(x, dtype=float), *self.box)
        if not np.isfinite(x).all():
            return math.inf
        if self.loss == "squared":
            H = self.X.T @ self.X / len(self.t) + np.diag(np.exp(x))
            y = np.linalg.solve(H, self.X.T @ self.t / len(self.t))
            return float(0.5 * np.square(self.Xv @ y - self.tv).mean())
        if self.loss == "logistic":
            return float(
                np.logaddexp(0.0, -self.tv * (self.Xv @ self._logistic(np.exp(x)))).mean()
            )
        return self._cleaned(expit(x))

    def _logistic(self, penalties):
        """Newton's method with a backtracking search."""
        X, t, n = self.X, self.t, len(self.t)
        y, m = np.zeros(X.shape[1]), np.zeros(len(self.t))

        def value(y, m):
            return np.logaddexp(0.0, -m).mean() + 0.5 * penalties @ np.square(y)

        for _ in range(100):
            s = expit(-m)
            gradient = -X.T @ (t * s) / n + penalties * y
            if np.abs(gradient).max() <= 1e-11:
                break
            w = s * (1.0 - s) / n
            H = np.diag(penalties)
            for first in range(0, n, _CHUNK):
                part = X[first : first + _CHUNK]
                H += (part * w[first : first + _CHUNK, None]).T @ part
            step = cho_solve(cho_factor(H), -gradient)
            moved, now, length = t * (X @ step), value(y, m), 1.0
            slack = 1e-14 * abs(now)
            while length > 1e-10 and value(y + length * step, m + length * moved) > now + slack:
                length /= 2
            y, m = y + length * step, m + length * moved
        return y

    def _cleaned(self, weights, l2=1e-3):
        classes, n = int(self.t.max()) + 1, len(self.t)
        onehot = np.eye(classes)[self.t]

        def fun(w):
            W = w.reshape(-1, classes)
            Z = self.X @ W
            value = -(weights * (log_softmax(Z, axis=1) * onehot).sum(axis=1)).sum() / n
            G = self.X.T @ ((softmax(Z, axis=1) - onehot) * weights[:, None]) / n + l2 * W
            return value + 0.5 * l2 * np.square(W).sum(), G.ravel()

        start = np.zeros(self.X.shape[1] * classes)
        options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30}
        w = minimize(fun, start, jac=True, method="L-BFGS-B", options=options).x
        Z = log_softmax(self.Xv @ w.reshape(-1, classes), axis=1)
        return float(-Z[np.arange(len(self.tv)), self.tv].mean())


def autoregressive(n, p, loss):
    """Rows with correlation 1/2 of neighbours; 30 columns matter. As many to validate."""
    rng = np.random.default_rng(0)
    w = np.zeros(p)
    w[rng.choice(p, 30, replace=False)] = rng.standard_normal(30)
    X = rng.standard_normal((2 * n, p))
    for j in range(1, p):
        X[:, j] = 0.5 * X[:, j - 1] + math.sqrt(0.75) * X[:, j]
    z = X @ w
    if loss == "logistic":
        t = np.where(rng.random(2 * n) < expit(z), 1.0, -1.0)
    else:
        t = z + rng.standard_normal(2 * n)
    return Tuning(X[:n].copy(), t[:n], X[n:].copy(), t[n:], loss)


def noisy_digits(size=8, n=1000, m=300, flips=0.5):
    """Digits of which half have a wrong label, and some clean ones."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    images, t = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    if size > 8:
        images = zoom(images.reshape(-1, 8, 8), (1, size / 8, size / 8), order=1)
    order = rng.permutation(len(t))
    clean, rest = order[:m], order[m:]
    # More samples than there are images are images moved by a pixel.
    rest = rng.choice(rest, n) if n > len(rest) else rest[:n]
    X = images.reshape(len(t), -1)[rest].reshape(n, size, size)
    if size > 8:
        moves = rng.integers(-2, 3, (n, 2))
        X = np.stack([np.roll(x, tuple(move), (0, 1)) for x, move in zip(X, moves, strict=True)])
    wrong = rng.random(n) < flips
    labels = np.where(wrong, (t[rest] + rng.integers(1, 10, n)) % 10, t[rest])

    def with_ones(X):
        return np.c_[X.reshape(len(X), -1) / 16.0, np.ones(len(X))]

    return Tuning(
        with_ones(X), labels, with_ones(images.reshape(len(t), -1)[clean]), t[clean], "cleaning"
    )


CASES = {
    "logistic 300x100": functools.partial(autoregressive, 300, 100, "logistic"),
    "logistic 1500x500": functools.partial(autoregressive, 1500, 500, "logistic"),
    "logistic 20000x1000": functools.partial(autoregressive, 20_000, 1000, "logistic"),
    "logistic 5000x5000": functools.partial(autoregressive, 5000, 5000, "logistic"),
    "ridge 2000x2000": functools.partial(autoregressive, 2000, 2000, "squared"),
    "cleaning digits 1000": noisy_digits,
    "cleaning 28x28 10000": functools.partial(noisy_digits, 28, 10_000),
}


class Contender:
    """One method on one problem; `run(None, count)` returns x."""

    first = 4

    def __init__(self, problem):
        self.problem = problem

    def prepare(self, count):
        """Compile, and load what is loaded on first use, outside the clock."""

    def error(self, x):
        return self.problem.psi(x) / lowest(self.problem) - 1.0


class _ReachedError(Exception):
    """Enough iterations; the certificate is not to be timed."""


class Ours(Contender):
    def __init__(self, problem, name, **options):
        super().__init__(problem)
        from solvers import bilevel

        self.data = problem.ours()
        X = bilevel.box(*problem.box)
        self.solve = functools.partial(getattr(bilevel, name), X=X, history=False, **options)
        self.ready = False

    def prepare(self, count):
        if not self.ready:
            self.run(None, 2)
            self.ready = True

    def run(self, _, count):
        seen = []

        def stop(intermediate_result):
            seen.append(intermediate_result.x)
            if len(seen) >= count:
                raise _ReachedError

        try:
            return self.solve(self.data, tol=1e-8, maxiter=count, callback=stop).x
        except _ReachedError:
            return seen[-1]


class Bounded(Contender):
    """A peer's value and hyper-gradient below SciPy's L-BFGS-B."""

    def run(self, _, count):
        options = {"maxiter": count, "maxfun": 20 * count, "ftol": 0.0, "gtol": 0.0}
        x0 = self.problem.x0
        bounds = [self.problem.box] * len(x0)
        fun = self.start()
        return minimize(fun, x0, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x


class Jaxopt(Bounded):
    """Its L-BFGS below, differentiated implicitly; warm starts."""

    def __init__(self, problem, inner, solve=None):
        super().__init__(problem)
        import jax
        import jaxopt

        jax.config.update("jax_enable_x64", True)
        jnp = jax.numpy
        X, t, Xv, tv = map(jnp.asarray, problem[:4])
        g, f, self.size = _losses(problem, jnp, jax.nn, X, t, Xv, tv)
        more = {"implicit_diff_solve": getattr(jaxopt.linear_solve, solve)} if solve else {}
        lower = jaxopt.LBFGS(g, tol=inner, maxiter=2000, implicit_diff=True, **more)

        def upper(x, y0):
            y = lower.run(y0, x).params
            return f(y), y

        self.step = jax.jit(jax.value_and_grad(upper, has_aux=True))
        self.zeros = jnp.zeros(self.size)

    def prepare(self, count):
        self.start()(self.problem.x0)

    def start(self):
        y = self.zeros

        def fun(x):
            nonlocal y
            (value, y), grad = self.step(x, y)
            return float(value), np.asarray(grad)

        return fun


def _losses(problem, np_like, nn, X, t, Xv, tv):
    """Return the lower objective ``(y, x)``, the upper one and the length of y."""
    n, p = problem.X.shape
    if problem.loss == "squared":
        return (
            lambda y, x: 0.5 * ((X @ y - t) ** 2).mean() + 0.5 * (np_like.exp(x) * y * y).sum(),
            lambda y: 0.5 * ((Xv @ y - tv) ** 2).mean(),
            p,
        )
    if problem.loss == "logistic":
        return (
            lambda y, x: nn.softplus(-t * (X @ y)).mean() + 0.5 * (np_like.exp(x) * y * y).sum(),
            lambda y: nn.softplus(-tv * (Xv @ y)).mean(),
            p,
        )
    k = int(problem.t.max()) + 1
    # Labels choose by one-hot rows, which both frameworks differentiate fast.
    one, one_v = (np_like.asarray(np.eye(k)[labels]) for labels in (problem.t, problem.tv))

    def lower(y, x):
        Z = nn.log_softmax(X @ y.reshape(p, k), -1)
        return -(nn.sigmoid(x) * (Z * one).sum(1)).sum() / n + 5e-4 * (y * y).sum()

    def upper(y):
        return -(nn.log_softmax(Xv @ y.reshape(p, k), -1) * one_v).sum(1).mean()

    return lower, upper, p * k


class _Torch(Bounded):
    """Frameworks below: L-BFGS of PyTorch for the lower level, or steps that are unrolled."""

    def __init__(self, problem):
        super().__init__(problem)
        import torch

        self.torch = torch
        X, t, Xv, tv = (torch.from_numpy(np.array(a)) for a in problem[:4])
        self.g, self.f, self.size = _losses(problem, torch, torch.nn.functional, X, t, Xv, tv)

    def tensor(self, x):
        return self.torch.tensor(np.array(x), requires_grad=True)


class TorchOpt(_Torch):
    """Its implicit differentiation by conjugate gradients."""

    def __init__(self, problem, inner):
        super().__init__(problem)
        import torchopt

        self.inner = inner
        torch, g = self.torch, self.g

        def stationary(y, x):
            return torch.func.grad(g)(y, x)

        @torchopt.diff.implicit.custom_root(
            stationary, argnums=1, solve=torchopt.linear_solve.solve_cg(maxiter=100)
        )
        def lower(y, x):
            y = y.clone().detach().requires_grad_()
            fixed = x.detach()
            solver = torch.optim.LBFGS(
                [y], max_iter=500, tolerance_grad=inner, tolerance_change=0,
                line_search_fn="strong_wolfe", history_size=15,
            )  # fmt: skip

            def closure():
                solver.zero_grad()
                loss = g(y, fixed)
                loss.backward()
                return loss

            solver.step(closure)
            return y

        self.lower = lower

    def start(self):
        y = self.torch.zeros(self.size, dtype=self.torch.float64)

        def fun(x):
            nonlocal y
            x = self.tensor(x)
            found = self.lower(y, x)
            y = found.detach()
            value = self.f(found)
            (grad,) = self.torch.autograd.grad(value, x)
            return value.item(), grad.numpy()

        return fun


class Higher(_Torch):
    """Gradient steps with momentum, from the last y, that it differentiates through."""

    steps = 50

    def start(self):
        import higher

        torch = self.torch

        class Model(torch.nn.Module):
            """What it copies has to be a class of one's own."""

        model = Model()
        model.y = torch.nn.Parameter(torch.zeros(self.size, dtype=torch.float64))
        solver = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)

        def fun(x):
            x = self.tensor(x)
            with higher.innerloop_ctx(model, solver) as (moving, steps):
                for _ in range(self.steps):
                    steps.step(self.g(moving.y, x))
                value = self.f(moving.y)
                (grad,) = torch.autograd.grad(value, x)
                model.y.data = moving.y.detach()
            return value.item(), grad.numpy()

        return fun


CONTENDERS = {
    OURS: functools.partial(Ours, name="penalty"),
    "our implicit": functools.partial(Ours, name="implicit"),
    "jaxopt CG 1e-3": functools.partial(Jaxopt, inner=1e-3, solve="solve_cg"),
    "jaxopt CG 1e-5": functools.partial(Jaxopt, inner=1e-5, solve="solve_cg"),
    "jaxopt default 1e-5": functools.partial(Jaxopt, inner=1e-5),
    "TorchOpt CG 1e-6": functools.partial(TorchOpt, inner=1e-6),
    "higher": Higher,
}
PACKAGES = {
    package: [name for name in CONTENDERS if name.startswith(package)]
    for package in ("jaxopt", "TorchOpt", "higher")
}
VARIANTS = ["our implicit"]
_LOWEST = {}


def lowest(problem, value=math.inf):
    """Return the lowest psi that is known, once `value` is."""
    key = id(problem.X)
    _LOWEST[key] = min(_LOWEST.get(key, math.inf), value)
    return _LOWEST[key]


def run(options):
    """Run all cells asked for with one thread count, rewriting the table after each."""
    names = ["case", "tol", "threads"]
    store = common.Store(options.out.with_suffix(".json"), names)
    store.note_run("benchmarks.peers.bilevel", DISTRIBUTIONS)
    for case, tol in itertools.product(options.cases, options.tol):
        keys = (case, tol, options.threads)
        problem = CASES[case]()
        for name in options.references:
            lowest(problem, problem.psi(CONTENDERS[name](problem).run(None, options.reference)))
        log.info("%s, load %.1f, psi %.6g", keys, os.getloadavg()[0], lowest(problem))
        contenders = {name: CONTENDERS[name] for name in options.peers}
        limits = {"seconds": options.limit, "repeat": options.rounds, "tuner": common.tune_count}
        store.add(keys, common.run_cell(contenders, (problem,), tol, **limits))
        title = "Validation loss by penalties of features and weights of samples"
        options.out.write_text(common.report(store, title, PACKAGES, OURS, VARIANTS))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--tol", nargs="+", type=float, default=[1e-2])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--peers", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for one run")
    parser.add_argument(
        "--references", nargs="+", default=[OURS, "our implicit"], choices=CONTENDERS,
        help="who sets the lowest psi",
    )  # fmt: skip
    parser.add_argument("--reference", type=int, default=200, help="iterations that set it")
    parser.add_argument("--out", type=Path, default=common.RESULTS / "bilevel.md")
    common.main("benchmarks.peers.bilevel", parser, run)


if __name__ == "__main__":
    main()
