"""The rank: estimates from the spectrum, then growth judged by entries that were kept apart."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import scipy.sparse
import scipy.sparse.linalg

from .._core import threads
from .._core.monitor import Monitor
from .._core.random import check_rng
from .._core.validation import check_choice, check_nonnegative, check_threads, describe
from ._als import als
from ._driver import Options, check_rank, is_rank_sequence
from ._factors import entries
from ._observations import read_entries
from ._problem import pose
from ._scaled_gd import scaled_gradient_descent
from ._soft_impute import Search, nuclear
from ._start import start
from ._watch import Watch

METHODS = ("bethe+holdout", "bethe", "gap")
# Share of the entries that is kept apart, and how many there should be at least.
_SHARE, _FEW = 0.05, 100
# Ranks in a row without a smaller error before growth ends.
_PATIENCE = 2
# Fits only need to be told apart: limits of relative change in an iteration, and of iterations.
_SETTLED, _SWEEPS = 1e-3, 150
# Estimates up to which growth begins at 1.
_SMALL = 4
# A squared error counts at most this many medians where there are outliers.
_OUTLYING = 20.0
# Relative residual from which on a fit is exact, and error of entries kept apart, in root mean
# squares of the values, that only exact fits have.
_EXACT, _NOTHING = 1e-6, 1e-4
# Singular values that the gap is looked for among.
_SPECTRUM = 40
# Size of the graph up to which its eigenvalues are computed all at once; and where sinh is cut.
_DENSE, _STEEP = 400, 20.0


class RankResult(scipy.optimize.OptimizeResult):
    """Outcome of `select_rank`.

    Attributes
    ----------
    rank : int
        The rank.
    rank_curve : dict of str to numpy.ndarray, or None
        ``"rank"``, ascending, and ``"rmse"``, the error of the entries kept apart, in the data's
        unit; None where no entries were.
    estimates : dict of str to int
        What the spectrum says: ``"bethe"`` and ``"gap"``.
    """

    rank: int
    rank_curve: Any
    estimates: dict[str, int]


def select_rank(
    M,
    ranks=None,
    *,
    shape=None,
    weights=None,
    lam=0.0,
    method="bethe+holdout",
    rng=None,
    n_threads=None,
):
    r"""Find the rank of a matrix from some of its entries.

    Parameters
    ----------
    M : sparse matrix, (rows, cols, vals), masked array, or array with NaN
        The matrix; stored entries, zeros among them, are observed.
    ranks : sequence of int, optional
        Ranks to choose from; all are tried. Default: as many as it takes.
    shape : (int, int), optional
        Its shape; required for triples.
    weights : array, optional
        Weights of the entries, non-negative, in their order; entries of weight 0 are left out.
    lam : float, default 0.0
        Ridge on the factors, in the unit of `M`.
    method : {"bethe+holdout", "bethe", "gap"}, default "bethe+holdout"
        How to choose. The first begins at an estimate and tries ranks; the others only
        estimate, and know nothing of `ranks`, `weights` and `lam`.
    rng : int, numpy.random.Generator or None, optional
        Which entries are kept apart, and starts.
    n_threads : int, optional
        Number of threads. Default: Numba's setting.

    Returns
    -------
    RankResult
        With `rank`; `rank_curve`, a dict of the arrays ``rank`` and ``rmse``; and `estimates`.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind.
    ValueError
        If shapes disagree, a value is not finite, or an option has no such value.

    Notes
    -----
    "bethe" is the number of negative eigenvalues of the Bethe Hessian of the graph of entries
    [1]_: it finds equally large singular values down to very few entries, but misses those that
    are much smaller than the largest. "gap" is where the singular values of the zero-filled matrix
    fall most steeply [2]_, which needs many entries. "bethe+holdout" keeps 5 % of the entries
    apart, so that each row and column keeps enough, and fits growing ranks to the others,
    each from the last with the leading singular vectors of its residual, until two in a row have
    not made the error of the entries apart smaller; of all ranks whose error is within a standard
    error of the smallest one it takes the least. A rank has no certificate: the one that fits
    noise-free data exactly is proved only by a completion of that rank.

    Each rank costs some dozen iterations of O(N rank); memory is that of a completion. The
    eigenvalues are found on the host.

    References
    ----------
    .. [1] A. Saade, F. Krzakala, L. Zdeborova. Matrix completion from fewer entries: spectral
       detectability and rank estimation. NeurIPS 2015. arXiv:1506.03498.
    .. [2] R. H. Keshavan, A. Montanari, S. Oh. Matrix completion from a few entries. IEEE
       Transactions on Information Theory, 2010. arXiv:0901.3150.

    Examples
    --------
    >>> import numpy as np
    >>> import solvers
    >>> rng = np.random.default_rng(0)
    >>> M = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30))
    >>> M[rng.random(M.shape) < 0.5] = np.nan
    >>> solvers.completion.select_rank(M, rng=0).rank
    2
    """
    entered = read_entries(M, shape, weights)
    lam = check_nonnegative(lam, "lam")
    method = check_choice(method, "method", METHODS)
    ranks = None if ranks is None else check_ranks(ranks, min(entered.shape), "ranks")
    rng, n_threads = check_rng(rng), check_threads(n_threads)
    with entered.io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        problem = pose(entered, **{**_PLAIN, "lam": lam})
        estimates = estimate(problem, rng)
        if method != "bethe+holdout":
            return RankResult(rank=estimates[method], rank_curve=None, estimates=estimates)
        trials = Trials(problem, scaled_gradient_descent, rng)
        rank = trials.choose(ranks, max(estimates.values()))
        return RankResult(rank=rank, rank_curve=trials.curve(), estimates=estimates)


_PLAIN = {
    "lam_bias": None,
    "weighted_lambda": False,
    "bias": False,
    "center": False,
    "implicit": False,
    "alpha": 1.0,
    "nu": 0.0,
    "alpha0": 1.0,
    "nonnegative": False,
    "loss": "squared",
    "delta": None,
    "duplicates": "error",
}


def check_ranks(ranks, largest, name="rank"):
    """Return ranks to choose from, ascending."""
    if not is_rank_sequence(ranks):
        raise TypeError(
            f"`{name}` came as {describe(ranks)}; expected a sequence of whole numbers"
        )
    if not len(ranks):
        raise ValueError(f"`{name}` came empty; expected at least one rank")
    return sorted({check_rank(rank, largest, name) for rank in ranks})


def of_unknown_rank(ranks, pipeline):
    """Return a pipeline that finds the rank, of some or of all, and then runs another."""
    known = []

    def find_and_run(problem, largest, watch, options):
        convex = problem.loss == "squared" and not problem.nonnegative
        if ranks is None and problem.lam > 0 and convex:
            engine = als if problem.implicit else scaled_gradient_descent
            return nuclear(problem, largest, watch, options, engine=engine)
        if not known:
            watch.run.stage("rank")
            fit = scaled_gradient_descent if convex and not problem.implicit else pipeline
            trials = Trials(problem, fit, options.rng, lambda: watch.run.late)
            estimates = (1,) if problem.implicit else estimate(problem, options.rng).values()
            given = None if ranks is None else check_ranks(ranks, largest)
            rank = trials.choose(given, max(estimates))
            watch.rank_curve = trials.curve()
            known.append((rank, trials.point(rank)))
        rank, point = known[0]
        if options.x0 is not None:
            A, B, a, b = options.x0
            point = A[:, :rank], B[:, :rank], a, b
        return pipeline(problem, rank, watch, replace(options, x0=point))

    return find_and_run


class Trial(NamedTuple):
    """A fit: mean squared error of the entries kept apart, its standard error, and factors."""

    mean: float
    error: float
    point: Any


class Trials:
    """Fits of several ranks, judged by entries that are kept apart.

    Parameters
    ----------
    problem : Completion
    engine : callable
        What fits.
    rng : numpy.random.Generator
    late : callable, optional
        Tells whether time is up.

    Attributes
    ----------
    found : dict of int to Trial
        What was tried, by rank.
    """

    def __init__(self, problem, engine, rng, late=lambda: False):
        self.problem, self._engine, self._rng, self._late = problem, engine, rng, late
        self.found = {}

    def choose(self, ranks, estimate):
        """Return the best of these ranks, or of all, beginning at an estimate."""
        if not self._split(max(ranks) if ranks else 2 * estimate):
            return min(ranks) if ranks else estimate
        if ranks:
            for rank in ranks:
                if not self._late() or not self.found:
                    self._try(rank)
            return self._least()
        # A spectrum shows fewer terms than there are rather than more; a few cost little anyway.
        first = 1 if estimate <= _SMALL else estimate // 2
        m, n = self.problem.shape
        freedom = (k for k in range(1, min(m, n) + 1) if k * (m + n - k) <= self._train.size)
        self._walk(range(first, max(freedom, default=1) + 1))
        if self._least() == first:
            self._walk(range(first - 1, 0, -1))
        return self._least()

    def point(self, rank):
        """Return the fit of a rank, or None."""
        return self.found[rank].point if rank in self.found else None

    def curve(self):
        """Return the errors by rank, in the data's unit, or None if nothing was tried."""
        ranks = sorted(self.found)
        if not ranks:
            return None
        errors = [self.problem.scale * np.sqrt(self.found[rank].mean) for rank in ranks]
        return {"rank": np.array(ranks), "rmse": np.array(errors)}

    def _walk(self, ranks):
        """Try ranks in turn until a few have not been better, or one is perfect."""
        lowest, worse = min((t.mean for t in self.found.values()), default=np.inf), 0
        for rank in ranks:
            trial = self._try(rank)
            worse = 0 if trial.mean < lowest else worse + 1
            lowest = min(lowest, trial.mean)
            if worse >= _PATIENCE or lowest <= _NOTHING**2 or self._late():
                break

    def _least(self):
        """Return the least rank whose error cannot be told from the smallest."""
        best = min(self.found.values(), key=lambda trial: trial.mean)
        limit = max(best.mean + best.error, _NOTHING**2)
        return min(rank for rank, trial in self.found.items() if trial.mean <= limit)

    def _try(self, rank):
        """Fit this rank, from the next smaller one known, or else the next larger one."""
        train = self._train
        run = Monitor(
            "select_rank", "relres", be=train.be, tol=_EXACT, maxiter=_SWEEPS, history=False
        )
        options = _fits(self._rng, self._beginning(rank))
        x = self._engine(train, rank, Watch(train, run, _as_it_is, options), options)
        self.found[rank] = self._judged(train.start_of(x))
        return self.found[rank]

    def _beginning(self, rank):
        smaller = [k for k in self.found if k < rank]
        if smaller:
            point = self.found[max(smaller)].point
            return self._search.grown(point, rank - max(smaller))
        larger = [k for k in self.found if k > rank]
        if larger:
            A, B, a, b = self.found[min(larger)].point
            return A[:, :rank], B[:, :rank], a, b
        return None

    def _judged(self, point):
        problem, (rows, cols, vals, weight) = self.problem, self._apart
        xp = problem.xp
        square = xp.square(entries(problem.be, *point, rows, cols) - vals).astype(np.float64)
        if problem.loss != "squared":
            # Of outliers only that they are some is to count.
            square = xp.minimum(square, _OUTLYING * xp.median(square))
        square *= weight / weight.mean()
        mean, spread = problem.be.host(square.mean(), square.std())
        mean = mean if np.isfinite(mean) else np.inf
        return Trial(mean, spread / np.sqrt(square.size), point)

    def _split(self, largest):
        """Keep entries apart, by weights of zero; tell whether there are any to spare."""
        problem, obs = self.problem, self.problem.obs
        xp, side = problem.xp, problem.obs.by_row
        rows, cols = (problem.be.host(x) for x in (obs.rows, obs.cols))
        chosen = kept_apart(rows, cols, obs.shape, largest + 1, self._rng)
        if not chosen.size:
            return False
        apart = xp.asarray(chosen)
        weight = side.weight if side.weight.size else xp.ones_like(side.val)
        self._apart = obs.rows[apart], obs.cols[apart], side.val[apart], weight[apart]
        weight = weight.copy()
        weight[apart] = 0.0
        self._train = replace(problem, obs=obs.with_values(side.val, weight), holdout=None)
        self._search = Search(self._train, self._rng)
        return True


