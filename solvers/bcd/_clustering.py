"""`transductive_clustering`: prototypes and soft assignments, tied along a graph and to labels."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .._core import threads
from .._core.arrays import Ingest
from .._core.random import check_rng
from .._core.validation import (
    check_array,
    check_choice,
    check_count,
    check_nonnegative,
    check_positive,
    check_threads,
    describe,
)
from ._books import Books
from ._certificate_clustering import judge_clustering
from ._design import read_design
from ._propagation import read_weights
from ._result import BlockResult
from .rules import _forest


class ClusteringResult(BlockResult):
    """Outcome of `transductive_clustering`.

    Attributes
    ----------
    x : array, shape (N, k)
        Assignments: rows sum to 1.
    labels : array of int, shape (N,)
        Cluster of each point: the largest assignment.
    prototypes : array, shape (k, d)
        Centres of the clusters.
    variances : array, shape (k,), or None
        Variances of the clusters with ``distance="gaussian"``.
    """

    labels: Any
    prototypes: Any
    variances: Any


def transductive_clustering(
    X,
    k,
    *,
    W=None,
    lam=0.0,
    labels=None,
    distance="sqeuclidean",
    barrier=1.0,
    sweep="gauss_seidel",
    inner=1,
    tol=1e-6,
    maxiter=200,
    x0=None,
    callback=None,
    rng=None,
    history=True,
    time_limit=None,
    progress=False,
    n_threads=None,
):
    r"""Cluster points around prototypes, with labels for some and a graph that ties all.

    Blocks of assignments Y, whose rows are in the simplex, and of prototypes M are minimised over
    in turn [1]_:

    .. math:: \sum_{pk} y_{pk} D(x_p, m_k) - \lambda \sum_{p < q} w_{pq} \, y_p \cdot y_q
              + b \sum_{pk} y_{pk} \log y_{pk}

    The energy never rises. With ``lam=0`` and a small `barrier` this is k-means.

    Parameters
    ----------
    X : array, shape (N, d)
        Points.
    k : int
        Number of clusters.
    W : array or sparse matrix, shape (N, N), optional
        Weights of the graph, symmetric and non-negative; its diagonal does not matter.
    lam : float, default 0.0
        Weight of the graph.
    labels : array of int, shape (N,), optional
        Clusters of labelled points, 0 to k - 1; -1 where unknown.
    distance : {"sqeuclidean", "gaussian"}
        Squared distance, or the negative log-likelihood of a round normal distribution, up to a
        constant, whose variance is fitted for each cluster (probabilistic k-means).
    barrier : float, default 1.0
        Weight b of the entropy, in the unit of D; assignments become hard as it goes to 0.
    sweep : {"gauss_seidel", "jacobi"}
        Whether assignments are updated colour by colour of the graph, or all at once: for that
        the smallest multiple of the identity that makes `W` semi-definite is added to it.
    inner : int, default 1
        Updates of all assignments between two updates of the prototypes.
    tol : float, default 1e-6
        Largest value of the certificate.
    maxiter : int, default 200
        Largest number of iterations.
    x0 : array of shape (N, k), or a previous result, optional
        Assignments to start from. By default the start is the means of labelled points, and
        k-means++ for clusters without any.
    callback : callable, optional
        Called after each iteration as ``callback(intermediate_result)`` with fields ``x`` and
        ``prototypes``; StopIteration or a true return value ends the run.
    rng : int, Generator or None, optional
        Randomness of the start.
    history : bool or int, default True
        Whether, or every how many iterations, to record the history.
    time_limit : float, optional
        Seconds after which the assignments so far are returned.
    progress : bool, default False
        Show a progress bar.
    n_threads : int, optional
        Number of threads. Default: Numba's setting.

    Returns
    -------
    ClusteringResult
        With assignments `x`, `labels` and `prototypes`; `fun` is the energy that was descended.
        The certificate is the fixed-point residual: by how much another update of everything
        would change an assignment. It proves a stationary point, not the best one.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind, such as labels that are no integers.
    ValueError
        If a label is no cluster, `W` is not symmetric and non-negative, or `lam` comes without
        `W`.

    Warns
    -----
    ConvergenceWarning
        If the certificate does not hold; once per call.

    References
    ----------
    .. [1] I. M. Ziko, M. Boudiaf, J. Dolz, E. Granger, I. Ben Ayed. Transductive few-shot
       learning: clustering is all you need? arXiv:2106.09516.

    Examples
    --------
    >>> import numpy as np, solvers
    >>> X = np.array([[0.0], [0.2], [0.1], [5.0], [5.1], [4.9]])
    >>> labels = [1, -1, -1, 0, -1, -1]
    >>> res = solvers.bcd.transductive_clustering(X, 2, labels=labels, barrier=0.1)
    >>> res.labels
    array([1, 1, 1, 0, 0, 0])
    """
    problem, start = pose_clustering(
        X, k, W, lam, labels, distance, barrier, sweep, x0, check_rng(rng)
    )
    inner = check_count(inner, "inner", minimum=1)
    io = problem.io
    books = Books(
        "transductive_clustering",
        io,
        tol=tol,
        maxiter=maxiter,
        time_limit=time_limit,
        callback=callback,
        progress=progress,
        history=history,
    )
    n_threads = check_threads(n_threads)
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        point, certificate = books.solve(
            start,
            lambda point: _descend(problem, books, point, inner),
            lambda point: judge_clustering(problem, *point, tol=books.wanted),
            warm=x0 is not None,
        )
        Y, M, v = point
        books.used.update(sweep=sweep, distance=distance)
        return books.finish(
            ClusteringResult,
            certificate,
            x=Y,
            labels=io.out(Y.argmax(axis=1)),
            prototypes=io.out(problem.uncentred(M)),
            variances=None if distance == "sqeuclidean" else io.out(v),
        )


def _descend(problem, books, point, inner):
    """Update assignments and prototypes in turn."""
    Y, M, v = point
    Y, cost = Y.copy(), problem.distances(M, v)
    for _ in books.run:
        for _ in range(inner):
            problem.assign(Y, cost)
        M, v = problem.prototypes(Y, M, v)
        cost = problem.distances(M, v)
        field = problem.field(Y)
        moved = abs(problem.softmax(field - cost) - Y)[problem.free]
        change = moved.max() if moved.size else 0.0
        books.n_blocks += inner + 1
        books.npass += inner + 1.0

        def state(Y=Y, M=M):
            return {
                "x": problem.io.out(Y.copy()),
                "prototypes": problem.io.out(problem.uncentred(M)),
            }

        if books.record(change, state=state, fun=problem.energy(Y, cost, field)):
            break
    return Y, M, v


@dataclass(frozen=True)
class Clustering:
    """Checked arguments of `transductive_clustering`.

    Attributes
    ----------
    io : Ingest
    X : array, shape (N, d)
        Points, less `centre`.
    centre : array, shape (d,)
        Their mean.
    k : int
    W : sparse array, shape (N, N), or None
        Without a diagonal; None where the graph counts for nothing.
    lam : float
        In the unit of `W`.
    labels : array of int64, shape (N,)
        -1 where unknown.
    gaussian : bool
    barrier : float
    shift : float or None
        What is added to the diagonal of `W`; None for sweeps colour by colour.
    """

    io: Any
    X: Any
    centre: Any
    k: int
    W: Any
    lam: float
    labels: Any
    gaussian: bool
    barrier: float
    shift: float | None

    @property
    def be(self):
        """Back end of the arrays."""
        return self.io.be

    @property
    def xp(self):
        """The array module."""
        return self.io.xp

    @cached_property
    def free(self):
        """Numbers of the points without a label."""
        return self.xp.flatnonzero(self.labels < 0)

    @cached_property
    def squares(self):
        """Squared norms of the points."""
        return self.xp.einsum("ij,ij->i", self.X, self.X)

    @cached_property
    def total_variance(self):
        """Mean squared distance from the centre, for each dimension."""
        return float(self.be.host(self.squares.mean(dtype=np.float64))) / self.X.shape[1]

    @cached_property
    def _visits(self):
        """Free points, colour by colour, and where colours start."""
        graph = _forest.graph_of(self.be, self.W)
        colours = _forest.colours(graph, self.xp.arange(graph.size))[self.free]
        order = self.free[self.xp.argsort(colours, kind="stable")].astype(np.int32)
        sizes = self.xp.bincount(colours)
        ends = self.xp.concatenate([self.xp.zeros(1, np.int64), self.xp.cumsum(sizes)])
        return graph, ends, order

    def uncentred(self, M):
        """Return prototypes in the caller's coordinates."""
        return M + self.centre

    def distances(self, M, v):
        """Return D (N, k)."""
        D = self.squares[:, None] - 2.0 * (self.X @ M.T) + self.xp.einsum("ij,ij->i", M, M)
        D = self.xp.maximum(D, 0.0)
        if self.gaussian:
            D = 0.5 * D / v + 0.5 * self.X.shape[1] * self.xp.log(v)
        return D.astype(self.X.dtype)

    def field(self, Y):
        """Return what neighbours add: ``lam (W + shift I) Y``."""
        if self.W is None:
            return self.xp.zeros_like(Y)
        return (self.lam * (self.W @ Y + (self.shift or 0.0) * Y)).astype(Y.dtype)

    def softmax(self, z):
        """Return the assignments that z calls for."""
        z = (z - z.max(axis=1, keepdims=True)) / self.barrier
        e = self.xp.exp(z)
        return e / e.sum(axis=1, keepdims=True)

    def assign(self, Y, cost):
        """Minimise over assignments, in place."""
        if self.W is None or self.shift is not None:
            Y[self.free] = self.softmax(self.field(Y) - cost)[self.free]
            return
        graph, ends, order = self._visits
        graph.kernels.assignment_sweep(
            graph.ptr, graph.idx, self.W.data, cost, self.lam, self.barrier, ends, order, Y
        )

    def prototypes(self, Y, M, v):
        """Minimise over prototypes and variances; clusters without points keep theirs."""
        xp, mass = self.xp, Y.sum(axis=0, dtype=np.float64)
        alive = mass > 0
        mass = xp.where(alive, mass, 1)
        M = xp.where(alive[:, None], (Y.T @ self.X) / mass[:, None], M).astype(self.X.dtype)
        if not self.gaussian:
            return M, v
        D = self.squares[:, None] - 2.0 * (self.X @ M.T) + xp.einsum("ij,ij->i", M, M)
        spread = (Y * xp.maximum(D, 0.0)).sum(axis=0) / (mass * self.X.shape[1])
        return M, xp.where(alive, xp.maximum(spread, self.floor), v).astype(self.X.dtype)

    @property
    def floor(self):
        """Smallest variance: one point alone would have none."""
        return 1e-6 * self.total_variance or 1.0

    def energy(self, Y, cost, field):
        """Return the energy."""
        xp = self.xp
        entropy = xp.where(Y > 0, Y * xp.log(xp.where(Y > 0, Y, 1)), 0)
        total = (Y * (cost - 0.5 * field)).sum(dtype=np.float64)
        total = total + self.barrier * entropy.sum(dtype=np.float64)
        return float(self.be.host(total))


