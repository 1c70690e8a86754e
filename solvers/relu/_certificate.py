"""The independent judge of weights, wherever they come from."""

import math
from functools import partial

import numpy as np

from .._core.arrays import to_numpy
from .._core.certificate import Certificate
from .._core.validation import check_array, check_choice, check_positive
from ._certificate_bounds import dual_bound, feasible
from ._certificate_data import Data
from ._certificate_global import Everywhere, search
from ._certificate_kinks import at_kinks
from ._certificate_robust import robust_point
from ._problem import check_data, check_eps, check_gates, ours

__all__ = ["Data", "certify", "dual_bound", "feasible", "judge"]

GAP = "relative duality gap"
GLOBAL_GAP = "relative duality gap over all networks"
_EPS = np.finfo(np.float64).eps
# A violation in lengths of a row and the largest block: the absolute one knows no units.
_RELATIVE = 100.0
# What counts as a kink of the loss, for weights that are more and less accurate.
_NEAR = (1e-6, 1e-4, 1e-2)


def certify(
    X, y, *, beta, loss="squared", V, W, gates, robust_eps=None, scope="sampled", tol=1e-4,
    z=None, alpha=None, gamma=None, delta=1.35, logit_scale=1.0,
):  # fmt: skip
    r"""Judge weights of the convex programme, wherever they come from.

    Everything is computed in float64 from the data given, and every bound includes its rounding
    errors. From above comes the objective at the weights, from below the dual of the programme,

    .. math:: \max_{z, \; \alpha_i, \gamma_i \ge 0} -L^*(-z) \quad \text{with} \quad
              \|X^\top (D_i z + E_i \alpha_i)\| \le \beta, \;
              \|X^\top (-D_i z + E_i \gamma_i)\| \le \beta, \; E_i = 2 D_i - 1,

    at multiples of one z, with the best multipliers for it.

    Parameters
    ----------
    X : array, shape (n, d)
        Samples, with a column of ones for a bias.
    y : array, shape (n,) or (n, c)
        Targets; -1 and 1 for the losses "logistic", "hinge" and "squared_hinge".
    beta : float
        Weight of the penalty. The loss is a sum over samples: for a mean pass `n` times as much.
    loss : {"squared", "logistic", "hinge", "squared_hinge", "huber"}, default "squared"
        The loss.
    V, W : array, shape (d, P) or (c, d, P)
        Weights that add and weights that subtract.
    gates : Gates, or bool array of shape (n, P)
        The gates, one for each column of `V`; any patterns will do.
    robust_eps : float or array of shape (d,), optional
        How far entries of a sample may move: the weights are judged by the loss at worst. For
        the losses "squared", "logistic" and "hinge".
    scope : {"sampled", "global"}, default "sampled"
        Judge the weights against the optimum over these gates, or their network against the
        optimum over all networks. The latter is sharp for samples of a rank up to about 5, whose
        longest neuron branch and bound can find, and takes seconds there; above it is rough.
    tol : float, default 1e-4
        Largest gap that passes.
    z : array, shape (n,) or (c, n), optional
        A dual point, such as a result's `z`. Without one, or if it is not good enough, the slopes
        of the loss at the weights serve as one.
    alpha, gamma : array, shape (n, P) or (c, n, P), optional
        Multipliers that go with `z`. Better ones are found where they do not suffice.
    delta : float, default 1.35
        Where the Huber loss becomes linear.
    logit_scale : float, default 1.0
        Factor of the predictions in the logistic loss.

    Returns
    -------
    Certificate
        The "relative duality gap", :math:`(P - D) / P` for the objective P and the bound D; it is
        infinite for weights outside their cones by more than 1e-8 (1e-5 in float32) times
        ``1 + max|V| + max|W|``, or by more than 1e-6 (1e-3) lengths of the row and the longest
        weights. ``details`` has

        - ``fun_convex``, ``dual``: both bounds of the optimum over the gates;
        - ``cone_violation``, and ``gap_projected``, the gap once weights are moved into their
          cones;
        - ``fun``: the objective of the network, in its cones or not;
        - ``dual_global``, ``gap_global``: a lower bound over all networks, and the gap to it;
        - ``dual_global_est``: what that bound would be if a search over neurons had found the
          worst one. It is an estimate and proves nothing.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the expected kind, shape or value.
    NotImplementedError
        If there is no robust form of the loss.

    References
    ----------
    .. [1] M. Pilanci and T. Ergen. Neural networks are convex regularizers. ICML 2020.
       arXiv:2002.10553.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import relu
    >>> X, y, gates = np.eye(2), np.array([3.0, 4.0]), np.ones((2, 1), dtype=bool)
    >>> V, W = np.array([[2.4], [3.2]]), np.zeros((2, 1))
    >>> relu.certify(X, y, beta=1.0, loss="squared", V=V, W=W, gates=gates).holds
    True
    >>> relu.certify(X, y, beta=1.0, loss="squared", V=1.1 * V, W=W, gates=gates).holds
    False
    """
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
            z = np.atleast_2d(given["z"])
            duals = z if data.eps is None else robust_point(data, U, _NEAR[0], z), alpha
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
    lower, estimate = _everywhere(data, U, z, scope == "global" or data.complete)
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
    """Return the dual point with the highest bound, and it: the one given or one of U."""
    z, dual = (duals[0], dual_bound(data, *duals)) if duals else (None, -math.inf)
    for own in _own_duals(data, U, z):
        if relative_gap(upper, dual) <= tol:
            break
        point = own()
        bound = dual_bound(data, point)
        if bound > dual:
            z, dual = point, bound
    return z, dual


def _own_duals(data, U, given):
    """Return ways to the dual point of blocks U."""
    if data.eps is not None:
        zs = [None] if given is None else [given.z, None]
        return [partial(robust_point, data, U, near, z) for near in _NEAR for z in zs]
    if data.kinks:
        return [partial(at_kinks, data, U, near) for near in _NEAR]
    return [partial(data.slope, U)]


def _everywhere(data, U, z, thorough):
    """Return a lower bound over all networks, and what it would be if a search found the worst."""
    # What samples that move cost is no less than what they cost where they are.
    z = z if data.eps is None else z.z
    everywhere, found = Everywhere(data, thorough), search(data, z, U)[0]
    lower = everywhere.bound(z, found)
    return lower, max(lower, everywhere.estimate(z, found))
