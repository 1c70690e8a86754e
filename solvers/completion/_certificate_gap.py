r"""The duality gap of a completed matrix, and bounds of a spectral norm.

For errors :math:`G = T - X - a 1^T - 1 b^T` at the places that count, with weights :math:`W`,

.. math:: p = \tfrac{1}{2} \langle W \circ G, G \rangle + \lambda |X|_*
          + \tfrac{1}{2} \lambda_b (|a|^2 + |b|^2)

is bounded from below by the dual value of every :math:`Y` on these places whose spectral norm is
at most :math:`\lambda`,

.. math:: d = \langle Y, T \rangle - \tfrac{1}{2} \langle Y / W, Y \rangle
          - \tfrac{1}{2 \lambda_b} (|Y 1|^2 + |Y^T 1|^2),

by Fenchel's inequality for each square. Here :math:`Y = c \, W \circ G`, with the best c.
"""

from typing import NamedTuple

import numpy as np

_EPS = np.finfo(np.float64).eps
# Sums of non-negative terms lose a few units in the last place.
_ROUNDING = 8 * _EPS
# Smaller sides up to which the Gram matrix tells the spectral norm to rounding: always, and where
# nothing else settles the matter.
_SMALL, _EXACT = 200, 2000
# How much the answer's spaces may have to do with the rest, relative to what they have inside.
_COUPLED = 0.02
# Random columns of the block, most steps, and most numbers of the basis.
_WIDTH, _STEPS, _BASIS = 8, 60, 1 << 27
# Residuals, relative to the largest eigenvalue, of those that have converged.
_CONVERGED = 1e-5
# Numbers in a block of rows of the matrix, stored densely.
_BLOCK = 1 << 22
# How close the bounds must be where the gap is too large: asked for, and only reported.
_SHARP, _ROUGH = 1.0 + 1e-8, 1.1
# How likely a bound from random columns may be wrong.
_RISK = 1e-12


class Duality:
    """The gap, term by term, as a function of the spectral norm of ``W o G``.

    Parameters
    ----------
    be : Backend
    lam, lam_bias : float
        Ridges.
    s : array, shape (k,)
        Singular values of X.
    aligned : array, shape (k,)
        ``u_l . (W o G) v_l`` for its singular vectors.
    square : float
        ``<W o G, G>``.
    loose : float
        The same for places that no Y may touch, which `square` leaves out.
    along : float
        ``<W o G, T>``.
    biases : list of (array, array)
        Row biases with the row sums of ``W o G``, and columns likewise; empty without biases.

    Attributes
    ----------
    primal : float
    """

    def __init__(self, be, lam, lam_bias, s, aligned, square, loose, along, biases):
        self._lam, self._square, self._loose, self._along = lam, square, loose, along
        self._s, self._aligned = (np.atleast_1d(x) for x in be.host(s, aligned))
        # |lam b - c y|^2 for each bias vector b with pull y, as a polynomial in c.
        terms = [be.host(b @ b, b @ y, y @ y) for b, y in biases]
        self._bias = [(lam_bias * bb / 2, by, yy / (2 * lam_bias)) for bb, by, yy in terms]
        size = sum(bb for bb, _, _ in self._bias)
        self.primal = (square + loose) / 2 + lam * float(self._s.sum()) + size

    def gap(self, norm):
        """Return primal minus dual value for the best `c` that this spectral norm allows."""
        curvature = self._square + sum(2 * yy for _, _, yy in self._bias)
        c = max(self._along / curvature, 0.0) if curvature > 0 else 1.0
        if norm > 0:
            c = min(c, self._lam / norm)
        # All terms are non-negative: primal and dual are never subtracted.
        idle = self._s @ np.maximum(self._lam - c * self._aligned, 0.0)
        bias = sum(max(bb - c * by + c * c * yy, 0.0) for bb, by, yy in self._bias)
        total = ((1 - c) ** 2 * self._square + self._loose) / 2 + float(idle) + bias
        return total + _ROUNDING * self.primal

    def settled(self, ends, tol, sharp):
        """Tell whether closer bounds of the spectral norm would not change the verdict.

        Parameters
        ----------
        ends : (float, float)
            Lower and upper bound.
        tol : float
            Largest relative gap that passes.
        sharp : bool
            Whether the gap is asked for, not only the verdict.
        """
        lower, upper = ends
        goal = tol * self.primal
        if self.gap(upper) <= goal:
            return True
        return self.gap(lower) > goal and upper <= (_SHARP if sharp else _ROUGH) * lower


class Bounds(NamedTuple):
    """What is known of the spectral norm of a slope, and whether from a Gram matrix."""

    lower: float
    upper: float
    exact: bool


