r"""The independent judge of completed matrices, wherever they come from."""

import numbers
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from .._core.arrays import Ingest
from .._core.certificate import Certificate
from .._core.validation import (
    check_array,
    check_choice,
    check_flag,
    check_nonnegative,
    check_positive,
    describe,
)
from ._certificate_case import entries, open_case
from ._certificate_fit import REDESCENDING, Fit, Model
from ._certificate_gap import bound_norm, rest_norms
from ._certificate_nonnegative import kkt_residual
from ._certificate_report import identify
from ._factors import Factors
from ._observations import check_duplicates, read_entries
from ._problem import LOSSES

GAP, GRADIENT, RESIDUAL = "relative duality gap", "relative gradient norm", "relative residual"
KKT, MEDIAN = "KKT residual", "median residual"
# Singular values, relative to the largest, that count as zero.
_VANISHED = 1e-10
# Where a ridge makes surplus ones shrink for ever, they are as good as zero from `tol` or this.
_SHRUNK = 1e-6
# The median says something if at least so many entries stand against each degree of freedom.
_OVERSAMPLED = 2.0
# An estimate so many times larger than its data is on its way to infinity, where all slopes end.
_GROWN = 100.0
# Steps in search of a direction that is missing.
_LOOKS = 6


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


def certify(
    M,
    U,
    s,
    V,
    *,
    shape=None,
    lam=0.0,
    mu=0.0,
    row_bias=None,
    col_bias=None,
    weights=None,
    weighted_lambda=False,
    lam_bias=None,
    loss="squared",
    delta=None,
    nonnegative=False,
    implicit=False,
    alpha=1.0,
    nu=0.0,
    alpha0=1.0,
    duplicates="error",
    holdout=None,
    certificate=(),
    tol=1e-8,
):
    r"""Judge a completed matrix, wherever it comes from.

    Everything is computed in float64 from the entries and from :math:`X = U \mathrm{diag}(s)
    V^\top`; no matrix of the size of `M` is formed.

    Parameters
    ----------
    M : sparse matrix, (rows, cols, vals), masked array, or array with NaN
        The observed entries, as in `alternating_minimization`.
    U, s, V : array, shapes (m, k), (k,) and (n, k)
        The answer. `U` and `V` need not be orthonormal, nor `s` sorted.
    shape : (int, int), optional
        Shape of the matrix; required for triples.
    lam : float, default 0.0
        Weight of the ridge :math:`\tfrac{\lambda}{2} (|A|_F^2 + |B|_F^2)` of factors
        :math:`A B^\top = X`, in the unit of the values.
    mu : float, default 0.0
        What was taken off the values before.
    row_bias, col_bias : array, shapes (m,) and (n,), optional
        Biases; with one of them the other is taken for zeros if it is left out.
    weights : array, optional
        Weights of the entries: of shape (N,), in their order, or of the shape of a dense `M`.
    weighted_lambda : bool, default False
        Multiply the ridge of each row and column by its number of entries.
    lam_bias : float, optional
        Weight of the biases' ridge. Default: `lam`.
    loss : {"squared", "huber", "l1", "welsch", "tukey"}
        What was minimised.
    delta : float, optional
        Scale of a robust loss, in the unit of the values. Default: what the median error
        suggests, with 95 % efficiency for normal noise ("l1": a thousandth of it).
    nonnegative : bool, default False
        Whether `U` and `V` had to be non-negative.
    implicit : bool, default False
        Judge an answer for implicit feedback: the matrix of ones where :math:`M > 0` and of
        zeros everywhere else, with weights :math:`1 + \alpha |M|`.
    alpha : float, default 1.0
        The :math:`\alpha` of implicit feedback.
    nu, alpha0 : float, defaults 0.0 and 1.0
        Multiply the ridge of row i by :math:`(d_i + \alpha_0 n)^\nu`, where it has
        :math:`d_i` entries, and that of columns likewise.
    duplicates : {"error", "mean", "sum", "last"}
        What to do where a place occurs twice.
    holdout : array of int, optional
        Entries, by their place in the order of `M`, that are left out and scored.
    certificate : tuple of str, default ()
        ``("gap",)`` asks for the duality gap, whatever else would do.
    tol : float, default 1e-8
        Largest value that passes. Below ``tol_floor``, 8 units of rounding of `U` times
        :math:`\sqrt{k}`, that takes its place.

    Returns
    -------
    Certificate
        Its value is, whichever applies first:

        - the "relative duality gap" if `certificate` asks for it;
        - for ``nonnegative=True`` the "KKT residual": by how much a step down the gradient,
          scaled by the curvature and cut off at zero, moves the balanced factors, relative to
          them;
        - for a robust loss the "median residual", relative to the root mean square value, if it
          passes and there are more than two entries for each degree of freedom; else the
          "relative gradient norm";
        - without a ridge the "relative residual" if it passes (also for non-negative
          factors), else the "relative gradient norm": then the fit is stationary, which proves no
          recovery. Fits that run off to infinity have small gradients, too: where the estimate
          has ``growth`` times the size of its data, and that is more than 100, the gradient counts
          ``growth / 100`` times;
        - with a ridge the "relative duality gap" if it passes: then no matrix of any rank is
          better; else the "relative gradient norm": stationary for this rank.

        In `details`: ``relres`` and ``rmse`` of the observed entries; ``grad_norm``, the norm of
        the gradient along the matrices of this rank, relative to its size at zero;
        ``tol_floor``; how many rows and columns have too few entries to be determined,
        ``unidentified_rows`` and ``unidentified_cols``, and into how many ``components`` the
        entries fall. For small matrices also ``curvature``, what the worst change of the answer
        that keeps its rank does to the observed entries, relative to the average one (both
        squared): 0 if other answers fit them as well.

        Squared errors under a ridge also have ``primal`` and ``dual``, upper and lower bound of
        the smallest objective among matrices of any rank, ``duality_gap``, their difference
        relative to the upper one, and ``spectral_ratio``, an upper bound of the spectral norm of
        the weighted errors divided by `lam`: above 1, more rank would help. It is the norm itself
        if ``s1_exact`` is 1. Without a ridge there is ``growth``, with a holdout
        ``rmse_holdout``. Robust losses have ``median_residual`` and ``inliers``, the part of the
        errors within `delta`: where "welsch" and "tukey" leave fewer than there are degrees of
        freedom, nothing holds the answer in place, and it does not pass.

    Raises
    ------
    TypeError, ValueError
        If arguments are of the wrong kind, value or shape, or do not go together.

    Notes
    -----
    The dual value belongs to the observed errors, scaled until their spectral norm is at most
    `lam`. That norm is bounded as closely as the verdict needs: by block Lanczos steps from
    random columns outside of the answer's spaces, whose bound fails with probability 1e-12,
    and where that does not decide, by the eigenvalues of a Gram matrix if the smaller side of `M`
    is at most 2000.

    References
    ----------
    .. [1] T. Hastie, R. Mazumder, J. D. Lee, R. Zadeh. Matrix completion and low-rank SVD via
       fast alternating least squares. JMLR 16, 2015. arXiv:1410.2596.

    Examples
    --------
    >>> import math, solvers
    >>> M = [[1.0, 2.0], [2.0, math.nan]]
    >>> solvers.completion.certify(M, [[1.0], [2.0]], [1.0], [[1.0], [2.0]]).holds
    True
    """
    entered = read_entries(M, shape, weights)
    io, (m, n) = entered.io, entered.shape
    given = Ingest(U=U, s=s, V=V, row_bias=row_bias, col_bias=col_bias)
    if given.kind != io.kind or given.be is not io.be:
        raise TypeError(
            f"`U` came as a {given.kind} array and `M` as a {io.kind} array; expected one kind"
        )
    nonnegative = check_flag(nonnegative, "nonnegative")
    least = 0.0 if nonnegative else None
    U = check_array(given, "U", shape=(m, None), means="(m, k)", minimum=least)
    k = U.shape[1]
    s = check_array(given, "s", shape=(k,), means="(k,)", minimum=0.0)
    V = check_array(given, "V", shape=(n, k), means="(n, k)", minimum=least)
    bias = row_bias is not None or col_bias is not None
    a = check_array(given, "row_bias", shape=(m,), means="(m,)")
    b = check_array(given, "col_bias", shape=(n,), means="(n,)")
    model = {
        "lam": check_nonnegative(lam, "lam"),
        "lam_bias": check_nonnegative(lam_bias, "lam_bias", allow_none=True),
        "weighted_lambda": check_flag(weighted_lambda, "weighted_lambda"),
        "bias": bias,
        "implicit": check_flag(implicit, "implicit"),
        "alpha": check_positive(alpha, "alpha"),
        "nu": check_nonnegative(nu, "nu"),
        "alpha0": check_nonnegative(alpha0, "alpha0"),
        "nonnegative": nonnegative,
        "loss": check_choice(loss, "loss", LOSSES),
        "delta": check_positive(delta, "delta", allow_none=True),
        "duplicates": check_duplicates(duplicates),
    }
    mu = _check_finite(mu, "mu")
    without = _check_holdout(holdout, entered.vals.size)
    _check_together(model, mu, weights)
    certificate = check_certificate(certificate)
    check_dual(certificate, model)
    tol = check_positive(tol, "tol")
    with io.device, np.errstate(all="ignore"):
        a, b = (
            io.xp.zeros(size * bias, given.dtype) if x is None else x
            for x, size in ((a, m), (b, n))
        )
        answer = Factors(U, s, V, a, b)
        report = judge(
            entered, answer, **model, mu=mu, without=without, certificate=certificate, tol=tol
        )
    return report.certificate


