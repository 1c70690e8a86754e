r"""Derivatives of the potentials and the plan, by implicit differentiation.

Let :math:`E_{ij} = \exp((f_i + g_j - C_{ij}) / \varepsilon)`. The potentials solve
:math:`E b = 1` and :math:`E^\top a = 1`, so a small change of the data moves them by

.. math::
    \delta f + E (b \, \delta g) &= E (b \, \delta C) - \varepsilon E \, \delta b \\
    E^\top (a \, \delta f) + \delta g &= E^\top (a \, \delta C) - \varepsilon E^\top \delta a .

A vector-Jacobian product solves the transposed system for ``(lam, mu)``, whose Schur complement
is the Laplacian of the Newton steps. In this form, without the weights of the unknowns as
factors, points of weight zero need no case of their own.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np

from .._core.arrays import Ingest
from .._core.result import ConvergenceWarning
from .._core.validation import check_array, check_memory, check_positive
from ._cloud import PointCloud, arrays_of
from ._gibbs import Passes
from ._newton import NewtonSteps
from ._problem import DUST, check_transport, over_strips, row_blocks

# Corrections of a solution, each from the residual of the last.
MOST_ROUNDS = 12
# Entries of the kernel that are no larger, relative to their share of the row, are left out:
# they change the matrix by less than its rounding errors.
NEGLIGIBLE = 1e-14
# Between two points without mass the density may be any number; up to here it can be squared.
LARGEST_EXPONENT = 300.0


def vjp(result, df, dg, dP, tol):
    """Pull cotangents of the potentials and the plan back to the weights and the cost."""
    problem, io = check_transport(*result._data)
    tol = check_positive(tol, "tol", allow_none=True)
    if tol is None:
        tol = 1e-9 if io.dtype == np.float64 else 1e-6
    df, dg, dP = _cotangents(problem, result._data[2], df, dg, dP)
    with io.device, np.errstate(all="ignore"):
        to_points = has_points(result._data[2])
        if not to_points:
            remedy = "It has the shape of the cost."
            check_memory(io.dtype.itemsize * problem.C.size, "`dC`", remedy, be=problem.be)
        system = result._adjoint
        pull = system.pull(df, dg, dP, tol)
        if pull.residual > tol:
            warnings.warn(
                f"vjp: relative residual {pull.residual:.1e} of the linear system is above `tol`, "
                f"{tol:.1e}; the derivatives are too ill-conditioned at this `reg`.",
                ConvergenceWarning,
                stacklevel=3,
            )
        da, db = (pull.db, pull.da) if problem.flipped else (pull.da, pull.db)
        blocks = system.cost_part(pull, dP)
        if to_points:
            dx, dy = point_gradients(result._data[2], problem, io, blocks)
            return io.out(da), io.out(db), (dx, dy)
        dC = problem.be.xp.empty(problem.C.shape, io.dtype)
        for rows, block in blocks:
            dC[rows] = block
        return io.out(da), io.out(db), io.out(dC.T if problem.flipped else dC)


def has_points(C):
    """Tell whether a cost depends on points in a way that is known."""
    return isinstance(C, PointCloud) and not callable(C.cost)


def point_gradients(cloud, problem, io, blocks):
    """Turn a gradient in the cost into gradients in the points, by the chain rule.

    Parameters
    ----------
    cloud : PointCloud
    problem : Transport
    io : Ingest
        The door that `problem` came through.
    blocks : iterable of (rows, array)
        The gradient in the cost, in blocks of rows.

    Returns
    -------
    array, array
        In the shapes of the points. Where a distance has no derivative, at coinciding points,
        it counts as zero.
    """
    C, xp, scale = problem.C, problem.be.xp, problem.C.scale
    dx, dy = xp.zeros_like(C.x), xp.zeros_like(C.y)
    for rows, block in blocks:
        x, y = C.x[rows], C.y
        if cloud.cost == "cityblock":
            for k in range(x.shape[1]):
                V = scale * block * xp.sign(x[:, k, None] - y[:, k])
                dx[rows, k] = V.sum(axis=1)
                dy[:, k] -= V.sum(axis=0)
            continue
        V = (2.0 * scale if cloud.cost == "sqeuclidean" else scale) * block
        if cloud.cost == "euclidean":
            distance = C[rows]
            V *= xp.where(distance > 0, scale / xp.where(distance > 0, distance, 1.0), 0.0)
        dx[rows] = V.sum(axis=1)[:, None] * x - V @ y
        dy += V.sum(axis=0)[:, None] * y - V.T @ x
    if cloud.cost == "cosine":
        door = Ingest(x=cloud.x, y=cloud.y)
        dx, dy = _onto_spheres(xp, door["x"], dx), _onto_spheres(xp, door["y"], dy)
    return io.out(dx), io.out(dy)


def _onto_spheres(xp, points, gradient):
    """Return gradients in points from those in their directions."""
    points = points.astype(np.float64)
    length = xp.sqrt((points * points).sum(axis=1, keepdims=True))
    points = points / length
    return (gradient - points * (points * gradient).sum(axis=1, keepdims=True)) / length


def _cotangents(problem, C, df, dg, dP):
    """Return the cotangents, checked, in the problem's orientation and in float64."""
    if df is None and dg is None and dP is None:
        raise ValueError("`df` came as None, like `dg` and `dP`; expected at least one of them")
    io = Ingest(df=df, dg=dg, dP=dP, **arrays_of(C))
    n, m = problem.C.shape[::-1] if problem.flipped else problem.C.shape
    df = check_array(io, "df", shape=(n,), means="(a.size,)")
    dg = check_array(io, "dg", shape=(m,), means="(b.size,)")
    dP = check_array(io, "dP", shape=(n, m), means="(a.size, b.size)")
    with problem.device:
        df, dg = (
            problem.be.xp.zeros(size) if v is None else v.astype(np.float64)
            for v, size in ((df, n), (dg, m))
        )
    if problem.flipped:
        return dg, df, None if dP is None else dP.T
    return df, dg, dP


