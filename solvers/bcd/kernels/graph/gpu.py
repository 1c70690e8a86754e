"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays.

Colours, forests and orders are decided node by node, each by what came before: that is done on
the host. What is computed again and again runs on the device, level by level or colour by colour.
"""

from ...._core.backend import CudaSource, blocks, get_backend

_cuda = CudaSource(__file__)
_BLOCK = 256


def _on_host(name, *args, out):
    """Run a kernel of `cpu.py` on copies, and bring back those arrays that it fills."""
    from . import cpu

    be = get_backend("cupy")
    arrays = [be.host(x) if hasattr(x, "ndim") and x.ndim else x for x in args]
    found = getattr(cpu, name)(*arrays)
    for place in out:
        args[place][...] = be.xp.asarray(arrays[place])
    return found


def colour(ptr, idx, order, colours):
    """Colour nodes in `order` such that neighbours differ; return how many colours that takes."""
    return _on_host("colour", ptr, idx, order, colours, out=(3,))


def forests(ptr, idx, order, blocks):
    """Put each node, in `order`, into the first block that stays a forest."""
    return _on_host("forests", ptr, idx, order, blocks, out=(3,))


def greedy_forest(ptr, idx, order, blocks):
    """Choose nodes in `order` while they make up a forest; return how many they are."""
    return _on_host("greedy_forest", ptr, idx, order, blocks, out=(3,))


def elimination_order(ptr, idx, blocks, number, order, up, edge, levels, floors):
    """Store the trees of each block level by level, breadth first, block after block."""
    args = ptr, idx, blocks, number, order, up, edge, levels, floors
    _on_host("elimination_order", *args, out=(4, 5, 6, 7, 8))


def pair_up(ptr, idx, val, groups):
    """Group each node with the neighbour it is tied to most; return how many groups there are."""
    return _on_host("pair_up", ptr, idx, val, groups, out=(3,))


def factor_forest(levels, up, weight, pivots, factors):
    """Eliminate a forest's matrix from its leaves to its roots; tell whether it is definite."""
    xp = get_backend("cupy").xp
    sizes, sound = xp.ones(up.size, "int64"), xp.ones((), bool)
    args = (
        levels, levels.size - 1, up, weight, pivots.copy(), pivots, factors, sizes, sound,
    )  # fmt: skip
    _cuda.launch("factor_forest", weight.dtype, 1, _BLOCK, args)
    return sound


def solve_forest(levels, up, pivots, factors, h):
    """Solve a factorised forest's system for each column of h (m, C), in place."""
    left = get_backend("cupy").xp.zeros(())
    args = levels, levels.size - 1, up, pivots, factors, h, h.shape[1], left
    _cuda.launch("solve_forest", h.dtype, 1, _BLOCK, args)
    return left


def split_rows(ptr, idx, blocks, low, high):
    """Find where a row's entries in its own block begin and end; indices are sorted."""
    args = ptr, idx, blocks, blocks.size - 1, low, high, low.size
    _cuda.launch("split_rows", "double", _grid(low.size), _BLOCK, args)


def sweep_forests(rows, idx, val, low, high, trees, factors, z, work):
    """Solve with the symmetric block Gauss-Seidel splitting of a matrix, for each column of z."""
    ptr, floors = get_backend("cupy").host(trees[0], trees[2])
    number = len(ptr) - 1

    def solve(b, out):
        nodes, levels = slice(ptr[b], ptr[b + 1]), slice(floors[b], floors[b + 1])
        solve_forest(
            trees[1][levels], trees[3][nodes], factors[0][nodes], factors[1][nodes], out[nodes]
        )
        return nodes

    for b in range(number):
        nodes = slice(ptr[b], ptr[b + 1])
        _products(rows[:-1], low, idx, val, z, work, *ptr[b : b + 2].tolist())
        z[nodes] -= work[nodes]
        solve(b, z)
    for b in range(number - 2, -1, -1):
        _products(high, rows[1:], idx, val, z, work, *ptr[b : b + 2].tolist())
        nodes = solve(b, work)
        z[nodes] -= work[nodes]


def product(ptr, idx, val, X, out):
    """Set `out` to A X, for X (m, C) and A in compressed rows."""
    _products(ptr[:-1], ptr[1:], idx, val, X, out, 0, X.shape[0])


def add_columns(ptr, idx, val, nodes, d, g):
    """Add ``A[:, nodes] d`` to g, for a symmetric A in compressed rows."""
    xp = get_backend("cupy").xp
    spread, change = xp.zeros_like(g), xp.empty_like(g)
    spread[nodes] = d
    # Rows gather what columns would scatter: no two threads add to the same number.
    product(ptr, idx, val, spread, change)
    g += change


def projected_sweep(ptr, idx, val, diagonal, b, lo, hi, colours, order, x):
    """Minimise ``x^T A x / 2 - b^T x`` over each unknown in turn, within bounds."""
    ends, C = get_backend("cupy").host(colours), x.shape[1]
    for first, last in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        args = ptr, idx, val, diagonal, b, float(lo), float(hi), order, first, last, x, C
        _cuda.launch("projected_sweep", x.dtype, _grid((last - first) * C), _BLOCK, args)


def assignment_sweep(ptr, idx, val, cost, lam, barrier, colours, order, Y):
    """Minimise over the assignment of each point in turn, the others fixed."""
    ends = get_backend("cupy").host(colours)
    for first, last in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        args = (
            ptr, idx, val, cost, float(lam), float(barrier), order, first, last, Y, Y.shape[1],
        )  # fmt: skip
        _cuda.launch("assignment_sweep", Y.dtype, _grid(last - first), _BLOCK, args)


def _products(begin, end, idx, val, x, out, first, last):
    """Set rows `first` to `last` of `out` to products with x, by the entries from begin to end."""
    args = begin, end, idx, val, x, out, first, last, x.shape[1]
    _cuda.launch("row_products", x.dtype, _grid((last - first) * x.shape[1]), _BLOCK, args)


def _grid(size):
    return blocks(size, _BLOCK)