def check_certificate(certificate):
    """Return the kinds of certificate asked for, as a tuple."""
    if isinstance(certificate, str):
        certificate = (certificate,)
    if not isinstance(certificate, tuple | list):
        raise TypeError(f"`certificate` came as {describe(certificate)}; expected ('gap',) or ()")
    return tuple(check_choice(kind, "certificate", ("gap",)) for kind in certificate)


def check_dual(certificate, model):
    """Refuse to look for a duality gap where there is none.

    Parameters
    ----------
    certificate : tuple of str
    model : dict
        Checked options of the problem, as in `judge`.
    """
    if "gap" not in certificate:
        return
    lam_bias = model["lam"] if model["lam_bias"] is None else model["lam_bias"]
    lacks = {
        f"loss={model['loss']!r}": model["loss"] != "squared",
        "nonnegative=True": model["nonnegative"],
        "lam=0": not model["lam"],
        "lam_bias=0": model["bias"] and not lam_bias,
    }
    for option, given in lacks.items():
        if given:
            raise ValueError(
                f"`certificate` came as ('gap',) with {option}; expected (): only squared errors "
                "under a ridge have a duality gap"
            )


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
    """Return the `Report` on an answer in the caller's unit; see `certify`.

    Parameters
    ----------
    entered : Entries
    answer : Factors
        Any U, s and V; biases are empty where there are none.
    lam, ..., tol : object
        Checked arguments of `certify`. `center` is there for callers that pass on all their
        options: the mean itself is `mu`.
    """
    case = open_case(
        entered,
        duplicates=duplicates,
        without=without,
        mu=mu,
        implicit=implicit,
        alpha=alpha,
    )
    floor = 8 * np.finfo(answer.U.dtype).eps * np.sqrt(answer.U.shape[1])
    U, s, V, a, b = (part.astype(np.float64) for part in answer)
    unit = case.unit
    answer = Factors(U, s / unit, V, a / unit, b / unit)
    lam_bias = (lam if lam_bias is None else lam_bias) if bias else None
    model = _model(case, lam, lam_bias, loss, delta, weighted_lambda, nu, alpha0)
    fit = Fit(case, model, answer)
    details = {"relres": fit.relres(), "rmse": fit.rmse()}
    if without is not None:
        details["rmse_holdout"] = _held_out(entered, answer, mu, without, case)
    rule = _judge_nonnegative if nonnegative else _judge_factors
    kind, value, tol, note = rule(fit, details, certificate, tol, floor)
    details["tol_floor"] = floor
    for name, factor in {
        "rmse": unit,
        "rmse_holdout": unit,
        "primal": unit**2,
        "dual": unit**2,
    }.items():
        if name in details:
            details[name] *= factor
    known = identify(fit.case, *fit.own)
    details.update(known.details())
    if not lam:
        note = " ".join(filter(None, [note, known.note()])) or None
    return Report(
        Certificate(kind, value, tol, details), note, known.rows, known.cols, known.components
    )


