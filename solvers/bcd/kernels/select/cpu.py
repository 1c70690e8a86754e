"""Numba kernels that choose blocks; `gpu.py` launches their CUDA twins.

Scores are float64. Of equal ones the lowest index wins.
"""

import numpy as np

from ...._core.kernels.jit import EXACT, REDUCE, kernel


@kernel(fastmath=EXACT)
def top(scores, out):
    """Set `out` to the indices of the largest scores, ascending; NaN counts as the smallest.

    Hoare's selection finds the smallest score that belongs to them, in linear time on average.
    """
    n, size = scores.size, out.size
    work = np.empty(n)
    for i in range(n):
        work[i] = scores[i] if scores[i] == scores[i] else -np.inf
    low, high, last = 0, n - 1, size - 1
    while low < high:
        pivot = _middle(work[low], work[(low + high) // 2], work[high])
        i, j = low, high
        while i <= j:
            while work[i] > pivot:
                i += 1
            while work[j] < pivot:
                j -= 1
            if i <= j:
                work[i], work[j] = work[j], work[i]
                i += 1
                j -= 1
        if last <= j:
            high = j
        elif last >= i:
            low = i
        else:
            break
    least, above = work[last], 0
    for i in range(n):
        above += scores[i] > least
    ties, place = size - above, 0
    for i in range(n):
        if scores[i] > least:
            out[place] = i
            place += 1
        elif ties > 0 and (scores[i] == least or (scores[i] != scores[i] and least == -np.inf)):
            out[place] = i
            place += 1
            ties -= 1


@kernel(inline=True)
def _middle(a, b, c):
    """Return the median of three numbers."""
    return max(min(a, b), min(max(a, b), c))


@kernel(fastmath=REDUCE)
def block_sums(scores, ptr, idx, out):
    """Set `out` to the sums of scores over blocks."""
    for b in range(out.size):
        total = 0.0
        for k in range(ptr[b], ptr[b + 1]):
            total += scores[idx[k]]
        out[b] = total


@kernel(fastmath=EXACT)
def best_limit(square, L, order, heap):
    """Return where to stop adding unknowns in an order of ascending L.

    The sum of the largest squares so far, as many as `heap` has room for, over the last L is
    largest there.

    Parameters
    ----------
    square, L : array, shape (N,)
    order : array of int64, shape (N,)
        Unknowns by ascending L.
    heap : array, shape (size,)
        Work space: the largest squares so far, the smallest of them first.
    """
    size, count, total = heap.size, 0, 0.0
    best, where = -1.0, order.size - 1
    for k in range(order.size):
        i = order[k]
        if not L[i] > 0.0:
            continue
        new = square[i]
        if count < size:
            position = count
            count += 1
            total += new
            while position > 0 and heap[(position - 1) // 2] > new:
                heap[position] = heap[(position - 1) // 2]
                position = (position - 1) // 2
            heap[position] = new
        elif new > heap[0]:
            total += new - heap[0]
            position = 0
            while 2 * position + 1 < size:
                child = 2 * position + 1
                if child + 1 < size and heap[child + 1] < heap[child]:
                    child += 1
                if heap[child] >= new:
                    break
                heap[position] = heap[child]
                position = child
            heap[position] = new
        if count == size and total > best * L[i]:
            best, where = total / L[i], k
    return where


@kernel(fastmath=EXACT)
def pursue(H, g, chosen):
    """Choose unknowns one by one, each the one by which the quadratic model falls most.

    Parameters
    ----------
    H : array, shape (c, c)
        Second derivatives between candidates.
    g : array, shape (c,)
        Their gradient.
    chosen : array of int64, shape (size,)
        Set to the candidates in the order of choice; -1 where none is left that helps.

    Returns
    -------
    float
        ``g_b^T H_bb^-1 g_b`` of the chosen ones b: twice the fall.

    Notes
    -----
    A Cholesky factorisation whose pivot is the candidate with the largest square of its residual
    gradient over its remaining diagonal entry.
    """
    c = g.size
    rest, pivot = g.astype(np.float64), np.empty(c)
    columns = np.zeros((chosen.size, c))
    for i in range(c):
        pivot[i] = H[i, i]
    total = 0.0
    for k in range(chosen.size):
        chosen[k] = -1
        best, best_gain = -1, 0.0
        for i in range(c):
            # What is left of a dependent column is rounding.
            if pivot[i] > 1e-10 * H[i, i]:
                gain = rest[i] * rest[i] / pivot[i]
                if gain > best_gain:
                    best, best_gain = i, gain
        if best < 0:
            continue
        chosen[k] = best
        total += best_gain
        root = np.sqrt(pivot[best])
        step = rest[best] / root
        for i in range(c):
            columns[k, i] = H[best, i]
        for m in range(k):
            share = columns[m, best]
            for i in range(c):
                columns[k, i] -= share * columns[m, i]
        for i in range(c):
            columns[k, i] /= root
            rest[i] -= columns[k, i] * step
            pivot[i] -= columns[k, i] * columns[k, i]
        pivot[best] = 0.0
    return total
