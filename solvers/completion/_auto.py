"""Which engines run, one after another, until the certificate is in reach.

A matrix that is to have the entries exactly, or in the least-squares sense without a ridge, is
looked for by reweighted least squares, and found to full accuracy by Gauss-Newton steps; with
many entries some sweeps of alternating minimisation bring these near enough. With a ridge, biases
or implicit feedback alternating minimisation runs, and Gauss-Newton steps finish where it is slow.
"""

from dataclasses import replace

from .._core.result import Status
from ._als import als
from ._gauss_newton import gn
from ._irls import irls

# Entries per degree of freedom from which alternating minimisation alone comes near a solution;
# how near it has to come, and in how many sweeps.
MANY, NEAR, SWEEPS = 4.0, 0.03, 12
# After a first attempt that failed: by what the smoothing falls, and how close to zero.
PATIENT = {"fall": 0.9, "close": 0.01}
# Sweeps after which Gauss-Newton steps finish, and the largest tolerance for which they do.
LONG, FINE = 30, 1e-6


def auto(problem, rank, watch, options):
    """Run what suits the problem; return `Factors`."""
    if problem.lam or problem.biased or problem.implicit:
        return alternate(problem, rank, watch, options)
    return find(problem, rank, watch, options, _entries_suffice(problem, rank))


def irls_then_gn(problem, rank, watch, options):
    """Run reweighted least squares, and Gauss-Newton steps from where they end."""
    return find(problem, rank, watch, options, False)


def alternate(problem, rank, watch, options):
    """Alternate, and finish by Gauss-Newton steps what takes long."""
    if options.tol > FINE:
        return als(problem, rank, watch, options)
    x = als(problem, rank, watch, options, maxiter=LONG)
    if _over(watch):
        return x
    x = gn(problem, rank, watch, replace(options, x0=problem.start_of(x)))
    if _over(watch):
        return x
    return als(problem, rank, watch, replace(options, x0=problem.start_of(x)))


def find(problem, rank, watch, options, many):
    """Look for a matrix with the entries, from several starts if need be; return the best one."""
    best, reached, ended = None, float("inf"), None
    for attempt in _attempts(problem, rank, watch, options, many):
        x = attempt()
        relres = problem.relres(problem.misfit(*_parts(problem, x)))
        if best is None or relres < reached:
            best, reached, ended = x, relres, (watch.ended, watch.reason)
        if watch.run.status is not None or reached <= options.tol:
            break
        if watch.ended is Status.CONVERGED and options.n_init == 1:
            break
    watch.ended, watch.reason = ended
    return best


def _attempts(problem, rank, watch, options, many):
    """Yield what to try, one after another."""
    fresh = replace(options, x0=None)

    def descend(**kind):
        x = irls(problem, rank, watch, fresh, **kind)
        return x if watch.run.status is not None else polish(x)

    def polish(x):
        return gn(problem, rank, watch, replace(options, x0=problem.start_of(x)))

    def alternate_first():
        x = als(problem, rank, watch, fresh, tol=max(NEAR, options.tol), maxiter=SWEEPS)
        return x if watch.run.status is not None else polish(x)

    if options.x0 is not None:
        yield lambda: gn(problem, rank, watch, options)
    elif many:
        yield alternate_first
    if rank == min(problem.shape):
        # All matrices have this rank; nothing is to be told from a spectrum.
        yield lambda: gn(problem, rank, watch, fresh)
        return
    yield descend
    yield lambda: descend(**PATIENT)
    for _ in range(options.n_init - 1):
        yield lambda: descend(**PATIENT, noise=True)


def _entries_suffice(problem, rank):
    m, n = problem.shape
    return problem.size >= MANY * rank * (m + n - rank)


def _over(watch):
    return watch.ended is Status.CONVERGED or watch.run.status is not None


def _parts(problem, x):
    A, B = problem.balanced(x)
    return A, B, problem.residual(A, B, x.row_bias, x.col_bias)