def _check_together(model, mu, weights):
    """Refuse options that do not go together."""
    clashes = {
        "implicit": {
            "row_bias": model["bias"],
            "mu": mu != 0.0,
            "weights": weights is not None,
            "weighted_lambda": model["weighted_lambda"],
            "loss": model["loss"] != "squared",
        },
        "nonnegative": {"row_bias": model["bias"], "loss": model["loss"] != "squared"},
        "weighted_lambda": {"nu": model["nu"] != 0.0},
    }
    for name, others in clashes.items():
        for other, given in others.items():
            if model[name] and given:
                raise ValueError(
                    f"`{other}` came with {name}=True; expected its default there: that problem "
                    "has no such part"
                )


def _check_finite(value, name):
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"`{name}` came as {describe(value)}; expected a number")
    if not np.isfinite(value):
        raise ValueError(f"`{name}` came as {value}; expected a finite number")
    return float(value)


def _check_holdout(holdout, size):
    """Return the places of entries to leave out, on the host, or None."""
    if holdout is None:
        return None
    io = Ingest(holdout=holdout)
    given = io.raw("holdout")
    if given.dtype.kind not in "iu" or given.ndim != 1:
        raise TypeError(
            f"`holdout` came as {describe(holdout)} of {given.dtype}; expected a list of whole "
            "numbers"
        )
    places = np.asarray(io.be.host(given)).reshape(-1).astype(np.int64)
    if places.size and not 0 <= places.min() <= places.max() < size:
        raise ValueError(
            f"`holdout` holds {places.min()} and {places.max()}; expected places of entries, "
            f"in [0, {size})"
        )
    return places if places.size else None


