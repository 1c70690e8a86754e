"""scikit-learn estimators on top of the completion solvers."""

import numbers

import numpy as np
import scipy.sparse as sp
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from .._core._estimators import DTYPES
from .._core.validation import check_count, check_flag, describe
from ._altmin import alternating_minimization
from ._implicit import als_implicit


class MatrixCompletion(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    r"""Fill the gaps of a matrix by a matrix of low rank.

    A scikit-learn transformer around `alternating_minimization`: missing entries are NaN, or
    those that a sparse matrix does not store. Rows that `fit` has not seen get their factors
    from their own entries.

    Parameters
    ----------
    rank : int, default 10
        Rank of the estimate; at most the smaller side of the matrix.
    lam : float, default 0.0
        Ridge, in the unit of the data.
    lam_bias : float, optional
        Ridge of the biases. Default: `lam`.
    weighted_lambda : bool, default False
        Whether to multiply the ridge of each row and column by its number of entries.
    bias : bool, default False
        Whether rows and columns have biases.
    nonnegative : bool, default False
        Whether the factors must have no negative entries.
    loss : {"squared", "huber", "l1", "welsch", "tukey"}
        What a residual costs; all but the first hold outliers at bay.
    method : str, default "auto"
        The algorithm, see `alternating_minimization`.
    keep_observed : bool, default True
        Whether `transform` leaves known entries as they are; False returns the estimate of all.
    tol : float, default 1e-8
        Largest value of the certificate.
    max_iter : int, default 500
        Largest number of iterations.
    random_state : int, RandomState or None, optional
        Randomness of the start.
    n_jobs : int, optional
        Number of threads; -1 for Numba's setting, which is the default.

    Attributes
    ----------
    result_ : CompletionResult
        The completion with its certificate.
    n_iter_ : int
        Iterations.
    n_features_in_ : int
        Number of columns.
    feature_names_in_ : array of str
        Their names, if `fit` was given any.

    Examples
    --------
    >>> import numpy as np, solvers
    >>> M = np.outer([1.0, 2.0, 3.0, 4.0], [1.0, -1.0, 2.0])
    >>> M[0, 1] = np.nan
    >>> filled = solvers.completion.MatrixCompletion(rank=1, random_state=0).fit_transform(M)
    >>> filled[0].round(6)
    array([ 1., -1.,  2.])
    """

    def __init__(
        self,
        rank=10,
        *,
        lam=0.0,
        lam_bias=None,
        weighted_lambda=False,
        bias=False,
        nonnegative=False,
        loss="squared",
        method="auto",
        keep_observed=True,
        tol=1e-8,
        max_iter=500,
        random_state=None,
        n_jobs=None,
    ):
        self.rank = rank
        self.lam = lam
        self.lam_bias = lam_bias
        self.weighted_lambda = weighted_lambda
        self.bias = bias
        self.nonnegative = nonnegative
        self.loss = loss
        self.method = method
        self.keep_observed = keep_observed
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, X, y=None):
        """Complete a matrix.

        Parameters
        ----------
        X : array with NaN, or sparse matrix, shape (m, n)
            The matrix with its gaps.
        y : object, optional
            Ignored.

        Returns
        -------
        MatrixCompletion
            Itself.
        """
        self._solve(_triples(self._validated(X, reset=True)))
        return self

    def partial_fit(self, X, y=None, vals=None):
        """Add entries, and go on from the factors found so far.

        Parameters
        ----------
        X : array with NaN or sparse matrix, shape (m, n); or array of int
            A matrix whose entries are added; or the rows of single entries. The first call may
            bring a matrix only.
        y : array of int, optional
            The columns of single entries, by the name that scikit-learn wants.
        vals : array, optional
            Their values. Values at known places replace these.

        Returns
        -------
        MatrixCompletion
            Itself.
        """
        first = not hasattr(self, "result_")
        if vals is None:
            new = _triples(self._validated(X, reset=first))
            if not first and new[3] != self._entries[3]:
                raise ValueError(
                    f"`X` came with shape {new[3]}; expected {self._entries[3]}, as in `fit`"
                )
        else:
            check_is_fitted(self)
            new = *map(np.asarray, (X, y, vals)), self._entries[3]
        if first:
            self._solve(new)
        else:
            joined = [
                np.concatenate(pair) for pair in zip(self._entries[:3], new[:3], strict=True)
            ]
            self._solve((*joined, new[3]), x0=self.result_)
        return self

    def transform(self, X):
        """Fill the gaps of a matrix, row by row.

        Parameters
        ----------
        X : array with NaN, shape (q, n)
            Rows with gaps, whether `fit` has seen them or not.

        Returns
        -------
        ndarray, shape (q, n)
            The rows, with estimates where they had NaN (everywhere, unless `keep_observed`).
        """
        X = self._rows_of(X)
        estimate = self._estimate(X)
        return np.where(np.isnan(X), estimate, X) if self.keep_observed else estimate

    def fit_transform(self, X, y=None):
        """Complete a matrix and return it.

        Parameters
        ----------
        X : array with NaN, shape (m, n)
            The matrix with its gaps.
        y : object, optional
            Ignored.

        Returns
        -------
        ndarray, shape (m, n)
            The matrix without gaps.
        """
        return self.fit(X).transform(X)

    def predict(self, X, cols=None):
        """Return estimates of single entries, or of all entries of some rows.

        Parameters
        ----------
        X : array of int, or array with NaN, shape (q, n)
            Rows of the entries; or, without `cols`, rows with gaps as in `transform`.
        cols : array of int, optional
            Columns of the entries.

        Returns
        -------
        ndarray
            The estimates.
        """
        check_is_fitted(self)
        return self._estimate(self._rows_of(X)) if cols is None else self.result_.predict(X, cols)

    def score(self, X, y=None):
        """Return the coefficient of determination of the estimates of some entries.

        Parameters
        ----------
        X : array with NaN, or sparse matrix, shape (m, n)
            Entries to predict, of the matrix that was completed: those that were held out.
        y : object, optional
            Ignored.

        Returns
        -------
        float
            1 for perfect estimates, 0 for ones no better than the mean of these entries.
        """
        check_is_fitted(self)
        rows, cols, vals, shape = _triples(self._validated(X, reset=False))
        if shape != self._entries[3]:
            raise ValueError(f"`X` came with shape {shape}; expected {self._entries[3]}")
        error = self.result_.predict(rows, cols) - vals
        spread = np.square(vals - vals.mean()).sum()
        return float(1.0 - np.square(error).sum() / spread) if spread else 0.0

    def _validated(self, X, *, reset):
        return validate_data(
            self,
            X,
            reset=reset,
            dtype=DTYPES,
            accept_sparse=["coo", "csr", "csc"],
            ensure_all_finite="allow-nan",
        )

    def _rows_of(self, X):
        check_is_fitted(self)
        if sp.issparse(X):
            raise TypeError(
                f"`X` came as {describe(X)}; expected a dense array, as sparse rows without gaps "
                "are dense: use `predict(rows, cols)` or `result_.block`"
            )
        return self._validated(X, reset=False)

    def _solve(self, entries, x0=None):
        rows, cols, vals, shape = entries
        rank = self.rank
        if isinstance(rank, numbers.Integral):
            rank = min(rank, *shape)
        self.result_ = alternating_minimization(
            (rows, cols, vals),
            rank,
            shape=shape,
            method=self.method,
            loss=self.loss,
            lam=self.lam,
            lam_bias=self.lam_bias,
            weighted_lambda=self.weighted_lambda,
            bias=self.bias,
            nonnegative=self.nonnegative,
            x0=x0,
            tol=self.tol,
            maxiter=self.max_iter,
            duplicates="last",
            rng=_rng(self.random_state),
            n_threads=_threads(self.n_jobs),
        )
        # A start that is good enough counts as an iteration, as scikit-learn wants it.
        self._entries, self.n_iter_ = entries, max(self.result_.nit, 1)

    def _estimate(self, X):
        """Return the estimates of all entries of some rows."""
        res = self.result_
        U, bias = res.fold_in(X, return_bias=True)
        estimate = (U * res.s) @ res.V.T + bias[:, None] + (res.mu + res.col_bias)
        return estimate.astype(X.dtype, copy=False)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


