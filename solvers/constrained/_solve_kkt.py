"""`solve_kkt`: one saddle-point system, by any inner solver."""

from types import SimpleNamespace

import numpy as np

from .._core import threads
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
    check_threads,
    describe,
)
from ._matrices import Operator, is_operator
from ._result import SaddleResult
from .inner import INNERS, Saddle, open_inner

# B may differ from its transpose by so much of its largest entry.
_ASYMMETRY = 1e-8
# A singular matrix is factored with this much of its largest entry on its diagonal.
_SHIFT = 1e-8
# Rounds that must halve the residual, or it stays.
_PROGRESS = 0.5


def solve_kkt(
    B,
    G,
    r,
    *,
    inner="auto",
    tol=1e-10,
    maxiter=None,
    x0=None,
    preconditioner=None,
    rng=None,
    n_threads=None,
):
    r"""Solve the symmetric saddle-point system of an equality-constrained Newton step.

    .. math:: \begin{pmatrix} B & G^\top \\ G & 0 \end{pmatrix} x = r

    Parameters
    ----------
    B : array, sparse matrix or LinearOperator, shape (n, n)
        Symmetric; it may be indefinite.
    G : array, sparse matrix or LinearOperator, shape (m, n)
        With ``m <= n``. Rows that depend on each other do where the system has a solution.
    r : array, shape (n + m,)
        Right-hand side.
    inner : str, default "auto"
        The solver.

        - "auto": "direct" where B and G have entries and their factors are of reasonable size,
          "pcg" where B is an operator or factors would be too large, "minres" where G is an
          operator;
        - "direct": a symmetric indefinite factorisation of dense matrices; of sparse ones the
          Schur complement of a diagonal B, a narrow band, or SuperLU with symmetric pivots;
        - "condensed": Cholesky of ``B + gamma G^T G``, then conjugate gradients for the
          multipliers; B positive definite on the kernel of G;
        - "pcg": conjugate gradients within the kernel of G, where B must be positive definite;
        - "minres", "gmres": Krylov methods on the whole matrix, by products alone;
        - "sketch", or a kind of sketch that `sketch_project` knows: random projections.
    tol : float, default 1e-10
        Largest residual norm, relative to the norm of `r`.
    maxiter : int, optional
        Largest number of steps of an iterative solver. By default ``10 (n + m)`` of Krylov
        methods and 100,000 of sketches.
    x0 : array or Result, optional
        Start of iterative solvers; zero by default.
    preconditioner : callable, optional
        ``preconditioner(B, G)`` returns a callable that approximates the inverse of the matrix,
        for "minres", "gmres" and "pcg".
    rng : int or Generator, optional
        Where the randomness of sketches comes from.
    n_threads : int, optional
        Threads of BLAS and kernels.

    Returns
    -------
    SaddleResult
        With `x`, `inner` and `work`; `fun` is the relative residual, which the certificate
        shows beside the least that rounding leaves.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the expected kind, shape or value.

    References
    ----------
    .. [1] M. Benzi, G. H. Golub and J. Liesen. Numerical solution of saddle point problems. Acta
       Numerica 14, 1-137, 2005.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers.constrained import solve_kkt
    >>> B, G = np.diag([2.0, 4.0]), np.array([[1.0, 1.0]])
    >>> solve_kkt(B, G, np.array([0.0, 0.0, 3.0])).x.round(6)
    array([ 2.,  1., -4.])
    """
    check_choice(inner, "inner", tuple(INNERS))
    tol = check_positive(tol, "tol")
    maxiter = check_count(maxiter, "maxiter", allow_none=True)
    options = SimpleNamespace(
        inner=inner,
        sketch=None,
        block_size=None,
        accuracy="adaptive",
        maxiter_inner=maxiter,
        preconditioner=check_callable(preconditioner, "preconditioner"),
        rng=check_rng(rng),
        deadline=lambda: False,
    )
    n_threads = check_threads(n_threads)
    io, B, G = _matrices(B, G, r=r, x0=x0.x if isinstance(x0, Result) else x0)
    size = sum(G.shape)
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        r = check_array(io, "r", shape=(size,), means="(n + m,)").astype(np.float64)
        start = check_array(io, "x0", shape=(size,), means="(n + m,)")
        run = Monitor("solve_kkt", "residual", tol=tol, maxiter=maxiter)
        saddle, solver = Saddle(B, G, be=io.be), open_inner(inner, options)
        x = io.xp.zeros(size) if start is None else start.astype(np.float64)
        x = _solved(saddle, solver, r, x, run, tol)
        return _finished(run, saddle, solver, r, x, tol, io)


def _solved(saddle, solver, r, x, run, tol):
    """Return the best solution of several rounds, each on what the last one left."""
    be = saddle.be
    norm = lambda v: be.host(be.xp.linalg.norm(v))  # noqa: E731
    unit = norm(r) or 1.0
    left = norm(saddle @ x - r) / unit
    if left <= tol:
        run.end(Status.CONVERGED)
    if run.status is not None:
        return x
    solver.factor(saddle)
    exact = not getattr(solver, "singular", False)
    if not exact:
        # Where rows depend on each other a neighbour is factored, and rounds correct for that.
        shift = _SHIFT * _largest(saddle)
        solver.factor(saddle.shifted(shift, shift))
    for turn in run:
        # Only the first round has the caller's start: later ones start from zero.
        base = x if turn else be.xp.zeros_like(x)
        goal = tol * unit / (norm(r - saddle @ base) or 1.0) if turn else tol
        d0 = None if turn or not x.any() else x
        solved = solver.solve(r - saddle @ base if turn else r, d0=d0, tol=min(goal, 0.1))
        new = base + solved.d
        error = norm(saddle @ new - r) / unit
        better = error < left
        if better:
            x, before, left = new, left, error
        if run.record(left, iterations=max(solved.iterations, 1)):
            break
        if not better or left > _PROGRESS * before:
            reason = "The solver met a direction without curvature."
            run.end(Status.STALLED, reason if solved.flag == "negative" else None)
    return x


