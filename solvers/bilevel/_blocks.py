"""Levels that are means over blocks, each with a lower variable of its own."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from .._core.arrays import Ingest
from .._core.trees import is_tree, leaves, refilled
from ._oracle import Oracle, as_oracle

# Samples that a pass over all blocks asks for at a time.
_AT_A_TIME = 1 << 20


class BlockLook(NamedTuple):
    """Values (I,) and gradients, (I, d) and (I, p), of I blocks."""

    value: Any
    gx: Any
    gy: Any


class BlockLevel:
    """The blocks of one level, on vectors x and matrices with a row for each block.

    Parameters
    ----------
    oracle : Oracle
        What the caller knows of single blocks.
    level : Level
        The mean over all of them; keeps the counts.
    n_blocks : int

    Attributes
    ----------
    sizes : numpy.ndarray, shape (n_blocks,)
        Numbers of samples.
    """

    def __init__(self, oracle, level, n_blocks):
        self.oracle, self.level, self.n_blocks = oracle, level, n_blocks
        self.io, self.px, self.name = level.io, level.px, level.name
        self.shape = level.py.shapes[0][1:]
        self.sizes = block_sizes(oracle, self.name, n_blocks)

    def looks(self, points, blocks, idx):
        """Return a `BlockLook` for each of some points on the same samples.

        Parameters
        ----------
        points : list of (array (d,), array (I, p))
        blocks : array of int, shape (I,)
        idx : array of int, shape (I, B)
            Samples of each block.
        """
        self._count(idx, len(points), ("n", "n_gx", "n_gy"))
        if self.level.direct is not None:
            return self.level.direct.block_looks(points, blocks, idx)
        return [self._look(x, Y, blocks, idx) for x, Y in points]

    def _look(self, x, Y, blocks, idx):
        count = len(blocks)
        answer = self.oracle(self.px.unpack(x), *self._theirs((Y,), blocks, idx))
        value, gx, gy = _three(answer, count, self.name)
        return BlockLook(
            self.io.xp.asarray(value, self.io.dtype),
            self.px.pack_rows(gx, f"`{self.name}` returned grad_x", count),
            self._packed(gy, " returned grad_y", count),
        )

    def hvp_yy(self, x, Y, V, blocks, idx):
        """Return the products of each block's second derivative in y with the rows of V."""
        self._count(idx, 1, ("n_hvp",))
        if self.level.direct is not None:
            return self.level.direct.block_hvp_yy(x, Y, V, blocks, idx)
        product = self.oracle.hvp_yy(self.px.unpack(x), *self._theirs((Y, V), blocks, idx))
        return self._packed(product, ".hvp_yy returned a product", len(Y))

    def hvp_xy(self, x, Y, V, blocks, idx):
        """Return the products of each block's mixed derivative with the rows of V, (I, d)."""
        self._count(idx, 1, ("n_hvp",))
        if self.level.direct is not None:
            return self.level.direct.block_hvp_xy(x, Y, V, blocks, idx)
        product = self.oracle.hvp_xy(self.px.unpack(x), *self._theirs((Y, V), blocks, idx))
        return self.px.pack_rows(product, f"`{self.name}`.hvp_xy returned a product", len(Y))

    def hessians(self, x, Y, blocks, idx):
        """Return the second derivatives (I, p, p), as products with the columns of identities."""
        xp, (count, p) = self.io.xp, Y.shape
        every = xp.repeat(xp.arange(count), p)
        V = xp.tile(xp.eye(p, dtype=Y.dtype), (count, 1))
        H = self.hvp_yy(x, Y[every], V, blocks[every], idx[every]).reshape(count, p, p)
        return 0.5 * (H + xp.swapaxes(H, 1, 2))

    def diagonal(self, x):
        """Return each block's diagonal close to that of its second derivative, or None."""
        D = self.level.diagonal(x)
        return None if D is None else self.n_blocks * D.reshape(self.n_blocks, -1)

    def _theirs(self, matrices, blocks, idx):
        out = self.io.out
        rows = (out(M.reshape(len(M), *self.shape)) for M in matrices)
        return *rows, out(blocks), out(idx)

    def _packed(self, rows, what, count):
        shape = count, *self.shape
        return self.level.py.entry(rows, shape, f"`{self.name}`{what}").reshape(count, -1)

    def _count(self, idx, calls, kinds):
        counts = self.level.counts
        for kind in kinds:
            counts[kind] += calls
        counts["n_samples"] += calls * idx.size


