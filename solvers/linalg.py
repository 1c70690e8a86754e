r"""Linear algebra building blocks: empirical Fisher matrices and conjugate directions.

.. math:: F = \delta I + \frac{1}{m} \sum_{i=1}^m g_i g_i^\top
"""

import math

import numpy as np

from ._core.arrays import Ingest, is_sparse
from ._core.certificate import Certificate
from ._core.monitor import Monitor
from ._core.result import Result, Status
from ._core.validation import (
    check_array,
    check_callable,
    check_count,
    check_flag,
    check_flag_or_stride,
    check_positive,
    check_time_limit,
    describe,
)

__all__ = ["EmpiricalFisher", "conjugate_directions"]


class EmpiricalFisher:
    r"""The empirical Fisher matrix of a window of gradients, and its inverse.

    The matrix :math:`F = \delta I + \frac{1}{m} \sum_i g_i g_i^\top` of order d is never formed.
    Its inverse is that of M-FAC [1]_, by the Woodbury identity with the Gram matrix of the
    gradients: two products with G for each vector.

    Parameters
    ----------
    G : array, shape (m, d)
        Gradients, one in a row; copied.
    damp : float, default 1e-5
        The damping :math:`\delta`.
    window : int, optional
        Number of gradients that are kept, m by default. `update` replaces the oldest one; while
        there are fewer than `window`, it adds one, and m counts those that are there.

    Attributes
    ----------
    shape : (int, int)
        (d, d).
    dtype : numpy.dtype
        Precision of G; Gram matrices are accumulated and factored in float64.
    nbytes : int
        Memory of gradients and Gram matrix.
    inv : operator
        The inverse, with `matvec` and `@`.

    Notes
    -----
    Products take and return arrays of the kind of G. It has what SciPy's solvers ask of a linear
    operator: ``scipy.sparse.linalg.cg(F, b)`` works.

    References
    ----------
    .. [1] E. Frantar, E. Kurtic, D. Alistarh. M-FAC: efficient matrix-free approximations of
       second-order information. NeurIPS 2021. arXiv:2107.03356.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers.linalg import EmpiricalFisher
    >>> F = EmpiricalFisher(np.array([[1.0, 0.0, 1.0], [0.0, 2.0, 0.0]]), damp=0.5)
    >>> v = np.array([1.0, 2.0, 3.0])
    >>> np.allclose(F @ F.solve(v), v)
    True
    """

    def __init__(self, G, damp=1e-5, window=None):
        self._io = Ingest(G=G)
        self._be, self._xp = self._io.be, self._io.xp
        G = check_array(self._io, "G", ndim=2)
        self.damp = check_positive(damp, "damp")
        window = check_count(window, "window", minimum=1, allow_none=True)
        self._window = len(G) if window is None else window
        G = G[-self._window :]
        with self._io.device:
            self._G = self._xp.zeros((self._window, G.shape[1]), G.dtype)
            self._G[: len(G)] = G
            # Rows in float64 one block at a time: no second copy of G.
            self._gram = self._xp.zeros((self._window, self._window))
            for i in range(len(G)):
                self._gram[i, : len(G)] = self._against(G[i], len(G))
        self._count, self._next = len(G), len(G) % self._window
        self.shape, self.dtype = (G.shape[1],) * 2, self._io.dtype
        self._cholesky = self._eigen = None

    @property
    def nbytes(self):
        """Bytes of gradients and Gram matrix."""
        return self._G.nbytes + self._gram.nbytes

    @property
    def inv(self):
        """The inverse as an operator."""
        return _Inverse(self)

    @property
    def T(self):  # noqa: N802 (as arrays have it)
        """The matrix itself, which is symmetric."""
        return self

    def matvec(self, v):
        """Return F v.

        Parameters
        ----------
        v : array, shape (d,) or (d, k)
            A vector, or several as columns.

        Returns
        -------
        array, shape of `v`
            The product.
        """
        v, out = self._vector(v)
        G = self._G[: self._count]
        with self._io.device:
            return out(self.damp * v + G.T @ (G @ v) / self._count)

    rmatvec = matmat = __matmul__ = dot = matvec

    def solve(self, v, damp=None):
        """Return the inverse times v.

        Parameters
        ----------
        v : array, shape (d,) or (d, k)
            A vector, or several as columns.
        damp : float, optional
            Another damping than that of the matrix, for a search over dampings: after the first
            it costs m^2 and two products.

        Returns
        -------
        array, shape of `v`
            The solution.
        """
        damp = check_positive(damp, "damp", allow_none=True)
        v, out = self._vector(v)
        G = self._G[: self._count]
        with self._io.device:
            z = (G @ v).astype(np.float64)
            if damp is None or damp == self.damp:
                damp, z = self.damp, self._forward(self._forward(z), trans="T")
            else:
                w, Q = self._spectrum()
                w = self._count * damp + self._xp.maximum(w, 0.0)
                z = Q @ ((Q.T @ z) / (w if z.ndim == 1 else w[:, None]))
            return out((v - G.T @ z.astype(v.dtype)) / damp)

    def update(self, g):
        """Take in a gradient in place of the oldest one.

        Parameters
        ----------
        g : array, shape (d,)
            The gradient.
        """
        g, _ = self._vector(g, name="g")
        if g.ndim != 1:
            raise ValueError(f"`g` came with shape {g.shape}; expected (d,) = {self.shape[:1]}")
        with self._io.device:
            i = self._next
            self._G[i] = g
            self._count = min(self._count + 1, self._window)
            row = self._against(g, self._count)
            self._gram[i, : self._count] = self._gram[: self._count, i] = row
        self._next = (i + 1) % self._window
        self._cholesky = self._eigen = None

    def inv_diagonal(self, block_size=4096):
        """Return the diagonal of the inverse.

        Parameters
        ----------
        block_size : int, default 4096
            Columns of G at a time; `block_size` times m numbers are held.

        Returns
        -------
        array, shape (d,)
            The diagonal.
        """
        block_size = check_count(block_size, "block_size", minimum=1)
        G, xp, d = self._G[: self._count], self._xp, self.shape[0]
        with self._io.device:
            parts = []
            for a in range(0, d, block_size):
                W = self._forward(G[:, a : a + block_size].astype(np.float64))
                parts.append((1.0 - (W * W).sum(axis=0)) / self.damp)
            return self._io.out(xp.concatenate(parts))

    def inv_element(self, i, j):
        """Return one element of the inverse.

        Parameters
        ----------
        i, j : int
            Row and column.

        Returns
        -------
        float
            The element.
        """
        d = self.shape[0]
        for name, k in (("i", i), ("j", j)):
            if check_count(k, name) >= d:
                raise ValueError(f"`{name}` came as {k}; expected a whole number below {d}")
        with self._io.device:
            W = self._forward(self._G[: self._count, [i, j]].astype(np.float64))
            return (float(i == j) - self._be.host(W[:, 0] @ W[:, 1])) / self.damp

    def _against(self, g, count):
        """Return the products of a gradient with the first `count` rows, summed in float64."""
        G, xp = self._G[:count], self._xp
        if G.dtype == np.float64:
            return G @ g
        return xp.einsum("ij,j->i", G, g, dtype=np.float64)

    def _forward(self, z, trans="N"):
        """Return ``L^-1 z`` or ``L^-T z`` with ``L L^T = m damp I + G G^T``."""
        m = self._count
        if self._cholesky is None:
            gram = self._gram[:m, :m]
            self._cholesky = self._be.cholesky(gram + m * self.damp * self._xp.eye(m))
        return self._be.linalg.solve_triangular(self._cholesky, z, lower=True, trans=trans)

    def _spectrum(self):
        if self._eigen is None:
            self._eigen = self._xp.linalg.eigh(self._gram[: self._count, : self._count])
        return self._eigen

    def _vector(self, v, name="v"):
        """Return a vector as an array of the back end, and its way back."""
        io = Ingest(**{name: v})
        if io.be.name != self._be.name:
            raise TypeError(f"`{name}` came as {describe(v)}; expected an array like `G`")
        x = check_array(io, name, ndim=(1, 2))
        if len(x) != self.shape[0]:
            raise ValueError(
                f"`{name}` came with shape {x.shape}; expected {self.shape[0]} rows, as `G` has "
                "columns"
            )
        return x.astype(self.dtype, copy=False), io.out


