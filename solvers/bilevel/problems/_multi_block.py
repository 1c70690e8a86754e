"""Many classifiers with a lower variable each, and penalties that they share."""

from ..._core.arrays import Ingest
from ..._core.trees import is_tree
from ..._core.validation import check_array
from .._blocks import BlockLook
from .._problem import Look
from .._sets import box
from . import _data
from ._levels import _pair
from ._linear import _BEND, _ONE, _PAIR, CURVATURE, LOGISTIC
from ._penalised import _LEAST, _MOST, _START
from ._ready import Flat, _Door, ready


class MultiBlockLogistic:
    """Logistic regression on many data sets, with penalties for each feature that all share.

    The levels are means over blocks of those of `LogisticHPO`; x is the same in all of them. Made
    for `bsvrb`, which visits a few blocks at a time; other solvers take all blocks together.

    Parameters
    ----------
    X : array, shape (m, n, p), or list of arrays, shapes (n_i, p_i)
        Training samples of m blocks. Blocks of different sizes come as a list; what they lack is
        filled up with features that are always 0.
    t : array, shape (m, n), or list of arrays, shapes (n_i,)
        Training labels, -1 or 1.
    Xv, tv : array, shapes (m, k, p) and (m, k), or lists of arrays
        Validation samples and labels.

    Attributes
    ----------
    upper, lower : Oracle
        Functions of ``(x, y)``, all blocks together, and of ``(x, y[blocks], blocks, idx)``.
    x0, y0 : array, shapes (p,) and (m, p)
        Starts: penalties ``exp(-3)`` and no coefficients.
    X : Set
        Penalties between 1e-12 and 1e8.
    n_blocks : int

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> rng = np.random.default_rng(0)
    >>> A, w = rng.standard_normal((8, 60, 3)), np.array([2.0, 0.0, 0.0])
    >>> t = np.where(A @ w + rng.standard_normal((8, 60)) > 0, 1, -1)
    >>> problem = bilevel.problems.MultiBlockLogistic(A[:, :40], t[:, :40], A[:, 40:], t[:, 40:])
    >>> res = bilevel.bsvrb(problem, blocks=4, batch=20, tol=0.1, rng=0)
    >>> res.y.shape
    (8, 3)
    """

    def __init__(self, X, t, Xv, tv):
        names = {"X": X, "t": t, "Xv": Xv, "tv": tv}
        for name, value in names.items():
            if value is None:
                raise TypeError(f"`{name}` came as NoneType; expected an array or a list of them")
        parts = {name: _parts(name, value) for name, value in names.items()}
        io = Ingest(**{k: v for part in parts.values() for k, v in part.items()})
        with io.device:
            train = _read(io, parts["X"], parts["t"])
            valid = _read(io, parts["Xv"], parts["tv"])
            _check_blocks(io, train, valid)
            m, p = len(train), max(X.shape[1] for X, _ in train + valid)
            both = [BlockLosses(io, samples, p) for samples in (train, valid)]
            self.upper = ready(BlockMeans(io, both[1], penalised=False), _BlockDoor)
            self.lower = ready(BlockMeans(io, both[0], penalised=True), _BlockDoor)
            self.x0 = io.out(io.xp.full(p, _START, io.dtype))
            self.y0 = io.out(io.xp.zeros((m, p), io.dtype))
        self.X, self.n_blocks = box(_LEAST, _MOST), m

    def __repr__(self):
        m, p = self.lower.flat.y_shape
        return f"MultiBlockLogistic({m} blocks, x ({p},), y ({m}, {p}))"

    def predict(self, X, y):
        """Return the labels, -1 or 1, of samples by a model for each block.

        Parameters
        ----------
        X : array, shape (m, q, p)
            Samples of each block.
        y : array, shape (m, p)
            Coefficients.

        Returns
        -------
        array, shape (m, q)
            Labels.
        """
        return 2 * ((X * y[:, None, :]).sum(-1) > 0) - 1


def _parts(name, value):
    """Return the arrays of an argument by the names that messages use."""
    if is_tree(value) and not isinstance(value, dict):
        return {f"{name}[{i}]": part for i, part in enumerate(value)}
    return {name: value}


def _read(io, X_parts, t_parts):
    """Return samples (n_i, p_i) and labels (n_i,) of each block."""
    if len(X_parts) != len(t_parts):
        one, other = next(iter(t_parts)), next(iter(X_parts))
        raise ValueError(
            f"`{one}` came with {len(t_parts)} parts; expected {len(X_parts)}, as `{other}` has"
        )
    blocks = []
    for name, labels in zip(X_parts, t_parts, strict=True):
        whole = len(X_parts) == 1 and "[" not in name
        X = check_array(io, name, ndim=3 if whole else 2)
        shape = X.shape[:-1]
        check_array(io, labels, ndim=len(shape), shape=shape, means=f"that of the rows of {name}")
        t = _data.signs(io, labels)
        blocks += list(zip(X, t, strict=True)) if whole else [(X, t)]
    return blocks


