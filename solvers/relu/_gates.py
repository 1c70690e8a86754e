"""Gates: which samples a neuron sees; how they are stored and drawn."""

import copy
import math
import warnings

import numpy as np

from .._core.arrays import Ingest, to_numpy
from .._core.random import check_rng
from .._core.result import ConvergenceWarning
from .._core.validation import check_array, check_choice, check_count, check_positive, describe

# How the vectors behind random gates are drawn; "local" needs targets, so only solvers offer it.
DRAWN = ("gaussian", "sphere", "data", "sparse")
SCHEMES = (*DRAWN, "local")
# Draws for each gate asked for, before fewer are returned.
_DRAWS = 20
# Entries of X that patterns are computed from at a time.
_BLOCK = 1 << 22


class Gates:
    """A set of activation patterns, stored as bits.

    Parameters
    ----------
    D : bool array, shape (n, P)
        Column i tells which samples gate i lets through.
    vectors : array, shape (d, P), optional
        Points inside the gates' cones, such as the vectors that generated them.

    Attributes
    ----------
    D : bool array, shape (n, P)
        The patterns, unpacked.
    vectors : array, shape (d, P), or None
        The points.
    n : int
        The number of samples.
    bits : array of uint8, shape (P, ceil(n / 8))
        The patterns as they are stored.

    Notes
    -----
    Gates live on the host, whatever kind of arrays they were drawn for.
    """

    def __init__(self, D, vectors=None):
        D = np.asarray(D)
        if D.dtype != bool or D.ndim != 2:
            kind = ValueError if D.dtype == bool else TypeError
            raise kind(f"`D` came as {describe(D)} of {D.dtype}; expected booleans, (n, P)")
        # Rows of `bits` are gates: what a kernel reads at a time.
        self.n, self.bits = D.shape[0], np.packbits(D.T, axis=1)
        self.vectors = vectors

    @property
    def D(self):  # noqa: N802 (the name in the papers)
        return self.mask.T.astype(bool)

    @property
    def mask(self):
        """The patterns as zeros and ones, shape (P, n)."""
        # NumPy keeps the order of patterns that came as columns; kernels read rows.
        return np.ascontiguousarray(np.unpackbits(self.bits, axis=1, count=self.n))

    def select(self, which):
        """Return some of the gates.

        Parameters
        ----------
        which : array of int or bool, shape (k,) or (P,)
            Their numbers, or which of them.

        Returns
        -------
        Gates
            With their vectors, if there are any.
        """
        chosen = copy.copy(self)
        chosen.bits = self.bits[which]
        chosen.vectors = None if self.vectors is None else self.vectors[:, which]
        return chosen

    def __len__(self):
        return len(self.bits)

    def __repr__(self):
        return f"Gates({len(self)} gates of {self.n} samples)"


def sample_gates(X, n, *, scheme="gaussian", rng=None):
    r"""Draw distinct gates :math:`1[X g \ge 0]`.

    Parameters
    ----------
    X : array, shape (n_samples, d)
        The samples.
    n : int
        How many gates.
    scheme : {"gaussian", "sphere", "data", "sparse"}
        Law of the vectors g: standard normal (the paper's); the same, of length one;
        differences of two samples of length one, and single samples with noise, whose gates
        split the samples evenly; standard normal on about :math:`\sqrt{d}` of the features.
    rng : None, int, SeedSequence, BitGenerator or Generator
        Source of randomness.

    Returns
    -------
    Gates
        With `vectors`. They are fewer than `n`, with a `ConvergenceWarning`, if 20 n draws held
        no more; gates that are closed for all samples are left out.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or value.

    See Also
    --------
    required_gates : How many draws give a guarantee.
    enumerate_arrangements : All gates there are.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import relu
    >>> gates = relu.sample_gates(np.eye(3), 4, rng=0)
    >>> len(gates), gates.D.shape
    (4, (3, 4))
    """
    io = Ingest(sparse_hint={"X": "use X.toarray()"}, X=X)
    X = check_array(io, "X", ndim=2)
    n = check_count(n, "n", minimum=1)
    check_choice(scheme, "scheme", DRAWN)
    return draw(X, n, scheme, check_rng(rng))


def draw(X, n, scheme, rng):
    """Return `n` distinct gates of the rows of X, or as many as were found."""
    found = Patterns(to_numpy(X))
    draws = draw_into(found, n, scheme, rng)
    if len(found) < n:
        message = (
            f"sample_gates: found {len(found)} distinct gates of the {n} asked for in {draws} "
            "draws; the result has fewer. Ask for fewer, or use enumerate_arrangements."
        )
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
    return found.gates(n)


def draw_into(found, n, scheme, rng):
    """Draw until `n` patterns are found, or until it is no use; return the number of draws."""
    draws = 0
    while len(found) < n and draws < _DRAWS * n:
        found.add(_VECTORS[scheme](found.X, 2 * n, rng))
        draws += 2 * n
    return draws