class _Inverse:
    """The inverse of an `EmpiricalFisher`."""

    def __init__(self, fisher):
        self._fisher, self.shape, self.dtype = fisher, fisher.shape, fisher.dtype

    @property
    def T(self):  # noqa: N802 (as arrays have it)
        return self

    def matvec(self, v):
        """Return ``F^-1 v``."""
        return self._fisher.solve(v)

    rmatvec = matmat = __matmul__ = dot = matvec


def conjugate_directions(
    A,
    b,
    *,
    direction=None,
    memory=2,
    x0=None,
    tol=1e-8,
    maxiter=None,
    time_limit=None,
    callback=None,
    progress=False,
    history=True,
):
    """Solve ``A x = b``, A symmetric positive definite, along directions that the caller proposes.

    A proposal is made conjugate to the last `memory` directions; with the residual itself as
    proposal this is the method of conjugate gradients. It serves learned and multigrid
    directions, which may differ from step to step: the error in the norm of A never grows.

    Parameters
    ----------
    A : array, sparse matrix or operator with ``matvec``, shape (n, n)
        Symmetric positive definite.
    b : array, shape (n,)
        Right-hand side.
    direction : callable, optional
        ``direction(r)`` proposes a direction for the residual ``r = b - A x``; r by default.
    memory : int, default 2
        Number of directions that a new one is made conjugate to.
    x0 : array, shape (n,), optional
        Start; zero by default.
    tol : float, default 1e-8
        Stop when ``||b - A x||`` is at most `tol` times ``||b||``.
    maxiter : int, optional
        Largest number of steps, 10 n by default.
    time_limit : float, optional
        Seconds of wall-clock time.
    callback : callable, optional
        ``callback(intermediate_result)`` after every step; a true return or StopIteration ends
        the run.
    progress : bool, default False
        Show progress.
    history : bool or int, default True
        Whether, or every how many steps, to keep a row of the history.

    Returns
    -------
    Result
        With `x`, and the certificate "relative residual", whose value is `fun` too.

    Notes
    -----
    A proposal along which A shows no curvature gives way to the residual.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers.linalg import conjugate_directions
    >>> A = np.diag([1.0, 2.0, 3.0])
    >>> res = conjugate_directions(A, np.ones(3), direction=lambda r: r / np.diag(A))
    >>> res.nit
    1
    """
    by_products = is_sparse(A) or hasattr(A, "matvec")
    io = Ingest(b=b, x0=x0, A=None if by_products else A)
    b = check_array(io, "b", ndim=1).astype(np.float64)
    n = len(b)
    A = A if by_products else io.raw("A").astype(np.float64)
    if tuple(A.shape) != (n, n):
        raise ValueError(f"`A` came with shape {tuple(A.shape)}; expected {(n, n)}")
    check_array(io, "x0", shape=(n,), means="b.shape")
    x = io.copy("x0").astype(np.float64) if "x0" in io else io.xp.zeros(n)
    tol = check_positive(tol, "tol")
    direction = check_callable(direction, "direction")
    memory = check_count(memory, "memory")
    maxiter = check_count(maxiter, "maxiter", allow_none=True)
    run = Monitor(
        "conjugate_directions",
        "relative_residual",
        tol=tol,
        maxiter=10 * n if maxiter is None else maxiter,
        time_limit=check_time_limit(time_limit),
        callback=check_callable(callback, "callback"),
        progress=check_flag(progress, "progress"),
        history=check_flag_or_stride(history, "history"),
    )
    with io.device, np.errstate(all="ignore"):
        propose = _proposals(direction, io, n)
        x = _walk(A, b, x, propose, memory, run, tol, io)
        x = x.astype(io.dtype).astype(np.float64)
        value = io.be.host(io.xp.linalg.norm(b - A @ x)) / _scale(b, io)
        certificate = Certificate("relative residual", value, tol, {"norm_of_b": _scale(b, io)})
        return run.finish(Result, certificate, x=io.out(x), fun=value)


