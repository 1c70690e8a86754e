"""The judge of entropic potentials, with or without conditions on their plan.

Plain array code on the caller's data, shared with no solver.
"""

from dataclasses import replace

import numpy as np

from .._core.arrays import Ingest
from .._core.certificate import Certificate
from .._core.validation import check_array
from ._cloud import arrays_of
from ._problem import DUST, gibbs_block, over_strips, row_blocks

KIND = "marginal error (L1)"
KIND_CONSTRAINED = "marginal error (L1) plus constraint residuals"
# Missing mass below this is what rounding leaves of nothing.
ROUNDING = 1e-14


def check_multipliers(constraints, C, w):
    """Return multipliers as an array of the host, zeros for None."""
    count = 0 if constraints is None else len(constraints)
    if w is None:
        return np.zeros(count)
    io = Ingest(w=w, **arrays_of(C))
    means = "(len(constraints),)"
    w = check_array(io, "w", shape=(count,), means=means, finite=False, nonempty=False)
    return np.reshape(io.be.host(w.astype(np.float64)), count)


def judge(problem, f, g, reg, tol):
    """As `certify`, for a checked problem and potentials in its orientation."""
    be, a, b, C = problem.be, problem.a, problem.b, problem.C
    xp = be.xp
    known = be.host(xp.isfinite(f[a > 0]).all() & xp.isfinite(g[b > 0]).all())
    # Where there is no mass a potential is free, and must not overflow.
    f = xp.where(a > DUST, f.astype(np.float64), -np.inf)
    g = xp.where(b > DUST, g.astype(np.float64), -np.inf)
    row_sums = xp.empty_like(a)

    def column_sums(first, last):
        """Set the row sums of a strip; return its column sums, and those with rows shrunk."""
        sums = xp.zeros((2, b.size))
        for rows in row_blocks(be, C, first, last):
            E = gibbs_block(be, C, f, g, reg, rows)
            row_sums[rows] = a[rows] * (E @ b)
            shrink = xp.where(row_sums[rows] > a[rows], a[rows] / row_sums[rows], 1.0)
            sums += xp.stack([a[rows], a[rows] * shrink]) @ E
        return sums

    with np.errstate(all="ignore"):
        col_sums, rounded_cols = b * over_strips(be, C, column_sums)
        row_error, col_error = be.host(xp.abs(row_sums - a).sum(), xp.abs(col_sums - b).sum())
        heavy_a, heavy_b = a > DUST, b > DUST
        linear = a[heavy_a] @ f[heavy_a] + b[heavy_b] @ g[heavy_b]
        dual = bounded(be.host(linear + reg * (1.0 - row_sums.sum())), -np.inf)
        primal = bounded(_rounded_value(problem, f, g, reg, row_sums, rounded_cols), np.inf)
    error = row_error + col_error if known else np.inf
    mass = problem.mass
    details = {
        "row_error": col_error if problem.flipped else row_error,
        "col_error": row_error if problem.flipped else col_error,
        "mass": mass,
        "dual": mass * dual,
        "primal": mass * primal,
        "entropic_gap": mass * (primal - dual),
    }
    return Certificate(KIND, bounded(error, np.inf), tol, details)


def judge_constrained(problem, f, g, reg, tol, constraints, w):
    """As `judge`, for the plan with multipliers `w` of constraints."""
    known = bool(np.isfinite(w).all())
    w = np.where(np.isfinite(w), w, 0.0)
    tilted = replace(problem, C=constraints.tilt(problem.C, w))
    free = judge(tilted, f, g, reg, tol)
    with np.errstate(all="ignore"):
        values = _constraint_values(tilted, f, g, reg, constraints)
        scales = constraints.scales(problem)
        slack = values / scales
        held = np.minimum(slack, w * scales / reg)
        residuals = np.abs(np.where(constraints.equal, slack, held))
        residuals = np.where(np.isfinite(residuals), residuals, np.inf)
        # What the tilt adds to the cost of the rounded plan: rounding moves a mass of at most
        # twice the marginal error.
        extra = w @ values + w @ constraints.beta + 2.0 * free.value * (np.abs(w) @ scales)
    mass, details = problem.mass, dict(free.details)
    details["dual"] = bounded(details["dual"] + mass * (w @ constraints.beta), -np.inf)
    details["primal"] = bounded(details["primal"] + mass * extra, np.inf)
    details["entropic_gap"] = details["primal"] - details["dual"]
    details["largest_value"] = mass * largest_value(problem, reg)
    details.update((f"constraint_{k}", residual) for k, residual in enumerate(residuals))
    error = free.value + residuals.sum() if known else np.inf
    return Certificate(KIND_CONSTRAINED, error, tol, details)