def pose_clustering(X, k, W, lam, labels, distance, barrier, sweep, x0, rng):
    """Return the `Clustering` of checked arguments, and a start (Y, M, v)."""
    k = check_count(k, "k", minimum=1)
    lam, barrier = check_nonnegative(lam, "lam"), check_positive(barrier, "barrier")
    distance = check_choice(distance, "distance", ("sqeuclidean", "gaussian"))
    sweep = check_choice(sweep, "sweep", ("gauss_seidel", "jacobi"))
    if lam > 0 and W is None:
        raise ValueError(f"`W` came as None with lam={lam:g}; expected the weights of a graph")
    if W is None:
        io, design = Ingest(X=X, labels=labels), None
    else:
        io, design = read_design(W, name="W", X=X, labels=labels)
    with io.device:
        points = check_array(io, "X", ndim=2)
        if points is None:
            raise TypeError("`X` came as None; expected an array of points")
        if k > points.shape[0]:
            raise ValueError(f"`k` came as {k}; expected at most {points.shape[0]}, the points")
        known = _known(io, points.shape[0], k)
        graph, shift = None, None
        if design is not None:
            graph, unit = read_weights(io, design, None)
            if graph.shape[0] != points.shape[0]:
                raise ValueError(
                    f"`W` came with shape {graph.shape}; expected a row for each of the "
                    f"{points.shape[0]} points"
                )
            lam = lam * unit
            if lam == 0 or graph.nnz == 0:
                graph = None
            elif sweep == "jacobi":
                shift = _shift(io, graph)
        centre = points.mean(axis=0, dtype=np.float64).astype(points.dtype)
        problem = Clustering(
            io,
            points - centre,
            centre,
            k,
            graph,
            lam,
            known,
            distance == "gaussian",
            barrier,
            shift,
        )
        return problem, _start(problem, x0, rng)


