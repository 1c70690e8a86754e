"""`label_propagation`: labels of some nodes of a graph, carried along its edges to the others."""

from typing import Any

import numpy as np

from .._core import threads
from .._core.arrays import Ingest
from .._core.validation import (
    check_array,
    check_choice,
    check_positive,
    check_threads,
    describe,
)
from ._books import Books
from ._certificate_graph import distance, energy, judge_propagation
from ._graph_box import BOUNDED
from ._graph_methods import SOLVERS
from ._propagation import pose_propagation
from ._result import BlockResult

# Iterations without progress to speak of after which rounding must be the reason.
_STALL = 500


class PropagationResult(BlockResult):
    """Outcome of `label_propagation`.

    Attributes
    ----------
    x : array, shape (n,) or (n, C)
        Values of the nodes, or a score for each class.
    labels : array of int, shape (n,), or None
        Class with the best score; -1 where no label can be reached. None for float labels.
    classes : numpy.ndarray or None
        Labels, in the order of the columns of `x`.
    """

    labels: Any


def label_propagation(
    W,
    labels,
    *,
    mode="harmonic",
    alpha=None,
    method="auto",
    bounds=None,
    isolated="raise",
    symmetrize=None,
    tol=None,
    maxiter=10000,
    x0=None,
    callback=None,
    history=True,
    time_limit=None,
    progress=False,
    n_threads=None,
):
    r"""Carry the labels of some nodes of a graph along its edges to all others.

    Minimises :math:`\tfrac{1}{2} \sum_{i < j} w_{ij} |x_i - x_j|^2` over the values x of the
    unlabelled nodes: each becomes the weighted mean of its neighbours [1]_. With `alpha`, labels
    may be wrong: all values are free, and :math:`\tfrac{\alpha}{2} |x_i - y_i|^2` is added for
    each labelled node.

    Parameters
    ----------
    W : array or sparse matrix, shape (n, n)
        Weights of the edges, symmetric and non-negative; the diagonal does not matter.
    labels : array, shape (n,)
        Floats are values, NaN where unknown. Integers are classes, -1 where unknown.
    mode : {"harmonic", "box"}
        Whether values are free, or held within `bounds`.
    alpha : float, optional
        Weight of the labels, in the unit of `W`; labels are exact by default.
    method : {"auto", "tree", "redblack", "forest_variable", "cg", "cholesky"}
        "cholesky" factorises; "cg" takes conjugate gradients, in the end on a hierarchy of ever
        smaller graphs where labels are far apart. The others are block descent [2]_: "tree"
        sweeps over blocks that are forests, solved by message passing, and "redblack" over
        colours, both led by conjugate gradients where there are no bounds; "forest_variable"
        takes in each step the forest of the nodes that matter most. "auto" eliminates where
        that is cheap and takes conjugate gradients elsewhere.
    bounds : (float, float), optional
        Smallest and largest value with ``mode="box"``. Default: those of the labels, for classes
        0 and 1.
    isolated : {"raise", "zero", "nan"}
        What to do with components of the graph without any label.
    symmetrize : {None, "max"}
        "max" replaces `W` by the larger of each pair of entries.
    tol : float, optional
        Largest value of the certificate. Default: 1e-8, or 1e-6 in float32.
    maxiter : int, default 10000
        Largest number of iterations.
    x0 : array of the shape of `x`, or a previous result, optional
        Start.
    callback : callable, optional
        Called after each iteration as ``callback(intermediate_result)`` with field ``x``;
        StopIteration or a true return value ends the run.
    history : bool or int, default True
        Whether, or every how many iterations, to record the history.
    time_limit : float, optional
        Seconds after which the values so far are returned.
    progress : bool, default False
        Show a progress bar.
    n_threads : int, optional
        Number of threads. Default: Numba's setting.

    Returns
    -------
    PropagationResult
        With `x`, and for classes `labels` and `classes`. Its certificate is the largest
        :math:`|Ax - b| / |b|` over columns, A and b as `W` and the labels make them; with
        bounds, the KKT violation relative to the gradient at 0.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind, such as complex weights.
    ValueError
        If `W` is not square, symmetric and non-negative, nothing is labelled, or a component of
        the graph has no label.

    Warns
    -----
    ConvergenceWarning
        If the certificate does not hold; once per call.

    References
    ----------
    .. [1] X. Zhu, Z. Ghahramani, J. Lafferty. Semi-supervised learning using Gaussian fields and
       harmonic functions. ICML 2003.
    .. [2] J. Nutini, I. Laradji, M. Schmidt. Let's make block coordinate descent converge
       faster: faster greedy rules, message-passing, active-set complexity, and superlinear
       convergence. JMLR 23, 2022. arXiv:1712.08859.

    Examples
    --------
    >>> import numpy as np, solvers
    >>> W = np.diag(np.ones(4), 1) + np.diag(np.ones(4), -1)
    >>> res = solvers.bcd.label_propagation(W, [0.0, np.nan, np.nan, np.nan, 1.0])
    >>> res.x.round(3)
    array([0.  , 0.25, 0.5 , 0.75, 1.  ])
    >>> solvers.bcd.label_propagation(W, [7, -1, -1, -1, 9]).labels
    array([7, 7, 7, 9, 9])
    """
    mode = check_choice(mode, "mode", ("harmonic", "box"))
    method = check_choice(method, "method", tuple(SOLVERS))
    alpha = check_positive(alpha, "alpha", allow_none=True)
    if bounds is not None and mode != "box":
        raise ValueError("`bounds` came with mode='harmonic'; expected mode='box'")
    problem = pose_propagation(
        W,
        labels,
        alpha=alpha,
        mode=mode,
        bounds=bounds,
        isolated=isolated,
        symmetrize=symmetrize,
    )
    io = problem.io
    books = Books(
        "label_propagation",
        io,
        tol=tol,
        maxiter=maxiter,
        time_limit=time_limit,
        callback=callback,
        progress=progress,
        history=history,
        stall=_STALL,
    )
    n_threads = check_threads(n_threads)
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        return _solve(problem, books, method, x0, np.nan if isolated == "nan" else 0.0)


