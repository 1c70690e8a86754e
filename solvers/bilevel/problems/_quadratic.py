"""Quadratic levels, whose answers are known in closed form."""

from ..._core.arrays import Ingest
from ..._core.validation import check_array, check_nonnegative
from .._problem import Look, Pair
from ._ready import Flat, ready


class Quadratic:
    r"""Both levels are quadratic.

    .. math:: g(x, y) = \frac12 y^\top A y - y^\top (B x + c), \qquad
              f(x, y) = \frac12 (y - t)^\top F (y - t) + \frac{h}{2} \|x\|^2.

    Parameters
    ----------
    A : array, shape (p, p)
        Symmetric and positive semidefinite.
    B : array, shape (p, d)
        How the lower level's push depends on x.
    c : array, shape (p,)
        That push at x = 0.
    F : array, shape (p, p)
        Symmetric and positive semidefinite.
    t : array, shape (p,)
        Where the upper level wants y to be.
    h : float, default 0.0
        At least 0.

    Attributes
    ----------
    upper, lower : Oracle
    x0, y0 : array
        Zeros.
    X : None
        There are no bounds.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> one = np.eye(2)
    >>> problem = bilevel.problems.Quadratic(2 * one, one, np.zeros(2), one, np.ones(2))
    >>> bilevel.penalty(problem).x.round(4)
    array([2., 2.])
    """

    X = None

    def __init__(self, A, B, c, F, t, h=0.0):
        io = Ingest(A=A, B=B, c=c, F=F, t=t)
        for name in ("A", "B", "c", "F", "t"):
            if name not in io:
                raise TypeError(f"`{name}` came as NoneType; expected an array")
        h = check_nonnegative(h, "h")
        with io.device:
            B = check_array(io, "B", ndim=2)
            p, d = B.shape
            A, F = (_symmetric(io, name, p) for name in ("A", "F"))
            c, t = (check_array(io, name, ndim=1, shape=(p,), means="(B rows,)") for name in "ct")
            self.upper, self.lower = ready(_Upper(io, F, t, h, d)), ready(_Lower(io, A, B, c))
            self.x0, self.y0 = (io.out(io.xp.zeros(size, io.dtype)) for size in (d, p))

    def __repr__(self):
        return f"Quadratic(x {self.lower.flat.x_shape}, y {self.lower.flat.y_shape})"

    def predict(self, x):
        """Return a minimiser of the lower level at x, the smallest one.

        Parameters
        ----------
        x : array, shape (d,)
            The upper variable.

        Returns
        -------
        array, shape (p,)
            Of all minimisers the one of least length.
        """
        flat = self.lower.flat
        io = Ingest(dtype=flat.dtype, x=x)
        with io.device:
            x = check_array(io, "x", shape=flat.x_shape)
            return io.out(io.xp.linalg.pinv(flat.A) @ (flat.B @ x + flat.c))


def _symmetric(io, name, p):
    M = check_array(io, name, ndim=2, shape=(p, p), means="(B rows, B rows)")
    low, high = io.bounds[name]
    if float(abs(M - M.T).max()) > 1e-6 * max(abs(low), abs(high)):
        raise ValueError(
            f"`{name}` came as a matrix that is not symmetric; expected a symmetric one"
        )
    return M


class _Upper(Flat):
    def __init__(self, io, F, t, h, d):
        super().__init__(io, (d,), t.shape)
        self.F, self.t, self.h = F, t, h

    def looks(self, points, idx=None, with_x=True):
        return [self._look(*point) for point in points]

    def pairs(self, points, idx=None, with_x=True):
        return [self._pair(*point) for point in points]

    def _look(self, x, y):
        e = y - self.t
        gy = self.F @ e
        return Look(0.5 * float(e @ gy + self.h * (x @ x)), self.h * x, gy)

    def _pair(self, x, y, z):
        at_z, d = self._look(x, z), y - z
        Fd = self.F @ d
        more = float(d @ (at_z.gy + 0.5 * Fd))
        at_y = Look(at_z.value + more, at_z.gx, at_z.gy + Fd)
        return Pair(at_y, at_z, more, self._no_gx)


class _Lower(Flat):
    def __init__(self, io, A, B, c):
        super().__init__(io, (B.shape[1],), c.shape)
        self.A, self.B, self.c = A, B, c

    def looks(self, points, idx=None, with_x=True):
        return [self._look(*point, with_x) for point in points]

    def pairs(self, points, idx=None, with_x=True):
        return [self._pair(*point, with_x) for point in points]

    def _look(self, x, y, with_x):
        Ay, b = self.A @ y, self.B @ x + self.c
        return Look(float(y @ (0.5 * Ay - b)), -(y @ self.B) if with_x else None, Ay - b)

    def _pair(self, x, y, z, with_x):
        at_z, d = self._look(x, z, with_x), y - z
        Ad = self.A @ d
        more = float(d @ (at_z.gy + 0.5 * Ad))
        gx = -(d @ self.B) if with_x else None
        at_y = Look(at_z.value + more, at_z.gx + gx if with_x else None, at_z.gy + Ad)
        return Pair(at_y, at_z, more, gx)

    def hvp_yy(self, x, y, v, idx=None):
        return self.A @ v

    def hvp_xy(self, x, y, v, idx=None):
        return -(v @ self.B)

    def diagonal(self, x):
        D = self.A.diagonal()
        return self.xp.where(D > 0, D, float(D.max()) or 1.0)
