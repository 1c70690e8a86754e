"""The lower level around one point, on the host: gradients, rows, and their differences."""

import numpy as np

# A second derivative is symmetric, but for differences that meet a kink.
_ASKEW = 0.1


class Local:
    """The functions of a problem at one x, of y alone.

    Arrays that come and go are float64 on the host.

    Parameters
    ----------
    problem : Bilevel
    x : array, shape (d,)
        Of the problem's back end.
    y : array, shape (p,)
        Where the length of differences fits.
    bounds : sequence of (coordinate, sign, bound)
        Bounds of y, ``sign (y - bound) <= 0``, that are treated as rows.

    Attributes
    ----------
    equal : array of bool, shape (l,)
        Which rows are equations.
    """

    def __init__(self, problem, x, y, bounds=()):
        self.problem, self.x = problem, x
        self.coupling, self.region, self.bounds = problem.constraints, problem.Y, bounds
        self.d, self.p = len(x), len(y)
        size = max(1.0, float(abs(y).max(initial=0.0)))
        # Lengths at which differences of second and of fourth order err least.
        self.short, self.long = problem.eps ** (1 / 3) * size, problem.eps**0.2 * size
        self._own_rows()

    def vector(self, v):
        """Return an array of the host as the oracles take it."""
        return self.problem.io.xp.asarray(v, dtype=self.problem.io.dtype)

    def host(self, v):
        return np.asarray(self.problem.io.be.host(v), dtype=np.float64)

    def upper(self, y):
        """Return value and gradients of the upper level."""
        return self._hosted(self.problem.upper.look(self.x, self.vector(y)))

    def lower(self, y):
        """Return value and gradients of the lower level."""
        return self._hosted(self.problem.lower.look(self.x, self.vector(y)))

    def _hosted(self, look):
        return look.value, self.host(look.gx), self.host(look.gy)

    # ------------------------------------------------------------ rows
    def _own_rows(self):
        """Gather the rows that do not depend on x: those of Y, and bounds."""
        A, E = np.zeros((0, self.p)), np.zeros((0, self.p))
        b, f = np.zeros(0), np.zeros(0)
        if self.region.rows is not None:
            A, b, E, f = (np.asarray(part, dtype=float) for part in self.region.rows())
        signs = np.zeros((len(self.bounds), self.p))
        for row, (k, sign, _) in zip(signs, self.bounds, strict=True):
            row[k] = sign
        edges = np.array([sign * bound for _, sign, bound in self.bounds])
        self.own = np.concatenate([A, E, signs])
        self.side = np.concatenate([b, f, edges])
        own = np.repeat([False, True, False], [len(b), len(f), len(edges)])
        tied = np.zeros(0, bool) if self.coupling is None else self.host_equal()
        self.equal = np.concatenate([tied, own])
        self.tied = len(tied)

    def host_equal(self):
        return np.asarray(self.problem.io.be.host(self.coupling.equal), dtype=bool)

    def rows(self, y):
        """Return the values of all rows and their derivatives in x and y."""
        c, Jx, Jy = self.own @ y - self.side, np.zeros((len(self.side), self.d)), self.own
        if self.coupling is None:
            return c, Jx, Jy
        at = self.vector(y)
        tied = self.host(self.coupling.look(self.x, at))
        Tx, Ty = map(self.host, self.coupling.jacobian(self.x, at))
        return np.r_[tied, c], np.r_[Tx, Jx], np.r_[Ty, Jy]

    def gradients(self, y, w):
        """Return the derivatives in x, then in y, of ``g + w . c``."""
        _, gx, gy = self.lower(y)
        if self.coupling is not None:
            pulled = self.coupling.pulled(self.x, self.vector(y), self.vector(w[: self.tied]))
            cx, cy = map(self.host, pulled)
            gx, gy = gx + cx, gy + cy
        if len(self.own):
            gy = gy + w[self.tied :] @ self.own
        return np.concatenate([gx, gy])

    # ------------------------------------------------------------ second derivatives
    def along(self, y, w, v, stretch=1.0):
        """Return the derivative of `gradients` in a direction, by differences of order 4."""
        return difference(lambda t: self.gradients(y + t * v, w), v, stretch * self.long)

    def product(self, y, w, v):
        """Return the second derivative of ``g + w . c`` times a vector, to second order."""
        t = self.short / max(float(abs(v).max()), 1e-300)
        ahead, behind = self.gradients(y + t * v, w), self.gradients(y - t * v, w)
        return (ahead - behind)[self.d :] / (2 * t)

    def upper_along(self, y, v):
        """Return the derivative of the upper level's gradient in y in a direction."""
        return difference(lambda t: self.upper(y + t * v)[2], v, self.long)

    def hessian(self, y, w, free):
        """Return the second derivative of ``g + w . c`` in the free coordinates, (p, p)."""
        columns = np.zeros((self.p, self.p))
        given = self.trusted(y) if not len(w) else None
        for k in np.flatnonzero(free):
            e = np.zeros(self.p)
            if given is not None:
                e[k] = 1.0
                columns[k] = given(e)
                continue
            e[k] = t = min(self.short, self._room(y, k))
            ahead, behind = self.gradients(y + e, w), self.gradients(y - e, w)
            columns[k] = (ahead - behind)[self.d :] / (2 * t)
        H = columns[:, free][free]
        if float(abs(H - H.T).max(initial=0.0)) > _ASKEW * float(abs(H).max(initial=0.0)):
            raise np.linalg.LinAlgError("the lower level's gradients are those of no function")
        return 0.5 * (H + H.T)

    def _room(self, y, k):
        """Return a length by which a coordinate may move and stay within its bounds."""
        lo, hi = self.region.lo, self.region.hi
        if lo is None:
            return np.inf
        room = min(y[k] - float(lo[k]), float(hi[k]) - y[k])
        return 0.5 * room if room > 0 else np.inf

    def trusted(self, y):
        """Return the caller's products with the second derivative if differences agree."""
        level = self.problem.lower
        if level.oracle.hvp_yy is None:
            return None
        at = self.vector(y)

        def product(v):
            return self.host(level.hvp_yy(self.x, at, self.vector(v)))

        probe = np.cos(1.0 + np.arange(self.p) ** 2)
        theirs, ours = product(probe), self.along(y, np.zeros(0), probe)[self.d :]
        agree = np.linalg.norm(theirs - ours) <= self.problem.eps**0.25 * np.linalg.norm(ours)
        return product if agree else None


def difference(fun, v, length):
    """Return the derivative of ``fun(t)`` at 0, for a t that moves along v by some length."""
    size = float(abs(v).max(initial=0.0))
    if not size > 0:
        return np.zeros_like(fun(0.0))
    t = length / size
    a, b, c, d = (fun(m * t) for m in (-2, -1, 1, 2))
    return (a - 8 * b + 8 * c - d) / (12 * t)