def _known(io, n, k):
    """Return labels as int64, -1 where there is none."""
    if "labels" not in io:
        return io.xp.full(n, -1, np.int64)
    check_array(io, "labels", shape=(n,), means="(X.shape[0],)", finite=False)
    raw = io.raw("labels")
    if raw.dtype.kind not in "iu":
        raise TypeError(f"`labels` came with dtype {raw.dtype}; expected integers, -1 for unknown")
    lowest, highest = io.be.host(raw.min(), raw.max())
    if lowest < -1 or highest >= k:
        raise ValueError(
            f"`labels` contains {lowest if lowest < -1 else highest}; expected clusters 0 to "
            f"{k - 1}, or -1 for unknown"
        )
    return raw.astype(np.int64)


def _shift(io, W):
    """Return what W needs on its diagonal to be semi-definite, or a little more."""
    from importlib import import_module

    sums = abs(W) @ io.xp.ones(W.shape[0])
    most = float(io.be.host(sums.max()))
    if W.shape[0] <= 500:
        least = float(io.be.host(io.xp.linalg.eigvalsh(W.toarray().astype(np.float64))[0]))
    else:
        eigsh = import_module(f"{io.be.sparse.__name__}.linalg").eigsh
        start = io.xp.cos(io.xp.arange(W.shape[0], dtype=np.float64))
        try:
            least = eigsh(W.astype(np.float64), k=1, which="SA", v0=start, tol=1e-6)[0][0]
        except RuntimeError:
            # No convergence: the bound of the row sums always holds.
            return most
    # Lanczos values lie within the spectrum.
    return min(most, max(0.0, -float(io.be.host(least)) * (1 + 1e-5)))


