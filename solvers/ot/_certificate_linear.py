"""The judge of plans and potentials without entropy: plain array code, shared with no solver."""

import math

import numpy as np

from .._core.arrays import Ingest, is_sparse
from .._core.certificate import Certificate
from .._core.validation import check_array
from ._certificate_entropic import ROUNDING
from ._cloud import arrays_of
from ._problem import row_blocks

KIND = "relative LP gap"
# Smallest value, relative to the range of the cost, that a gap is divided by.
_FLOOR = 1e-8


def checked_plan(problem, C, P):
    """Return a caller's plan, dense or sparse, in the orientation of the problem."""
    shape = problem.C.shape[:: -1 if problem.flipped else 1]
    if is_sparse(P):
        data = P.tocoo().data
        if data.dtype.kind not in "fiub":
            raise TypeError(f"`P` came with dtype {data.dtype}; expected real numbers")
        io = Ingest(**arrays_of(C), P=data)
        check_array(io, "P", minimum=0.0)
        if P.shape != shape:
            raise ValueError(f"`P` came with shape {P.shape}; expected {shape}, as `C`")
        P = io.be.sparse.csr_matrix(P).astype(np.float64)
    else:
        io = Ingest(**arrays_of(C), P=P)
        P = check_array(io, "P", shape=shape, means="C.shape", minimum=0.0)
    return P.T.tocsr() if is_sparse(P) and problem.flipped else P.T if problem.flipped else P


def judge_linear(problem, g, P, tol):
    """As `certify` for ``reg=0``, for a checked problem and a plan in its orientation."""
    be, a, b, C = problem.be, problem.a, problem.b, problem.C
    xp, host = be.xp, be.host
    heavy_a, heavy_b = a > 0, b > 0
    g = xp.where(heavy_b, g.astype(np.float64), -np.inf)
    row_sums, col_sums, rounded_cols = xp.zeros_like(a), xp.zeros_like(b), xp.zeros_like(b)
    longest = 0
    for rows in row_blocks(be, C):
        i, j, mass = _entries(be, P, rows, problem.mass)
        sums = xp.bincount(i, mass, rows.stop - rows.start)
        row_sums[rows] = sums
        shrink = xp.where(sums > a[rows], a[rows] / xp.where(sums > 0, sums, 1.0), 1.0)
        col_sums += xp.bincount(j, mass, b.size)
        rounded_cols += xp.bincount(j, mass * shrink[i], b.size)
        longest = max(longest, mass.size and host(xp.bincount(i).max()))
    x = xp.where(row_sums > a, a / xp.where(row_sums > 0, row_sums, 1.0), 1.0)
    y = xp.where(rounded_cols > b, b / xp.where(rounded_cols > 0, rounded_cols, 1.0), 1.0)
    right = xp.maximum(b - rounded_cols * y, 0.0)
    lacks = host(right.sum()) > ROUNDING
    f, cost, size, left, bare = (xp.zeros_like(a) for _ in range(5))
    for rows in row_blocks(be, C):
        block = C[rows]
        count = rows.stop - rows.start
        f[rows] = xp.subtract(block, g, dtype=np.float64).min(axis=1)
        i, j, mass = _entries(be, P, rows, problem.mass)
        mass = mass * x[rows][i] * y[j]
        used = xp.where(mass > 0, block[i, j].astype(np.float64), 0.0) * mass
        cost[rows], size[rows] = xp.bincount(i, used, count), xp.bincount(i, abs(used), count)
        left[rows] = xp.maximum(a[rows] - xp.bincount(i, mass, count), 0.0)
        if lacks:
            bare[rows] = xp.where(right > 0, block, 0.0) @ right
    # What is missing is spread as a rank-one plan; dust of rounding goes anywhere.
    missing = host(left.sum())
    if missing > ROUNDING:
        cost += xp.where(left > 0, bare, 0.0) * (left / missing)
        size += abs(xp.where(left > 0, bare, 0.0)) * (left / missing)
        dust = 0.0
    else:
        dust = missing * max(abs(problem.extent.high), abs(problem.extent.low))
    upper, magnitude = (_exact_sum(be, terms, np.inf) for terms in (cost, size))
    # A term rounds a few times, and a row's terms once more each.
    unit = np.finfo(np.float64).eps
    upper += (4.0 + longest) * unit * magnitude + dust
    terms = xp.concatenate([a[heavy_a] * f[heavy_a], b[heavy_b] * g[heavy_b]])
    lower = _exact_sum(be, terms, -np.inf) - 4.0 * unit * _exact_sum(be, abs(terms), np.inf)
    scale = max(abs(upper), _FLOOR * problem.range)
    value = np.inf
    if np.isfinite(upper) and np.isfinite(lower):
        value = (upper - lower) / scale if scale else 0.0
    row_error, col_error = host(abs(row_sums - a).sum(), abs(col_sums - b).sum())
    mass = problem.mass
    details = {
        "row_error": mass * (col_error if problem.flipped else row_error),
        "col_error": mass * (row_error if problem.flipped else col_error),
        "mass": mass,
        "dual": mass * lower,
        "primal": mass * upper,
    }
    return Certificate(KIND, value, tol, details)


def _entries(be, P, rows, total):
    """Return row, column and mass of what a plan has in some rows, for a total mass of one."""
    xp = be.xp
    if is_sparse(P):
        block = P[rows].tocoo()
        return block.row, block.col, block.data / total
    block = P[rows]
    i, j = xp.nonzero(block)
    return i, j, block[i, j].astype(np.float64) / total


def _exact_sum(be, terms, otherwise):
    """Return a sum that is rounded once, or what stands for one that is no finite number."""
    if not be.host(be.xp.isfinite(terms).all()):
        return otherwise
    return math.fsum(np.atleast_1d(be.host(terms)).tolist())
