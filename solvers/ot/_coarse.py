"""A plan between few nodes that stands for one between many points, to correct gaps on.

Quadratic splines spread each point over the nodes around it; with many coordinates each point
belongs to one node, the centre of its cluster. With matrices ``X`` and ``Y`` that say so, whose
rows add up to 1, and a plan ``diag(X^T a) K diag(Y^T b)`` between the nodes,
``diag(a) X K Y^T diag(b)`` is a plan between the points: close to the true one where the nodes
are as dense as the kernel is wide, and a matter of milliseconds to multiply with.
"""

from dataclasses import replace

import numpy as np

from .._core.linalg import pcg
from ._cloud import Cloud

# Pairs of points beyond which a few passes and a plan between nodes cost less than storing one.
LARGE = 1.5e8
# Nodes are this far apart, relative to the kernel's standard deviation, if that makes few enough.
SPACING, MOST_NODES = 0.8, 8000
# Beyond this they give a start only: by then a plan is so sparse that it can be compressed.
COARSEST = 2.5
# Splines for three coordinates touch 27 nodes, for four already 81: then clusters.
MOST_DIMENSIONS, CLUSTERS = 3, 3000
# Marginal error between the nodes; what their plan stands for is not closer to the true one.
NODES_TOL = 1e-4
# Nodes may undo this much of the kernel's blur to make up for that of the splines.
SHARPEST = 0.4
# Steps that are mixed.
DEPTH = 6
# A correction asks no column to lose more than a factor exp(MOST_CHANGE) of its mass.
MOST_CHANGE = 3.0


def pays(problem, fits):
    """Tell whether a problem is one for nodes; `fits` tells whether its plan could be stored."""
    C = problem.C
    if not isinstance(C, Cloud) or max(C.shape) <= MOST_NODES:
        # Nodes are never more: they have no nodes of their own.
        return False
    return C.size > LARGE if _has_grid(C) else not fits


def _has_grid(C):
    return not callable(C.cost) and C.dim <= MOST_DIMENSIONS


class CoarsePlan:
    """A plan between nodes, and what it says about one between points.

    Parameters
    ----------
    problem : Transport
        Between the points of a cloud.
    reg : float
    solve : callable
        ``solve(problem, reg)`` returns the `Answer` for the nodes.

    Attributes
    ----------
    g : array
        Column potentials for the points, to start from.
    resolves : bool
        False if the nodes are known to be too far apart for anything else.
    """

    def __init__(self, problem, reg, solve):
        self._be, self._a, self._b, C = problem.be, problem.a, problem.b, problem.C
        self.resolves = True
        if _has_grid(C):
            (self._X, x), (self._Y, y), reg, self.resolves = _grids(C, reg)
        else:
            (self._X, x), (self._Y, y) = (_clusters(C, points) for points in (C.x, C.y))
        nodes = replace(
            problem,
            a=self._X.T @ self._a,
            b=self._Y.T @ self._b,
            C=replace(C, x=x, y=y),
        )
        answer = solve(nodes, reg)
        self.g = self._Y @ answer.g
        if not self.resolves:
            return
        xp = self._be.xp
        self._K = xp.empty(nodes.C.shape, np.float32)
        for rows in nodes.C.row_blocks():
            E = answer.g - nodes.C[rows]
            E += answer.f[rows, None]
            E /= reg
            self._K[rows] = xp.exp(E, out=E)
        # What the nodes' tolerance leaves to light nodes may be any multiple of their mass:
        # make the columns exact, so that the Laplacian has no negative direction.
        self._K /= nodes.a.astype(np.float32) @ self._K
        self._rho = self._X @ self._times(self._K, nodes.b)

    def correction(self, gap, tol):
        """Return logarithms of column factors that fill gaps of the sums, and CG's steps."""
        xp, b = self._be.xp, self._b
        # A column of twice its mass asks for half of it, as in Sinkhorn's update.
        gap = xp.where(gap < 0, b * xp.maximum(-xp.log1p(-gap / b), -MOST_CHANGE), gap)
        result = pcg(
            self._laplacian,
            gap - b * gap.sum(),
            be=self._be,
            precond=lambda r: r / b,
            project=lambda z: z - b @ z,
            norm=lambda r: xp.abs(r).sum(),
            tol=tol,
            maxiter=200,
        )
        return result.x, result.iterations

    def _laplacian(self, x):
        """Return ``(diag(b) - P^T diag(1/a) P) x``."""
        a, b = self._a, self._b
        means = self._X @ self._times(self._K, self._Y.T @ (b * x)) / self._rho
        return b * (x - self._Y @ self._times(self._K.T, self._X.T @ (a * means)))

    def _times(self, K, v):
        return (K @ v.astype(np.float32)).astype(np.float64)