def _start(problem, x0, rng):
    """Return assignments, prototypes and variances to start from."""
    xp, labels = problem.xp, problem.labels
    v = xp.full(problem.k, problem.total_variance or 1.0, problem.X.dtype)
    M = xp.zeros((problem.k, problem.X.shape[1]), problem.X.dtype)
    fixed = (labels[:, None] == xp.arange(problem.k)).astype(problem.X.dtype)
    if x0 is None:
        M, _ = problem.prototypes(fixed, M, v)
        _plant(problem, M, rng)
        Y = problem.softmax(-problem.distances(M, v))
    else:
        Y = _given_assignments(problem, x0)
    Y[labels >= 0] = fixed[labels >= 0]
    if x0 is not None:
        M, v = problem.prototypes(Y, M, v)
    return Y, M, v


def _plant(problem, M, rng):
    """Choose prototypes of clusters without labels by k-means++, in place."""
    be, xp, X = problem.be, problem.xp, problem.X
    planted = set(be.host(xp.unique(problem.labels)).reshape(-1).tolist()) - {-1}
    near = xp.full(X.shape[0], np.inf)
    for c in sorted(planted):
        near = xp.minimum(near, ((X - M[c]) ** 2).sum(axis=1))
    for c in sorted(set(range(problem.k)) - planted):
        weight = be.host(near).astype(np.float64)
        if not 0 < weight.sum() < np.inf:
            # The first of all, or points that all are prototypes already.
            weight = np.ones(X.shape[0])
        M[c] = X[int(rng.choice(X.shape[0], p=weight / weight.sum()))]
        near = xp.minimum(near, ((X - M[c]) ** 2).sum(axis=1))


def _given_assignments(problem, x0):
    io, xp = problem.io, problem.xp
    given = Ingest(dtype=io.dtype, x0=getattr(x0, "x", x0))
    if given.be is not io.be:
        raise TypeError(f"`x0` came as {describe(x0)}; expected an array where the points are")
    shape = (problem.X.shape[0], problem.k)
    Y = check_array(given, "x0", shape=shape, means="(X.shape[0], k)", minimum=0.0)
    sums = Y.sum(axis=1, keepdims=True)
    if io.be.host((abs(sums - 1) > 1e-3).any()):
        raise ValueError("`x0` has rows that do not sum to 1; expected assignments")
    return xp.array(Y / sums)
