"""Compiling the kernels ahead of the first call that matters."""

import warnings

import numpy as np

from .._core.result import ConvergenceWarning
from ._gibbs import SMALL
from ._sinkhorn import sinkhorn
from ._sinkhorn_newton import sinkhorn_newton


def warmup():
    """Solve problems that reach every kernel, in both precisions."""
    rng = np.random.default_rng(0)
    for number in (np.float64, np.float32):
        C = rng.random((40, 50)).astype(number)
        sinkhorn(None, None, C)
        sinkhorn_newton(None, None, C, reg=1e-3, precond="cholesky")
        side = int(SMALL**0.5) + 1
        C = rng.random((side, side)).astype(number)
        with warnings.catch_warnings():
            # Two passes see the dense and the compressed kernel; no solution is needed.
            warnings.simplefilter("ignore", ConvergenceWarning)
            sinkhorn_newton(None, None, C, reg=1e-3, maxiter=2)
            sinkhorn_newton(
                None, None, C, reg=1e-5, annealing=False, maxiter=4, precond="cholesky"
            )
