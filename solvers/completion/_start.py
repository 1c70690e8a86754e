"""Where engines start: the spectrum of the observed entries, noise, or the caller's factors."""

import numpy as np

from ._factors import padded

# More columns than asked for, and power steps, of the randomised singular vectors.
_MORE, _POWERS = 8, 5


def start(problem, rank, options):
    """Return A, B, a and b to begin with, in the problem's unit.

    Parameters
    ----------
    problem : Completion
    rank : int
    options : Options
        `x0`, `init`, `clip` and `rng` are used.
    """
    xp, dtype, (m, n) = problem.xp, problem.dtype, problem.shape
    a, b = (xp.zeros(size if problem.biased else 0, dtype) for size in (m, n))
    if options.x0 is not None:
        A, B, a, b = options.x0
        size = 1e-3 * problem.norm / np.sqrt(problem.density)
        return *padded(problem.be, A, B, rank, options.rng, size), a, b
    if options.init == "random":
        B = xp.asarray(options.rng.standard_normal((n, rank)) / np.sqrt(rank), dtype=dtype)
        A = xp.asarray(options.rng.standard_normal((m, rank)) / np.sqrt(rank), dtype=dtype)
        return A, B, a, b
    U, s, V = spectrum(problem, rank, options.rng)
    root = xp.sqrt(s)
    return U * root, V * root, a, b


def spectrum(problem, rank, rng):
    """Return the leading singular triples of the observed entries over their density.

    By randomised subspace iteration; where entries have weights, of the weighted entries.
    """
    xp, obs, times = problem.xp, problem.obs, problem.kernels.times
    m, n = problem.shape
    width = min(rank + _MORE, m, n)
    by_row, by_col = obs.by_row, obs.by_col
    vals = [s.val * s.weight if s.weight.size else s.val for s in (by_row, by_col)]
    V = xp.asarray(rng.standard_normal((n, width)), dtype=problem.dtype)
    U = xp.empty((m, width), problem.dtype)
    for _ in range(_POWERS):
        times(by_row.ptr, by_row.idx, vals[0], V, U)
        U = xp.linalg.qr(U)[0]
        V = xp.empty((n, width), problem.dtype)
        times(by_col.ptr, by_col.idx, vals[1], U, V)
        V, R = xp.linalg.qr(V)
    left, s, right = xp.linalg.svd(R.T)
    weight = obs.by_row.weight
    mean = float(problem.be.host(weight.mean())) if weight.size else 1.0
    s = s[:rank] / (problem.density * mean)
    return (U @ left)[:, :rank], s, (V @ right.T)[:, :rank]
