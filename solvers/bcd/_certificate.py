"""The independent judge of coefficients, wherever they come from."""

import math

import numpy as np

from .._core.certificate import Certificate

GAP, KKT = "relative duality gap", "relative KKT violation"


def judge(problem, x, c, *, tol):
    """Return the certificate of an answer to a posed problem; see `certify`."""
    # A stand-in: KKT violation of a penalty that is a sum over coefficients.
    be, eps = problem.be, np.finfo(np.float64).eps
    g0, g = _gradient(problem, *problem.zeros()), _gradient(problem, x, c)
    rules = _rules(problem.bound)
    d = np.array([rules(problem.bound, w, v, j) for j, (w, v) in enumerate(zip(x, g))])
    unit = float(be.host(abs(g0).max())) or 1.0
    primal = problem.objective(x, c)
    worst = int(np.argmax(d))
    details = {"primal": primal, "kkt": float(d[worst]), "scale": unit, "worst": worst}
    return Certificate(KKT, float(d[worst]) / unit + 4 * eps, tol, details)


def certify(problem, w, *, intercept=None, tol=None):
    raise NotImplementedError


def alpha_max(datafit, X, y, *, penalty="l1", **options):
    raise NotImplementedError


def _gradient(problem, x, c):
    if problem.quadratic:
        return problem.gradient(x)
    return problem.gradient(problem.predict(x, c))[0]


def _rules(bound):
    from .._core.rules import function_of

    return function_of(type(bound), "distance")
