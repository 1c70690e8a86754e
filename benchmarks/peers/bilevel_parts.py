"""Parts of bilevel methods alone: fused gradients, projections of a step, steps on many blocks.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.peers.bilevel_parts --threads 1

"Pair" is one pass that gives the logistic loss, its difference and its gradient at two points;
the peer is one gradient at one point by two products of NumPy. "Projection" is that of (x, y) on
the constraints of a support vector machine with a slack for each sample, on points that move a
little; the peer is CVXPY with Clarabel, compiled once, with the point as a parameter. "Blocks" is
one step of BSVRB on logistic blocks; the peer is the same step in JAX, jitted, with `vmap`.
"""

import argparse
import contextlib
import functools
import json
import logging
import os
import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks.peers import common

DISTRIBUTIONS = ("numpy", "numba", "cvxpy", "clarabel", "jax")
PAIRS = [
    (np.float64, 20_000, 1000),
    (np.float64, 2000, 1000),
    (np.float64, 500, 200),
    (np.float64, 64, 1000),
    (np.float32, 20_000, 1000),
    (np.float32, 64, 1000),
]
MACHINES = [(250, 30), (1000, 100), (2000, 100)]
BLOCKS = [(100, 50, 100), (1000, 50, 100)]

log = logging.getLogger(__name__)


def compared(runs, rounds):
    """Return the median seconds of each of several functions, run in turn."""
    for run in runs.values():
        run()
    times = common.interleave(runs, repeat=rounds, budget=np.inf)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def repeated(function, least=0.05):
    """Return a function of enough calls to be timed, and their number."""
    begin = time.perf_counter()
    function()
    function()
    count = max(1, int(2 * least / (time.perf_counter() - begin)))

    def many():
        for _ in range(count):
            function()

    return many, count


def pair(dtype, n, p, rounds):
    """Return the seconds of a pair pass, and of one gradient by NumPy."""
    from solvers.bilevel import problems

    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, p)).astype(dtype)
    t = np.where(rng.random(n) < 0.5, -1.0, 1.0).astype(dtype)
    flat = problems.LogisticHPO(X, t, X[:50].copy(), t[:50].copy()).lower.flat
    x, y, z = (rng.standard_normal(p).astype(dtype) for _ in range(3))

    def gradient():
        r = X @ y
        r = -t / (1 + np.exp(t * r))
        return X.T @ r

    (ours, a), (theirs, b) = repeated(lambda: flat.pair(x, y, z)), repeated(gradient)
    seconds = compared({"ours": ours, "NumPy": theirs}, rounds)
    return seconds["ours"] / a, seconds["NumPy"] / b


def projection(n, p, rounds):
    """Return the seconds of a projection of ours and by CVXPY, and how far they are apart."""
    import cvxpy as cp

    from solvers._core.backend import get_backend
    from solvers.bilevel._faces import Faces, OwnSlacks

    rng = np.random.default_rng(0)
    A, t = rng.standard_normal((n, p)), np.where(rng.random(n) < 0.5, -1.0, 1.0)
    # v = (w, b, xi): 1 - xi_i - t_i (a_i w + b) <= 0.
    rows = np.c_[-t[:, None] * A, -t, -np.eye(n)]
    h = -np.ones(n)
    faces = OwnSlacks.find(Faces(rows, h, be=get_backend("numpy")))
    start = np.r_[rng.standard_normal(p + 1), np.abs(rng.standard_normal(n))]
    points = [start + 0.01 * k * rng.standard_normal(len(start)) for k in range(10)]

    v, point = cp.Variable(len(start)), cp.Parameter(len(start))
    w, slack = v[: p + 1], v[p + 1 :]
    margins = cp.multiply(t, np.c_[A, np.ones(n)] @ w)
    problem = cp.Problem(cp.Minimize(cp.sum_squares(v - point)), [margins + slack >= 1])

    def by_cvxpy(u):
        point.value = u
        problem.solve(solver="CLARABEL", warm_start=True)
        return v.value

    def all_of(project):
        return [project(u) for u in points]

    apart = max(
        float(abs(a - b).max())
        for a, b in zip(all_of(faces.project), all_of(by_cvxpy), strict=True)
    )
    runs = {
        "ours": functools.partial(all_of, faces.project),
        "CVXPY": functools.partial(all_of, by_cvxpy),
    }
    seconds = compared(runs, rounds)
    return seconds["ours"] / len(points), seconds["CVXPY"] / len(points), apart


