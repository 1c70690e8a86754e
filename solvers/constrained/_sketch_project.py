"""`sketch_project`: consistent linear systems by random projections."""

import numpy as np

from .._core.arrays import Ingest, is_sparse
from .._core.certificate import Certificate
from .._core.monitor import Monitor
from .._core.random import check_rng
from .._core.result import Result, Status
from .._core.validation import (
    check_array,
    check_callable,
    check_choice,
    check_count,
    check_positive,
    describe,
)
from ._result import LinearResult
from .sketches import SKETCHES
from .sketches._projection import Projection
from .sketches._rows import Rows


def sketch_project(
    A,
    b,
    *,
    sketch="kaczmarz++",
    block_size=None,
    x0=None,
    tol=1e-8,
    maxiter=None,
    rng=None,
    callback=None,
):
    r"""Solve a consistent system ``A x = b`` by sketch and project.

    Each step draws a random matrix S of few columns and moves to the nearest point that solves
    the sketched system:

    .. math:: x \leftarrow x - A^\top S (S^\top A A^\top S)^+ S^\top (A x - b)

    No step moves away from the solution, except with the momentum of "kaczmarz++".

    Parameters
    ----------
    A : array or sparse matrix, shape (N, p)
        Of any rank and shape; sparse ones are compressed by rows.
    b : array, shape (N,)
        Right-hand side, in the range of A.
    sketch : str, default "kaczmarz++"
        Kind of S.

        - "kaczmarz++": random blocks of rows, used again and again, with momentum;
        - "block-kaczmarz": blocks of rows from random partitions;
        - "hadamard": the same, on rows that a Hadamard transform has mixed;
        - "kaczmarz": single rows, all equally likely;
        - "kaczmarz-weighted": single rows, likely by their squared lengths;
        - "kaczmarz-shuffled": single rows, in a new random order in each sweep;
        - "gaussian": single combinations of all rows, normal factors;
        - "block-gaussian": blocks of combinations of all rows, normal factors;
        - "sparse-sign": blocks of signed sums, each row in eight of them;
        - "countsketch": blocks of signed sums, each row in one of them.

        "hadamard" makes a sparse A dense.
    block_size : int, optional
        Equations in a block. By default about the square root of N, and twice that for
        "kaczmarz++", doubled whenever the residual has not halved in 20 sweeps. The number of
        outlying singular values is what it must exceed.
    x0 : array or Result, optional
        Start; zero by default. Of all solutions the nearest to it is found.
    tol : float, default 1e-8
        Largest residual norm, relative to the norm of `b`.
    maxiter : int, optional
        Largest number of steps, a block being one. Default: 1000 sweeps over all rows.
    rng : int or Generator, optional
        Where the randomness comes from.
    callback : callable, optional
        Called with the state after each sweep, when the residual is looked at; a true return or
        StopIteration ends the run.

    Returns
    -------
    LinearResult
        With `x`; `fun` is the relative residual, which the certificate shows.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the expected kind, shape or value.

    Notes
    -----
    Single rows converge at a rate of ``sigma_min^2 / |A|_F^2`` for each step, which only flat
    spectra make fast. Blocks larger than the number of outlying singular values forget these;
    then fewer passes over A are needed than Krylov methods take, at the price of a Cholesky
    factor for each new block. Where A fits in memory a direct solver is faster.

    References
    ----------
    .. [1] R. M. Gower and P. Richtarik. Randomized iterative methods for linear systems. SIAM
       Journal on Matrix Analysis and Applications 36(4), 2015.
    .. [2] M. Derezinski, D. Needell, E. Rebrova and J. Yang. Randomized Kaczmarz methods with
       beyond-Krylov convergence. arXiv:2501.11673, 2025.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers.constrained import sketch_project
    >>> A = np.array([[2.0, 1.0], [1.0, 3.0], [3.0, 4.0]])
    >>> sketch_project(A, np.array([3.0, 4.0, 7.0]), rng=0).x.round(6)
    array([1., 1.])
    """
    kind = SKETCHES[check_choice(sketch, "sketch", tuple(SKETCHES))]
    size = check_count(block_size, "block_size", minimum=1, allow_none=True)
    tol = check_positive(tol, "tol")
    maxiter = check_count(maxiter, "maxiter", allow_none=True)
    rng = check_rng(rng)
    start = x0.x if isinstance(x0, Result) else x0
    if b is None:
        raise TypeError("`b` came as NoneType; expected an array")
    io, A = _read_system(A, b=b, x0=start)
    count, n = A.shape
    with io.device:
        b = check_array(io, "b", shape=(count,), means="(A.shape[0],)").astype(np.float64)
        start = check_array(io, "x0", shape=(n,), means="(A.shape[1],)")
    sweep = -(-count // kind.size(count, size))
    run = Monitor(
        "sketch_project",
        "residual",
        tol=tol,
        maxiter=1000 * sweep if maxiter is None else maxiter,
        callback=check_callable(callback, "callback"),
    )
    with io.device, np.errstate(all="ignore"):
        x = io.xp.zeros(n) if start is None else start.astype(np.float64)
        projection = Projection(Rows(A, be=io.be), kind, size, rng)
        _run(projection, b, x, run, tol, io)
        return _finished(run, projection, A, b, tol, io)


def _run(projection, b, x, run, tol, io):
    projection.begin(b, x)
    unit = _unit(b, io.be)
    if projection.residual <= tol * unit:
        run.end(Status.CONVERGED)

    def state():
        return {"x": io.out(projection.x.copy())}

    for _ in run:
        steps = projection.sweep(run.maxiter - run.nit)
        over = run.record(projection.residual / unit, iterations=steps, state=state)
        if not over and projection.exhausted:
            run.end(Status.STALLED, "Rounding leaves this much.")
        elif not over and projection.stuck:
            run.end(Status.STALLED, "The system may have no solution.")


def _finished(run, projection, A, b, tol, io):
    be = io.be
    x = projection.x if run.status is Status.CALLBACK else projection.best[1]
    returned = io.out(x)
    x = x.astype(io.dtype).astype(np.float64)
    residual = float(be.host(be.xp.linalg.norm(A @ x - b))) / _unit(b, be)
    # In single precision, rounding x alone leaves so much.
    floor = 0.0
    if io.dtype == np.float32:
        left = be.host(be.xp.linalg.norm(abs(A) @ abs(x))) / _unit(b, be)
        floor = float(np.finfo(np.float32).eps * left)
    certificate = Certificate(
        "relative residual", residual, max(tol, floor), {"residual": residual, "floor": floor}
    )
    return run.finish(LinearResult, certificate, x=returned, fun=residual)


def _unit(b, be):
    return float(be.host(be.xp.linalg.norm(b))) or 1.0


def _read_system(A, **arrays):
    """Return the `Ingest` of a system's arguments and its matrix, dense or CSR, in float64."""
    if not is_sparse(A):
        io = Ingest(A=A, **arrays)
        if "A" not in io:
            raise TypeError("`A` came as NoneType; expected a matrix")
        with io.device:
            return io, check_array(io, "A", ndim=2).astype(np.float64, copy=False)
    if A.dtype.kind not in "fiub":
        raise TypeError(
            f"`A` came as {describe(A)} with dtype {A.dtype}; expected float32, float64, "
            "integers or booleans"
        )
    if len(A.shape) != 2 or 0 in A.shape:
        raise ValueError(f"`A` came with shape {A.shape}; expected entries in two dimensions")
    rows = A.tocsr()
    io = Ingest(A=rows.data, **arrays)
    with io.device:
        data = check_array(io, "A", nonempty=False).astype(np.float64, copy=False)
        csr = io.be.sparse.csr_matrix((data, rows.indices, rows.indptr), shape=rows.shape)
        return io, csr
