"""Small problems with curved equalities and exact derivatives, written by hand.

Hock and Schittkowski's problems have their numbers, Boggs and Tolle's the letters BT; solutions
are those of the collections.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import NonlinearConstraint


class Given(NamedTuple):
    """A start, functions and derivatives, and the value of the solution."""

    x0: np.ndarray
    fun: Any
    jac: Any
    hess: Any
    cons: Any
    cons_jac: Any
    cons_hess: Any
    best: float

    def keywords(self, weight=1.0, rows=1.0):
        """Return what `minimize` takes, with the objective and the rows multiplied."""
        D = np.broadcast_to(np.asarray(rows, float), len(self.cons(self.x0)))
        con = NonlinearConstraint(
            lambda x: D * self.cons(x),
            0.0,
            0.0,
            jac=lambda x: D[:, None] * self.cons_jac(x),
            hess=lambda x, v: self.cons_hess(x, D * v),
        )
        return {
            "fun": lambda x: weight * self.fun(x),
            "x0": self.x0,
            "jac": lambda x: weight * self.jac(x),
            "hess": lambda x: weight * self.hess(x),
            "constraints": con,
        }


def _hs77():
    def cons(x):
        return np.array(
            [
                x[0] ** 2 * x[3] + np.sin(x[3] - x[4]) - 2 * np.sqrt(2),
                x[1] + x[2] ** 4 * x[3] ** 2 - 8 - np.sqrt(2),
            ]
        )

    def cons_jac(x):
        d = np.cos(x[3] - x[4])
        return np.array(
            [
                [2 * x[0] * x[3], 0, 0, x[0] ** 2 + d, -d],
                [0, 1, 4 * x[2] ** 3 * x[3] ** 2, 2 * x[2] ** 4 * x[3], 0],
            ]
        )

    def cons_hess(x, v):
        s, H = -np.sin(x[3] - x[4]), np.zeros((5, 5))
        H[0, 0], H[0, 3] = 2 * x[3] * v[0], 2 * x[0] * v[0]
        H[2, 2], H[2, 3] = 12 * x[2] ** 2 * x[3] ** 2 * v[1], 8 * x[2] ** 3 * x[3] * v[1]
        H[3, 3], H[3, 4] = s * v[0] + 2 * x[2] ** 4 * v[1], -s * v[0]
        H[4, 4] = s * v[0]
        return np.triu(H) + np.triu(H, 1).T

    def fun(x):
        return (
            (x[0] - 1) ** 2
            + (x[0] - x[1]) ** 2
            + (x[2] - 1) ** 2
            + (x[3] - 1) ** 4
            + (x[4] - 1) ** 6
        )

    def jac(x):
        a, b = 2 * (x[0] - 1), 2 * (x[0] - x[1])
        return np.array([a + b, -b, 2 * (x[2] - 1), 4 * (x[3] - 1) ** 3, 6 * (x[4] - 1) ** 5])

    def hess(x):
        H = np.diag([4, 2, 2, 12 * (x[3] - 1) ** 2, 30 * (x[4] - 1) ** 4])
        H[0, 1] = H[1, 0] = -2
        return H

    return Given(np.full(5, 2.0), fun, jac, hess, cons, cons_jac, cons_hess, 0.24150512879)


def _bt11():
    def fun(x):
        return (
            (x[0] - 1) ** 2
            + (x[0] - x[1]) ** 2
            + (x[1] - x[2]) ** 2
            + (x[2] - x[3]) ** 4
            + (x[3] - x[4]) ** 4
        )

    def jac(x):
        a, b, c = 2 * (x[0] - x[1]), 2 * (x[1] - x[2]), 4 * (x[2] - x[3]) ** 3
        d = 4 * (x[3] - x[4]) ** 3
        return np.array([2 * (x[0] - 1) + a, b - a, c - b, d - c, -d])

    def hess(x):
        H = np.zeros((5, 5))
        H[0, 0] = 2
        for k, w in enumerate([2, 2, 12 * (x[2] - x[3]) ** 2, 12 * (x[3] - x[4]) ** 2]):
            H[k : k + 2, k : k + 2] += w * np.array([[1, -1], [-1, 1]])
        return H

    def cons(x):
        return np.array(
            [
                x[0] + x[1] ** 2 + x[2] ** 3 + 2 - np.sqrt(18),
                x[1] + x[3] - x[2] ** 2 + 2 - np.sqrt(8),
                x[0] - x[4] - 2,
            ]
        )

    def cons_jac(x):
        return np.array(
            [[1, 2 * x[1], 3 * x[2] ** 2, 0, 0], [0, 1, -2 * x[2], 1, 0], [1, 0, 0, 0, -1.0]]
        )

    def cons_hess(x, v):
        return np.diag([0, 2 * v[0], 6 * x[2] * v[0] - 2 * v[1], 0, 0])

    return Given(np.full(5, 2.0), fun, jac, hess, cons, cons_jac, cons_hess, 0.824891778)


def _hs100lnp():
    def fun(x):
        return (
            (x[0] - 10) ** 2
            + 5 * (x[1] - 12) ** 2
            + x[2] ** 4
            + 3 * (x[3] - 11) ** 2
            + 10 * x[4] ** 6
            + 7 * x[5] ** 2
            + x[6] ** 4
            - 4 * x[5] * x[6]
            - 10 * x[5]
            - 8 * x[6]
        )

    def jac(x):
        return np.array(
            [
                2 * (x[0] - 10),
                10 * (x[1] - 12),
                4 * x[2] ** 3,
                6 * (x[3] - 11),
                60 * x[4] ** 5,
                14 * x[5] - 4 * x[6] - 10,
                4 * x[6] ** 3 - 4 * x[5] - 8,
            ]
        )

    def hess(x):
        H = np.diag([2, 10, 12 * x[2] ** 2, 6, 300 * x[4] ** 4, 14, 12 * x[6] ** 2])
        H[5, 6] = H[6, 5] = -4
        return H

    def cons(x):
        return np.array(
            [
                2 * x[0] ** 2 + 3 * x[1] ** 4 + x[2] + 4 * x[3] ** 2 + 5 * x[4] - 127,
                4 * x[0] ** 2 + x[1] ** 2 - 3 * x[0] * x[1] + 2 * x[2] ** 2 + 5 * x[5] - 11 * x[6],
            ]
        )

    def cons_jac(x):
        return np.array(
            [
                [4 * x[0], 12 * x[1] ** 3, 1, 8 * x[3], 5, 0, 0],
                [8 * x[0] - 3 * x[1], 2 * x[1] - 3 * x[0], 4 * x[2], 0, 0, 5, -11],
            ]
        )

    def cons_hess(x, v):
        H = np.diag(
            [4 * v[0] + 8 * v[1], 36 * x[1] ** 2 * v[0] + 2 * v[1], 4 * v[1], 8 * v[0], 0, 0, 0]
        )
        H[0, 1] = H[1, 0] = -3 * v[1]
        return H

    x0 = np.array([1.0, 2, 0, 4, 0, 1, 1])
    return Given(x0, fun, jac, hess, cons, cons_jac, cons_hess, 680.630057)


def sphere(fun, jac, hess, x0, *, radius=1.0, weight=1.0, best=np.nan):
    """Return a problem on a sphere, ``weight (|x|^2 - radius^2) = 0``."""
    n = len(x0)
    return Given(
        np.asarray(x0, float),
        fun,
        jac,
        hess,
        lambda x: np.array([weight * (x @ x - radius**2)]),
        lambda x: 2 * weight * x[None],
        lambda x, v: 2 * weight * v[0] * np.eye(n),
        best,
    )


def maratos(x0):
    """Return ``-x_1 + 10 (|x|^2 - 1)`` on the unit circle: full steps raise most merits."""
    return sphere(
        lambda x: -x[0] + 10 * (x @ x - 1),
        lambda x: 20 * x - np.array([1.0, 0.0]),
        lambda x: 20 * np.eye(2),
        x0,
        best=-1.0,
    )


def parallel():
    """Return HS61: the gradients of its rows are parallel at its start."""
    return Given(
        np.zeros(3),
        lambda x: x @ (np.array([4.0, 2, 2]) * x) + np.array([-33.0, 16, -24]) @ x,
        lambda x: np.array([8.0, 4, 4]) * x + np.array([-33.0, 16, -24]),
        lambda x: np.diag([8.0, 4, 4]),
        lambda x: np.array([3 * x[0] - 2 * x[1] ** 2 - 7, 4 * x[0] - x[2] ** 2 - 11]),
        lambda x: np.array([[3, -4 * x[1], 0], [4, 0, -2 * x[2]]]),
        lambda x, v: np.diag([0, -4 * v[0], -2 * v[1]]),
        -143.646142,
    )


def two_spheres():
    """Return BYRDSPHR: the spheres' gradients are nearly parallel at its start."""
    centres = np.array([[0.0, 0, 0], [1, 0, 0]])
    return Given(
        np.array([5.0, 1e-4, -1e-4]),
        lambda x: -x.sum(),
        lambda x: -np.ones(3),
        lambda x: np.zeros((3, 3)),
        lambda x: ((x - centres) ** 2).sum(axis=1) - 9,
        lambda x: 2 * (x - centres),
        lambda x, v: 2 * v.sum() * np.eye(3),
        -4.68330013,
    )


def valley():
    """Return HS6: a curved valley, through which the start lies on the wrong side."""
    return Given(
        np.array([-1.2, 1.0]),
        lambda x: (1 - x[0]) ** 2,
        lambda x: np.array([2 * (x[0] - 1), 0.0]),
        lambda x: np.diag([2.0, 0.0]),
        lambda x: np.array([10 * (x[1] - x[0] ** 2)]),
        lambda x: np.array([[-20 * x[0], 10.0]]),
        lambda x, v: np.diag([-20 * v[0], 0.0]),
        0.0,
    )


CURVED = {"HS77": _hs77(), "BT11": _bt11(), "HS100LNP": _hs100lnp()}