def _walk(A, b, x, propose, memory, run, tol, io):
    xp, host = io.xp, io.be.host
    r, scale = b - A @ x, _scale(b, io)
    kept = []  # the last directions p with A p and p.Ap
    if host(xp.linalg.norm(r)) <= tol * scale:
        run.end(Status.CONVERGED)
    for _ in run:
        found = _conjugate(A, propose(r), kept, xp, host) or _conjugate(A, r, kept, xp, host)
        if found is None:
            run.end(Status.NUMERICAL, "`A` has no positive curvature along the residual.")
            break
        p, Ap, curvature = found
        alpha = (p @ r) / curvature
        x = x + alpha * p
        r = r - alpha * Ap
        kept = [*kept, found][-memory:] if memory else []
        size = host(xp.linalg.norm(r))
        if size <= tol * scale:
            # The updated residual drifts from the true one.
            r = b - A @ x
            size = host(xp.linalg.norm(r))
        run.record(size / scale, state=lambda x=x: {"x": io.out(x.copy())})
    return x


def _conjugate(A, p, kept, xp, host):
    """Return a direction made conjugate to others, with A p and p.Ap; None without curvature."""
    for q, Aq, curvature in kept:
        p = p - ((Aq @ p) / curvature) * q
    Ap = A @ p
    curvature, long, image = host(p @ Ap, xp.linalg.norm(p), xp.linalg.norm(Ap))
    if not curvature > np.finfo(np.float64).eps * long * image or not math.isfinite(curvature):
        return None
    return p, Ap, curvature


def _proposals(direction, io, n):
    if direction is None:
        return lambda r: r

    def propose(r):
        p = Ingest(direction=direction(io.out(r.copy()))).raw("direction")
        if p.shape != (n,):
            raise ValueError(f"`direction` returned shape {p.shape}; expected ({n},)")
        return p.astype(np.float64)

    return propose


def _scale(b, io):
    return io.be.host(io.xp.linalg.norm(b)) or 1.0
