"""Stochastic single loops against the same loops in JAX: samples a second, and psi by epochs.

Run from the repository's root, in an environment that has JAX::

    python -m benchmarks.peers.bilevel_stochastic --threads 1

Logistic regression with one penalty per feature; batches of 64 from each level. JAX runs SOBA and
F2SA (with one batch for y and z, like ours) as one jitted `lax.scan` per epoch. Steps of JAX's
loops, and of our SOBA, are the best of a grid; `penalty_sgd` chooses its own. psi is recomputed
by Newton's method for the x that a run returns; the lowest is that of a deterministic run.
"""

import argparse
import functools
import itertools
import json
import logging
import math
import os
import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks.peers import common
from benchmarks.peers.bilevel import BOX, autoregressive

DISTRIBUTIONS = ("numpy", "numba", "jax")
BATCH = 64
SIGMAS = (1e-4, 1e-3, 1e-2, 1e-1)

log = logging.getLogger(__name__)


class Timed:
    """Seconds of an epoch, without the first, in which things compile."""

    def __init__(self):
        self.clock = []

    def __call__(self, *_, **__):
        self.clock.append(time.perf_counter())

    @property
    def seconds(self):
        return statistics.median(np.diff(self.clock)) if len(self.clock) > 1 else math.nan


def ours(data, epochs, method="shared", **options):
    """Return x and the seconds of an epoch."""
    from solvers import bilevel

    problem = bilevel.problems.LogisticHPO(data.X, data.t, data.Xv, data.tv)
    timed = Timed()
    res = bilevel.penalty_sgd(
        problem,
        method=method,
        X=bilevel.box(*BOX),
        batch=BATCH,
        epochs=epochs,
        callback=timed,
        history=False,
        how="cg",
        rng=0,
        **options,
    )
    return res.x, timed.seconds


def in_jax(data, epochs, method="soba", lr=0.1, lr_upper=1.0, sigma=0.01):
    """Return x and the seconds of an epoch of one jitted scan."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jnp, nn = jax.numpy, jax.nn
    X, t, Xv, tv = map(jnp.asarray, data[:4])
    n, p = X.shape

    def slopes(A, s, y):
        """Return the gradient of the mean log-loss of some rows."""
        return -A.T @ (s * nn.sigmoid(-s * (A @ y))) / len(s)

    def soba(state, step):
        x, y, v, _ = state
        (low, up), decay = step
        A, s = X[low], t[low]
        w = nn.sigmoid(A @ y)
        e = jnp.exp(x)
        hvp = A.T @ (w * (1 - w) * (A @ v)) / BATCH + e * v
        new_y = y - lr * decay * (slopes(A, s, y) + e * y)
        new_v = v - lr * decay * (hvp - slopes(Xv[up], tv[up], y))
        return x + lr_upper * decay * e * y * v, new_y, new_v, state[3]

    def f2sa(state, step):
        x, y, z, D = state
        (low, up), decay = step
        A, s, e = X[low], t[low], jnp.exp(x)
        new_z = z - lr * decay * (slopes(A, s, z) + e * z)
        new_y = y - lr * decay * (slopes(A, s, y) + e * y + sigma * slopes(Xv[up], tv[up], y))
        D = 0.9 * D + 0.1 * 0.5 * e * (y * y - z * z) / sigma
        return x - lr_upper * decay * D, new_y, new_z, D

    body = soba if method == "soba" else f2sa
    steps = -(-n // BATCH)

    @jax.jit
    def epoch(state, key, number):
        rows = [jax.random.randint(k, (steps, BATCH), 0, n) for k in jax.random.split(key)]
        k = number * steps + jnp.arange(steps)
        decay = 1.0 / jnp.sqrt(1.0 + k / (0.2 * epochs * steps))

        def one(state, step):
            x, *rest = body(state, step)
            return (jnp.clip(x, *BOX), *rest), None

        return jax.lax.scan(one, state, (tuple(rows), decay))[0]

    zeros = jnp.zeros(p)
    state = jnp.asarray(data.x0), zeros, zeros, zeros
    key = jax.random.PRNGKey(0)
    timed = Timed()
    for number in range(epochs):
        key, now = jax.random.split(key)
        state = jax.block_until_ready(epoch(state, now, number))
        timed()
    return np.asarray(state[0]), timed.seconds


def tuned(run, psi):
    """Return the best (psi, seconds, settings) of a grid of steps."""
    grid = itertools.product((0.01, 0.03, 0.1), (10.0, 100.0, 1000.0))
    found = []
    for lr, lr_upper in grid:
        x, seconds = run(lr=lr, lr_upper=lr_upper)
        found.append((psi(x), seconds, f"lr {lr}, lr_upper {lr_upper}"))
        log.info("    %s", found[-1])
    return min(found)


def run(options):
    n, p = options.size
    data = autoregressive(n, p, "logistic")
    from solvers import bilevel

    problem = bilevel.problems.LogisticHPO(data.X, data.t, data.Xv, data.tv)
    best = bilevel.penalty(problem, X=bilevel.box(*BOX), tol=1e-6, how="cg", maxiter=100)
    lowest = data.psi(best.x)
    epochs = options.epochs
    rows = []
    contenders = {
        "JAX scan, SOBA": functools.partial(tuned, functools.partial(in_jax, data, epochs)),
        "JAX scan, F2SA": functools.partial(
            tuned, functools.partial(in_jax, data, epochs, method="f2sa")
        ),
        "our SOBA": functools.partial(tuned, functools.partial(ours, data, epochs, method="soba")),
    }
    for name, contender in contenders.items():
        rows.append([name, *contender(data.psi)])
        log.info("%s", rows[-1])
    for sigma in SIGMAS:
        x, seconds = ours(data, epochs, sigma=sigma)
        rows.append([f"ours, shared batch, sigma {sigma:g}", data.psi(x), seconds, "its own"])
        log.info("%s", rows[-1])
    table = [
        [name, common.significant(n / seconds), f"{psi:.6f}", f"{psi / lowest - 1:+.2%}", settings]
        for name, psi, seconds, settings in rows
    ]
    text = "\n\n".join(
        [
            "# Stochastic single loops",
            f"n = m = {n}, p = {p}, float64, batches of {BATCH}, {epochs} epochs, "
            f"{options.threads} thread, load {os.getloadavg()[0]:.1f}. Samples of the lower level "
            f"a second, by the median epoch. Lowest psi known: {lowest:.6f}.",
            common.markdown(["loop", "samples / s", "psi", "above the lowest", "steps"], table),
            f"`{common.command('benchmarks.peers.bilevel_stochastic')}`, "
            f"{time.strftime('%Y-%m-%d')}, {json.dumps(common.machine())}, "
            + ", ".join(f"{name} {common.version(name)}" for name in DISTRIBUTIONS),
        ]
    )
    options.out.write_text(text + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", nargs=2, type=int, default=[40_000, 1000])
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--out", type=Path, default=common.RESULTS / "bilevel_stochastic.md")
    common.main("benchmarks.peers.bilevel_stochastic", parser, run)


if __name__ == "__main__":
    main()