class Patterns:
    """Distinct patterns of host rows X, in the order in which vectors brought them.

    Everything happens on the host and in float64, so that a seed gives the same gates on every
    device and a vector lies in the cone of its gate also by the judge's arithmetic.
    """

    def __init__(self, X):
        self.X, self.index = X, {}
        self._seen = np.packbits((X != 0).any(axis=1))
        self._columns, self._vectors = [], []

    def __len__(self):
        return len(self.index)

    def add(self, vectors):
        """Add the patterns of vectors (d, k); return the number of each pattern, -1 if closed."""
        vectors = np.asarray(vectors).astype(self.X.dtype)
        return self._add(pack(self.X, vectors), vectors.T)

    def join(self, gates):
        """Add gates as they are."""
        vectors = gates.vectors
        self._add(gates.bits, [None] * len(gates) if vectors is None else vectors.T)

    def keys(self, bits):
        """Return what tells patterns apart: what a gate says of rows of zeros has no effect."""
        return [row.tobytes() for row in bits & self._seen]

    def _add(self, bits, vectors):
        numbers = np.full(len(bits), -1)
        closed = bytes(bits.shape[1])
        for k, (row, key, g) in enumerate(zip(bits, self.keys(bits), vectors, strict=True)):
            if key == closed:
                continue
            known = len(self.index)
            numbers[k] = number = self.index.setdefault(key, known)
            if number == known:
                self._columns.append(row)
                self._vectors.append(g)
        return numbers

    def gates(self, most=None):
        """Return the first `most` of the patterns as Gates."""
        n, d = self.X.shape
        if not self._columns:
            # Rows of zeros only: a programme must have a gate all the same.
            return Gates(np.ones((n, 1), dtype=bool), np.zeros((d, 1), dtype=self.X.dtype))
        rows = np.array(self._columns[:most], dtype=np.uint8).reshape(-1, (n + 7) // 8)
        D, vectors = np.unpackbits(rows, axis=1, count=n).T == 1, self._vectors[:most]
        if any(g is None for g in vectors):
            return Gates(D)
        return Gates(D, np.array(vectors, dtype=self.X.dtype).T.copy())


def pack(X, vectors):
    """Return the patterns ``X @ vectors >= 0`` as bits, one row per vector."""
    vectors = vectors.astype(np.float64)
    # A multiple of 8 rows at a time, so that blocks are whole bytes.
    step = max(_BLOCK // (8 * X.shape[1]), 1) * 8
    parts = [
        np.packbits(X[k : k + step].astype(np.float64) @ vectors >= 0, axis=0).T
        for k in range(0, len(X), step)
    ]
    return np.ascontiguousarray(np.concatenate(parts, axis=1))


def _gaussian(X, k, rng):
    return rng.standard_normal((k, X.shape[1])).T


def _sphere(X, k, rng):
    g = _gaussian(X, k, rng)
    return g / np.linalg.norm(g, axis=0)


def _data(X, k, rng):
    """Return vectors between pairs of samples and, for every other one, near a sample."""
    rows = X[rng.integers(len(X), size=(2, k))].astype(np.float64)
    size = np.linalg.norm(rows, axis=2, keepdims=True)
    rows = np.divide(rows, size, out=np.zeros_like(rows), where=size > 0)
    noise = rng.standard_normal((k, X.shape[1])) / math.sqrt(X.shape[1])
    pair = (np.arange(k) % 2 == 0)[:, None]
    # A little noise also between pairs: a row would lie on the plane of its own difference.
    return np.where(pair, rows[0] - rows[1] + 0.1 * noise, rows[0] + 0.5 * noise).T


def _sparse(X, k, rng):
    d = X.shape[1]
    g = rng.standard_normal((k, d))
    rank = rng.random((k, d)).argsort(axis=1).argsort(axis=1)
    g[rank >= min(max(math.isqrt(d - 1) + 1, 2), d)] = 0.0
    return g.T


_VECTORS = {"gaussian": _gaussian, "sphere": _sphere, "data": _data, "sparse": _sparse}


def required_gates(n, xi, psi):
    r"""Return how many draws make a further gate unlikely to improve the optimum.

    With at least so many independent draws, the probability that one more sampled gate lowers
    the optimum of the convex programme is at most `xi`, with confidence ``1 - psi`` [1]_:

    .. math:: \min\left\{\frac{n + 1}{\psi \xi} - 1,\; \frac{2}{\xi} (n + 1 - \log \psi)\right\}.

    Parameters
    ----------
    n : int
        Number of samples.
    xi, psi : float
        Probability of improvement and of being wrong, between 0 and 1.

    Returns
    -------
    int
        Number of draws; duplicates count.

    Notes
    -----
    It bounds the probability of an improvement and not its size: the optimum over all gates may
    lie far below. See ``dual_global`` of a result for that.

    References
    ----------
    .. [1] Y. Bai, T. Gautam, S. Sojoudi. Efficient global optimization of two-layer ReLU networks:
       quadratic-time algorithms and adversarial training. SIAM J. Math. Data Sci., 2023.

    Examples
    --------
    >>> from solvers import relu
    >>> relu.required_gates(100, 0.1, 0.05)
    2080
    """
    n = check_count(n, "n", minimum=1)
    for name, value in (("xi", xi), ("psi", psi)):
        if not 0 < check_positive(value, name) < 1:
            raise ValueError(f"`{name}` came as {value}; expected a number between 0 and 1")
    # What rounding adds to a whole number must not cost a draw.
    return math.ceil(min((n + 1) / (psi * xi) - 1, 2 / xi * (n + 1 - math.log(psi))) - 1e-9)


def count_arrangements_bound(n, r):
    r"""Return the largest number of gates that n samples of rank r can have.

    It is :math:`2 \sum_{k < r} \binom{n - 1}{k}`, which samples in general position attain.

    Parameters
    ----------
    n, r : int
        Number of samples, and the rank of their matrix.

    Returns
    -------
    int
        The bound; the gate that is closed for all samples counts.

    Examples
    --------
    >>> from solvers import relu
    >>> relu.count_arrangements_bound(9, 3)
    74
    """
    n, r = check_count(n, "n", minimum=1), check_count(r, "r")
    return 2 * sum(math.comb(n - 1, k) for k in range(min(r, n)))
