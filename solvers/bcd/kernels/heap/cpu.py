"""Numba kernels of a heap of scores; of equal ones the lowest index is ahead.

They have no CUDA twins: a heap serves one thread, and a device looks at all scores as fast.
"""

from ...._core.kernels.jit import EXACT, kernel
from ...._core.kernels.rules import prox
from ..sweeps.cpu import _score


@kernel(fastmath=EXACT)
def heap_build(scores, heap, place):
    """Order unknowns as a heap: no score is larger than that of its parent.

    Parameters
    ----------
    scores : array, shape (N,)
    heap, place : array of int64, shape (N,)
        Set to the unknown in each position, and to the position of each unknown.
    """
    for i in range(heap.size):
        heap[i] = i
        place[i] = i
    for position in range(heap.size // 2 - 1, -1, -1):
        _sift_down(scores, heap, place, position)


@kernel(fastmath=EXACT)
def heap_update(scores, heap, place, items, new):
    """Give some unknowns new scores, each in logarithmic time."""
    for k in range(items.size):
        i = items[k]
        scores[i] = new[k]
        _sift_up(scores, heap, place, place[i])
        _sift_down(scores, heap, place, place[i])


@kernel(fastmath=EXACT)
def heap_steps(penalty, indptr, indices, data, L, rule, steps, x, g, scores, heap, place):
    """Minimise a sparse quadratic over one unknown at a time, the one that promises most.

    Parameters
    ----------
    indptr, indices, data : array
        Rows of the Hessian, which is symmetric.
    L : array, shape (N,)
        Its diagonal.
    rule : int
        What promises most; see `greedy_steps`.
    steps : int
        How many steps to take.
    x, g : array, shape (N,)
        Unknowns and gradient; they move.
    scores, heap, place : array, shape (N,)
        Scores at x, and the heap of them.

    Returns
    -------
    int
        Steps that were taken: fewer if nothing promises anything.
    """
    for done in range(steps):
        j = heap[0]
        if not (scores[j] > 0.0 and L[j] > 0.0):
            return done
        new = prox(penalty, x[j] - g[j] / L[j], 1.0 / L[j], j)
        d = new - x[j]
        x[j] = new
        for e in range(indptr[j], indptr[j + 1]):
            k = indices[e]
            g[k] += d * data[e]
            score = _score(penalty, rule, 1.0 * x[k], 1.0 * g[k], L[k], k)
            scores[k] = score if L[k] > 0.0 else 0.0
            _sift_up(scores, heap, place, place[k])
            _sift_down(scores, heap, place, place[k])
    return steps


@kernel(fastmath=EXACT)
def heap_scores(penalty, L, rule, x, g, scores):
    """Set `scores` to what a step of each unknown promises; see `heap_steps`."""
    for k in range(x.size):
        score = _score(penalty, rule, 1.0 * x[k], 1.0 * g[k], L[k], k)
        scores[k] = score if L[k] > 0.0 else 0.0


@kernel(fastmath=EXACT)
def _sift_up(scores, heap, place, position):
    while position > 0:
        parent = (position - 1) // 2
        if not _ahead(scores, heap[position], heap[parent]):
            return
        _swap(heap, place, position, parent)
        position = parent


@kernel(fastmath=EXACT)
def _sift_down(scores, heap, place, position):
    n = heap.size
    while True:
        child = 2 * position + 1
        if child >= n:
            return
        if child + 1 < n and _ahead(scores, heap[child + 1], heap[child]):
            child += 1
        if not _ahead(scores, heap[child], heap[position]):
            return
        _swap(heap, place, position, child)
        position = child


@kernel(inline=True)
def _ahead(scores, i, j):
    return scores[i] > scores[j] or (scores[i] == scores[j] and i < j)


@kernel(inline=True)
def _swap(heap, place, p, q):
    i, j = heap[p], heap[q]
    heap[p], heap[q] = j, i
    place[i], place[j] = q, p
