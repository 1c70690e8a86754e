"""Closed convex sets that have a projection."""

import numpy as np

from .._core.arrays import Ingest
from .._core.validation import check_array, check_nonnegative, check_positive, describe
from ._faces import Faces
from ._packing import Packer
from ._region import Region, joined


class Set:
    """A closed convex set: ``S.project(v)``, or ``S(v)``, is the nearest point.

    Sets keep their numbers on the host, in double precision, and serve arrays of any kind.
    """

    def __call__(self, v):
        return self.project(v)

    def project(self, v):
        """Return the point of the set that is nearest to an array, or to nested arrays.

        Parameters
        ----------
        v : array or nested list, tuple or dict of arrays
            The point, of any kind.
        """
        packer = Packer(v, "v")
        io = Ingest(**packer.given)
        for path in packer.given:
            check_array(io, path)
        packer.bind(io)
        with io.device, np.errstate(all="ignore"):
            return packer.unpack(self._region(packer, "v").project(packer.start()))

    def _region(self, packer, name):
        """Return the `Region` of a packer's vectors; `name` is that of the set, for messages."""
        raise NotImplementedError


class Box(Set):
    """All v with ``lo <= v <= hi``; see `box`."""

    def __init__(self, lo, hi):
        lo, hi = _numbers(lo, "lo", infinite=True), _numbers(hi, "hi", infinite=True)
        if 1 not in (lo.size, hi.size) and lo.size != hi.size:
            raise ValueError(
                f"`lo` came with shape {lo.shape} and `hi` with shape {hi.shape}; "
                "expected equal ones"
            )
        between = (lo.reshape(-1) <= hi.reshape(-1)) & (lo.reshape(-1) < np.inf)
        if not (between & (hi.reshape(-1) > -np.inf)).all():
            raise ValueError(f"`lo` came as {lo} for `hi` = {hi}; expected numbers between them")
        self.lo, self.hi = lo, hi

    def __repr__(self):
        return f"box({self.lo}, {self.hi})"

    def _region(self, packer, name):
        lo, hi = (_spread(b, packer, f"{name}.{n}") for b, n in ((self.lo, "lo"), (self.hi, "hi")))
        return Region(lambda v: packer.io.xp.clip(v, lo, hi), lo, hi)


class Simplex(Set):
    """All v without negative entries that sum to s; see `simplex`."""

    def __init__(self, s):
        self.s = check_positive(s, "s")

    def __repr__(self):
        return f"simplex({self.s})"

    def _region(self, packer, name):
        n, xp = packer.size, packer.io.xp
        return Region(
            lambda v: _on_simplex(v, self.s, xp),
            rows=lambda: (-np.eye(n), np.zeros(n), np.ones((1, n)), np.full(1, self.s)),
        )


class Ball(Set):
    """All v within a distance r of a centre; see `ball`."""

    def __init__(self, r, center):
        self.r, self.center = check_nonnegative(r, "r"), _numbers(center, "center")

    def __repr__(self):
        return f"ball({self.r}, {self.center})"

    def _region(self, packer, name):
        center, xp = _spread(self.center, packer, f"{name}.center"), packer.io.xp

        def nearest(v):
            away = v - center
            distance = float(xp.linalg.norm(away))
            # Rounding must not move what was projected before.
            inside = distance <= self.r * (1 + 4 * float(xp.finfo(v.dtype).eps))
            return v if inside else center + away * (self.r / distance)

        return Region(nearest)


class L1Ball(Set):
    """All v whose absolute values sum to at most r; see `l1_ball`."""

    def __init__(self, r):
        self.r = check_positive(r, "r")

    def __repr__(self):
        return f"l1_ball({self.r})"

    def _region(self, packer, name):
        xp = packer.io.xp

        def nearest(v):
            size = abs(v)
            if float(size.sum(dtype=np.float64)) <= self.r:
                return v
            return xp.sign(v) * _on_simplex(size, self.r, xp)

        return Region(nearest)


