r"""Bounds by squared slacks, :math:`d_i(z) = y_i^2 / 2` for each finite side.

Equalities only, without any barrier. But Jacobian and Hessian are singular where :math:`y_i = 0`,
and points with multipliers of the wrong sign are stationary, too: those are told apart at the end
and do not pass. The barrier is the better way; this one is there to be compared.
"""

from functools import cached_property

from .._core.arrays import is_sparse
from ._matrices import Operator, is_operator, stacked, to_dense
from ._problem import Answer, Curvature, Point, Residual, inside
from ._sides import FiniteSides


class SquaredPoint(Point):
    """A point of a problem with squared slacks; `plain` is that of the problem with bounds."""

    plain = None

    def __init__(self, problem, z):
        super().__init__(problem, z)
        n = problem.standard.n
        self.plain, self.y = problem.standard.point(z[:n]), z[n:]

    @cached_property
    def d(self):
        """Distances from the sides."""
        return self.problem.sides.distances(self.plain.z)

    @property
    def f(self):
        return self.plain.f

    @cached_property
    def g(self):
        xp = self.problem.xp
        return xp.concatenate([self.plain.g, xp.zeros(len(self.y))])

    @cached_property
    def c(self):
        return self.problem.xp.concatenate([self.plain.c, self.d - 0.5 * self.y**2])

    @cached_property
    def G(self):  # noqa: N802 (the field's name)
        return self.problem.jac(self)


class Squared:
    """A `Standard` problem whose bounds have become equations.

    Parameters
    ----------
    standard : Standard
    """

    bounded = False

    def __init__(self, standard):
        self.standard, self.be, self.xp = standard, standard.be, standard.xp
        self.sides = FiniteSides(standard.lo, standard.up, xp=self.xp)
        k = len(self.sides)
        self.n, self.m, self.f_scale = standard.n + k, standard.m + k, standard.f_scale
        units = self.xp.ones(standard.n)
        units[len(standard.free) :] = standard.c_scale[standard.slack]
        self._unit = units[self.sides.at]

    def start(self, lam):
        """Return a start inside the bounds, and no multipliers."""
        z, _ = self.standard.start(lam)
        z = inside(z, self.standard.lo, self.standard.up, xp=self.xp)
        return self.xp.concatenate([z, self.xp.sqrt(2 * self.sides.distances(z))]), None

    def objective(self, point):
        """Return the objective in the caller's unit."""
        return self.standard.objective(point.plain)

    def theirs(self, answer):
        """Return x and multipliers of rows and bounds in the caller's unit."""
        return self.standard.theirs(self._plain(answer))

    def _plain(self, answer):
        n, m = self.standard.n, self.standard.m
        return Answer(answer.z[:n], answer.lam[:m], answer.bound)

    # ------------------------------------------------------------ what solvers ask
    def point(self, z):
        """Return a `SquaredPoint`."""
        return SquaredPoint(self, z)

    def jac(self, point):
        """Return the Jacobian of rows and sides, (m, n)."""
        be, xp, n, k = self.be, self.xp, self.standard.n, len(self.sides)
        order = xp.arange(k)
        at = xp.concatenate([self.sides.at, n + order])
        values = xp.concatenate([self.sides.sign, -point.y])
        E = be.sparse.csr_matrix((values, (xp.tile(order, 2), at)), (k, n + k))
        G = point.plain.G
        if is_operator(G):
            pad = lambda u: xp.concatenate([u, xp.zeros(k)])  # noqa: E731
            wide = Operator(
                (len(point.plain.c), n + k), lambda v: G @ v[:n], lambda v: pad(G.T @ v)
            )
            return stacked(
                [wide, Operator(E.shape, lambda v: E @ v, lambda v: E.T @ v)], n + k, be=be
            )
        if is_sparse(G):
            empty = be.sparse.csr_matrix((G.shape[0], k))
            return stacked([be.sparse.hstack([G, empty]).tocsr(), E], n + k, be=be)
        wide = xp.concatenate([G, xp.zeros((len(G), k))], axis=1)
        return xp.concatenate([wide, to_dense(E, be=be)])

    def curvature(self, point, lam):
        """Return the Hessian of the Lagrangian, that of a side being its multiplier."""
        be, xp, n, m = self.be, self.xp, self.standard.n, self.standard.m
        B, product = self.standard.curvature(point.plain, lam[:m])[:2]
        w = -lam[m:]

        def dot(v, first=product):
            return xp.concatenate([first(v[:n]), w * v[n:]])

        if is_operator(B):
            whole = lambda v: dot(v, lambda u: B @ u)  # noqa: E731
            return Curvature(Operator((self.n, self.n), whole, whole), dot)
        if is_sparse(B):
            return Curvature(be.sparse.block_diag([B, be.sparse.diags(w)]).tocsr(), dot)
        out = xp.zeros((self.n, self.n))
        out[:n, :n] = B
        out[xp.arange(n, self.n), xp.arange(n, self.n)] = w
        return Curvature(out, dot)

    def longest(self, z, dz):
        """Return the longest step: any."""
        return 1.0

    def moved(self, point, lam, new, new_lam, step):
        """Take note of a step."""
        m = self.standard.m
        self.standard.moved(point.plain, lam[:m], new.plain, new_lam[:m], step)

    def answer(self, point, lam):
        """Return an `Answer` without the multipliers of the wrong sign."""
        w = self.xp.maximum(-lam[self.standard.m :], 0.0)
        return Answer(point.z, lam, self.sides.gathered(w))

    def residual(self, point, answer):
        """Return the `Residual` in the caller's unit; wrong signs show in the first."""
        found = self.standard.residual(point.plain, self._plain(answer))
        outside = self.be.host((-point.d / self._unit).max())
        return Residual(found[0], max(found[1], outside), found[2])

    def solved(self, point, answer):
        """Tell whether a solver may stop here although the caller's problem is not solved."""
        return False