def _finished(run, saddle, solver, r, x, tol, io):
    be = io.be
    norm = lambda v: be.host(be.xp.linalg.norm(v))  # noqa: E731
    returned = io.out(x)
    x = x.astype(io.dtype).astype(np.float64)
    unit = norm(r) or 1.0
    residual = norm(saddle @ x - r) / unit
    floor = _floor(saddle, x, r, io) / unit
    allowed = max(tol, floor) if io.dtype == np.float32 else tol
    certificate = Certificate(
        "relative residual", residual, allowed, {"residual": residual, "floor": floor, "tol": tol}
    )
    direct = solver.name in ("direct", "condensed")
    work = _entries(saddle) * (min(run.nit, 1) if direct else run.nit)
    note = None
    if not certificate.holds:
        note = f"Rounding alone leaves about {floor:.1e}."
    return run.finish(
        SaddleResult,
        certificate,
        note=note,
        x=returned,
        fun=residual,
        inner=solver.name,
        work=work,
    )


def _floor(saddle, x, r, io):
    """Return the norm that rounding `x` to its precision leaves of the residual."""
    B, G, be, n = saddle.B, saddle.G, saddle.be, saddle.n
    eps = float(np.finfo(io.dtype).eps)
    if is_operator(B) or is_operator(G):
        pull = abs(r)
    else:
        size = abs(x)
        pull = Saddle(abs(B), abs(G), be=be) @ size if n else abs(r)
    return eps * float(be.host(be.xp.linalg.norm(pull)))


def _largest(saddle):
    sizes = [
        saddle.be.host(abs(A).max())
        for A in (saddle.B, saddle.G)
        if not is_operator(A) and 0 not in A.shape
    ]
    return max([*sizes, 0.0]) or 1.0


def _entries(saddle):
    """Return how many numbers a product with the matrix reads."""
    count = lambda A: A.nnz if is_sparse(A) else int(np.prod(A.shape))  # noqa: E731
    return count(saddle.B) + 2 * count(saddle.G)


# ---------------------------------------------------------------- what the caller passes
def _matrices(B, G, **vectors):
    """Return the `Ingest` of a call and both matrices, checked, in float64."""
    given = {"B": B, "G": G}
    for name, A in given.items():
        if A is None:
            raise TypeError(f"`{name}` came as NoneType; expected a matrix")
    hosts = {name: _entries_of(name, A) for name, A in given.items()}
    io = Ingest(**{name: v for name, v in hosts.items() if v is not None}, **vectors)
    if "r" not in io:
        raise TypeError("`r` came as NoneType; expected an array")
    with io.device:
        B, G = (_matrix(io, name, A) for name, A in given.items())
        n = B.shape[0]
        if B.shape != (n, n) or n == 0:
            raise ValueError(f"`B` came with shape {tuple(B.shape)}; expected (n, n)")
        m = G.shape[0]
        if G.shape[1] != n or m > n:
            raise ValueError(
                f"`G` came with shape {tuple(G.shape)}; expected (m, n) with n = {n} and m <= n"
            )
        _check_symmetric(B, io.be)
    return io, B, G


def _entries_of(name, A):
    """Return what an `Ingest` takes of a matrix: the array, or its stored entries, or None."""
    if hasattr(A, "matvec"):
        return None
    if not is_sparse(A):
        return A
    if A.dtype.kind not in "fiub":
        raise TypeError(
            f"`{name}` came as {describe(A)} with dtype {A.dtype}; expected float32, float64, "
            "integers or booleans"
        )
    if A.ndim != 2:
        raise ValueError(f"`{name}` came {A.ndim}-D; expected 2-D")
    return A.tocsr().data


def _matrix(io, name, A):
    if name in io and is_sparse(A):
        check_array(io, name, nonempty=False)
        return A.tocsr().astype(np.float64)
    if name in io:
        return check_array(io, name, ndim=2, nonempty=False).astype(np.float64)
    if np.dtype(A.dtype or np.float64).kind not in "fiub":
        raise TypeError(f"`{name}` came with dtype {A.dtype}; expected real numbers")
    xp = io.xp

    def product(function):
        return lambda v: xp.asarray(function(io.out(v)), dtype=np.float64).reshape(-1)

    return Operator(A.shape, product(A.matvec), product(A.rmatvec))


def _check_symmetric(B, be):
    if is_operator(B):
        return
    gap, size = abs(B - B.T).max(), abs(B).max()
    if not be.host(gap <= _ASYMMETRY * size):
        gap = be.host(gap)
        raise ValueError(f"`B` came unsymmetric, by {gap:.3g}; expected a symmetric matrix")
