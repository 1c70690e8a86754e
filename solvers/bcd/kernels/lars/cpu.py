"""Numba kernel for a Cholesky factor that loses a row; there is no CUDA twin.

The factor is small and each rotation depends on the last one, so it lives on the host wherever the
data are.
"""

from math import sqrt

from ...._core.kernels.jit import kernel


@kernel()
def drop_row(L, size, j):
    """Update the lower Cholesky factor of a matrix of order `size` that loses row and column j.

    Rows from j on move up by one. What the matrix L holds beyond does not count.
    """
    for i in range(j, size - 1):
        for k in range(i + 2):
            L[i, k] = L[i + 1, k]
    # Each row now has one entry too many, right of the diagonal: rotate it away.
    for i in range(j, size - 1):
        r = sqrt(L[i, i] * L[i, i] + L[i, i + 1] * L[i, i + 1])
        c, s = L[i, i] / r, L[i, i + 1] / r
        for m in range(i, size - 1):
            left, right = L[m, i], L[m, i + 1]
            L[m, i] = c * left + s * right
            L[m, i + 1] = c * right - s * left
