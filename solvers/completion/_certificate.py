"""The independent check of a completed matrix: from its factors and the caller's entries alone."""

from typing import Any, NamedTuple

import numpy as np

from .._core.certificate import Certificate
from .._core.validation import check_choice, describe


class Report(NamedTuple):
    """A certificate, and what it found that is no number.

    Attributes
    ----------
    certificate : Certificate
    note : str or None
        A sentence for the message.
    unidentified_rows, unidentified_cols : numpy.ndarray of int
        Rows and columns that the entries do not determine.
    components : numpy.ndarray of int, shape (m + n,)
        Connected component of each row, then of each column; -1 where nothing is observed.
    """

    certificate: Certificate
    note: str | None
    unidentified_rows: Any
    unidentified_cols: Any
    components: Any


def check_certificate(certificate):
    """Return the kinds of certificate asked for, as a tuple."""
    if isinstance(certificate, str):
        certificate = (certificate,)
    if not isinstance(certificate, tuple | list):
        raise TypeError(f"`certificate` came as {describe(certificate)}; expected ('gap',) or ()")
    return tuple(check_choice(kind, "certificate", ("gap",)) for kind in certificate)


def judge(
    entered,
    answer,
    *,
    lam=0.0,
    lam_bias=None,
    weighted_lambda=False,
    bias=False,
    center=False,
    implicit=False,
    alpha=1.0,
    nu=0.0,
    alpha0=1.0,
    nonnegative=False,
    loss="squared",
    delta=None,
    duplicates="error",
    mu=0.0,
    without=None,
    certificate=(),
    tol=1e-8,
):
    """Return the `Report` on an answer in the caller's unit; see `certify`."""
    be, xp = entered.io.be, entered.io.xp
    U, s, V = (x.astype(np.float64) for x in (answer.U, answer.s, answer.V))
    M = be.sparse.coo_matrix(
        (entered.vals.astype(np.float64), (entered.rows, entered.cols)), shape=entered.shape
    ).tocsr()
    rows, cols = M.nonzero()
    r = ((U * s)[rows] * V[cols]).sum(axis=1) - M.data
    norm = be.host(xp.linalg.norm(M.data)) or 1.0
    R = M.copy()
    R.data = r
    left, right = R @ V + lam * U, R.T @ U + lam * V
    core = U.T @ (R @ V) + lam * xp.eye(s.size)
    square = be.host((left**2).sum() + (right**2).sum() - (core**2).sum())
    grad = np.sqrt(max(square, 0.0)) / norm
    relres = be.host(xp.linalg.norm(r)) / norm
    kind, value = "relative residual", relres
    if lam or relres > tol:
        kind, value = "relative gradient norm", grad
    details = {"relres": relres, "grad_norm": grad, "rmse": relres * norm / np.sqrt(r.size)}
    nobody = np.empty(0, np.int64)
    components = np.zeros(sum(entered.shape), np.int64)
    return Report(Certificate(kind, value, tol, details), None, nobody, nobody, components)
