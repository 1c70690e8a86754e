"""Independent answers for tests: textbook definitions and other people's solvers.

Nothing here imports the library. Formulas are dense and literal; where the library works block
by block or avoids a formula, that is the point.
"""

import itertools

import numpy as np
from scipy.optimize import linear_sum_assignment, linprog
from scipy.spatial.distance import cdist


# Transport -------------------------------------------------------------------------------------
def exact_cost(a, b, C):
    """The smallest cost of a transport plan, by HiGHS; infinite costs forbid edges."""
    n, m = C.shape
    marginals = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    allowed = np.isfinite(C).ravel()
    found = linprog(
        C.ravel()[allowed], A_eq=marginals[:, allowed], b_eq=np.r_[a, b], method="highs"
    )
    return found.fun if found.status == 0 else np.inf


def assignment_cost(C):
    """The smallest mean cost of a one-to-one assignment."""
    return C[linear_sum_assignment(C)].mean()


def cheapest_permutation(C):
    """The same by trying them all."""
    n = len(C)
    return min(C[range(n), order].mean() for order in itertools.permutations(range(n)))


def gibbs_plan(f, g, a, b, C, reg):
    """The plan of potentials, by the formula that the documentation promises."""
    a, b, C, f, g = (np.asarray(x, dtype=float) for x in (a, b, C, f, g))
    P = np.zeros(C.shape)
    with np.errstate(over="ignore"):
        for i in np.flatnonzero(a):
            heavy = b > 0
            P[i, heavy] = a[i] * (b[heavy] / a.sum()) * np.exp((f[i] + g - C[i])[heavy] / reg)
    return P


def marginal_error(P, a, b):
    """The L1 norm of both marginal residuals."""
    return np.abs(P.sum(axis=1) - a).sum() + np.abs(P.sum(axis=0) - b).sum()


def linear_value(P, C):
    """The cost of a plan; what is not transported costs nothing, however dear."""
    return (P[P > 0] * C[P > 0]).sum()


def entropic_value(P, a, b, C, reg):
    """The cost of a plan plus ``reg * KL(P | a b^T / mass)``."""
    Q = np.outer(a, b) / np.sum(a)
    used = P > 0
    return linear_value(P, C) + reg * (
        (P[used] * np.log(P[used] / Q[used])).sum() - P.sum() + Q.sum()
    )


def entropy(weights):
    """Entropy in nats."""
    weights = weights[weights > 0]
    return -(weights * np.log(weights)).sum()


def cloud_problem(rng, n=20, m=25, dimension=2, concentration=1.0):
    """Two clouds with random weights: squared distances, mass one, no special structure."""
    x, y = rng.normal(size=(n, dimension)), 0.7 * rng.normal(size=(m, dimension)) + 0.4
    a, b = (rng.dirichlet(np.full(k, concentration)) for k in (n, m))
    return a, b, cdist(x, y, "sqeuclidean")
