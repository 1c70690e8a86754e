"""Gates: which samples a neuron sees; how they are stored and drawn."""

import math
import warnings

import numpy as np

from .._core.arrays import Ingest
from .._core.random import check_rng
from .._core.result import ConvergenceWarning
from .._core.validation import check_array, check_choice, check_count

SCHEMES = ("gaussian", "sphere", "data", "sparse", "local")
# Draws for each gate asked for, before fewer are returned.
_DRAWS = 20


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
        The patterns.
    vectors : array, shape (d, P), or None
        The points.
    """

    def __init__(self, D, vectors=None):
        # Rows of `_bits` are gates: what a kernel reads at a time.
        self._n, self.vectors = D.shape[0], vectors
        self._bits = np.packbits(np.asarray(D, dtype=bool).T, axis=1)

    @property
    def D(self):  # noqa: N802 (the name in the papers)
        return self.mask.T.astype(bool)

    @property
    def mask(self):
        """The patterns as zeros and ones, shape (P, n)."""
        return np.unpackbits(self._bits, axis=1, count=self._n)

    def __len__(self):
        return len(self._bits)

    def __repr__(self):
        return f"Gates({len(self)} gates of {self._n} samples)"


def sample_gates(X, n, *, scheme="gaussian", rng=None):
    """Draw distinct gates; ground floor, to be completed."""
    io = Ingest(X=X)
    X = check_array(io, "X", ndim=2)
    check_choice(scheme, "scheme", SCHEMES)
    return draw(X, check_count(n, "n", minimum=1), scheme, check_rng(rng))


def draw(X, n, scheme, rng):
    """Return `n` distinct gates, or as many as were found."""
    vectors = rng.standard_normal((X.shape[1], _DRAWS * n)).astype(X.dtype)
    D = X @ vectors >= 0
    _, first = np.unique(np.packbits(D, axis=0), axis=1, return_index=True)
    first = np.sort(first)
    first = first[D[:, first].any(axis=0)][:n]
    if len(first) < n:
        message = f"sample_gates: found {len(first)} distinct gates of {n}"
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
    return Gates(D[:, first], np.ascontiguousarray(vectors[:, first]))


def required_gates(n, xi, psi):
    """Return how many draws make a further gate unlikely to improve the optimum."""
    for name, value in (("xi", xi), ("psi", psi)):
        if not 0 < value < 1:
            raise ValueError(f"`{name}` came as {value}; expected a number between 0 and 1")
    return math.ceil(min((n + 1) / (psi * xi) - 1, 2 / xi * (n + 1 - math.log(psi))) - 1e-9)


def count_arrangements_bound(n, r):
    """Return the largest number of gates that n rows of rank r can have."""
    return 2 * sum(math.comb(n - 1, k) for k in range(min(r, n)))
