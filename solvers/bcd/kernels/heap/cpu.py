"""Numba kernels of a heap of scores; of equal ones the lowest index is ahead.

They have no CUDA twins: a heap serves one thread, and a device looks at all scores as fast.
"""

from ...._core.kernels.jit import EXACT, kernel


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
