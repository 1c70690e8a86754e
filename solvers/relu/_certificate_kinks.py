r"""The dual point of weights whose loss has kinks.

At a kink of the hinge any slope in [0, 1] belongs to the weights, but one taken at random gives
next to no bound. Optimal weights know theirs: over the blocks that are not zero

.. math:: X^\top (\pm D_i z + E_i \alpha_i) = \beta \, v_i / \|v_i\|

with z free at kinks and :math:`\alpha_i \ge 0` free at rows that hold with equality.
"""

import numpy as np

# Entries of the system that is still worth solving, and the sweeps it gets.
_LARGEST, _SWEEPS = 4_000_000, 300


def at_kinks(data, U, near):
    """Return the dual point z (c, n) that belongs to blocks U of the hinge loss.

    `near` is what counts as a kink, as equality in a cone, and as zero beside the longest block:
    what another solver leaves of a zero.
    """
    z, margins = data.slope(U), data.loss.y * data.predictions(U)
    for o, m in enumerate(margins):
        free = np.flatnonzero(abs(m - 1.0) <= near)
        length = np.linalg.norm(U[o], axis=-1)
        s, i = np.nonzero(length > near * length.max())
        if len(free) and len(i):
            z[o, free] = _solved(data, z[o], data.loss.y[o], U[o, s, i], s, i, free, near)
    return z


def _solved(data, z, y, V, side, gates, free, near):
    """Return z at the free samples of one output, from its blocks V (B, d)."""
    B, d = V.shape
    length = np.linalg.norm(V, axis=1)
    sign = (1.0 - 2.0 * side)[:, None] * data.mask[gates]
    fixed = z.copy()
    fixed[free] = 0.0
    right = (data.beta / length)[:, None] * V - (sign * fixed) @ data.X
    block, row = np.nonzero(data.cones.slack(V, gates) <= near * length[:, None])
    if B * d * (len(free) + len(row)) > _LARGEST:
        return 0.5 * y[free]
    A = np.zeros((B, d, len(free) + len(row)))
    A[:, :, : len(free)] = np.swapaxes((sign[:, free] * y[free])[..., None] * data.X[free], 1, 2)
    signs = 2.0 * data.mask[gates[block], row] - 1.0
    A[block, :, len(free) + np.arange(len(row))] = (signs * data.cones.scale[row])[
        :, None
    ] * data.X[row]
    high = np.r_[np.ones(len(free)), np.full(len(row), np.inf)]
    return y[free] * within(A.reshape(B * d, -1), right.ravel(), 0.0, high)[: len(free)]


def within(A, b, low, high, sweeps=_SWEEPS):
    """Return x with ``A x = b`` nearly and ``low <= x <= high``, by Douglas-Rachford splitting."""
    gram = A @ A.T
    gram[np.diag_indices_from(gram)] += 1e-12 * (np.trace(gram) / len(gram) + 1e-300)
    inverse = np.linalg.inv(gram)
    state = np.where(np.isfinite(high), 0.5 * (low + high), 0.0)
    for _ in range(sweeps):
        x = np.clip(state, low, high)
        moved = 2.0 * x - state
        step = moved - A.T @ (inverse @ (A @ moved - b)) - x
        state = state + step
        if np.linalg.norm(step) <= 1e-12 * (1.0 + np.linalg.norm(x)):
            break
    return np.clip(state, low, high)
