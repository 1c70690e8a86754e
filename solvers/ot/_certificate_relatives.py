"""The judges of unbalanced plans and of barycentres.

Plain array code on the caller's data, shared with no solver.
"""

from dataclasses import replace

import numpy as np

from .._core.certificate import Certificate
from ._certificate_entropic import bounded
from ._problem import DUST, gibbs_block, over_strips, row_blocks

KIND_UNBALANCED = "unbalanced optimality (L1)"
KIND_BARYCENTER = "barycentre optimality (L1)"


def judge_unbalanced(problem, f, g, reg, reg_m, tol):
    """As `certify` with `reg_m`, for a checked problem and potentials in its orientation."""
    if reg_m[1] == np.inf:
        # A marginal that is kept is made feasible by scaling rows, so it has to be theirs.
        turned = replace(problem, a=problem.b, b=problem.a, C=problem.C.T)
        turned = replace(turned, flipped=not problem.flipped)
        return judge_unbalanced(turned, g, f, reg, reg_m[::-1], tol)
    be, a, b, C = problem.be, problem.a, problem.b, problem.C
    xp = be.xp
    known = be.host(xp.isfinite(f[a > 0]).all() & xp.isfinite(g[b > 0]).all())
    f = xp.where(a > DUST, f.astype(np.float64), -np.inf)
    g = xp.where(b > DUST, g.astype(np.float64), -np.inf)
    row_sums, kept = xp.empty_like(a), reg_m[0] == np.inf

    def column_sums(first, last):
        """Set the row sums of a strip; return its column sums, and those of a feasible plan."""
        sums = xp.zeros((2, b.size))
        for rows in row_blocks(be, C, first, last):
            E = gibbs_block(be, C, f, g, reg, rows)
            row_sums[rows] = a[rows] * (E @ b)
            feasible = xp.where(a[rows] > 0, a[rows] / row_sums[rows], 0.0) if kept else 1.0
            sums += xp.stack([a[rows], a[rows] * feasible]) @ E
        return sums

    with np.errstate(all="ignore"):
        col_sums, feasible_cols = b * over_strips(be, C, column_sums)
        wanted_rows, wanted_cols = (
            xp.where(w > DUST, w * xp.exp(-v / tau), 0.0)
            for w, v, tau in ((a, f, reg_m[0]), (b, g, reg_m[1]))
        )
        row_error, col_error, mass = be.host(
            xp.abs(row_sums - wanted_rows).sum(),
            xp.abs(col_sums - wanted_cols).sum(),
            row_sums.sum(),
        )
        free = reg * (be.host(a.sum() * b.sum()) - mass)
        dual = be.host(_conjugate(xp, a, f, reg_m[0]) + _conjugate(xp, b, g, reg_m[1])) + free
        rows = a if kept else row_sums
        log_scale = xp.log(rows / row_sums)
        primal = be.host(
            (rows * (f + reg * log_scale))[rows > 0].sum()
            + (feasible_cols * g)[feasible_cols > 0].sum()
            + (0.0 if kept else reg_m[0] * _divergence(xp, rows, a))
            + reg_m[1] * _divergence(xp, feasible_cols, b)
            + reg * (a.sum() * b.sum() - rows.sum())
        )
        error = (row_error + col_error) / mass if known and mass > 0.0 else np.inf
    details = {
        "row_error": col_error if problem.flipped else row_error,
        "col_error": row_error if problem.flipped else col_error,
        "mass": mass,
        "dual": bounded(dual, -np.inf),
        "primal": bounded(primal, np.inf),
        "entropic_gap": bounded(primal - dual, np.inf),
    }
    return Certificate(KIND_UNBALANCED, bounded(error, np.inf), tol, details)


def _conjugate(xp, weights, potential, tau):
    """Return one marginal's part of the dual value."""
    heavy = weights > DUST
    v = potential[heavy]
    return weights[heavy] @ (v if tau == np.inf else -tau * xp.expm1(-v / tau))


def _divergence(xp, sums, weights):
    """Return ``KL(sums | weights)`` of two non-negative vectors."""
    used = sums > 0
    return (sums[used] * xp.log(sums[used] / weights[used])).sum() - sums.sum() + weights.sum()


def judge_barycenter(be, B, costs, weights, x, f, g, reg, tol):
    """Judge a barycentre `x` of the measures in B by the potentials of their plans.

    Rebuilds the plans ``exp((f_ki + g_kj - C_ij) / reg)``. They prove optimality when their
    marginals are `x` and the measures, and the weighted sum of row potentials vanishes.
    """
    xp, host = be.xp, be.host
    x, f, g = (v.astype(np.float64) for v in (x, f, g))
    row_error = col_error = dual = 0.0
    mean_f = sum(t * v for t, v in zip(weights, f, strict=True))
    known = host(xp.isfinite(f).all() & xp.isfinite(g[B > 0]).all() & xp.isfinite(x).all())
    with np.errstate(all="ignore"):
        for t, b, C, f_k, g_k in zip(weights, B, costs, f, g, strict=True):
            row_sums, col_sums = _gibbs_sums(be, C, f_k, xp.where(b > 0, g_k, -np.inf), reg)
            linear = b[b > 0] @ g_k[b > 0]
            parts = host(
                xp.abs(row_sums - x).sum(),
                xp.abs(col_sums - b).sum(),
                # Row potentials that add up to zero make this a lower bound.
                linear - reg * (row_sums * xp.exp(-mean_f / reg)).sum(),
            )
            row_error, col_error, dual = (
                old + t * new for old, new in zip((row_error, col_error, dual), parts, strict=True)
            )
        mass, potentials = host(B[0].sum(), (x * xp.abs(mean_f)).sum() / reg)
    error = (row_error + col_error + potentials) / mass if known else np.inf
    details = {
        "row_error": row_error,
        "col_error": col_error,
        "potential_error": potentials,
        "mass": mass,
        "dual": bounded(dual, -np.inf),
    }
    return Certificate(KIND_BARYCENTER, bounded(error, np.inf), tol, details)


def _gibbs_sums(be, C, f, g, reg):
    """Return row and column sums of ``exp((f_i + g_j - C_ij) / reg)``."""
    xp = be.xp
    row_sums = xp.empty_like(f)

    def column_sums(first, last):
        sums = xp.zeros_like(g)
        for rows in row_blocks(be, C, first, last):
            E = gibbs_block(be, C, f, g, reg, rows)
            row_sums[rows] = E.sum(axis=1)
            sums += E.sum(axis=0)
        return sums

    col_sums = over_strips(be, C, column_sums)
    return row_sums, col_sums