class AffineSpace(Set):
    """All v with ``A v = b``; see `affine`."""

    def __init__(self, A, b):
        self.A, self.b = A, b = _matrix_and_side(A, b)
        U, s, V = np.linalg.svd(A, full_matrices=False)
        # Rows that others imply add nothing, unless they contradict them.
        keep = s > np.finfo(float).eps * max(A.shape) * s.max(initial=0.0)
        self._basis = V[keep]
        self._at = (U[:, keep].T @ b) / s[keep]
        off = abs(A @ (self._basis.T @ self._at) - b).max()
        if off > 1e-9 * max(abs(b).max(), s.max(initial=0.0)):
            raise ValueError(f"`b` is not in the range of A, by {off:.3g}; the set would be empty")

    def __repr__(self):
        return f"affine(A of shape {self.A.shape})"

    def _region(self, packer, name):
        _refuse_width(self.A, packer, name)
        xp, dtype = packer.io.xp, packer.io.dtype
        basis, at = xp.asarray(self._basis, dtype), xp.asarray(self._at, dtype)
        n = packer.size
        return Region(
            lambda v: v - (basis @ v - at) @ basis,
            rows=lambda: (np.zeros((0, n)), np.zeros(0), self.A, self.b),
        )


class Polyhedron(Set):
    """All v with ``A v <= b``; see `polyhedron`."""

    def __init__(self, A, b):
        self.A, self.b = _matrix_and_side(A, b)

    def __repr__(self):
        return f"polyhedron(A of shape {self.A.shape})"

    def _region(self, packer, name):
        _refuse_width(self.A, packer, name)
        xp, n = packer.io.xp, packer.size
        faces = Faces(xp.asarray(self.A), xp.asarray(self.b), be=packer.io.be)
        return Region(faces.project, rows=lambda: (self.A, self.b, np.zeros((0, n)), np.zeros(0)))


class Product(Set):
    """Nested arrays each in a set of its own; see `product`."""

    def __init__(self, sets):
        if not isinstance(sets, dict | list | tuple):
            raise TypeError(f"`sets` came as {describe(sets)}; expected a list or a dict of sets")
        self.sets = dict(sets) if isinstance(sets, dict) else dict(enumerate(sets))
        for key, one in self.sets.items():
            if one is not None and not callable(one):
                raise TypeError(
                    f"`sets[{key!r}]` came as {describe(one)}; "
                    "expected a set, a projection or None"
                )

    def __repr__(self):
        return f"product({self.sets})"

    def _region(self, packer, name):
        parts = packer.parts()
        if set(parts) != set(self.sets):
            raise ValueError(
                f"`{name}` has sets for {list(self.sets)}; expected them for {list(parts)}, "
                f"the entries of `{packer.name}`"
            )
        regions = [check_set(self.sets[k], part, f"{name}[{k!r}]") for k, part in parts.items()]
        return joined(regions, [part.size for part in parts.values()], packer.io)


def box(lo, hi):
    """Return the set of arrays with ``lo <= v <= hi``.

    Parameters
    ----------
    lo, hi : float or array
        Bounds, possibly infinite: one for all entries, or one for each.

    Returns
    -------
    Set
        To pass as `X` or `Y`; ``project(v)`` gives its point next to v.

    Examples
    --------
    >>> import solvers
    >>> solvers.bilevel.box(0, [1, 2]).project([3.0, -1.0])
    array([1., 0.])
    """
    return Box(lo, hi)


def nonneg():
    """Return the set of arrays without negative entries.

    Returns
    -------
    Set
        To pass as `X` or `Y`; ``project(v)`` gives its point next to v.

    Examples
    --------
    >>> import solvers
    >>> solvers.bilevel.nonneg().project([3.0, -1.0])
    array([3., 0.])
    """
    return Box(0.0, np.inf)


def simplex(s=1.0):
    """Return the set of arrays without negative entries that sum to `s`.

    Parameters
    ----------
    s : float, default 1.0
        The sum.

    Returns
    -------
    Set
        To pass as `X` or `Y`; ``project(v)`` gives its point next to v.

    Examples
    --------
    >>> import solvers
    >>> solvers.bilevel.simplex().project([0.5, 1.5, -1.0])
    array([0., 1., 0.])
    """
    return Simplex(s)


def ball(r, center=0.0):
    """Return the set of arrays within a Euclidean distance of a centre.

    Parameters
    ----------
    r : float
        The distance.
    center : float or array, default 0.0
        The centre.

    Returns
    -------
    Set
        To pass as `X` or `Y`; ``project(v)`` gives its point next to v.

    Examples
    --------
    >>> import solvers
    >>> solvers.bilevel.ball(5.0).project([6.0, 8.0])
    array([3., 4.])
    """
    return Ball(r, center)