def bound_norm(slope, split, settled):
    """Return `Bounds` of the spectral norm of a slope, as close as needed.

    Parameters
    ----------
    slope : Slope
    split : Split
        The slope in blocks.
    settled : callable
        ``settled(lower, upper)`` tells whether closer bounds would change nothing.
    """
    if min(slope.shape) <= _SMALL:
        return _exact_bounds(slope)
    # Singular vectors of an optimum all have the value lam: they would hide what comes next.
    core, left, right = split.core, split.left, split.right
    U, V = split.U, split.V
    if max(left, right) > _COUPLED * core:
        core, left, right = 0.0, 0.0, 0.0
        U, V = U[:, :0], V[:, :0]
    for rest, most in rest_norms(slope, U, V):
        lower = max(core, rest)
        # The norm of a matrix is at most that of the matrix of its blocks' norms.
        upper = float(np.linalg.norm([[core, right], [left, most]], 2)) if most < np.inf else most
        if settled(lower, upper):
            return Bounds(lower, upper, False)
    return Bounds(lower, upper, False) if min(slope.shape) > _EXACT else _exact_bounds(slope)


def _exact_bounds(slope):
    norm = spectral_norm(slope)
    return Bounds(norm, norm, True)


def spectral_norm(slope):
    """Return the spectral norm of a `Slope`, to rounding, from the Gram matrix of a side."""
    be, xp = slope.be, slope.be.xp
    times, back = slope.times, slope.transposed_times
    small, large = slope.shape
    if small > large:
        times, back, small, large = back, times, large, small
    unit, width = xp.eye(small), max(_BLOCK // large, 8)
    blocks = [times(back(unit[:, k : k + width])) for k in range(0, small, width)]
    top = be.host(xp.linalg.eigvalsh(xp.concatenate(blocks, axis=1))[-1])
    return float(np.sqrt(max(top, 0.0)) * (1 + 64 * _EPS))


def rest_norms(slope, Qu, Qv):
    r"""Yield ever closer bounds (lower, upper) of what a `Slope` has outside of two subspaces.

    That is the spectral norm of ``(I - Qu Qu^T) A (I - Qv Qv^T)``, by block Lanczos with random
    columns. Lower bounds are proven. After j steps a single random column misses the largest
    eigenvalue of a matrix of order n by more than the part :math:`\varepsilon` with a probability
    of at most :math:`1.648 \sqrt{n} e^{-\sqrt{\varepsilon} (2j - 1)}` (Kuczynski and Wozniakowski,
    SIAM J. Matrix Anal. Appl. 13, 1992), and the block misses it only if each column does. The
    residual tells the distance to some eigenvalue, which is taken for the largest one where it has
    converged.
    """
    be, xp = slope.be, slope.be.xp
    times, back = slope.times, slope.transposed_times
    if slope.shape[0] < slope.shape[1]:
        times, back, Qu, Qv = back, times, Qv, Qu
    n, free = Qv.shape[0], Qv.shape[0] - Qv.shape[1]
    width = min(_WIDTH, free)
    if width == 0:
        yield 0.0, 0.0
        return
    random = xp.asarray(np.random.default_rng(0).standard_normal((n, width)))
    Q = basis = xp.linalg.qr(_without(Qv, _without(Qv, random)))[0]
    H = np.zeros((0, 0))
    steps = max(min(_STEPS, _BASIS // (n * width)), 4)
    for step in range(1, steps + 1):
        P = _without(Qv, back(_without(Qu, times(Q))))
        column = be.host(basis.T @ P)
        H = np.block([[H, column[:-width]], [column[:-width].T, column[-width:]]])
        Q, first = xp.linalg.qr(_without(Qv, _without(basis, P)))
        # Once more: columns that were nothing but rounding errors point anywhere.
        Q, second = xp.linalg.qr(_without(Qv, _without(basis, Q)))
        eigenvalues, vectors = np.linalg.eigh((H + H.T) / 2)
        top = max(float(eigenvalues[-1]), 0.0)
        residual = float(np.linalg.norm(be.host(second @ first) @ vectors[-width:, -1]))
        chance = _RISK ** (1 / width)
        missed = (np.log(1.648 * np.sqrt(free) / chance) / (2 * step - 1)) ** 2
        upper = top / (1 - missed) if missed < 1 else np.inf
        if residual <= _CONVERGED * top:
            upper = min(upper, top + residual)
        yield float(np.sqrt(top)), float(np.sqrt(upper) * (1 + 64 * _EPS))
        if basis.shape[1] + width > free or residual <= _EPS * top:
            return
        basis = xp.concatenate([basis, Q], axis=1)


def _without(Q, X):
    """Return what columns have outside of a subspace."""
    return X - Q @ (Q.T @ X) if Q.shape[1] else X