def block_sizes(oracle, name, n_blocks):
    """Return the number of samples of each block."""
    ready = getattr(oracle, "flat", None)
    if ready is not None and not hasattr(ready, "block_samples"):
        raise TypeError(f"`{name}` came as a level without blocks; expected an Oracle over blocks")
    samples = oracle.n_samples if ready is None else ready.block_samples
    if samples is None:
        raise ValueError(
            f"`n_samples` of `{name}` is None; expected an Oracle over samples of blocks: for "
            "functions of all data at once use bilevel.penalty"
        )
    sizes = np.asarray(samples)
    if sizes.shape not in ((), (n_blocks,)):
        raise ValueError(
            f"`n_samples` of `{name}` has shape {sizes.shape}; expected one number, or one for "
            f"each of the {n_blocks} blocks"
        )
    return np.broadcast_to(sizes, (n_blocks,))


def whole(oracle, name, n_blocks):
    """Return the mean over all blocks and samples as an `Oracle` of (x, y)."""
    oracle = as_oracle(oracle, name)
    sizes = block_sizes(oracle, name, n_blocks)
    if hasattr(oracle, "on_vectors"):
        return replace(oracle, n_samples=None)
    mean = _Mean(oracle, name, sizes)
    products = {
        product: getattr(mean, product)
        for product in ("hvp_yy", "hvp_xy")
        if getattr(oracle, product) is not None
    }
    precond_y = None if oracle.precond_y is None else mean.precond_y
    return Oracle(value_and_grads=mean.value_and_grads, precond_y=precond_y, **products)


class _Mean:
    """All blocks and samples of a level, in arrays of the caller's kind."""

    def __init__(self, oracle, name, sizes):
        self.oracle, self.name, self.sizes = oracle, name, sizes

    def value_and_grads(self, x, y):
        def part(rows, which):
            return _three(self.oracle(x, *rows, *which), len(which[0]), self.name)

        return self._summed(part, y)

    def hvp_yy(self, x, y, v):
        def part(rows, which):
            return None, None, self.oracle.hvp_yy(x, *rows, *which)

        return self._summed(part, y, v)[2]

    def hvp_xy(self, x, y, v):
        def part(rows, which):
            return None, self.oracle.hvp_xy(x, *rows, *which), None

        return self._summed(part, y, v)[1]

    def precond_y(self, x):
        return self.oracle.precond_y(x) / len(self.sizes)

    def _summed(self, part, *matrices):
        """Return the mean of values, that of gradients in x, and the gradients in y."""
        io = Ingest(**{f"y{k}": M for k, M in enumerate(matrices)})
        xp, m, value, gx, tree = io.xp, len(self.sizes), 0.0, None, None
        with io.device:
            gy = xp.zeros(io.raw("y0").shape, io.dtype)
            for blocks, idx in self._parts():
                where = xp.asarray(blocks)
                rows = [io.out(io.raw(f"y{k}")[where]) for k in range(len(matrices))]
                values, gxs, gys = part(rows, (io.out(where), io.out(xp.asarray(idx))))
                if values is not None:
                    value += float(values.sum()) / m
                if hasattr(gxs, "shape") or is_tree(gxs):
                    sums = [leaf.sum(0) / m for leaf in leaves(gxs)]
                    gx = sums if gx is None else [a + b for a, b in zip(gx, sums, strict=True)]
                    tree = gxs
                if gys is not None:
                    gy[where] = self._fitting(gys, (len(blocks), *gy.shape[1:])) / m
            return value, gx and refilled(tree, iter(gx)), io.out(gy)

    def _fitting(self, rows, shape):
        rows = Ingest(rows=rows).raw("rows")
        if rows.shape != shape:
            raise ValueError(
                f"`{self.name}` returned grad_y of shape {rows.shape}; expected {shape}, "
                "a row for each block"
            )
        return rows

    def _parts(self):
        """Yield some blocks with equally many samples, and the numbers of all of these."""
        for size in np.unique(self.sizes):
            blocks = np.flatnonzero(self.sizes == size)
            step = max(1, _AT_A_TIME // size)
            for k in range(0, len(blocks), step):
                some = blocks[k : k + step]
                yield some, np.tile(np.arange(size), (len(some), 1))


def _three(answer, count, name):
    """Return values, gradients in x and gradients in y, the first as an array (count,)."""
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        raise TypeError(f"`{name}` returned {answer!r:.60}; expected (values, grad_x, grad_y)")
    values = Ingest(values=answer[0]).raw("values")
    if values.shape != (count,):
        raise ValueError(
            f"`{name}` returned values of shape {values.shape}; expected ({count},), one for "
            "each block"
        )
    return values, *answer[1:]
