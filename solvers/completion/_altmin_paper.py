"""Alternating minimisation as its theory has it: each half sweep sees entries of its own.

With ``T = ceil(log2(1 / tol)) + 1`` sweeps, the entries are dealt into 2 T + 1 samples. The first
gives the start, whose columns are clipped so that no row stands out; each half sweep then solves
its rows to an accuracy that is a small part of the distance, by least squares that a sketch
preconditions, and never sees an entry twice. That makes every factor independent of the entries
it is fitted to, on which the proof of [1]_ rests; it also makes the data a bottleneck, for which
reason `als` uses all entries in every half sweep.

References
----------
.. [1] Y. Gu, Z. Song, J. Yin, L. Zhang. Low rank matrix completion via robust alternating
   minimization in nearly linear time. ICLR 2024. arXiv:2302.11068.
"""

import math
from dataclasses import replace

from .._core.result import Status
from ._als import Inner, half_sweep
from ._observations import Observations, Side
from ._start import start

# How well rows are solved, relative to the relative residual. Their error enters the distance
# after a half sweep, which is at best a fraction of the distance before.
_PART, _ROUGHEST = 0.1, 0.1
# Most steps of inner solvers that are not the paper's.
_STEPS = {"cg": 20, "subspace": 20}


def theory(problem, rank, watch, options):
    """Run the method of the theory; return `Factors`."""
    sweeps = math.ceil(math.log2(1.0 / min(options.tol, 0.5))) + 1
    count = 2 * sweeps + 1
    _check(problem, count)
    samples = deal(problem, count, options.rng)
    clip = options.clip or "entry"
    A, B, a, b = start(replace(problem, obs=next(samples)), rank, replace(options, clip=clip))
    x = problem.balance(A, B, a, b)
    name = "unit sketch" if options.inner == "auto" else options.inner
    inner = Inner(name, _ROUGHEST, options.maxiter_inner or _STEPS.get(name, 0), options.rng)
    watch.begin("altmin", maxiter=sweeps)
    for _ in watch.run:
        A, B = _orthonormal(problem, A, B)
        to_cols = half_sweep(problem, next(samples).by_col, B, A, b, a, problem.col_ridge, inner)
        B, A = _orthonormal(problem, B, A)
        to_rows = half_sweep(problem, next(samples).by_row, A, B, a, b, problem.row_ridge, inner)
        x = problem.balance(A, B, a, b)
        misfit = problem.misfit(A, B, problem.residual(A, B, a, b))
        relres = problem.relres(misfit)
        inner = inner._replace(eta=options.tol_inner or min(_ROUGHEST, _PART * relres))
        if watch.record(
            lambda state=(A, B, a, b): state,
            fun=misfit,
            relres=relres,
            inner=to_cols.steps + to_rows.steps,
            passes=3,
        ):
            break
    if watch.ended is Status.MAXITER and watch.run.status is None:
        reason = (
            f"All {count} samples are used up; more entries, a larger `tol` or mode='reuse' may "
            "help."
        )
        watch.run.end(Status.STALLED, reason)
    return x


def _check(problem, count):
    if problem.lam or problem.biased or problem.implicit:
        raise ValueError(
            "`mode` came as 'theory'; expected 'reuse' with a penalty, biases or implicit "
            "feedback: the theory is about exact recovery"
        )
    if problem.size < count:
        raise ValueError(
            f"`mode` came as 'theory' for {problem.size} entries; expected 'reuse', or at least "
            f"{count} entries, one for each sample at this `tol`"
        )


def _orthonormal(problem, fixed, moving):
    """Return factors of the same product, of which the first is orthonormal."""
    Q, R = problem.xp.linalg.qr(fixed)
    return Q, moving @ R.T


def deal(problem, count, rng):
    """Yield `count` random samples of the observed entries that have none in common."""
    labels = problem.xp.asarray(rng.permutation(problem.size) % count)
    for sample in range(count):
        yield part(problem, problem.xp.flatnonzero(labels == sample))


def part(problem, where):
    """Return some of the observed entries, by their places in row order, ascending."""
    xp, obs = problem.xp, problem.obs
    (m, n), side, kernels = obs.shape, obs.by_row, problem.kernels
    ptr = xp.searchsorted(obs.rows[where], xp.arange(m + 1))
    weight = side.weight[where] if side.weight.size else side.weight
    by_row = Side(ptr, side.idx[where], side.val[where], weight, where[:0])
    by_col = Side(*kernels.transpose(*by_row[:4], n))
    return Observations(obs.be, obs.shape, by_row, by_col, where.size, xp.arange(where.size), None)
