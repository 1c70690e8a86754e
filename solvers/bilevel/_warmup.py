"""Compiling the kernels ahead of the first call that matters."""

import warnings

import numpy as np
import scipy.sparse as sp

from .. import bilevel
from .._core.result import ConvergenceWarning

# So many samples and features that several threads share the work, and so few that none do.
_SHAPES = (2000, 300), (40, 6)


def warmup():
    """Evaluate problems that reach every kernel, in both precisions."""
    rng = np.random.default_rng(0)
    for number in (np.float64, np.float32):
        for shape in _SHAPES:
            X, Xv = rng.standard_normal((2, *shape)).astype(number)
            t, tv = rng.standard_normal((2, shape[0])).astype(number)
            dense = bilevel.problems.RidgeHPO(X, t, Xv, tv)
            sparse = bilevel.problems.RidgeHPO(sp.csr_array(X), t, sp.csr_array(Xv), tv)
            for problem in (dense, sparse):
                x, y = problem.x0, problem.y0
                for level in (problem.upper, problem.lower):
                    level(x, y)
                    level.pair(x, y, y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            # The last problem is the small one.
            bilevel.penalty_sgd(dense, batch=8, epochs=1, rng=0)