def kept_apart(rows, cols, shape, least, rng):
    """Return places of entries to keep apart: a few of each row and column that has more.

    Rows and columns keep `least` entries, or, if that leaves no choice, fewer; but one.
    """
    size = rows.size
    share = min(max(_SHARE, _FEW / size), 0.5)
    order = rng.permutation(size)
    while True:
        chosen = order
        for keys, length in zip((rows, cols), shape, strict=True):
            counts = np.bincount(keys, minlength=length)
            # So many may go: a random number with the right mean, as long as enough remain.
            wanted = np.floor(share * counts + rng.random(length))
            allowed = np.minimum(wanted if keys is rows else counts, np.maximum(counts - least, 0))
            chosen = chosen[_place_in_group(keys[chosen]) < allowed[keys[chosen]]]
        if chosen.size or least <= 1:
            return np.sort(chosen)
        least //= 2


def _place_in_group(keys):
    """Return how many equal keys stand before each."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    lengths = np.diff(np.r_[starts, ranked.size])
    place = np.empty(keys.size, np.int64)
    place[order] = np.arange(keys.size) - np.repeat(starts, lengths)
    return place


def estimate(problem, rng):
    """Return what the spectrum says about the rank, by method."""
    nothing = problem.xp.zeros
    _, _, a, b = start(problem, 1, _fits(rng))
    A, B = (nothing((length, 1), problem.dtype) for length in problem.shape)
    values = -problem.residual(A, B, a, b)
    obs, host = problem.obs, problem.be.host
    rows, cols, values = host(obs.rows), host(obs.cols), host(values).astype(np.float64)
    return {
        "bethe": bethe_rank(rows, cols, values, problem.shape, rng),
        "gap": gap_rank(rows, cols, values, problem.shape, rng),
    }


def bethe_rank(rows, cols, values, shape, rng):
    """Return the number of negative eigenvalues of the Bethe Hessian, at least 1; see [1]_.

    ``sum tanh^2(beta M_ij) = sqrt(m n)`` gives beta, where the uninformative part of the spectrum
    is just positive.
    """
    (m, n), size = shape, np.sqrt(np.square(values).mean())
    goal = np.sqrt(float(m) * n)
    if size == 0.0 or np.count_nonzero(values) <= goal:
        return 1
    values = values / size

    def excess(log_beta):
        return np.square(np.tanh(np.exp(log_beta) * values)).sum() - goal

    # There, tanh of all values of some size is 0, and 1.
    tilt = np.exp(scipy.optimize.brentq(excess, -50.0, 50.0, xtol=1e-6)) * values
    tilt = np.clip(tilt, -_STEEP, _STEEP)
    T = scipy.sparse.csr_array((0.5 * np.sinh(2.0 * tilt), (rows, cols)), shape=shape)
    square = np.square(np.sinh(tilt))
    diagonal = 1.0 + np.r_[np.bincount(rows, square, m), np.bincount(cols, square, n)]
    H = scipy.sparse.diags_array(diagonal) - scipy.sparse.block_array([[None, T], [T.T, None]])
    if m + n <= _DENSE:
        return max(int((np.linalg.eigvalsh(H.toarray()) < 0.0).sum()), 1)
    count = 8
    while True:
        lowest = _lowest(H.tocsr(), count, rng)
        negative = int((lowest < 0.0).sum())
        if negative < count or 4 * count > min(m, n):
            return max(negative, 1)
        count *= 2


def _lowest(H, count, rng):
    try:
        return scipy.sparse.linalg.eigsh(
            H, count, which="SA", tol=1e-2, v0=rng.random(H.shape[0]), return_eigenvectors=False
        )
    except scipy.sparse.linalg.ArpackNoConvergence as error:
        return error.eigenvalues


def gap_rank(rows, cols, values, shape, rng):
    """Return where the spectrum of the trimmed, zero-filled matrix falls most; see [2]_."""
    m, n = shape
    kept = np.ones(rows.size, bool)
    for keys, length in ((rows, m), (cols, n)):
        counts = np.bincount(keys, minlength=length)
        kept &= counts[keys] <= 2.0 * counts.mean()
    M = scipy.sparse.csr_array((values * kept, (rows, cols)), shape=shape)
    count = min(_SPECTRUM, min(m, n) - 1)
    if count < 2 or not M.data.any():
        return 1
    if m + n <= _DENSE:
        s = np.linalg.svd(M.toarray(), compute_uv=False)[:count]
    else:
        start = rng.random(min(m, n))
        s = scipy.sparse.linalg.svds(M, count, v0=start, return_singular_vectors=False)
        s = np.sort(s)[::-1]
    terms = np.arange(1, count)
    noise = s[0] * np.sqrt(terms * np.sqrt(float(m) * n) / rows.size)
    return int(terms[np.argmin((s[1:] + noise) / s[:-1])])


def _as_it_is(x):
    return x


def _fits(rng, point=None):
    """Return the options of fits that only need to be told apart."""
    return Options(
        inner="auto",
        init="svd",
        clip=None,
        mode="reuse",
        n_init=1,
        tol=_EXACT,
        tol_inner=None,
        ftol=_SETTLED,
        gtol=0.0,
        maxiter=_SWEEPS,
        maxiter_inner=None,
        patience=1,
        certificate=(),
        rng=rng,
        x0=point,
    )
