import dataclasses
import math
import tracemalloc
from typing import NamedTuple

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

import solvers
from solvers import bcd, losses, penalties
from tests.bcd import oracles

seeds = st.integers(0, 2**32 - 1)
LOSSES = tuple(oracles.LOSSES)
GAP, KKT = "relative duality gap", "relative KKT violation"


def targets(rng, loss, n, z):
    """Targets of a loss for predictions z."""
    if loss in ("quadratic", "huber"):
        return 2.0 * z + rng.normal(size=n) + 1.0
    if loss == "poisson":
        return rng.poisson(np.exp(0.5 * z)).astype(float)
    if loss == "multinomial":
        return np.r_[0, 1, 2, np.digitize(z[3:] + rng.normal(size=n - 3), (-0.5, 0.7))]
    return np.r_[-1.0, 1.0, np.sign(z[2:] + rng.normal(size=n - 2) + 0.3)]


# The public penalty, and the oracle's with the same meaning.
PENALTIES = {
    "l1": lambda a: (penalties.L1(a), oracles.elastic(a)),
    "elastic": lambda a: (penalties.ElasticNet(a, 0.6), oracles.elastic(0.6 * a, 0.4 * a)),
    "ridge": lambda a: (penalties.L2(a), oracles.elastic(0.0, a)),
    "positive": lambda a: (penalties.PositiveL1(a), oracles.elastic(a, 0.0, 0.0)),
    "elastic positive": lambda a: (
        penalties.ElasticBox(a, a, 0.0),
        oracles.elastic(a, a, 0.0),
    ),
    "l1 in a box": lambda a: (
        penalties.ElasticBox(a, 0.0, -0.2, 0.1),
        oracles.elastic(a, 0.0, -0.2, 0.1),
    ),
    "away from zero": lambda a: (
        penalties.ElasticBox(a, 0.0, 0.1, np.inf),
        oracles.elastic(a, 0.0, 0.1),
    ),
}


def pose(rng, loss, penalty, fit_intercept, strength):
    """A small problem: the library's and the oracle's."""
    n, p = int(rng.integers(8, 20)), int(rng.integers(1, 7))
    X = rng.normal(size=(n, p))
    y = targets(rng, loss, n, X @ rng.normal(size=p) / np.sqrt(p))
    s = rng.integers(1, 4, size=n).astype(float)
    public, own = PENALTIES[penalty](strength)
    problem = bcd.Problem(
        X, y, datafit=loss, penalty=public, sample_weight=s, fit_intercept=fit_intercept
    )
    return problem, oracles.Model(X, y, loss, own, s, fit_intercept)


# The duality gap ---------------------------------------------------------------------------------
@given(
    seeds,
    st.sampled_from(LOSSES),
    st.sampled_from(tuple(PENALTIES)),
    st.booleans(),
    st.floats(0.003, 0.5),
)
def test_the_gap_encloses_the_optimum_whatever_the_answer(seed, loss, penalty, free, strength):
    rng = np.random.default_rng(seed)
    problem, model = pose(rng, loss, penalty, free, strength)
    w_best, c_best, best = model.solve(3000)
    for spoil in (0.0, 1e-3, 1.0):
        w = model.penalty.prox(w_best + spoil * rng.normal(size=w_best.shape), 1e-300)
        w = np.where(rng.random(w.shape) < 0.3, w_best, w)
        c = c_best + spoil * rng.normal(size=c_best.shape) if free else c_best
        found = bcd.certify(problem, w, intercept=c)
        primal = model.objective(w, c)
        details = found.details
        assert found.kind == GAP
        assert details["primal"] == pytest.approx(primal, rel=1e-12)
        assert details["dual"] <= best + 1e-12 * abs(best) + 1e-14
        assert details["gap"] >= primal - best - 1e-12 * details["scale"]
        assert details["gap"] == details["primal"] - details["dual"]
        assert found.value >= max(details["gap"], 0.0) / details["scale"]
        if spoil == 0.0:
            assert found.value <= 1e-6


