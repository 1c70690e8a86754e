"""Problems with planted solutions and every kind of matrix, for the methods of the family."""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from scipy.optimize import NonlinearConstraint
from scipy.sparse.linalg import aslinearoperator

KINDS = {"dense": np.asarray, "sparse": sp.csr_array, "operator": aslinearoperator}


class Posed(NamedTuple):
    """What `minimize` takes, and the solution."""

    keywords: dict
    x: Any
    lam: Any


def planted(seed, n=8, m=3, *, kind="dense", curl=0.2, spread=0.3, copies=()):
    """Return a strictly convex objective with m curved rows, solved by a point of our choice.

    `copies` lists rows (m,) of weights: further rows that depend on the first m.
    """
    rng, as_kind = np.random.default_rng(seed), KINDS[kind]
    xs, lam = rng.standard_normal(n), rng.standard_normal(m)
    A = rng.standard_normal((m, n))
    S = curl * rng.standard_normal((m, n, n))
    S = S + S.transpose(0, 2, 1)
    # The Hessian of the Lagrangian at the solution is P.
    W = rng.standard_normal((n, n))
    P = np.eye(n) + W @ W.T / n
    Q = P - np.tensordot(lam, S, 1)
    T = np.vstack([np.eye(m), *map(np.atleast_2d, copies)])

    def cons(x):
        d = x - xs
        return T @ (A @ d + 0.5 * np.einsum("i,mij,j->m", d, S, d))

    g = -A.T @ lam
    con = NonlinearConstraint(
        cons,
        0.0,
        0.0,
        jac=lambda x: as_kind(T @ (A + S @ (x - xs))),
        hess=lambda x, v: as_kind(np.tensordot(T.T @ v, S, 1)),
    )
    keywords = {
        "fun": lambda x: 0.5 * (x - xs) @ Q @ (x - xs) + g @ (x - xs),
        "x0": xs + spread * rng.standard_normal(n),
        "jac": lambda x: Q @ (x - xs) + g,
        "hess": lambda x: as_kind(Q),
        "constraints": con,
    }
    return Posed(keywords, xs, lam)


def equations(c, jac, x0, hess=None, *, kind="dense"):
    """Return what `minimize` takes for ``c(x) = 0`` with nothing to minimise."""
    n = len(x0)
    con = NonlinearConstraint(
        c,
        0.0,
        0.0,
        jac=lambda x: KINDS[kind](jac(x)),
        hess=lambda x, v: KINDS[kind](np.zeros((n, n)) if hess is None else hess(x, v)),
    )
    return {
        "fun": lambda x: 0.0,
        "x0": np.asarray(x0, float),
        "jac": np.zeros_like,
        "hess": lambda x: KINDS[kind](np.zeros((n, n))),
        "constraints": con,
    }


def sphere(n=2, radius=1.0):
    """Return the constraint ``x @ x = radius^2``."""
    return NonlinearConstraint(
        lambda x: np.array([x @ x - radius**2]),
        0.0,
        0.0,
        jac=lambda x: 2 * x[None],
        hess=lambda x, v: 2 * v[0] * np.eye(n),
    )
