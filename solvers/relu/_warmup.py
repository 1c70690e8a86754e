"""Compiling the kernels ahead of the first call that matters."""

import warnings

import numpy as np

from .. import relu
from .._core.result import ConvergenceWarning
from ._losses import LOSSES

# Options that reach kernels of their own; a few iterations see them, no solution is needed.
_CALLS = (
    *({"loss": loss} for loss in LOSSES),
    *({"usolver": usolver} for usolver in ("woodbury", "cg", "sylvester")),
    {"loss": "hinge", "robust_eps": 0.01},
)


def warmup():
    """Solve problems that reach every kernel, in both precisions."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 6)), np.where(np.arange(60) % 3, 1.0, -1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for number in (np.float64, np.float32):
            data = X.astype(number), y.astype(number)
            for options in _CALLS:
                relu.admm(*data, beta=0.1, n_gates=12, tol=1e-9, maxiter=60, rng=0, **options)
            relu.interior_point(*data, beta=0.1, n_gates=12, maxiter=3, rng=0)
            relu.gated(*data, beta=0.1, n_gates=12, maxiter=3, rng=0)
            relu.sampled_convex(*data, beta=0.1, n_neurons=12, maxiter=3, rng=0)