class Pull(NamedTuple):
    """A vector-Jacobian product: what belongs to the weights, and what the cost needs."""

    da: Any
    db: Any
    lam: Any
    mu: Any
    residual: float


class Adjoint:
    """The transposed linear system at a pair of potentials; its factor is kept between calls.

    Parameters
    ----------
    problem : Transport
    f, g : array
        Potentials in its orientation, float64.
    reg : float
    density : float
        Fraction of the plan's entries that matter, as far as known.
    """

    def __init__(self, problem, f, g, reg, density):
        self._problem, self._f, self._g, self._reg = problem, f, g, reg
        xp, b = problem.be.xp, problem.b
        part, _, self._cols = problem.without_dust(DUST)
        passes = Passes(part, "auto")
        passes.density = density
        h = g.copy() if self._cols is None else g[self._cols]
        _, self._kernel = passes.run(h, reg, cutoff=NEGLIGIBLE / b.size)
        self._no_factors = xp.zeros_like(part.b)
        self._newton = NewtonSteps(
            problem.be, part.b, None, precond="auto", tol=None, maxiter=None, sweeps=0
        )
        # One but for the marginal error. With these sums the system is exactly singular along
        # the shift of f against g, and can be solved to rounding level all the same.
        self._rows = xp.empty_like(problem.a)

        def sums(rows, E):
            self._rows[rows] = E @ b
            return problem.a[rows] @ E

        self._sums = self._over(sums)

    def pull(self, df, dg, dP, tol):
        """Solve for the cotangents of the weights, up to a relative residual of `tol`."""
        problem, reg = self._problem, self._reg
        xp, a, b, mass = problem.be.xp, problem.a, problem.b, problem.mass
        direct_a = direct_b = share = 0.0
        if dP is not None:
            direct_a, direct_b = self._direct(mass, dP)
            df, dg = df + a * direct_a / reg, dg + b * direct_b / reg
            # The plan is in proportion to the mass, which the potentials do not see.
            share = 0.5 * (a @ direct_a) / mass
        # Where no finite cost leads to any mass there is nothing to differentiate.
        df, dg = xp.where(self._rows > 0, df, 0.0), xp.where(self._sums > 0, dg, 0.0)
        # <a, f> = <b, g> fixes the constant, and moves with the weights.
        shift = 0.5 * (df.sum() - dg.sum())
        scale = problem.be.host(xp.abs(df).sum() + xp.abs(dg).sum()) or 1.0
        pull = self._solve(df - shift * a, dg + shift * b, scale, tol)
        da = pull.da + direct_a - shift * self._f
        db = pull.db + direct_b + shift * self._g
        # Only the shares of the weights in their sums enter, but for the plan's mass.
        return pull._replace(da=(da - a @ da) / mass + share, db=(db - b @ db) / mass + share)

    def cost_part(self, pull, dP):
        """Yield (rows, block) of the cotangent of the cost."""
        problem = self._problem
        a, b = problem.a, problem.b
        for rows in row_blocks(problem.be, problem.C):
            part = pull.lam[rows, None] * b + a[rows, None] * pull.mu
            if dP is not None:
                part -= (problem.mass / self._reg) * dP[rows] * (a[rows, None] * b)
            part *= self._density(rows)
            yield rows, part

    def _solve(self, df, dg, scale, tol):
        """Solve ``rows lam + a (E mu) = df`` and ``b (E^T lam) + sums mu = dg``.

        By a solve with the Schur complement of a stored kernel, which may be rounded or
        compressed, and corrections until the residual of the exact equations is small.
        """
        problem = self._problem
        xp, host, b = problem.be.xp, problem.be.host, problem.b
        mu = xp.where(b > DUST, 0.0, dg / xp.where(self._sums > 0, self._sums, 1.0))
        best = None
        for _ in range(MOST_ROUNDS):
            pull, gap = self._look(df, dg, mu)
            error = host(xp.abs(gap).sum()) / scale
            halved = best is None or error < 0.5 * best.residual
            if best is None or error < best.residual:
                best = pull._replace(residual=error)
            if error <= tol or not halved:
                break
            mu = mu + b * self._correction(gap, max(0.3 * tol / error, 1e-9))
        return best

    def _correction(self, gap, reduction):
        """Solve with the stored kernel for the columns that have mass."""
        part = gap if self._cols is None else gap[self._cols]
        # Beyond a stored kernel's own precision there is nothing to be gained.
        tol = min(max(reduction, 10.0 * self._kernel.floor), 0.1)
        x = self._newton.solve(self._kernel, self._no_factors, part, 0.0, tol)
        if self._cols is None:
            return x
        whole = self._problem.be.xp.zeros_like(gap)
        whole[self._cols] = x
        return whole

    def _look(self, df, dg, mu):
        """Return what belongs to `mu`, and what the column equations lack."""
        problem, reg = self._problem, self._reg
        xp, a, b = problem.be.xp, problem.a, problem.b
        lam, da = xp.empty_like(a), xp.empty_like(a)

        def column_sums(rows, E):
            product, sums = E @ mu, self._rows[rows]
            da[rows] = -reg * product
            rest = df[rows] - a[rows] * product
            lam[rows] = xp.where(sums > 0, rest / xp.where(sums > 0, sums, 1.0), 0.0)
            return lam[rows] @ E

        product = self._over(column_sums)
        pull = Pull(da, -reg * product, lam, mu, np.inf)
        return pull, xp.where(self._sums > 0, dg - self._sums * mu - b * product, 0.0)

    def _direct(self, mass, dP):
        """Return the cotangents of the weights that enter the plan as its factors."""
        problem = self._problem
        direct_a = problem.be.xp.empty_like(problem.a)

        def column_sums(rows, E):
            E *= mass * dP[rows]
            direct_a[rows] = E @ problem.b
            return problem.a[rows] @ E

        direct_b = self._over(column_sums)
        return direct_a, direct_b

    def _over(self, function):
        """Return the sum of ``function(rows, block of E)`` over all blocks of rows."""
        problem = self._problem

        def strip(first, last):
            total = problem.be.xp.zeros_like(problem.b)
            for rows in row_blocks(problem.be, problem.C, first, last):
                total += function(rows, self._density(rows))
            return total

        return over_strips(problem.be, problem.C, strip)

    def _density(self, rows):
        """Return a block of the plan's density, relative to the product of the weights."""
        xp = self._problem.be.xp
        E = xp.subtract(self._g, self._problem.C[rows], dtype=np.float64)
        E += self._f[rows, None]
        E /= self._reg
        return xp.exp(xp.minimum(E, LARGEST_EXPONENT, out=E), out=E)