class ImplicitALS(BaseEstimator):
    r"""Recommend items to users from counts of what they did.

    A scikit-learn estimator around `als_implicit`: every entry of the matrix is fitted, to 1
    where there were events and to 0 elsewhere, with a weight that grows with their number.

    Parameters
    ----------
    rank : int, default 10
        Number of factors; at most the smaller side of the matrix.
    alpha : float, default 1.0
        Weight of an event: entries have weight ``1 + alpha * r``.
    lam : float, default 1.0
        Ridge.
    nu : float, default 0.0
        Exponent by which the ridge grows with the number of entries: it is multiplied by
        ``(d + alpha0 * n)**nu`` for a user with d of n items, and likewise for an item.
    alpha0 : float, default 1.0
        See `nu`.
    tol : float, default 1e-4
        Largest value of the certificate.
    max_iter : int, default 500
        Largest number of iterations.
    random_state : int, RandomState or None, optional
        Randomness of the start.
    n_jobs : int, optional
        Number of threads; -1 for Numba's setting, which is the default.

    Attributes
    ----------
    result_ : CompletionResult
        The factors with their certificate.
    n_iter_ : int
        Iterations.
    n_features_in_ : int
        Number of items.

    Examples
    --------
    >>> import numpy as np, scipy.sparse as sp, solvers
    >>> R = sp.csr_matrix([[3, 1, 0, 0], [1, 0, 0, 0], [0, 0, 2, 2], [0, 0, 0, 4]])
    >>> model = solvers.completion.ImplicitALS(rank=2, lam=0.1, random_state=0).fit(R)
    >>> items, scores = model.recommend(1, 1)
    >>> items
    array([1])
    """

    def __init__(
        self,
        rank=10,
        *,
        alpha=1.0,
        lam=1.0,
        nu=0.0,
        alpha0=1.0,
        tol=1e-4,
        max_iter=500,
        random_state=None,
        n_jobs=None,
    ):
        self.rank = rank
        self.alpha = alpha
        self.lam = lam
        self.nu = nu
        self.alpha0 = alpha0
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.n_jobs = n_jobs

    def fit(self, R, y=None):
        """Learn from counts.

        Parameters
        ----------
        R : sparse matrix, shape (m, n)
            How often each user (row) turned to each item (column); dense arrays work too.
        y : object, optional
            Ignored.

        Returns
        -------
        ImplicitALS
            Itself.
        """
        R = validate_data(self, R, dtype=DTYPES, accept_sparse=["csr"])
        self._seen = sp.csr_matrix(R)
        self._seen.eliminate_zeros()
        rank = self.rank
        if isinstance(rank, numbers.Integral):
            rank = min(rank, *R.shape)
        self.result_ = als_implicit(
            self._seen,
            rank,
            alpha=self.alpha,
            lam=self.lam,
            nu=self.nu,
            alpha0=self.alpha0,
            tol=self.tol,
            maxiter=self.max_iter,
            rng=_rng(self.random_state),
            n_threads=_threads(self.n_jobs),
        )
        self.n_iter_ = max(self.result_.nit, 1)
        return self

    def recommend(self, user, N=10, exclude_seen=True):
        """Return the best items for a user.

        Parameters
        ----------
        user : int, or array of int
            The user, or several.
        N : int, default 10
            How many items.
        exclude_seen : bool, default True
            Whether to leave out what `fit` saw the user turn to.

        Returns
        -------
        items : ndarray of int, shape (N,) or (q, N)
            The items, the best first; -1 where there are no more.
        scores : ndarray, of the same shape
            Their scores, near 1 for what a user would turn to.
        """
        check_is_fitted(self)
        seen = self._seen if check_flag(exclude_seen, "exclude_seen") else None
        N, fitted = check_count(N, "N", minimum=1), self.result_.U.shape[0]
        users = np.asarray(user)
        if users.dtype.kind not in "iu":
            raise TypeError(f"`user` came with dtype {users.dtype}; expected whole numbers")
        if users.size and not 0 <= users.min() <= users.max() < fitted:
            raise ValueError(f"`user` came as {user}; expected numbers in [0, {fitted})")
        return self.result_.top_n(user, N, exclude=seen)

    def similar_items(self, i, N=10):
        """Return the items whose factors point in the direction of an item's.

        Parameters
        ----------
        i : int
            The item.
        N : int, default 10
            How many items; `i` itself comes first.

        Returns
        -------
        items : ndarray of int, shape (N,)
            The items, the most similar first.
        scores : ndarray, shape (N,)
            Cosines of the angles between the factors.
        """
        check_is_fitted(self)
        N = min(check_count(N, "N", minimum=1), self.n_features_in_)
        if not 0 <= check_count(i, "i") < self.n_features_in_:
            raise ValueError(f"`i` came as {i}; expected an item in [0, {self.n_features_in_})")
        factors = self.result_.factors()[1]
        norms = np.linalg.norm(factors, axis=1)
        cosines = factors @ factors[i] / np.where(norms > 0, norms * (norms[i] or 1.0), 1.0)
        best = np.argsort(-cosines, kind="stable")[:N]
        return best, cosines[best]

    def recalculate_user(self, r):
        """Return the factors of users from what they did since, or of new users.

        Parameters
        ----------
        r : sparse matrix, shape (q, n), or array, shape (n,) or (q, n)
            Their counts.

        Returns
        -------
        ndarray, shape (k,) or (q, k)
            Rows of ``result_.U``: scores are ``recalculate_user(r) * result_.s @ result_.V.T``.
        """
        check_is_fitted(self)
        single = not sp.issparse(r) and np.ndim(r) == 1
        r = np.atleast_2d(r) if single else r
        r = sp.csr_matrix(validate_data(self, r, reset=False, dtype=DTYPES, accept_sparse=["csr"]))
        U = self.result_.fold_in(r)
        return U[0] if single else U

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags


def _triples(X):
    """Return rows, columns and values of the observed entries, and the shape."""
    if sp.issparse(X):
        X = X.tocoo()
        known = ~np.isnan(X.data)
        return X.row[known], X.col[known], X.data[known], X.shape
    rows, cols = np.nonzero(~np.isnan(X))
    return rows, cols, X[rows, cols], X.shape


def _rng(random_state):
    """Return a generator from what scikit-learn takes for one."""
    if random_state is None or isinstance(random_state, numbers.Integral):
        return random_state
    return int(check_random_state(random_state).randint(2**31))


def _threads(n_jobs):
    return None if n_jobs == -1 else n_jobs