def l1_ball(r):
    """Return the set of arrays whose absolute values sum to at most `r`.

    Parameters
    ----------
    r : float
        The largest sum.

    Returns
    -------
    Set
        To pass as `X` or `Y`; ``project(v)`` gives its point next to v.

    Examples
    --------
    >>> import solvers
    >>> solvers.bilevel.l1_ball(2.0).project([3.0, 1.0])
    array([2., 0.])
    """
    return L1Ball(r)


def affine(A, b):
    """Return the set of arrays with ``A v = b``.

    Parameters
    ----------
    A : array, shape (k, n)
        Rows for all entries of v, in C order; they may depend on each other.
    b : array, shape (k,)
        Right-hand side.

    Returns
    -------
    Set
        To pass as `X` or `Y`; ``project(v)`` gives its point next to v.

    Examples
    --------
    >>> import solvers
    >>> solvers.bilevel.affine([[1.0, 1.0]], [2.0]).project([3.0, 1.0])
    array([2., 0.])
    """
    return AffineSpace(A, b)


def polyhedron(A, b):
    """Return the set of arrays with ``A v <= b``.

    Parameters
    ----------
    A : array, shape (k, n)
        Rows for all entries of v, in C order.
    b : array, shape (k,)
        Right-hand side.

    Returns
    -------
    Set
        To pass as `X` or `Y`; ``project(v)`` gives its point next to v.

    Examples
    --------
    >>> import solvers
    >>> solvers.bilevel.polyhedron([[1.0, 1.0]], [2.0]).project([3.0, 1.0]).round(6)
    array([2., 0.])
    """
    return Polyhedron(A, b)


def product(sets):
    """Return the set of nested arrays that have each entry in a set of its own.

    Parameters
    ----------
    sets : list, tuple or dict of sets
        One for each entry of the variable; also projections, and None for no restriction.

    Returns
    -------
    Set
        To pass as `X` or `Y`; ``project(v)`` gives its point next to v.

    Examples
    --------
    >>> import solvers
    >>> sets = solvers.bilevel.product([solvers.bilevel.simplex(), None])
    >>> import numpy as np
    >>> sets.project([np.array([3.0, 1.0]), np.array([-4.0])])
    [array([1., 0.]), array([-4.])]
    """
    return Product(sets)


def check_set(given, packer, name):
    """Return what came as X or Y as a `Region` of vectors."""
    if given is None:
        return Region()
    if isinstance(given, Set):
        return given._region(packer, name)
    if not callable(given):
        raise TypeError(f"`{name}` came as {describe(given)}; expected a set or a projection")
    return Region(lambda v: packer.pack(given(packer.unpack(v)), f"`{name}` returned a point"))


def _numbers(value, name, *, ndim=None, infinite=False):
    """Return numbers of any kind on the host, in double precision."""
    io = Ingest(**{name: value})
    with io.device:
        x = check_array(io, name, ndim=ndim, finite=not infinite)
        x = np.array(io.be.host(x), dtype=np.float64)
    if np.isnan(x).any():
        raise ValueError(f"`{name}` contains NaN; expected numbers")
    return x


def _matrix_and_side(A, b):
    A, b = _numbers(A, "A", ndim=2), _numbers(b, "b", ndim=1)
    if len(b) != len(A):
        raise ValueError(f"`b` came with shape {b.shape}; expected ({len(A)},), one for each row")
    return A, b


def _refuse_width(A, packer, name):
    if A.shape[1] != packer.size:
        raise ValueError(
            f"`{name}.A` came with shape {A.shape}; expected {packer.size} columns, "
            f"the entries of `{packer.name}`"
        )


def _spread(numbers, packer, name):
    """Return one number, or one for each entry, as a vector."""
    xp = packer.io.xp
    if numbers.size not in (1, packer.size):
        raise ValueError(
            f"`{name}` came with shape {numbers.shape}; expected one number, or one for each of "
            f"the {packer.size} entries of `{packer.name}`"
        )
    vector = np.broadcast_to(numbers.reshape(-1), (packer.size,))
    return xp.asarray(np.array(vector, dtype=packer.io.dtype))


def _on_simplex(v, s, xp):
    """Return the nearest point with sum s and no negative entry."""
    # Sums of many entries, from the largest down, in double precision; shifts change nothing.
    wide = v.astype(np.float64)
    wide = wide - wide.max()
    down = xp.sort(wide)[::-1]
    over = xp.cumsum(down) - s
    k = (down * xp.arange(1, len(v) + 1) > over).sum()
    return xp.maximum(wide - over[k - 1] / k, 0.0).astype(v.dtype)