def _check_blocks(io, train, valid):
    if "X" in io and "Xv" in io:
        _data._warn_of_a_leak(io)
    if len(train) != len(valid):
        raise ValueError(f"`Xv` came with {len(valid)} blocks; expected {len(train)}, as `X` has")
    for i, ((X, _), (Xv, _)) in enumerate(zip(train, valid, strict=True)):
        if X.shape[1] != Xv.shape[1]:
            raise ValueError(
                f"`Xv` came with {Xv.shape[1]} columns in block {i}; expected {X.shape[1]}, "
                "those of `X`"
            )


class _BlockDoor(_Door):
    """As `_Door`, and ``(x, y[blocks], blocks, idx)`` for some blocks and samples."""

    def value_and_grads(self, x, y, *which):
        if len(which) < 2:
            return super().value_and_grads(x, y, *which)
        io, x, blocks, idx, Y = self._enter_blocks(x, *which, y=y)
        (look,) = self.flat.block_looks([(x, Y)], blocks, idx)
        return tuple(map(io.out, look))

    def hvp_yy(self, x, y, v, *which):
        if len(which) < 2:
            return super().hvp_yy(x, y, v, *which)
        io, x, blocks, idx, *rows = self._enter_blocks(x, *which, y=y, v=v)
        return io.out(self.flat.block_hvp_yy(x, *rows, blocks, idx))

    def hvp_xy(self, x, y, v, *which):
        if len(which) < 2:
            return super().hvp_xy(x, y, v, *which)
        io, x, blocks, idx, *rows = self._enter_blocks(x, *which, y=y, v=v)
        return io.out(self.flat.block_hvp_xy(x, *rows, blocks, idx))

    def _enter_blocks(self, x, blocks, idx, **rows):
        io, vector = self._enter(x=x)
        numbers = Ingest(blocks=blocks, idx=idx)
        blocks, idx = (numbers.raw(name).astype("int64") for name in ("blocks", "idx"))
        both = Ingest(dtype=self.flat.dtype, **rows)
        for name in rows:
            shape = len(blocks), self.flat.y_shape[1]
            check_array(both, name, shape=shape, finite=False, means="(blocks, features)")
        return io, vector, blocks, idx, *(both[name] for name in rows)


class BlockLosses:
    """Mean logistic losses of blocks of samples, at one or more points in one pass.

    Parameters
    ----------
    io : Ingest
    samples : list of (array (n_i, p_i), array (n_i,))
        Of each block; they are put into one array, filled up with zeros.
    p : int
        Number of features.
    """

    def __init__(self, io, samples, p):
        self.be, self.xp = io.be, io.xp
        xp, m = io.xp, len(samples)
        self.n = max(len(t) for _, t in samples)
        X, t = xp.zeros((m, self.n, p), io.dtype), xp.ones((m, self.n), io.dtype)
        sizes = [len(t) for _, t in samples]
        for i, (A, b) in enumerate(samples):
            X[i, : sizes[i], : A.shape[1]], t[i, : sizes[i]] = A, b
        self.ragged = min(sizes) < self.n
        self.m, self.p, self.X, self.t = m, p, X.reshape(-1, p), t.reshape(-1)
        self.sizes = xp.asarray(sizes)
        self.mask = (xp.arange(self.n) < self.sizes[:, None]).astype(io.dtype)
        self._every = xp.arange(m * self.n).reshape(m, self.n)
        self.n_samples = self.be.host(self.sizes) if self.ragged else self.n

    def curvatures(self):
        """Return a bound of the diagonal of each block's second derivative, (m, p)."""
        squares = (self.X * self.X).reshape(self.m, self.n, self.p).sum(axis=1)
        return CURVATURE[LOGISTIC] * squares / self.sizes[:, None].astype(squares.dtype)

    def means(self, mode, vectors, blocks=None, idx=None):
        """Return mean losses (L, I) and their gradients, a list of (I, p).

        Parameters
        ----------
        vectors : list of array, shape (I, p)
        blocks : array of int, shape (I,), optional
            All by default.
        idx : array of int, shape (I, B), optional
            Samples of each block; all by default.
        """
        xp, dtype = self.xp, self.X.dtype
        every = blocks is None and idx is None
        rows = self._every if every else blocks[:, None] * self.n + idx
        masked = every and self.ragged
        weights = self.mask if masked else xp.empty((len(rows), 0), dtype)
        W = xp.stack(vectors, axis=1)
        out = len(vectors) if mode != _BEND else 1
        losses = xp.empty((out, *rows.shape))
        G = xp.empty((len(rows), out, self.p), dtype)
        self.be.kernels("solvers.bilevel", "losses").block_pass(
            self.X, rows, self.t, weights, LOGISTIC, mode, 1, W, losses, G
        )
        if masked:
            losses *= self.mask
        counts = self.sizes if masked else rows.shape[1]
        G = G / (self.sizes[:, None, None].astype(dtype) if masked else dtype.type(counts))
        return losses.sum(axis=-1) / counts, [xp.ascontiguousarray(G[:, q]) for q in range(out)]


