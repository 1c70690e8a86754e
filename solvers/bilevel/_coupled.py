"""The pairs (x, y) that satisfy constraints, and multipliers beside them, as vectors."""

import numpy as np

from ._faces import EmptyError, Faces, OwnSlacks
from ._region import Region, joined

# Linearisations of one projection.
_TURNS = 20
# Distance, relative to the point, at which constraints still count as satisfied.
_OFF = 1e-7
# The most entries of y, or x, for which a polyhedral set is written as rows.
_MANY = 2000


class Coupled:
    """The set C x Z of vectors (x, y, z).

    C holds what satisfies the constraints in X and Y; Z bounds the multipliers.

    Parameters
    ----------
    problem : Bilevel
        With constraints.
    Z : pair of arrays, shape (l,)
        Bounds of multipliers.
    project : callable, optional
        The caller's projection ``(x, y) -> (x, y)`` on C.

    Attributes
    ----------
    curved : bool
        Whether constraints bend.
    pressure : array or None
        If they do, their multipliers at the last point whose `tangent` was asked for.
    """

    def __init__(self, problem, Z, project=None):
        self.problem, self.Z, self.xp = problem, Z, problem.io.xp
        self.d, self.p = len(problem.x0), len(problem.y0)
        self._theirs, self.faces, self.pressure = project, None, None
        self.curved = not problem.constraints.affine
        self._more, self._within = self._sets()
        if not self.curved:
            faces = self._linearised(problem.x0, problem.y0)
            self.faces = OwnSlacks.find(faces) or faces

    def split(self, u):
        """Return x, y and z."""
        d, n = self.d, self.d + self.p
        return u[:d], u[d:n], u[n:]

    def project(self, u):
        """Return the nearest point of C x Z; EmptyError if there is none."""
        x, y, z = self.split(u)
        z = self.xp.clip(z, *self.Z)
        if self._theirs is not None:
            return self.xp.concatenate([*self._by_theirs(x, y), z])
        v = u[: self.d + self.p]
        p = self._by_linearisations(v) if self.curved else self.faces.project(v)
        return self.xp.concatenate([p, z])

    @property
    def duals(self):
        """From what the next projection starts; None before the first."""
        return None if self.faces is None else self.faces.duals

    def restore(self, u, duals):
        """Go on from a point and its `duals`."""
        if self.curved and duals is not None:
            self.faces = self._linearised(*self.split(u)[:2])
        if duals is not None:
            self.faces.duals = duals

    def holds(self, u):
        """Tell whether a projection came to the set: on curved constraints it may have failed."""
        if not self.curved or self._theirs is not None:
            return True
        x, y, _ = self.split(u)
        c = self.problem.constraints.look(x, y) / self.faces.size[: len(self.Z[0])]
        over = self.xp.where(self.problem.constraints.equal, abs(c), c)
        near = _OFF + 64 * self.problem.eps
        return float(over.max()) <= near * max(1.0, float(abs(u).max()))

    @property
    def normal(self):
        """What walls of unknown shape took away in the last projection, or None."""
        normal = None if self.faces is None else self.faces.normal
        if normal is None:
            return None
        return self.xp.concatenate(
            [normal.astype(self.problem.io.dtype), self.xp.zeros_like(self.Z[0])]
        )

    def bend(self, u, new, pressure):
        """Return how constraints under pressure turn the gradient from u to a new point."""
        turn = self.xp.zeros_like(u)
        if pressure is not None:
            look, n = self.problem.constraints.pulled, self.d + self.p
            w = pressure.astype(u.dtype)
            before, after = (look(*self.split(v)[:2], w) for v in (u, new))
            turn[:n] = self.xp.concatenate(after) - self.xp.concatenate(before)
        return turn

    def tangent(self, u, q, grad):
        """Return a function that leaves of a direction what keeps to the face of u and q.

        q is where the last projection came to, of u less the gradient.
        """
        n, (low, high) = self.d + self.p, self.Z
        z, qz = u[n:], q[n:]
        held = ((z <= low) & (qz <= low)) | ((z >= high) & (qz >= high))
        faces, known = self.faces, self._theirs is None
        if self.curved:
            # The wall at u, for at q it has turned already.
            faces = self._linearised(*self.split(u)[:2])
            if known:
                faces.duals = self.faces.duals
        stay = faces.tangent(u[:n], q[:n], known=known)
        if self.curved:
            self.pressure = faces.pressure(grad[:n])[: len(z)]
        return lambda w: self.xp.concatenate([stay(w[:n]), self.xp.where(held, 0.0, w[n:])])

    def _sets(self):
        """Return X and Y as rows, where they have some, and as a region."""
        io, rows, regions = self.problem.io, [], []
        sizes = self.d, self.p
        for region, start in ((self.problem.X, 0), (self.problem.Y, self.d)):
            size = sizes[len(regions)]
            if region.rows is None or size > _MANY:
                regions.append(region)
                continue
            A, b, E, f = region.rows()
            wide = [np.zeros((len(M), sum(sizes))) for M in (A, E)]
            for M, W in zip((A, E), wide, strict=True):
                W[:, start : start + size] = M
            rows.append((wide[0], b, wide[1], f))
            regions.append(Region())
        return rows, joined(regions, sizes, io)

    def _linearised(self, x, y):
        """Return the constraints, made affine at a point, with X and Y."""
        xp, tied = self.xp, self.problem.constraints
        J = xp.concatenate(tied.jacobian(x, y), axis=1).astype(np.float64)
        b = J @ xp.concatenate([x, y]) - tied.look(x, y)
        e = tied.equal
        parts = [(J[~e], b[~e], J[e], b[e]), *self._more]
        A, b, E, f = (xp.concatenate([xp.asarray(p[k]) for p in parts]) for k in range(4))
        return Faces(A, b, E, f, within=self._within, be=self.problem.io.be)

    def _by_linearisations(self, v):
        """Project by projections on the constraints made affine where the last one came to."""
        p = v
        for _ in range(_TURNS):
            faces = self._linearised(p[: self.d], p[self.d :])
            if self.faces is not None:
                faces.duals = self.faces.duals
            self.faces = faces
            try:
                new = faces.project(v)
            except EmptyError:
                # Of what is affine; where that fails at the first point there is no other.
                if p is v:
                    raise
                break
            moved, p = float(abs(new - p).max()), new
            if moved <= 1e-13 * max(1.0, float(abs(p).max())):
                break
        return p

    def _by_theirs(self, x, y):
        px, py = self.problem.px, self.problem.py
        answer = self._theirs(px.unpack(x), py.unpack(y))
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise TypeError(f"`project` returned {answer!r:.60}; expected (x, y)")
        return px.pack(answer[0], "`project` returned x"), py.pack(
            answer[1], "`project` returned y"
        )


class Walls:
    """A region as `FaceDescent` sees it.

    Parameters
    ----------
    region : Region
        Neither a box nor the whole space.
    size : int
        Length of its vectors.
    be : Backend
        Back end of the arrays.
    """

    curved, pressure = False, None

    def __init__(self, region, size, be):
        xp = be.xp
        if region.rows is not None and size <= _MANY:
            self._faces = Faces(*map(xp.asarray, region.rows()), be=be)
        else:
            self._faces = Faces(xp.zeros((0, size)), xp.zeros(0), within=region, be=be)
        self.project = self._faces.project

    @property
    def normal(self):
        return self._faces.normal

    def holds(self, u):
        return True

    def bend(self, u, new, pressure):
        return 0.0

    def tangent(self, u, q, grad):
        return self._faces.tangent(u, q)
