"""The independent judge of weights, wherever they come from."""

import math

import numpy as np

from .._core.arrays import to_numpy
from .._core.certificate import Certificate
from .._core.validation import check_array, check_choice, check_positive
from ._certificate_bounds import dual_bound, feasible
from ._certificate_data import Data
from ._certificate_global import Everywhere, search
from ._certificate_kinks import at_kinks
from ._problem import check_data, check_eps, check_gates, ours

__all__ = ["Data", "certify", "dual_bound", "feasible", "judge"]

GAP = "relative duality gap"
GLOBAL_GAP = "relative duality gap over all networks"
_EPS = np.finfo(np.float64).eps
# A violation in lengths of a row and the largest block: the absolute one knows no units.
_RELATIVE = 100.0


def certify(
    X, y, *, beta, loss="squared", V, W, gates, robust_eps=None, scope="sampled", tol=1e-4,
    z=None, alpha=None, gamma=None, delta=1.35, logit_scale=1.0,
):  # fmt: skip
    r"""Judge weights of the convex programme, wherever they come from."""
    check_choice(scope, "scope", ("sampled", "global"))
    tol, beta = check_positive(tol, "tol"), check_positive(beta, "beta")
    io, X, Y, vector, parameters = check_data(
        X, y, loss, gates=gates, delta=delta, logit_scale=logit_scale,
        V=V, W=W, z=z, alpha=alpha, gamma=gamma,
    )  # fmt: skip
    gates = check_gates(io, gates, X.shape[0])
    head = (Y.shape[0],) if vector else ()
    shapes = {
        "V": (*head, X.shape[1], len(gates)),
        "W": (*head, X.shape[1], len(gates)),
        "z": (*head, len(X)),
        "alpha": (*head, len(X), len(gates)),
        "gamma": (*head, len(X), len(gates)),
    }
    given = {name: _given(io, name, shape) for name, shape in shapes.items() if name in io}
    eps = check_eps(robust_eps, loss, X.shape[1])
    data = Data(io.be.host(X), io.be.host(Y), loss, parameters, beta, gates, eps)
    single = all(io.raw(name).dtype == np.float32 for name in ("V", "W"))
    with np.errstate(all="ignore"):
        U, duals = ours(given["V"], given["W"], np), None
        if "z" in given:
            zero = np.zeros(shapes["alpha"])
            alpha = ours(given.get("alpha", zero), given.get("gamma", zero), np)
            duals = data.slope(U, np.atleast_2d(given["z"])), alpha
        return judge(data, U, tol=tol, slack=1e-5 if single else 1e-8, duals=duals, scope=scope)


def _given(io, name, shape):
    check_array(io, name, shape=shape)
    return to_numpy(io.raw(name)).astype(np.float64)


def judge(data, U, *, tol, slack=1e-8, duals=None, scope="sampled"):
    """Return the certificate of blocks U (c, 2, P, d).

    Parameters
    ----------
    data : Data
    tol, slack : float
        Largest gap that passes; largest violation of the cones, by 1 + the largest weights.
    duals : tuple, optional
        A dual point z (c, n) and, perhaps, multipliers (c, 2, P, n).
    scope : {"sampled", "global"}
    """
    violation, relative = data.violation(U)
    allowed = slack * (1 + abs(U[:, 0]).max(initial=0) + abs(U[:, 1]).max(initial=0))
    legal = violation <= allowed and relative <= _RELATIVE * slack
    # What is proved of weights outside by rounding is proved of the point inside.
    inside = feasible(data, U)
    upper, fun = data.objective(inside), data.network_objective(U)
    if legal:
        upper = max(upper, data.objective(U))
    z, dual = _best_dual(data, inside, upper, duals, tol)
    lower, estimate = _everywhere(data, U, z, scope == "global")
    gap, gap_global = relative_gap(upper, dual), relative_gap(fun, lower)
    details = {
        "fun_convex": upper,
        "dual": dual,
        "dual_global": lower,
        "dual_global_est": estimate,
        "fun": fun,
        "cone_violation": violation,
        "gap_projected": gap,
        "gap_global": gap_global,
    }
    if data.eps is not None and legal:
        # Weights inside their cones cost at most this, wherever samples move.
        gap_global = details["gap_global"] = relative_gap(upper, lower)
    if scope == "global":
        return Certificate(GLOBAL_GAP, gap_global, tol, details)
    return Certificate(GAP, gap if legal else math.inf, tol, details)


def relative_gap(upper, lower):
    """Return the gap between bounds relative to the upper one, with their rounding errors."""
    if not (math.isfinite(upper) and math.isfinite(lower)):
        return math.inf
    return (upper - lower + 4 * _EPS * (upper + lower)) / max(upper, 1e-300)


def _best_dual(data, U, upper, duals, tol):
    """Return the dual point with the higher bound, and it: the one given or that of U."""
    z, dual = (duals[0], dual_bound(data, *duals)) if duals else (None, -math.inf)
    if not relative_gap(upper, dual) <= tol:
        own = at_kinks(data, U) if data.kinks else data.slope(U)
        bound = dual_bound(data, own)
        if bound > dual:
            z, dual = own, bound
    return z, dual


def _everywhere(data, U, z, thorough):
    """Return a lower bound over all networks, and what it would be if a search found the worst."""
    # What samples that move cost is no less than what they cost where they are.
    z = z if data.eps is None else z.z
    everywhere, found = Everywhere(data, thorough), search(data, z, U)[0]
    lower = everywhere.bound(z, found)
    return lower, max(lower, everywhere.estimate(z, found))