def largest_value(problem, reg):
    """Return a bound of what any plan costs, for mass one: its entropy relative to the product.

    That is the mutual information of its ends, so it exceeds the entropy of neither.
    """
    xp = problem.be.xp
    entropies = [-(v[v > 0] * xp.log(v[v > 0])).sum() for v in (problem.a, problem.b)]
    return problem.extent.high + reg * min(problem.be.host(*entropies))


def _constraint_values(problem, f, g, reg, constraints):
    """Return ``<D_k - beta_k, P>`` of the plan with these potentials."""
    be, a, b, C = problem.be, problem.a, problem.b, problem.C
    xp = be.xp
    f = xp.where(a > DUST, f.astype(np.float64), -np.inf)
    g = xp.where(b > DUST, g.astype(np.float64), -np.inf)

    def values(first, last):
        sums = xp.zeros(len(constraints))
        for rows in row_blocks(be, C, first, last):
            P = a[rows, None] * gibbs_block(be, C, f, g, reg, rows) * b
            parts = zip(constraints.matrices, constraints.beta, strict=True)
            sums += xp.stack([((D[rows] - beta) * P).sum() for D, beta in parts])
        return sums

    return np.reshape(be.host(over_strips(be, C, values)), len(constraints))


def bounded(value, otherwise):
    """Return a value that is a number, or what bounds it all the same."""
    return otherwise if np.isnan(value) else value


def _rounded_value(problem, f, g, reg, row_sums, rounded_cols):
    """Bound the entropic cost of the rounded plan from above, without a second pass.

    Rounding scales rows by x and columns by y, both at most 1, and adds a rank-one plan of mass
    ``missing``. What depends on where exactly that mass sits is replaced by its worst case.
    """
    be, a, b = problem.be, problem.a, problem.b
    xp = be.xp
    heavy_a, heavy_b = a > DUST, b > DUST
    log_x = xp.where(row_sums > a, xp.log(a / row_sums), 0.0)
    log_y = xp.where(rounded_cols > b, xp.log(b / rounded_cols), 0.0)
    row_part, col_part = (f + reg * log_x)[heavy_a], (g + reg * log_y)[heavy_b]
    left = (b - xp.minimum(rounded_cols, b))[heavy_b]
    missing, lowest, total, col_value, spread = be.host(
        left.sum(),
        row_part.min(),
        a[heavy_a] @ row_part,
        (b[heavy_b] - left) @ col_part,
        (left * xp.log(xp.where(left > 0, left / b[heavy_b], 1.0))).sum(),
    )
    if missing < ROUNDING:
        return total + col_value
    dearest = problem.extent.high
    if problem.extent.forbidden:
        dearest = _dearest(problem, heavy_a, heavy_b)
    # A row of weight w that lacks a share s gains at most w times the entropy of (s, 1 - s) by
    # mixing both parts, and of the added part's own w s log(s) that leaves -w (1 - s) log(1 - s);
    # this is concave in s, so the mean share bounds the sum.
    kept = max(1.0 - missing, 0.0)
    mixing = -missing * np.log(missing) - (kept * np.log(kept) if kept else 0.0)
    return total - missing * lowest + col_value + missing * dearest + reg * (spread + mixing)


def _dearest(problem, heavy_a, heavy_b):
    """Return the largest cost between points with mass; infinite if an edge is forbidden."""
    be, C = problem.be, problem.C
    tops = [
        be.xp.where(heavy_a[rows, None] & heavy_b, C[rows], -np.inf).max()
        for rows in row_blocks(be, C)
    ]
    return be.host(be.xp.stack(tops).max())
