"""What a warm-up compiles is what problems need."""

import warnings

import numpy as np
import pytest

import solvers
from solvers import bilevel
from solvers._core.kernels import jit


@pytest.mark.slow
def test_a_warm_up_leaves_nothing_to_compile():
    solvers.warmup("bilevel")
    before = jit.compile_seconds()
    rng = np.random.default_rng(1)
    for number in (np.float64, np.float32):
        X, Xv = rng.standard_normal((2, 30, 4)).astype(number)
        t = np.where(np.arange(30) % 2, 1, -1)
        for make in (bilevel.problems.LogisticHPO, bilevel.problems.HyperCleaning):
            problem = make(X, t, Xv, t)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", solvers.ConvergenceWarning)
                bilevel.penalty(problem, tol=0.1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", solvers.ConvergenceWarning)
            bilevel.penalty_sgd(bilevel.problems.LogisticHPO(X, t, Xv, t), batch=8, epochs=1)
    assert jit.compile_seconds() == before
