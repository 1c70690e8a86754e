"""The independent check of an answer: its KKT residual, from the caller's functions alone."""

import numpy as np

from .._core.certificate import Certificate
from .._core.validation import check_positive
from ._matrices import to_dense
from ._program import pose

KIND = "KKT residual"


def certify(x, fun, *, jac, constraints=(), bounds=None, lam=None, hess=None, tol=1e-8):
    """Return the KKT residual of a point as a certificate.

    Parameters
    ----------
    x : array, shape (n,)
        The point.
    fun, jac, hess : callable
        The objective and its derivatives.
    constraints, bounds : object
        As in `minimize`.
    lam : array, shape (m,), optional
        Multipliers of all rows; least-squares ones by default.
    tol : float, default 1e-8
        The largest residual that passes.

    Returns
    -------
    Certificate
        Kind "KKT residual".
    """
    tol = check_positive(tol, "tol")
    program, x = pose(fun, x, jac=jac, hess=hess, constraints=constraints, bounds=bounds)
    return judge(program, x, lam, tol=tol)


def judge(program, x, lam=None, bound=None, *, tol):
    """Return the certificate of a point in the caller's unit."""
    g, c, G = program.grad(x), program.cons(x), to_dense(program.jac(x), be=program.be)
    if lam is None:
        lam = np.linalg.lstsq(G.T, -g, rcond=1e-12)[0]
    bound = np.zeros(program.n) if bound is None else bound
    fixed = program.lo == program.up
    stationarity = float(np.max(abs(g + G.T @ lam + bound)[~fixed], initial=0.0))
    below, above = (
        np.append(program.lb - c, program.lo - x),
        np.append(c - program.ub, x - program.up),
    )
    violation = float(np.max(np.maximum(below, above), initial=0.0))
    y = np.append(lam, bound)
    off = np.where(y < 0, -y * abs(below), y * abs(above))
    complementarity = float(np.max(off[(y != 0) & (below != -above)], initial=0.0))
    details = dict(
        zip(
            ("stationarity", "violation", "complementarity"),
            parts := (stationarity, violation, complementarity),
            strict=True,
        )
    )
    return Certificate(KIND, max(parts), tol, {**details, "kkt_floor": 0.0})
