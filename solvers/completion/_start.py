"""Where engines start: the spectrum of the observed entries, noise, or the caller's factors."""

from dataclasses import replace

import numpy as np

from ._factors import padded, svd_of_product

# More columns than asked for, and power steps, of the randomised singular vectors.
_MORE, _POWERS = 8, 5
# Share of the average that is added to the weight of each row's observations before dividing by
# it. Measured where popularity follows a power law, the error of the start is 1.5 both undivided
# and without the share, which keeps rows that were hardly seen from being blown up; 0.9 with it.
_SHARE = 0.5
# Sweeps over the means of rows and columns.
_MEANS = 3
# Nine rows in ten are typical; how large a row may be is judged by theirs.
_TYPICAL = 0.9
# Where non-negative factors have zeros they start at up to this part of their average.
_FILL = 1e-2
# A winsorised value is at most this many median deviations away from the median.
_DEVIATIONS = 3.0


def start(problem, rank, options):
    """Return A, B, a and b to begin with, in the problem's unit.

    Parameters
    ----------
    problem : Completion
    rank : int
    options : Options
        `x0`, `init`, `clip` and `rng` are used.
    """
    be, rng = problem.be, options.rng
    if options.x0 is not None:
        return _from_given(problem, rank, options)
    if problem.loss != "squared":
        problem = winsorised(problem)
    a, b = _means(problem)
    if options.init == "random":
        A, B = _noise(problem, rank, rng)
        return A, B, a, b
    U, s, V = spectrum(problem, rank, rng, a, b)
    if options.clip is not None:
        U, V = (clipped(be, F, options.clip) for F in (U, V))
        U, s, V = svd_of_product(be, U * s, V)
    root = be.xp.sqrt(s)
    A, B = U * root, V * root
    if problem.nonnegative:
        A, B = (_filled(be.xp, F, rng) for F in positive_parts(be.xp, A, B))
    return *_scaled(problem, A, B, a, b), a, b


def spectrum(problem, rank, rng, a=None, b=None):
    """Return U, s and V of an estimate of the matrix less its biases, by its singular vectors.

    Those of the weighted entries, zero elsewhere, by randomised subspace iteration. Each row and
    column is divided by the root of its observations' weight before, and again after: on average
    that gives the matrix itself where its rows and columns are seen more or less often, if they
    are so independently.
    """
    xp, obs, times = problem.xp, problem.obs, problem.kernels.times
    (m, n), by_row, by_col = problem.shape, obs.by_row, obs.by_col
    val = by_row.val if a is None else _less_biases(problem, a, b)
    val = val * by_row.weight if by_row.weight.size else val
    (d, mean), (e, _) = _divisors(problem, by_row, n), _divisors(problem, by_col, m)
    val = val * (d[obs.rows] * e[obs.cols])
    transposed = val[by_col.perm]
    width = min(rank + _MORE, m, n)
    U, V = xp.empty((m, width), problem.dtype), xp.empty((n, width), problem.dtype)
    V[...] = xp.asarray(rng.standard_normal((n, width)))
    for _ in range(_POWERS):
        times(by_row.ptr, by_row.idx, val, V, U)
        U = xp.linalg.qr(U)[0]
        times(by_col.ptr, by_col.idx, transposed, U, V)
        V, R = xp.linalg.qr(V)
    left, s, right = xp.linalg.svd(R.T)
    A = d[:, None] * (U @ left[:, :rank]) * (s[:rank] / (mean / n))
    return svd_of_product(problem.be, A, e[:, None] * (V @ right[:rank].T))


def clipped(be, U, how):
    """Return orthonormal columns with their largest rows scaled down, or largest entries dropped.

    Rows of a mu-incoherent U (n, k) have squared norms of at most ``mu k / n``; mu is estimated by
    what most rows keep, and rows ("row") or entries ("entry") may have twice the root of it.
    """
    xp, (n, k) = be.xp, U.shape
    squares = xp.square(U).sum(axis=1)
    typical = xp.sort(squares)[int(_TYPICAL * (n - 1))]
    # The mean of the squared norms is k / n: a smaller mu belongs to no matrix.
    bound = 2.0 * xp.sqrt(xp.maximum(typical, k / n))
    if how == "entry":
        return xp.where(xp.abs(U) > bound, 0.0, U).astype(U.dtype)
    shrink = bound / xp.maximum(xp.sqrt(squares), bound)
    return (U * shrink[:, None]).astype(U.dtype)


def positive_parts(xp, A, B):
    """Return the non-negative part of each term ``A_q B_q^T``, of both its signs the larger one.

    That is the start of Boutsidis and Gallopoulos, Pattern Recognition 41 (2008), 1350-1362.
    """
    plus, minus = ([xp.maximum(sign * F, 0.0) for F in (A, B)] for sign in (1.0, -1.0))
    sizes = [
        xp.square(left).sum(axis=0) * xp.square(right).sum(axis=0) for left, right in (plus, minus)
    ]
    return tuple(xp.where(sizes[0] >= sizes[1], p, q) for p, q in zip(plus, minus, strict=True))


