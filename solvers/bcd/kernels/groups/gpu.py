"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays."""

from ...._core.backend import CudaSource, blocks, get_backend

_cuda = CudaSource(__file__)
_BLOCK, _WIDE = 128, 512
# Proximal steps on a block before the next one has its turn.
_INNER = 10


def block_distances(ptr, l1, l2, ridge, w, g, out):
    """Set `out` to the distance of -g from the subdifferential, block by block."""
    args = ptr, l1, l2, ridge, w, g, out, l2.size
    _cuda.launch("block_distances", w.dtype, blocks(l2.size, _BLOCK), _BLOCK, args)


def block_bounds(H, ptr, out):
    """Set `out` to upper bounds of the largest eigenvalue of each diagonal block."""
    args = H, ptr, out, out.size, H.shape[0]
    _cuda.launch("block_bounds", H.dtype, blocks(out.size, _BLOCK), _BLOCK, args)


def block_sweeps(H, ptr, l1, l2, ridge, bound, w, g, sweeps, tol):
    """Cycle through the blocks of a quadratic model and move each to its minimiser, nearly."""
    work = _work(ptr, w, 3)
    args = H, ptr, l1, l2, ridge, bound, w, g, sweeps, float(tol), l2.size, w.size
    _cuda.launch("block_sweeps", w.dtype, 1, _WIDE, (*args, work, work.shape[1], _INNER))


def column_sweeps(A, D, Q, ptr, l1, l2, ridge, bound, w, R, sweeps, tol):
    """Cycle through the blocks of a quadratic model that is known by its columns."""
    columns = A, D, Q, ptr, l1, l2, ridge, bound, w, R, sweeps, float(tol)
    _launch("column_sweeps", columns, ptr, l2, w, Q, R)


def sparse_column_sweeps(start, idx, val, D, Q, ptr, l1, l2, ridge, bound, w, R, sweeps, tol):
    """Do as `column_sweeps` with columns that are compressed."""
    columns = start, idx, val, D, Q, ptr, l1, l2, ridge, bound, w, R, sweeps, float(tol)
    _launch("sparse_column_sweeps", columns, ptr, l2, w, Q, R)


def _launch(name, columns, ptr, l2, w, Q, R):
    C, n = R.shape
    work = _work(ptr, w, 2)
    args = (*columns, l2.size, n, C, Q.shape[0] > 0, work, work.shape[1])
    _cuda.launch(name, w.dtype, 1, _WIDE, args)


def _work(ptr, w, rows):
    """Return room for numbers of the widest block."""
    be = get_backend("cupy")
    return be.xp.empty((rows, int(be.host(be.xp.diff(ptr).max()))), w.dtype)