class Mixing:
    """Combines correction steps so that what they leave of each other cancels (Anderson's).

    Parameters
    ----------
    be : Backend
    weights : array
        Of the squares of what is left.
    """

    def __init__(self, be, weights):
        self._be, self._weights = be, weights
        self._last, self._moves, self._changes = None, [], []

    def __call__(self, g, step):
        """Return the next potentials, from the present ones and the step proposed there."""
        if self._last is not None:
            before, proposed = self._last
            self._moves = [*self._moves, g - before][-DEPTH:]
            self._changes = [*self._changes, step - proposed][-DEPTH:]
        self._last = g, step
        if not self._moves:
            return g + step
        xp, host = self._be.xp, self._be.host
        changes = xp.stack(self._changes)
        weighted = changes * self._weights
        gram, right = host(weighted @ changes.T, weighted @ step)
        share = xp.asarray(np.linalg.lstsq(gram, right, rcond=1e-12)[0])
        return g + step - share @ (xp.stack(self._moves) + changes)


def _grids(C, reg):
    """Return spline matrices and nodes for both clouds, and the nodes' temperature.

    Last comes whether the nodes are as dense as the kernel asks for, or nearly.
    """
    be, squared = C.be, C.cost in ("sqeuclidean", "cosine")
    width = (0.5 * reg / C.factor) ** 0.5 if squared else reg / C.factor
    widest = max(be.host((p.max(axis=0) - p.min(axis=0)).max()) for p in (C.x, C.y))
    # No finer than what 64 bits can number in three dimensions.
    spacing = max(SPACING * width, 1e-5 * widest)
    while True:
        sides = [_splines(be, points, spacing) for points in (C.x, C.y)]
        most = max(nodes.shape[0] for _, nodes in sides)
        if most <= MOST_NODES:
            break
        spacing *= max(1.05, (most / MOST_NODES) ** (1 / C.dim))
    # Each spline blurs by spacing^2 / 4, and the kernel exp(-factor |x - y|^2 / reg) does by
    # reg / (2 factor): so the three together can blur as much as it alone.
    sharper = reg - C.factor * spacing**2
    resolves = not squared or spacing < COARSEST * width
    return *sides, sharper if squared and sharper > SHARPEST * reg else reg, resolves


def _splines(be, points, spacing):
    """Return the values of quadratic splines at points, as a sparse matrix, and their nodes."""
    xp, (n, d) = be.xp, points.shape
    low = points.min(axis=0) - spacing
    place = (points - low) / spacing
    centre = xp.floor(place + 0.5)
    u = place - centre
    values = xp.stack([0.5 * (0.5 - u) ** 2, 0.75 - u * u, 0.5 * (0.5 + u) ** 2])
    centre = centre.astype(np.int64)
    sides = [int(k) for k in be.host(centre.max(axis=0) + 2)]
    data, code = xp.ones((n, 1)), xp.zeros((n, 1), np.int64)
    for k in range(d):
        near = centre[:, k, None] + xp.arange(-1, 2)
        data = (data[:, :, None] * values[:, :, k].T[:, None]).reshape(n, -1)
        code = (code[:, :, None] * sides[k] + near[:, None]).reshape(n, -1)
    used, index = xp.unique(code, return_inverse=True)
    starts = xp.arange(0, data.size + 1, data.shape[1])
    entries = data.ravel(), index.ravel().astype(np.int32), starts.astype(np.int32)
    matrix = be.sparse.csr_matrix(entries, shape=(n, used.size))
    nodes = xp.empty((used.size, d))
    for k in range(d - 1, -1, -1):
        nodes[:, k] = used % sides[k]
        used = used // sides[k]
    return matrix, low + spacing * nodes


def _clusters(C, points):
    """Return which cluster each point belongs to, as a sparse matrix, and a node for each."""
    be, xp, n = C.be, C.be.xp, points.shape[0]
    seeds = points[:: -(-n // CLUSTERS)]
    distances = Cloud(be, points, seeds, "sqeuclidean", 1.0)
    nearest = xp.concatenate([distances[k].argmin(axis=1) for k in distances.row_blocks()])
    used, index = xp.unique(nearest, return_inverse=True)
    starts = xp.arange(n + 1, dtype=np.int32)
    data = xp.ones(n), index.astype(np.int32), starts
    matrix = be.sparse.csr_matrix(data, shape=(n, used.size))
    if callable(C.cost):
        # Which may know the points of the clouds only.
        return matrix, seeds[used]
    return matrix, (matrix.T @ points) / (matrix.T @ xp.ones(n))[:, None]