def _solve(problem, books, method, x0, fill):
    io, xp = problem.io, problem.xp
    watch = PropagationWatch(problem, books)
    solver = (SOLVERS if problem.bounds is None else BOUNDED)[method]
    x, certificate = books.solve(
        check_start(problem, x0),
        lambda x: solver(problem, watch, x),
        lambda x: _judge(problem, x, books.wanted),
        warm=x0 is not None or problem.unknown.size == 0,
    )
    X = problem.everywhere(x, fill) * io.dtype.type(problem.height)
    labels = None
    if problem.classes is not None:
        labels = xp.where(problem.alone, -1, xp.asarray(problem.classes)[X.argmax(axis=1)])
        labels = io.out(labels)
    return books.finish(
        PropagationResult,
        certificate,
        x=X if problem.classes is not None else X[:, 0],
        classes=problem.classes,
        labels=labels,
    )


def _judge(problem, x, tol):
    return judge_propagation(problem, problem.everywhere(x), tol=tol)


class PropagationWatch:
    """What solvers of a `Propagation` report: residuals, from which value and energy follow."""

    def __init__(self, problem, books):
        self.problem, self.books, self.run, self.used = problem, books, books.run, books.used
        xp, b = problem.xp, problem.b
        norms = xp.sqrt(xp.einsum("ij,ij->j", b, b))
        self._norms = xp.where(norms > 0, norms, 1)
        if problem.bounds is not None and b.size:
            at_zero = problem.A @ xp.clip(xp.zeros_like(b), *problem.bounds) - b
            self.scale = float(problem.be.host(abs(at_zero).max())) or 1.0
        at_zero = problem.everywhere(xp.zeros_like(b))
        self._base = energy(problem, at_zero)

    def value(self, r):
        """Return the largest residual relative to its column's right-hand side."""
        xp = self.problem.xp
        return (xp.sqrt(xp.einsum("ij,ij->j", r, r)) / self._norms).max()

    def record(self, x, r, *, blocks=0):
        """Record values x (m, C) with residuals r; tell whether the run must end."""
        problem, xp = self.problem, self.problem.xp
        if problem.bounds is None:
            value = self.value(r)
        else:
            value = distance(xp, x, -r, *problem.bounds).max() / self.scale
        # From A x = b - r, without another pass over A.
        change = -0.5 * (xp.einsum("ij,ij->", x, problem.b) + xp.einsum("ij,ij->", x, r))
        value, change = problem.be.host(value, change)
        self.books.npass += 1.0
        self.books.n_blocks += blocks
        return self.books.record(
            value, state=lambda: self._shown(x), fun=self._base + problem.unit_of_energy * change
        )

    @property
    def tol(self):
        """The value that is wanted."""
        return self.books.tol

    def _shown(self, x):
        X = self.problem.everywhere(x) * self.problem.dtype.type(self.problem.height)
        return {"x": self.problem.io.out(X if self.problem.classes is not None else X[:, 0])}


def check_start(problem, x0):
    """Return the start at the unknown nodes, (m, C)."""
    io, xp, shape = problem.io, problem.xp, problem.Y.shape
    if x0 is None:
        x = xp.zeros((problem.unknown.size, shape[1]), problem.dtype)
        return x if problem.bounds is None else xp.clip(x, *problem.bounds)
    given = Ingest(dtype=io.dtype, x0=getattr(x0, "x", x0))
    if given.be is not io.be:
        raise TypeError(f"`x0` came as {describe(x0)}; expected an array where the graph is")
    wanted = shape if problem.classes is not None else shape[:1]
    x = check_array(given, "x0", shape=wanted, finite=False).reshape(shape)[problem.unknown]
    if not io.be.host(xp.isfinite(x).all()):
        raise ValueError("`x0` contains NaN or infinities; expected numbers at unknown nodes")
    x = x / io.dtype.type(problem.height)
    return x if problem.bounds is None else xp.clip(x, *problem.bounds)
