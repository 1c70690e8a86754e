"""Compiling the kernels ahead of the first call that matters."""

import warnings

import numpy as np

from .._core.result import ConvergenceWarning
from ._altmin import METHODS, alternating_minimization
from ._driver import INNERS

# Options that reach kernels of their own; a few iterations see them, no solution is needed.
_CALLS = (
    *({"method": method} for method in METHODS),
    *({"method": "altmin", "inner": inner} for inner in INNERS),
    {"lam": 0.1, "bias": True, "validation": 0.1},
    {"lam": 0.1, "nonnegative": True},
    {"loss": "huber"},
)


def warmup():
    """Solve problems that reach every kernel, in both precisions."""
    rng = np.random.default_rng(0)
    rows, cols = np.nonzero(rng.random((60, 50)) < 0.6)
    M = rng.random((60, 3)) @ rng.random((3, 50))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for number in (np.float64, np.float32):
            data = rows, cols, M[rows, cols].astype(number)
            weights = np.ones(rows.size, number)
            for options in _CALLS:
                alternating_minimization(
                    data, 3, shape=M.shape, weights=weights, maxiter=3, rng=0, **options
                )
            events = rows, cols, np.ones(rows.size, number)
            res = alternating_minimization(
                events, 3, shape=M.shape, implicit=True, lam=0.1, maxiter=3, rng=0
            )
            res.predict(rows, cols)
            res.top_n(rows, 3)