def blocks(m, p, n, rounds, sampled=10, batch=32, steps=400):
    """Return the seconds of a step of ours and of JAX's."""
    from solvers import bilevel

    rng = np.random.default_rng(0)
    X, Xv = rng.standard_normal((2, m, n, p))
    w = rng.standard_normal(p) * (rng.random(p) < 0.2)
    t, tv = (np.where(A @ w + rng.standard_normal((m, n)) > 0, 1.0, -1.0) for A in (X, Xv))
    problem = bilevel.problems.MultiBlockLogistic(X, t, Xv, tv)

    class _EnoughError(Exception):
        pass

    def ours():
        # Two reports: what lies between them is steps alone.
        clock = []

        def tick(intermediate_result):
            clock.append((time.perf_counter(), intermediate_result.nit))
            if len(clock) == 3:
                raise _EnoughError

        per_epoch = -(-m * n // (sampled * batch))
        with contextlib.suppress(_EnoughError):
            bilevel.bsvrb(
                problem,
                blocks=sampled,
                batch=batch,
                lr=0.1,
                lr_upper=0.1,
                epochs=6 * steps / per_epoch,
                callback=tick,
                callback_every=steps / per_epoch,
                rng=0,
                history=False,
            )
        (a, first), (b, last) = clock[0], clock[-1]
        return (b - a) / (last - first)

    theirs = _in_jax(X, t, Xv, tv, sampled, batch, steps)
    theirs(), ours()
    times = [(ours(), theirs()) for _ in range(rounds)]
    return tuple(statistics.median(column) for column in zip(*times, strict=True))


def _in_jax(X, t, Xv, tv, sampled, batch, steps, alpha=0.9, beta=0.9, sigma=0.01, lr=0.1):
    import jax

    jax.config.update("jax_enable_x64", True)
    jnp = jax.numpy
    (m, n, p), (X, t, Xv, tv) = X.shape, map(jnp.asarray, (X, t, Xv, tv))

    def slope(A, s, y):
        return -A.T @ (s * jax.nn.sigmoid(-s * (A @ y))) / len(s)

    def block(x, y, ys, i, low, up):
        A, s, e = X[i, low], t[i, low], jnp.exp(x)
        plain = slope(A, s, y) + e * y
        tilted = slope(A, s, ys) + e * ys + sigma * slope(Xv[i, up], tv[i, up], ys)
        return plain, tilted, 0.5 * e * (ys * ys - y * y) / sigma

    every = jax.vmap(block, in_axes=(None, 0, 0, 0, 0, 0))

    def step(state, draw):
        x, x_old, Y, Y_old, S, D = state
        i, low, up = draw
        new = every(x, Y[0, i], Y[1, i], i, low, up)
        old = every(x_old, Y_old[0, i], Y_old[1, i], i, low, up)
        now, then = jnp.stack(new[:2]), jnp.stack(old[:2])
        S = S.at[:, i].set((1 - alpha) * S[:, i] + alpha * now)
        D = (1 - beta) * (D - old[2].mean(0)) + new[2].mean(0)
        return (x - lr * D, x, Y.at[:, i].add(-lr * S[:, i]), Y, S, D), then[0, 0, 0]

    @jax.jit
    def chunk(state, key):
        keys = jax.random.split(key, 3)
        order = jax.vmap(lambda k: jax.random.permutation(k, m)[:sampled])
        draws = (
            order(jax.random.split(keys[0], steps)),
            jax.random.randint(keys[1], (steps, sampled, batch), 0, n),
            jax.random.randint(keys[2], (steps, sampled, batch), 0, n),
        )
        return jax.lax.scan(step, state, draws)

    zeros, Y = jnp.zeros(p), jnp.zeros((2, m, p))
    state = (zeros - 3, zeros - 3, Y, Y, Y, zeros)

    def run():
        begin = time.perf_counter()
        jax.block_until_ready(chunk(state, jax.random.PRNGKey(0)))
        return (time.perf_counter() - begin) / steps

    return run


def run(options):
    """Write the page."""
    number = common.significant
    pairs, projections, stepped = [], [], []
    for dtype, n, p in PAIRS:
        ours, theirs = pair(dtype, n, p, options.rounds)
        times = number(1e3 * ours), number(1e3 * theirs), number(ours / theirs)
        pairs.append([np.dtype(dtype).name, f"{n} x {p}", *times])
        log.info("%s", pairs[-1])
    for n, p in MACHINES:
        ours, theirs, apart = projection(n, p, options.rounds)
        times = number(1e3 * ours), number(1e3 * theirs), f"x{number(theirs / ours)}"
        projections.append([f"{n} x {p}", *times, f"{apart:.0e}"])
        log.info("%s", projections[-1])
    for m, p, n in BLOCKS:
        ours, theirs = blocks(m, p, n, options.rounds)
        stepped.append(
            [m, p, n, number(1e6 * ours), number(1e6 * theirs), f"x{number(theirs / ours)}"]
        )
        log.info("%s", stepped[-1])
    sections = [
        "# Parts of bilevel methods",
        f"Medians, {options.threads} thread, load {os.getloadavg()[0]:.1f}.",
        "## Pair",
        common.markdown(
            ["dtype", "matrix", "pair of ours, ms", "one gradient of NumPy, ms", "ratio"], pairs
        ),
        "## Projection",
        common.markdown(
            ["samples x features", "ours, ms", "CVXPY and Clarabel, ms", "ratio", "apart"],
            projections,
        ),
        "## Blocks",
        common.markdown(
            ["blocks", "features", "samples of each", "ours, us a step", "JAX, us", "ratio"],
            stepped,
        ),
        f"`{common.command('benchmarks.peers.bilevel_parts')}`, {time.strftime('%Y-%m-%d')}, "
        f"{json.dumps(common.machine())}, "
        + ", ".join(f"{name} {common.version(name)}" for name in DISTRIBUTIONS),
    ]
    options.out.write_text("\n\n".join(sections) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=common.RESULTS / "bilevel_parts.md")
    common.main("benchmarks.peers.bilevel_parts", parser, run)


if __name__ == "__main__":
    main()
