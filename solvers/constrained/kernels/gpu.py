"""Launchers of the CUDA twins of `cpu.py`: the same functions, for CuPy arrays.

Steps follow each other, each with the x of the one before. Those over single rows and over
compressed rows run in one block of threads; those over dense blocks of rows are products that
fill the device, from CuPy.
"""

from ..._core.backend import CudaSource, get_backend
from ..._core.backend import blocks as grid_of

_cuda = CudaSource(__file__)
_BLOCK, _PAIRS = 512, 128


def kaczmarz(A, b, inverse, order, x):
    """Project x onto the solutions of one equation after the other.

    `inverse` holds the rows' inverse squared lengths, 0 for rows of zeros.
    """
    args = A, b, inverse, order, x, order.size, x.size
    _cuda.launch("kaczmarz", x.dtype, 1, _BLOCK, args)


def kaczmarz_csr(values, columns, starts, b, inverse, order, x):
    """Project x onto the solutions of one equation after the other; compressed rows."""
    args = values, columns, starts, b, inverse, order, x, order.size
    _cuda.launch("kaczmarz_csr", x.dtype, 1, _BLOCK, args)


def block_kaczmarz(A, b, scale, blocks, factors, order, z, eta, v, x, squares):
    """Project x onto the solutions of several equations at once, one block after the other.

    Equations are multiplied by `scale`; `blocks` (k, q) lists their numbers, `factors` (k, q, q)
    the lower Cholesky factors of their Gram matrices. With ``z > 0`` the steps have momentum,
    which `v` carries. `squares` receives the squared residual that each step found.
    """
    be = get_backend("cupy")
    chosen = blocks[order]
    for step in range(order.size):
        rows = chosen[step]
        s, W = scale[rows], A[rows]
        t = s * (b[rows] - W @ x)
        squares[step] = t @ t
        L = factors[order[step : step + 1]][0]
        t = be.linalg.solve_triangular(L, t, lower=True, check_finite=False)
        t = be.linalg.solve_triangular(L, t, lower=True, trans=1, check_finite=False)
        w = (s * t) @ W
        x += w
        if z > 0.0:
            v += w
            v *= z
            x += eta * v


def block_kaczmarz_csr(
    values, columns, starts, b, scale, blocks, factors, order, z, eta, v, x, squares
):
    """Project x onto the solutions of several equations at once; compressed rows."""
    xp, q = get_backend("cupy").xp, blocks.shape[1]
    t, w = xp.empty(q), xp.zeros(x.size)
    args = (
        values, columns, starts, b, scale, blocks, factors, order, float(z), float(eta), v, x,
        squares, t, w, order.size, q, x.size,
    )  # fmt: skip
    _cuda.launch("block_kaczmarz_csr", x.dtype, 1, _BLOCK, args)


def gram_csr(values, columns, starts, scale, blocks, width, gram):
    """Set gram (k, q, q) to the products of the scaled rows of each block; columns < width."""
    args = values, columns, starts, scale, blocks, gram, blocks.shape[1], gram.size
    _cuda.launch("gram_csr", values.dtype, grid_of(gram.size, _PAIRS), _PAIRS, args)
