"""Which engines run, one after another, until the certificate is in reach."""

from dataclasses import replace

from ._gauss_newton import gn
from ._irls import irls


def irls_then_gn(problem, rank, watch, options):
    """Run reweighted least squares, and Gauss-Newton steps from where they end."""
    x = irls(problem, rank, watch, options)
    if watch.run.status is not None:
        return x
    return gn(problem, rank, watch, replace(options, x0=problem.start_of(x)))
