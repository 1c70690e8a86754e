"""What the completion solvers return."""

from typing import Any, ClassVar

import numpy as np

from .._core.arrays import Ingest, is_sparse
from .._core.result import Result
from .._core.validation import check_count, check_flag, check_memory, describe
from ._citations import CITATIONS
from ._fold import fold_in
from ._observations import check_indices, read_entries

# More entries than this `todense` refuses, and so many scores `top_n` holds at a time.
_DENSE, _SCORES = 10**9, 1 << 24


class CompletionResult(Result):
    r"""Outcome of a completion solver.

    The estimate of entry (i, j) is :math:`\mu + b_i + c_j + \sum_q U_{iq} s_q V_{jq}`, with the
    biases `row_bias` and `col_bias`. Arrays are of the caller's kind; the matrix is never formed
    unless `todense` is called.

    Attributes
    ----------
    U, V : array, shapes (m, k) and (n, k)
        Singular vectors of ``X = U diag(s) V^T``: orthonormal columns. With `nonnegative`, unit
        columns without negative entries.
    s : array, shape (k,)
        Singular values, descending, in the unit of the data.
    mu : float
        Mean that was taken off the data; 0 unless centred.
    row_bias, col_bias : array, shapes (m,) and (n,)
        Biases; 0 where there are none.
    rank : int
        Number of columns of `U` and `V`.
    rank_curve : dict of str to numpy.ndarray, or None
        Where the rank was searched for: columns ``rank`` and ``rmse``, the held-out error.
    fun : float
        The objective, in the square of the data's unit.
    relres : float
        Norm of estimate minus data over the norm of the data, on the observed entries.
    rmse, rmse_validation : float, or None
        Root mean square error on the observed entries, and on those held out by `validation`.
    grad_norm, duality_gap, spectral_ratio : float, or None
        Relative norm of the projected gradient, relative duality gap, and spectral norm of the
        residual over `lam`, as the certificate found them; None where they were not computed.
    exact_fit : bool
        Whether the relative residual is within the tolerance.
    holdout : array of int, or None
        The entries, numbered as the caller passed them, that a fraction `validation` took out.
    delta : float, or None
        Scale of a robust loss, in the unit of the data.
    outlier_weights : array, shape (N,), or None
        With a robust loss, the weight of each entry in the caller's order: 1 for clean ones,
        near 0 for outliers.
    oversampling : float
        Observed entries per degree of freedom, ``N / (k (m + n - k))``; below 1 no matrix of
        this rank is determined.
    unidentified_rows, unidentified_cols : numpy.ndarray of int
        Rows and columns that the observed entries do not determine.
    components : numpy.ndarray of int, shape (m + n,)
        Connected component of each row, then of each column; -1 where nothing is observed.
        Entries between two components cannot be known.
    n_inner, n_passes : int
        Steps of inner solvers, and passes over the observed entries.
    inner : str
        The option of the call.
    """

    U: Any
    s: Any
    V: Any
    mu: float
    row_bias: Any
    col_bias: Any
    rank: int
    rank_curve: dict[str, np.ndarray] | None
    relres: float
    rmse: float
    rmse_validation: float | None
    grad_norm: float | None
    duality_gap: float | None
    spectral_ratio: float | None
    exact_fit: bool
    holdout: Any
    delta: float | None
    outlier_weights: Any
    oversampling: float
    unidentified_rows: np.ndarray
    unidentified_cols: np.ndarray
    components: np.ndarray
    n_inner: int
    n_passes: int
    inner: str

    _bibtex: ClassVar = CITATIONS

    def cite(self):
        """Return BibTeX entries of the methods that ran, and of this library.

        Returns
        -------
        str
            For a bibliography file.
        """
        names = (name for name, _, _ in self.stages)
        entries = dict.fromkeys(CITATIONS[name] for name in names if name in CITATIONS)
        entries.pop(CITATIONS.get(self.method), None)
        return "\n\n".join([*entries, super().cite()])

    def factors(self):
        """Return balanced factors, ``U sqrt(s)`` and ``V sqrt(s)``.

        Returns
        -------
        array, array
            Of shapes (m, k) and (n, k). Mean and biases are not in them.
        """
        io = self._arrays()
        with io.device:
            root = io.xp.sqrt(io["s"])
            return io.out(io["U"] * root), io.out(io["V"] * root)

    def predict(self, rows, cols):
        """Return some entries of the estimate, at the price of these alone.

        Parameters
        ----------
        rows, cols : array of int, or int
            Row and column of each entry; shapes that broadcast.

        Returns
        -------
        array
            Their estimates, with mean and biases, of the broadcast shape.

        Raises
        ------
        TypeError
            If an index is no whole number, or an array of another kind than the result's.
        ValueError
            If an index lies outside the matrix, or the shapes do not broadcast.
        """
        io = self._arrays(rows=rows, cols=cols)
        where = {"rows": self.U.shape[0], "cols": self.V.shape[0]}
        with io.device:
            places = [check_indices(io, name, size) for name, size in where.items()]
            shape = _broadcast(*(x.shape for x in places))
            i, j = (io.xp.broadcast_to(x, shape).reshape(-1).astype(np.int32) for x in places)
            out = io.xp.empty(i.size, io.dtype)
            biases = io["row_bias"], io["col_bias"]
            kernels = io.be.kernels("solvers.completion", "predict")
            kernels.entries(i, j, io["U"], io["s"], io["V"], *biases, out)
            out += self.mu
            return io.out(out.reshape(shape))

    def block(self, row_slice=slice(None), col_slice=slice(None)):
        """Return a block of the estimate.

        Parameters
        ----------
        row_slice, col_slice : slice
            Its rows and its columns; all by default.

        Returns
        -------
        array
            The block, dense, with mean and biases.

        Raises
        ------
        MemoryError
            If the block would not fit.
        """
        for name, part in (("row_slice", row_slice), ("col_slice", col_slice)):
            if not isinstance(part, slice):
                raise TypeError(f"`{name}` came as {describe(part)}; expected a slice")
        io = self._arrays()
        with io.device:
            U, V = io["U"][row_slice], io["V"][col_slice]
            nbytes = io.dtype.itemsize * U.shape[0] * V.shape[0]
            check_memory(nbytes, "the block", "Ask for smaller ones.", be=io.be)
            X = (U * io["s"]) @ V.T
            X += (self.mu + io["row_bias"][row_slice])[:, None]
            X += io["col_bias"][col_slice]
            return io.out(X)

    def todense(self, force=False):
        """Return the whole estimate as a dense matrix.

        Parameters
        ----------
        force : bool, default False
            Whether to form a matrix of more than 10**9 entries.

        Returns
        -------
        array, shape (m, n)
            The estimate, with mean and biases.

        Raises
        ------
        MemoryError
            If it would not fit, or has more than 10**9 entries and `force` is False.
        """
        m, n = self.U.shape[0], self.V.shape[0]
        if m * n > _DENSE and not check_flag(force, "force"):
            raise MemoryError(
                f"the matrix has {m * n:.3g} entries; use `predict` or `block`, or pass force=True"
            )
        return self.block()

    def fold_in(self, rows, *, shape=None, return_bias=False):
        """Return factors of new rows, without solving anew.

        Each row gets the factors, and the bias, that its entries call for while `V` stays: one
        row step of the run's model (its ridge, weights and implicit feedback).

        Parameters
        ----------
        rows : sparse matrix, (rows, cols, vals), masked array, or array with NaN
            Entries of the new rows, shape (q, n), in the forms that the solver takes.
        shape : (int, int), optional
            Required for triples.
        return_bias : bool, default False
            Whether to return the new rows' biases, too.

        Returns
        -------
        array, shape (q, k)
            Rows of `U`: the estimates are ``fold_in(rows) * s @ V.T``, with mean and biases.
            Rows without entries are 0.
        array, shape (q,)
            Biases, only with `return_bias`.

        Raises
        ------
        TypeError, ValueError
            If the entries are not as the solver takes them, or not n to a row.
        """
        check_flag(return_bias, "return_bias")
        io = self._arrays()
        entered = read_entries(rows, shape, None, io.dtype, name="rows", empty=True)
        n = self.V.shape[0]
        if entered.shape[1] != n:
            raise ValueError(f"`rows` came with shape {entered.shape}; expected {n} columns")
        if entered.io.kind != io.kind:
            raise TypeError(
                f"`rows` came as a {entered.io.kind} array; expected the result's kind, {io.kind}"
            )
        with io.device, np.errstate(all="ignore"):
            U, bias = fold_in(entered, io, self._model, self._balance(io), self.mu)
            return (io.out(U), io.out(bias)) if return_bias else io.out(U)

    def top_n(self, rows, n, exclude=None):
        """Return the columns with the largest estimates in some rows.

        Parameters
        ----------
        rows : array of int, shape (q,), or int
            The rows.
        n : int
            How many columns of each.
        exclude : sparse matrix, shape of the matrix, optional
            Its stored entries are left out, such as what a user has seen.

        Returns
        -------
        cols : array of int, shape (q, n), or (n,)
            The best columns of each row, the best first; of equal estimates the smaller column.
            -1 where a row has fewer.
        scores : array, shape (q, n), or (n,)
            Their estimates; ``-inf`` where a row has fewer.

        Raises
        ------
        TypeError, ValueError
            If a row lies outside the matrix, or `exclude` is no sparse matrix of its shape.
        """
        io = self._arrays(rows=rows)
        n = check_count(n, "n", minimum=1)
        shape = self.U.shape[0], self.V.shape[0]
        if exclude is not None:
            exclude = _seen(io.be, exclude, shape)
        with io.device:
            chosen = check_indices(io, "rows", shape[0])
            single, chosen = chosen.ndim == 0, chosen.reshape(-1)
            cols = io.xp.empty((chosen.size, n), np.int64)
            scores = io.xp.empty((chosen.size, n), io.dtype)
            step = max(_SCORES // shape[1], 1)
            for first in range(0, chosen.size, step):
                part = slice(first, first + step)
                self._best(io, chosen[part], exclude, cols[part], scores[part])
            if single:
                cols, scores = cols[0], scores[0]
            return io.out(cols), io.out(scores)

    def _best(self, io, rows, exclude, cols, scores):
        """Fill in the best columns of some rows, and their estimates."""
        X = (io["U"][rows] * io["s"]) @ io["V"].T
        X += io["col_bias"]
        X += (self.mu + io["row_bias"][rows])[:, None]
        if exclude is not None:
            seen = exclude[rows].tocoo()
            X[seen.row, seen.col] = -np.inf
        io.be.kernels("solvers.completion", "predict").best(X, cols, scores)

    def _balance(self, io):
        """Return T such that ``V T`` are the column factors that the ridge is for."""
        if self._gauge is not None:
            return Ingest(V=self.V, T=self._gauge)["T"]
        # Without a ridge any will do, and orthonormal columns have the best condition.
        s = io["s"]
        return io.xp.diag(io.xp.sqrt(s) if self._model["lam"] else io.xp.ones_like(s))

    def _arrays(self, **more):
        """Return the fields, and arguments of a method, on the back end."""
        names = ("U", "s", "V", "row_bias", "col_bias")
        return Ingest(**{name: self[name] for name in names}, **more)


def _broadcast(*shapes):
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        found = " and ".join(map(str, shapes))
        raise ValueError(
            f"`rows` and `cols` came with shapes {found}; expected equal ones"
        ) from None


def _seen(be, exclude, shape):
    if not is_sparse(exclude) or type(exclude).__module__.startswith("scipy") != (
        be.name == "numpy"
    ):
        raise TypeError(f"`exclude` came as {describe(exclude)}; expected a sparse matrix or None")
    if exclude.shape != shape:
        raise ValueError(f"`exclude` came with shape {exclude.shape}; expected {shape}")
    return exclude.tocsr()
