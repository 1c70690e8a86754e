"""The linear systems of Newton steps.

An inner solver is an object with

- ``name``;
- ``factor(saddle)``: prepares for a matrix and tells whether B is positive definite on the kernel
  of G: True, False, or None where the solver cannot tell;
- ``solve(r, *, d0=None, tol)``: returns an `InnerSolve` of ``K d = r`` with a residual of at most
  ``tol ||r||``, from the start `d0`. Solves for the same matrix may continue each other;
- ``took(part)``, if it wants to hear which part of the last step was taken.
"""

from functools import cached_property
from typing import Any, NamedTuple

from .._matrices import add_diagonal


class Saddle:
    """The matrix ``K = [[B, G^T], [G, -delta I]]``.

    Parameters
    ----------
    B : matrix (n, n)
        Symmetric.
    G : matrix (m, n)
    delta : float, default 0
        Dual regularisation, for rows that depend on each other.
    tau : float, default 0
        Multiple of the identity that B contains, for books.
    be : Backend
    """

    def __init__(self, B, G, delta=0.0, tau=0.0, *, be):
        self.B, self.G, self.delta, self.tau, self.be = B, G, delta, tau, be
        self.m, self.n = G.shape

    def __matmul__(self, d):
        x, y = d[: self.n], d[self.n :]
        bottom = self.G @ x
        if self.delta:
            bottom = bottom - self.delta * y
        return self.be.xp.concatenate([self.B @ x + self._Gt @ y, bottom])

    @cached_property
    def _Gt(self):  # noqa: N802 (the transpose)
        return self.G.T

    def shifted(self, tau, delta=0.0):
        """Return the matrix with ``B + tau I`` and another dual regularisation."""
        B = self.B
        if tau:
            B = add_diagonal(B, tau * self.be.xp.ones(self.n), be=self.be)
        return Saddle(B, self.G, delta, tau, be=self.be)


class InnerSolve(NamedTuple):
    """Where an inner solve ended.

    Attributes
    ----------
    d : array (n + m,)
    residual : array (n + m,)
        ``K d - r``, of the matrix that was factored.
    iterations : int
        Steps, 0 or 1 for direct solvers.
    flag : {"converged", "maxiter", "breakdown", "negative", "radius"}
        "negative": the solve ended at a direction of curvature that is not positive; `d` is from
        before, or that direction. "radius": the step was cut short.
    """

    d: Any
    residual: Any
    iterations: int
    flag: str


def most_steps(options, saddle):
    """Return how many steps a Krylov solver may take for one system."""
    asked = options.maxiter_inner
    return 10 * (saddle.n + saddle.m) if asked is None else asked
