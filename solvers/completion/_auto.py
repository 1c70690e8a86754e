"""Which engines run, one after another, until the certificate is in reach.

A matrix that is to have the entries exactly, or in the least-squares sense without a ridge, is
looked for by reweighted least squares and found to full accuracy by Gauss-Newton steps; where
there are many entries some sweeps of alternating minimisation bring these near enough. With a
ridge, biases or implicit feedback alternating minimisation runs: its mixed sweeps are as good as
Newton steps there, even near the solution.
"""

from dataclasses import replace

from .._core.result import Status
from ._als import als
from ._irls import find
from ._varpro import varpro

# Entries per degree of freedom from which alternating minimisation alone comes near a solution;
# how near it has to come, and in how many sweeps.
MANY, NEAR, SWEEPS = 4.0, 0.03, 12


def auto(problem, rank, watch, options):
    """Run what suits the problem; return `Factors`."""
    if problem.lam or problem.biased or problem.implicit:
        return alternate(problem, rank, watch, options)
    m, n = problem.shape
    many = problem.size >= MANY * rank * (m + n - rank)
    return find(problem, rank, watch, options, sweep if many else None)


def restarted(engine, problem, rank, watch, options):
    """Run an engine from `n_init` starts, the later ones random; return the best answer."""
    best, lowest = None, float("inf")
    for _ in range(options.n_init):
        x = engine(problem, rank, watch, options)
        badness = _badness(watch.problem, x)
        if best is None or badness < lowest:
            lowest, best = badness, (x, watch.problem, watch.ended, watch.reason)
        # A stationary answer may still not be the best one; an exact fit is.
        if watch.run.status is not None or lowest <= options.tol:
            break
        options = replace(options, x0=None, init="random")
    x, watch.problem, watch.ended, watch.reason = best
    return x


def _badness(problem, x):
    """Return the held-out error, the objective, or what robust losses of any scale share."""
    A, B, a, b = problem.start_of(x)
    if problem.holdout is not None:
        return problem.holdout_error(A, B, a, b)
    if problem.loss == "squared":
        return problem.objective(A, B, a, b)
    r = problem.residual(A, B, a, b)
    return float(problem.be.host(problem.xp.median(abs(r))))


def sweep(problem, rank, watch, options):
    """Alternate for a few sweeps, until Gauss-Newton steps converge fast."""
    return als(problem, rank, watch, options, tol=max(NEAR, options.tol), maxiter=SWEEPS)


def alternate(problem, rank, watch, options):
    """Alternate, and try variable projection where that stalls; restart if need be."""
    best, lowest, ended = None, float("inf"), None
    for _ in range(options.n_init):
        for engine in (als, varpro):
            x = engine(problem, rank, watch, options)
            if watch.ended is Status.CONVERGED or watch.run.status is not None:
                break
            options = replace(options, x0=problem.start_of(x))
        fun = problem.objective(*problem.start_of(x))
        if best is None or fun < lowest:
            best, lowest, ended = x, fun, (watch.ended, watch.reason)
        if watch.ended is Status.CONVERGED or watch.run.status is not None:
            break
        options = replace(options, x0=None, init="random")
    watch.ended, watch.reason = ended
    return best
