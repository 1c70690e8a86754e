"""Selection rules: which block moves next.

A rule is made for a state and returns, at each call, the number of a block (None where there are
no fixed ones) and its unknowns. Rules that look at the whole gradient leave their scores in the
attribute `scores`.
"""

from itertools import islice

import numpy as np

from ... import losses
from . import _scores, _search
from ._check import is_smooth
from ._heap import Heap
from ._nearest import nearest
from ._register import PARTITIONS, register_selection


class Ordered:
    """Fixed blocks in an order that looks at nothing: random, cyclic and the like."""

    def __init__(self, blocks, numbers):
        self._blocks, self._numbers = blocks, numbers

    def __call__(self):
        number = next(self._numbers)
        return number, self._blocks[number]

    def many(self, count):
        """Return the numbers of the next blocks, on the host."""
        return np.fromiter(islice(self._numbers, count), np.int64, count)


class Drawn:
    """Any set of unknowns, with equal chances."""

    def __init__(self, state, size, rng):
        self._xp, self._n, self._size, self._rng = state.problem.xp, state.x.size, size, rng

    def __call__(self):
        drawn = self._rng.choice(self._n, self._size, replace=False, shuffle=False)
        return None, self._xp.asarray(np.sort(drawn))


class Greedy:
    """The block with the best scores, which are computed anew from the gradient.

    Attributes
    ----------
    scores : array, float64
        One for each unknown, or each block, at the last call.
    """

    def __init__(self, score, pick):
        self._score, self._pick = score, pick

    def __call__(self):
        self.scores = self._score()
        return self._pick(self.scores)


def _random(state, blocks, size, rng, options):
    if blocks is not None:
        return Ordered(blocks, iter(lambda: int(rng.integers(blocks.number)), None))
    if _grow(options) is not None:
        return Greedy(
            lambda: state.problem.xp.asarray(rng.random(state.x.size)),
            _largest(state, size, options),
        )
    return Drawn(state, size, rng)


def _cyclic(state, blocks, size, rng, options):
    def numbers():
        while True:
            yield from range(blocks.number)

    return Ordered(blocks, numbers())


def _perm(state, blocks, size, rng, options):
    def numbers():
        while True:
            yield from rng.permutation(blocks.number).tolist()

    return Ordered(blocks, numbers())


def _lipschitz(state, blocks, size, rng, options):
    chances = state.problem.be.host(_scores.block_lipschitz(state, blocks))
    ends = np.cumsum(chances)

    def numbers():
        while True:
            # Never past the end by rounding.
            drawn = np.searchsorted(ends, rng.random() * ends[-1], side="right")
            yield int(min(drawn, blocks.number - 1))

    return Ordered(blocks, numbers())


def _by_unknown(rule, constants=None):
    """Return the maker of a rule that adds up scores of single unknowns."""

    def make(state, blocks, size, rng, options):
        L = state.lipschitz if constants is None else constants(state, blocks, size)
        if blocks is not None:
            return Greedy(_summed(state, blocks, rule, L, options.norm), _first(state, blocks))
        if size == 1 and Heap.fits(state):
            return Heap(state, rule, L)
        return Greedy(lambda: _scores.score_all(state, rule, L), _largest(state, size, options))

    return make


def _diagonal(state, blocks, size):
    if blocks is not None:
        return _scores.block_diagonal(state, blocks)
    return _scores.variable_diagonal(state, state.x.size if size is None else size)


def _gsl(state, blocks, size, rng, options):
    if blocks is None:
        if size == 1 or _grow(options) is not None:
            return _by_unknown(_scores.scaled_distance)(state, blocks, size, rng, options)
        return _search.Ratio(state, size)
    power = 0.5 * options.norm
    sums = _summed(state, blocks, _scores.squared_distance, state.lipschitz, options.norm)
    L = _scores.block_lipschitz(state, blocks)
    inverse = _scores.inverse(state.problem.xp, L) ** power
    return Greedy(lambda: sums() * inverse, _first(state, blocks))


def _gsq(state, blocks, size, rng, options):
    if not is_smooth(state.problem) or size == 1 or _grow(options) is not None:
        return _by_unknown(_scores.gain)(state, blocks, size, rng, options)
    if blocks is None:
        return _search.Pursuit(state, size)
    if np.diff(blocks.ptr).max() > _scores.DENSE:
        return _gsd(state, blocks, size, rng, options)
    return Greedy(_whitened(state, blocks), _first(state, blocks))