def _judge_factors(fit, details, certificate, tol, floor):
    """Return kind, value and tolerance of the certificate, and a note; add to the details."""
    model = fit.model
    tol = max(tol, floor)
    _add_gradient(fit, details, "gap" in certificate, tol, floor)
    gap, gradient = details.get("duality_gap"), details["grad_norm"]
    if not model.lam:
        details["growth"] = fit.growth()
        gradient *= max(1.0, details["growth"] / _GROWN)
    if "gap" in certificate:
        return GAP, gap, tol, None
    if model.loss != "squared":
        return _judge_robust(fit, details, gradient, tol, floor)
    if not model.lam and details["relres"] <= tol:
        return RESIDUAL, details["relres"], tol, None
    if gap is not None and gap <= tol:
        return GAP, gap, tol, None
    return GRADIENT, gradient, tol, _note(fit, details, gradient <= tol)


def _note(fit, details, stationary):
    """Return what else a gradient must be read with."""
    gap = details.get("duality_gap")
    found = (
        f"the relative residual is {details['relres']:.3g}"
        if gap is None
        else f"the relative duality gap is {gap:.3g}"
    )
    if not stationary:
        return f"{found[0].upper()}{found[1:]}."
    lack = "not shown to be global" if fit.model.lam else "which proves no recovery"
    return f"The answer is stationary for rank {fit.s.size}, {lack}: {found}."


