"""Compiling the kernels ahead of the first call that matters."""

import warnings

import numpy as np

from .._core.result import ConvergenceWarning
from ._cloud import PointCloud
from ._emd import emd
from ._sinkhorn import sinkhorn
from ._sinkhorn_newton import sinkhorn_newton

# Large enough for every kernel to run in parallel.
_SIDE = 1800


def warmup():
    """Solve problems that reach every kernel, in both precisions."""
    rng = np.random.default_rng(0)
    # Batches convert their costs.
    sinkhorn_newton(None, None, rng.random((2, 5, 4)))
    for number in (np.float64, np.float32):
        C = rng.random((40, 50)).astype(number)
        sinkhorn(None, None, C)
        emd(None, None, C, gap=1e-5)
        sinkhorn_newton(None, None, C, reg=1e-3, precond="cholesky")
        with warnings.catch_warnings():
            # A few passes see the dense and the compressed kernel; no solution is needed.
            warnings.simplefilter("ignore", ConvergenceWarning)
            C = rng.random((_SIDE, _SIDE)).astype(number)
            sinkhorn_newton(None, None, C, reg=5e-3, maxiter=4)
            for side in (40, _SIDE):
                cloud = PointCloud(rng.random((side, 2)).astype(number))
                sinkhorn_newton(None, None, cloud, reg=1e-3, maxiter=4)
