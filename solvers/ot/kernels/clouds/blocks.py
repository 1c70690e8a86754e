"""Passes over a cloud by way of the costs of some rows at a time, for Numba and CUDA alike."""


def row_pass(stored, costs, C, h, beta, reg, a, shift, K):
    """As `stored.row_pass`; ``costs(C, rows)`` returns the costs of some rows."""
    sums = C.be.xp.zeros(C.shape[1])
    for rows in C.row_blocks(parallel=True):
        sums += stored.row_pass(costs(C, rows), h, beta, reg, a[rows], shift[rows], K[rows])
    return sums


def sparse_row_pass(
    stored, costs, C, h, beta, reg, a, shift, cutoff, indices, values, starts, ends
):
    """As `stored.sparse_row_pass`; ``costs(C, rows)`` returns the costs of some rows."""
    sums, at, fitted = C.be.xp.zeros(C.shape[1]), 0, True
    for rows in C.row_blocks():
        part, fits = stored.sparse_row_pass(
            costs(C, rows), h, beta, reg, a[rows], shift[rows], cutoff,
            indices[at:], values[at:], starts[rows], ends[rows],
        )  # fmt: skip
        sums += part
        starts[rows] += at
        ends[rows] += at
        fitted = fitted and fits
        # Without room for one row there is none for the others.
        at = int(C.be.host(ends[rows][-1])) if fitted else indices.size
    return sums, fitted


def column_potential(stored, costs, C, shift, a, reg, columns, h):
    """As `stored.column_potential`; ``costs(C, rows)`` returns the costs of some rows."""
    xp, some = C.be.xp, C.T.part(columns, None)
    found = h[columns]
    for k in some.row_blocks():
        part = found[k]
        few = costs(some, k).T
        stored.column_potential(
            xp.ascontiguousarray(few), shift, a, reg, xp.arange(few.shape[1]), part
        )
        found[k] = part
    h[columns] = found
