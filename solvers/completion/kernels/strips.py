"""How rows with very different numbers of entries are shared out among threads."""

import numpy as np

from ..._core import threads


def cuts(ptr, work):
    """Return where to cut the rows into strips, for so many operations for each entry."""
    strips = threads.strips((ptr[-1] + ptr.size) * work)
    if strips == 1:
        return np.array([0, ptr.size - 1])
    # A row and its entries stand for their share of the work.
    done = ptr + np.arange(ptr.size)
    # Many small strips: threads that the system holds up leave theirs to the others.
    goals = np.linspace(0, done[-1], 8 * strips + 1)
    return np.searchsorted(done, goals)