def winsorised(problem):
    """Return the problem with values that lie far from their median moved closer to it."""
    xp, obs = problem.xp, problem.obs
    val = obs.by_row.val
    middle = xp.median(val)
    spread = _DEVIATIONS * xp.median(xp.abs(val - middle))
    # Where more than half of the values are equal their spread says nothing about the rest.
    spread = xp.where(spread > 0, spread, xp.inf)
    val = xp.clip(val, middle - spread, middle + spread).astype(val.dtype)
    return replace(problem, obs=obs.with_values(val, obs.by_row.weight))


def _from_given(problem, rank, options):
    """Return the caller's factors, widened by small noise."""
    A, B, a, b = options.x0
    A, B = padded(problem.be, A, B, rank, options.rng, noise_of(problem))
    if problem.nonnegative:
        A, B = positive_parts(problem.xp, A, B)
    return A, B, a, b


def noise_of(problem):
    """Return the norm of a random matrix that is small beside the one looked for."""
    return 1e-3 * problem.norm / np.sqrt(problem.density)


def _noise(problem, rank, rng):
    xp = problem.xp
    A, B = (
        xp.asarray(rng.standard_normal((length, rank)) / np.sqrt(rank), dtype=problem.dtype)
        for length in problem.shape
    )
    return (xp.abs(A), xp.abs(B)) if problem.nonnegative else (A, B)


def _means(problem):
    """Return the means of rows and columns, shrunk; empty arrays where there are no biases."""
    xp, obs = problem.xp, problem.obs
    if not problem.biased:
        return xp.zeros(0, problem.dtype), xp.zeros(0, problem.dtype)
    a, b = (xp.zeros(length, problem.dtype) for length in problem.shape)
    w = obs.by_row.weight if obs.by_row.weight.size else xp.ones_like(obs.by_row.val)
    # One observation more, of 0, keeps a row that was seen once from following its noise.
    more = problem.lam_bias + w.mean()
    for _ in range(_MEANS):
        for side, bias in ((obs.by_row, a), (obs.by_col, b)):
            r = w * _less_biases(problem, a, b)
            r, weight = (r[side.perm], w[side.perm]) if side.perm.size else (r, w)
            step = _sums(problem, side, r) - more * bias
            bias[:] += step / (_sums(problem, side, weight) + more)
    return a, b


def _less_biases(problem, a, b):
    """Return the values less biases, in row order."""
    if not a.size:
        return problem.obs.by_row.val
    nothing = [problem.xp.empty((length, 0), problem.dtype) for length in problem.shape]
    return -problem.residual(*nothing, a, b)


def _divisors(problem, side, length):
    """Return what scales each row as if it had an average number of observations; and that."""
    xp = problem.xp
    w = side.weight if side.weight.size else xp.ones_like(side.val)
    # The weight 1 at all places, of implicit feedback, counts as well.
    weight = _sums(problem, side, w) + (length if problem.implicit else 0.0)
    mean = weight.mean()
    return xp.sqrt((1.0 + _SHARE) / (weight / mean + _SHARE)).astype(problem.dtype), mean


def _sums(problem, side, values):
    """Return the sum of some values of the entries, for each row."""
    xp = problem.xp
    out = xp.empty((side.ptr.size - 1, 1), problem.dtype)
    longest = max(problem.shape)
    problem.kernels.times(side.ptr, side.idx, values, xp.ones((longest, 1), problem.dtype), out)
    return out[:, 0]


def _scaled(problem, A, B, a, b):
    """Return A and B times what makes their product fit the entries best."""
    xp, side = problem.xp, problem.obs.by_row
    nothing = a[:0]
    estimate = problem.residual(A, B, nothing, nothing) + side.val
    w = estimate * side.weight if side.weight.size else estimate
    square = w @ estimate
    if problem.implicit:
        square = square + ((A.T @ A) * (B.T @ B)).sum()
    inner = w @ _less_biases(problem, a, b)
    # Clipped and non-negative parts may point away from the matrix, or be zero.
    good = (inner > 0) & (square > 0)
    root = xp.sqrt(xp.where(good, inner / xp.where(good, square, 1.0), 1.0)).astype(problem.dtype)
    return A * root, B * root


def _filled(xp, F, rng):
    """Return F with small positive noise for its zeros, which some steps could not leave."""
    noise = xp.asarray(rng.random(F.shape), dtype=F.dtype)
    return xp.where(F > 0, F, _FILL * F.mean() * noise)