class BlockMeans(Flat):
    """The mean over blocks of a mean loss each, and ``sum_j exp(x_j) y_ij^2 / 2`` if penalised."""

    def __init__(self, io, losses, penalised):
        samples = None if losses.ragged else losses.n
        super().__init__(io, (losses.p,), (losses.m, losses.p), samples)
        self.losses, self.penalised, self.m = losses, penalised, losses.m
        self.block_samples = losses.n_samples
        self._squares = losses.curvatures()

    # All blocks together.
    def looks(self, points, idx=None, with_x=True):
        rows = [self._rows(y) for _, y in points]
        losses, grads = self.losses.means(_ONE, rows, *self._all(idx))
        looks = (
            self._look(self._rate(x), Y, loss, g)
            for (x, _), Y, loss, g in zip(points, rows, losses, grads, strict=True)
        )
        return [Look(float(v.mean()), gx.mean(axis=0), self._flat(gy)) for v, gx, gy in looks]

    def pairs(self, points, idx=None, with_x=True):
        rows = [(self._rows(z), self._rows(y - z)) for _, y, z in points]
        losses, grads = self.losses.means(
            _PAIR, [v for both in rows for v in both], *self._all(idx)
        )
        out = []
        for k, ((x, _, _), (Z, step)) in enumerate(zip(points, rows, strict=True)):
            rate = self._rate(x)
            at_z, gx, gz = self._look(rate, Z, losses[2 * k], grads[2 * k])
            change, grown, gy = self._look(rate, Z + step, losses[2 * k + 1], grads[2 * k + 1])
            if self.penalised:
                grown = 0.5 * rate * step * (2 * Z + step)
                change = losses[2 * k + 1] + grown.sum(axis=1)
            parts = at_z.mean(), change.mean(), gx.mean(axis=0), grown.mean(axis=0)
            out.append(_pair(*map(float, parts[:2]), *parts[2:], self._flat(gy), self._flat(gz)))
        return out

    def hvp_yy(self, x, y, v, idx=None):
        return self._flat(self._bent(x, self._rows(y), self._rows(v), *self._all(idx)))

    def hvp_xy(self, x, y, v, idx=None):
        return self._mixed(x, self._rows(y), self._rows(v)).mean(axis=0)

    def diagonal(self, x):
        return self._flat(self._squares + self.xp.exp(x) if self.penalised else self._squares)

    def _rows(self, y):
        return y.reshape(self.y_shape)

    def _flat(self, rows):
        return rows.reshape(-1) / self.m

    def _all(self, idx):
        if idx is None:
            return None, None
        # The same sample numbers in every block.
        blocks, idx = self.xp.arange(self.m), self.xp.asarray(idx)
        return blocks, self.xp.broadcast_to(idx, (self.m, idx.size))

    # Some blocks, each on its own.
    def block_looks(self, points, blocks, idx):
        """Return a `BlockLook` at each point, of some blocks and samples."""
        losses, grads = self.losses.means(_ONE, [Y for _, Y in points], blocks, idx)
        # Points share their x.
        rates = {id(x): self._rate(x) for x, _ in points}
        return [
            BlockLook(*self._look(rates[id(x)], Y, loss, g))
            for (x, Y), loss, g in zip(points, losses, grads, strict=True)
        ]

    def block_hvp_yy(self, x, Y, V, blocks, idx):
        """Return products with second derivatives, (I, p)."""
        return self._bent(x, Y, V, blocks, idx)

    def block_hvp_xy(self, x, Y, V, blocks, idx):
        """Return products with mixed derivatives, (I, d)."""
        return self._mixed(x, Y, V)

    def _rate(self, x):
        return self.xp.exp(x) if self.penalised else None

    def _look(self, rate, Y, losses, grads):
        if rate is None:
            return losses, self.xp.zeros_like(Y), grads
        pull = rate * Y
        parts = 0.5 * pull * Y
        return losses + parts.sum(axis=1), parts, grads + pull

    def _bent(self, x, Y, V, blocks, idx):
        _, (product,) = self.losses.means(_BEND, [Y, V], blocks, idx)
        return product + self.xp.exp(x) * V if self.penalised else product

    def _mixed(self, x, Y, V):
        return self.xp.exp(x) * Y * V if self.penalised else self.xp.zeros_like(Y)
