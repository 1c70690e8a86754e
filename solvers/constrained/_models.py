r"""Quasi-Newton models of the Hessian of the Lagrangian.

A model learns from pairs: a step s and the change y of the gradient of the Lagrangian along it,
both ends with the multipliers of the new one. It stands in Newton systems only; where a merit
function needs the product with the true Hessian, that is one difference of gradients.
"""

import copy

from ._matrices import LowRank

# Powell's damping: y is mixed with B s until s.y is this part of s.Bs.
_DAMPED = 0.2
# Pairs of the limited memory; and what is no curvature next to the lengths of two vectors.
_MEMORY, _NOTHING = 10, 1e-8


def open_model(model, n, *, be):
    """Return the model of a `Program` for n unknowns."""
    if isinstance(model, str):
        return {"bfgs": DampedBFGS, "sr1": SR1, "lbfgs": LimitedMemory}[model](n, be=be)
    return Strategy(model, n, be=be)


class DampedBFGS:
    """Positive definite whatever the curvature: Powell's damping of ``y``.

    Attributes
    ----------
    B : matrix (n, n)
        The model.
    """

    def __init__(self, n, *, be):
        self._be, self.B, self._fresh = be, be.xp.eye(n), True

    def update(self, s, y):
        """Learn that the Hessian takes s to y."""
        host = self._be.host
        sy, ss, yy = host(s @ y, s @ s, y @ y)
        if self._fresh and sy > 0:
            self.B *= yy / sy
        self._fresh &= ss == 0
        if ss == 0:
            return
        Bs = self.B @ s
        sBs = host(s @ Bs)
        y, sy = damped(y, Bs, sy, sBs)
        self.B = self.B - self._be.xp.outer(Bs, Bs / sBs) + self._be.xp.outer(y, y / sy)


class SR1:
    """The symmetric update of rank one, which also finds negative curvature."""

    def __init__(self, n, *, be):
        self._be, self.B, self._fresh = be, be.xp.eye(n), True

    def update(self, s, y):
        """Learn that the Hessian takes s to y, unless next to nothing is left to learn."""
        host = self._be.host
        sy, ss, yy = host(s @ y, s @ s, y @ y)
        if self._fresh and sy > 0:
            self.B *= yy / sy
            self._fresh = False
        off = y - self.B @ s
        along, square = host(off @ s, off @ off)
        if abs(along) > _NOTHING * (ss * square) ** 0.5:
            self.B = self.B + self._be.xp.outer(off, off / along)


class LimitedMemory:
    """Damped BFGS from the last pairs alone, in compact form.

    References
    ----------
    R. H. Byrd, J. Nocedal, R. B. Schnabel. Representations of quasi-Newton matrices and their use
    in limited memory methods. Math. Program. 63 (1994), 129-156.
    """

    def __init__(self, n, *, be):
        self._be, self._n, self._pairs, self._unit = be, n, [], 1.0
        self.B = self._compact()

    def update(self, s, y):
        """Learn that the Hessian takes s to y, and forget the oldest pair of too many."""
        host = self._be.host
        sy, ss = host(s @ y, s @ s)
        if ss == 0:
            return
        Bs = self.B @ s
        y, sy = damped(y, Bs, sy, host(s @ Bs))
        self._unit = host(y @ y) / sy
        self._pairs = [*self._pairs, (s, y)][-_MEMORY:]
        self.B = self._compact()

    def _compact(self):
        xp, unit = self._be.xp, self._unit
        d = unit * xp.ones(self._n)
        if not self._pairs:
            return LowRank(d, xp.zeros((self._n, 0)), xp.zeros((0, 0)))
        S, Y = (xp.stack(vectors, axis=1) for vectors in zip(*self._pairs, strict=True))
        SY = S.T @ Y
        L = xp.tril(SY, -1)
        middle = xp.concatenate(
            [
                xp.concatenate([unit * (S.T @ S), L], axis=1),
                xp.concatenate([L.T, -xp.diag(xp.diagonal(SY))], axis=1),
            ]
        )
        return LowRank(d, xp.concatenate([unit * S, Y], axis=1), -xp.linalg.inv(middle))


class Strategy:
    """A caller's object with SciPy's interface ``HessianUpdateStrategy``; a copy of it learns."""

    def __init__(self, strategy, n, *, be):
        self._strategy, self._be = copy.deepcopy(strategy), be
        self._strategy.initialize(n, "hess")

    @property
    def B(self):  # noqa: N802 (the matrix's name)
        """The model."""
        return self._be.xp.asarray(self._strategy.get_matrix())

    def update(self, s, y):
        """Learn that the Hessian takes s to y."""
        if self._be.host(s @ s) > 0:
            self._strategy.update(s, y)


def damped(y, Bs, sy, sBs):
    """Return y, mixed with Bs where the curvature is not positive enough, and its s.y."""
    if sy >= _DAMPED * sBs:
        return y, sy
    part = (1 - _DAMPED) * sBs / (sBs - sy)
    return part * y + (1 - part) * Bs, _DAMPED * sBs
