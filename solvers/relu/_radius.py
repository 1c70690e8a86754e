"""How far samples may move before a network can change its mind."""

import numpy as np

# Halvings of the bracket, and doublings after which a radius counts as infinite.
_HALVINGS, _DOUBLINGS = 40, 200
# A block of samples by neurons of this size stays in the cache.
_BLOCK = 1 << 18


def radii(pre, reach, out, label):
    """Return radii in the inf-norm within which the label cannot change.

    Parameters
    ----------
    pre : array, shape (q, m)
        What enters the neurons.
    reach : array, shape (m,)
        How much it may change for each unit of radius.
    out : array, shape (m, c)
        Weights of the outputs.
    label : array of int, shape (q,)
        The largest output of each sample.

    Notes
    -----
    A change by up to r moves the input of neuron j by at most ``r * reach[j]``: what neurons add
    to the difference of two outputs is at least what they add at one end.
    """
    found = np.full(len(pre), np.inf)
    rows = max(1, _BLOCK // max(pre.shape[1], 1))
    for k in range(out.shape[1]):
        members = np.flatnonzero(label == k)
        for at in range(0, len(members), rows):
            some = members[at : at + rows]
            for other in range(out.shape[1]):
                if other != k:
                    margin = _margin_radius(pre[some], reach, out[:, k] - out[:, other])
                    found[some] = np.minimum(found[some], margin)
    return found


def _margin_radius(pre, reach, a):
    """Return the radii within which ``maximum(pre, 0) @ a`` stays positive."""
    used = a != 0
    pre, reach, a = pre[:, used], reach[used], a[used]
    # The end of the interval that adds least.
    shift = -np.sign(a) * reach

    def positive(r):
        return np.maximum(pre + r[:, None] * shift, 0.0) @ a > 0

    margin = np.maximum(pre, 0.0) @ a
    slope = float(abs(a) @ reach)
    # No output changes by more than the slope times the radius: a start that is safe.
    low = np.maximum(margin, 0.0) / slope if slope > 0 else np.full(len(pre), np.inf)
    open_ = (margin > 0) & np.isfinite(low)
    low[margin <= 0] = 0.0
    high = np.where(open_, low, 0.0)
    for _ in range(_DOUBLINGS):
        grows = open_ & positive(high)
        if not grows.any():
            break
        low, high = np.where(grows, high, low), np.where(grows, 2.0 * high, high)
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        safe = positive(middle)
        low, high = np.where(open_ & safe, middle, low), np.where(open_ & ~safe, middle, high)
    # Rounding in the comparison must not make a radius too large.
    return np.where(open_ & grows, np.inf, low * (1.0 - 1e-9))