def _judge_robust(fit, details, gradient, tol, floor):
    """As `_judge_factors`, for robust losses."""
    oversampling = fit.error.size / fit.freedom
    details["median_residual"] = median = fit.median()
    if median <= tol and oversampling > _OVERSAMPLED:
        return MEDIAN, median, tol, None
    details["inliers"] = inliers = fit.inliers()
    if fit.model.loss in REDESCENDING and inliers * oversampling < 1.0:
        # Where all errors are beyond reach nothing pulls, and any answer stands still.
        gradient = max(gradient, 1.0)
    # Residuals as large as rounding makes them have a slope of their own.
    return GRADIENT, gradient, max(tol, floor * fit.size / fit.unit), None


def _add_gradient(fit, details, asked, tol, floor):
    """Add the gradient norm and, where there is one, the duality gap to the details."""
    model, s = fit.model, np.atleast_1d(fit.case.be.host(fit.s))
    shrunk = min(tol, _SHRUNK) if model.lam else 0.0
    rank = int((s > max(_VANISHED, floor, shrunk) * s[0]).sum())
    split = fit.split(rank)
    if has_dual(model):
        duality = fit.duality()
        bounds = bound_norm(fit.slope, split, lambda *ends: duality.settled(ends, tol, asked))
        gap, primal = duality.gap(bounds.upper), duality.primal
        details["primal"], details["dual"] = primal, primal - gap
        details["duality_gap"] = gap / primal if primal else 0.0
        details["spectral_ratio"] = bounds.upper / model.lam
        details["s1_exact"] = float(bounds.exact)
    spare = 0.0
    if rank < s.size and not details.get("duality_gap", np.inf) <= tol:
        # A direction that the candidate has room for and does not take is a slope, too.
        looks = islice(rest_norms(fit.slope, split.U, split.V), _LOOKS)
        spare = max(max(lower for lower, _ in looks) - model.lam, 0.0)
    details["grad_norm"] = np.hypot(split.gradient, spare) / fit.unit


def has_dual(model):
    """Tell whether a duality gap bounds how far an answer to this model is from the best."""
    return model.loss == "squared" and model.lam > 0 and model.lam_bias != 0.0


def _judge_nonnegative(fit, details, certificate, tol, floor):
    """As `_judge_factors`, for factors that must not be negative."""
    tol = max(tol, floor)
    value = details["grad_norm"] = kkt_residual(fit)
    if not fit.model.lam and details["relres"] <= tol:
        return RESIDUAL, details["relres"], tol, None
    return KKT, value, tol, None


def _model(case, lam, lam_bias, loss, delta, weighted_lambda, nu, alpha0):
    """Return the `Model` in the unit of the case."""
    unit, (m, n) = case.unit, case.shape
    degrees = [degree.astype(np.float64) for degree in case.degrees]
    scales = None, None
    if lam and weighted_lambda:
        scales = degrees
    elif lam and nu:
        scales = [(d + alpha0 * others) ** nu for d, others in zip(degrees, (n, m), strict=True)]
    if loss == "l1":
        # It has the unit of the values, as the nuclear norm has; the others have its square.
        lam_bias = None if lam_bias is None else lam_bias * unit
    else:
        lam = lam / unit
    return Model(lam, lam_bias, *scales, loss, None if delta is None else delta / unit)


def _held_out(entered, answer, mu, without, case):
    """Return the root mean square error at the entries that were left out."""
    be, xp = entered.io.be, entered.io.xp
    without = xp.asarray(without)
    rows, cols = entered.rows[without], entered.cols[without]
    vals = entered.vals[without].astype(np.float64)
    target = (vals > 0).astype(np.float64) if case.implicit else (vals - mu) / case.unit
    error = entries(be, answer.U * answer.s, answer.V, rows, cols) - target
    if answer.row_bias.size:
        error += answer.row_bias[rows] + answer.col_bias[cols]
    return float(np.sqrt(be.host(xp.square(error).mean())))