def _iht(state, blocks, size, rng, options):
    if not is_smooth(state.problem) or _grow(options) is not None:
        return _by_unknown(_scores.gain)(state, blocks, size, rng, options)
    return _search.Thresholding(state, size)


def _mi(state, blocks, size, rng, options):
    problem = state.problem
    quadratic = problem.quadratic or isinstance(problem.loss, losses.Squared)
    if quadratic or blocks is None or not is_smooth(problem):
        return _gsq(state, blocks, size, rng, options)
    improvement = _search.improvement

    def score():
        fall = [improvement(state, blocks[b]) for b in range(blocks.number)]
        return problem.xp.asarray(fall)

    return Greedy(score, _first(state, blocks))


def _summed(state, blocks, rule, L, norm):
    """Return a function that adds up scores over blocks; `norm` 1: their roots."""
    xp = state.problem.xp
    kernels, ptr = state.problem.be.kernels("solvers.bcd", "select"), xp.asarray(blocks.ptr)

    def score():
        scores = _scores.score_all(state, rule, L)
        out = xp.empty(blocks.number)
        kernels.block_sums(xp.sqrt(scores) if norm == 1 else scores, ptr, blocks.idx, out)
        return out

    return score


def _whitened(state, blocks):
    """Return a function that computes ``g_b^T H_b^-1 g_b`` for each block."""
    xp, batches = state.problem.xp, _scores.whiten(state, blocks)

    def score():
        g, out = _scores.gradient(state), xp.empty(blocks.number)
        for numbers, members, factors in batches:
            white = (factors @ g[members][:, :, None])[:, :, 0]
            out[numbers] = (white * white).sum(axis=1)
        return out

    return score


def _first(state, blocks):
    """Return a function that picks the block with the largest score."""

    def pick(scores):
        number = int(state.problem.be.host(scores.argmax()))
        return number, blocks[number]

    return pick


def _largest(state, size, options):
    """Return a function that picks the unknowns with the largest scores."""
    grow = _grow(options)
    if grow is not None:
        block = grow(state.problem)
        return lambda scores: (None, block(scores))
    return lambda scores: (None, _search.top(state, scores, size))


def _grow(options):
    name = options.partition
    return PARTITIONS[name].grow if isinstance(name, str) else None


_gsd = _by_unknown(_scores.gain, _diagonal)

register_selection(
    "gsq",
    _gsq,
    about="The quadratic model falls most: over blocks by their Hessians, with a penalty "
    "or bounds by the proximal gain of single unknowns.",
    lipschitz=True,
)
register_selection(
    "gs",
    _by_unknown(_scores.squared_distance),
    about="The largest gradient.",
)
register_selection(
    "gsl",
    _gsl,
    about="The largest gradient for its Lipschitz constant.",
    lipschitz=True,
)
register_selection(
    "gsd",
    _gsd,
    about="The largest gain that a diagonal above the Hessian of a block guarantees.",
    lipschitz=True,
)
register_selection(
    "mi",
    _mi,
    about="The objective falls most; for quadratics the same as 'gsq'.",
    lipschitz=True,
)
register_selection(
    "gs-s",
    _by_unknown(_scores.squared_distance),
    about="The largest violation of optimality.",
)
register_selection(
    "gs-r",
    _by_unknown(_scores.squared_step),
    about="The longest proximal step.",
    lipschitz=True,
)
register_selection(
    "gs-q",
    _by_unknown(_scores.gain),
    about="The largest proximal gain of single unknowns.",
    lipschitz=True,
)
register_selection(
    "gsq-iht",
    _iht,
    about="As 'gsq', searched by hard thresholding.",
    fixed=False,
    lipschitz=True,
)
register_selection(
    "nn",
    nearest,
    about="As 'gsl' for single unknowns, found as the nearest column to the residual.",
    fixed=False,
    lipschitz=True,
    single=True,
    plain=True,
)
register_selection(
    "random",
    _random,
    about="Any block, with equal chances.",
    greedy=False,
)
register_selection(
    "cyclic",
    _cyclic,
    about="Block after block.",
    greedy=False,
    variable=False,
)
register_selection(
    "perm",
    _perm,
    about="All blocks in a new random order each time.",
    greedy=False,
    variable=False,
)
register_selection(
    "lipschitz",
    _lipschitz,
    about="Any block, with chances in proportion to its Lipschitz constant.",
    greedy=False,
    variable=False,
    lipschitz=True,
)
