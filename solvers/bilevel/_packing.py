"""Arrays of any shape, or nested in lists and dictionaries, outside; one vector inside."""

import itertools
import math
import numbers

import numpy as np

from .._core.arrays import Ingest
from .._core.trees import is_tree, like
from .._core.validation import describe


class Packer:
    """The structure of one variable.

    Parameters
    ----------
    tree : array or nested list, tuple or dict of arrays
        An example.
    name : str
        The argument that it came as.

    Attributes
    ----------
    given : dict
        The arrays by the names that messages use, such as ``x0['a'][0]``.
    """

    def __init__(self, tree, name):
        self.name, self.given = name, {}
        self._structure = self._look(tree, name)
        if not self.given:
            raise ValueError(f"`{name}` came empty, as {tree!r}; expected entries")

    def _look(self, tree, path):
        if isinstance(tree, dict):
            return {key: self._look(tree[key], f"{path}[{key!r}]") for key in tree}
        if is_tree(tree):
            return like(tree, [self._look(entry, f"{path}[{k}]") for k, entry in enumerate(tree)])
        if tree is None:
            raise TypeError(f"`{path}` came as None; expected an array")
        self.given[path] = tree
        return len(self.given) - 1

    def bind(self, io):
        """Let the arrays come in through an `Ingest` that was made with `given`."""
        self.io = io
        self.shapes = [io.raw(path).shape for path in self.given]
        ends = np.cumsum([0, *map(math.prod, self.shapes)]).tolist()
        self._spans = [slice(a, b) for a, b in itertools.pairwise(ends)]
        self.size = ends[-1]
        if not self.size:
            raise ValueError(f"`{self.name}` came empty; expected entries")
        self._single = not isinstance(self._structure, dict | list | tuple)
        return self

    def start(self):
        """Return the example as a vector."""
        return self.io.xp.concatenate([self.io[path].reshape(-1) for path in self.given])

    def unpack(self, v):
        """Return a vector as the caller knows it; a copy, which the caller may write to."""
        out = self.io.out
        parts = [out(v[span].reshape(s)) for span, s in zip(self._spans, self.shapes, strict=True)]
        return parts[0] if self._single else _filled(self._structure, parts)

    def parts(self):
        """Return the packers of the entries of a nested variable by key; of an array, none."""
        if self._single:
            return {}
        keyed = isinstance(self._structure, dict)
        keys = self._structure if keyed else range(len(self._structure))
        arrays = list(self.given.values())
        trees = {key: _filled(self._structure[key], arrays) for key in keys}
        return {k: Packer(t, f"{self.name}[{k!r}]").bind(self.io) for k, t in trees.items()}

    def pack(self, tree, what):
        """Return what the caller's function gave as a vector; None and 0 mean zeros.

        Parameters
        ----------
        what : str
            Subject of the sentence if it does not fit: "`lower` returned grad_x".
        """
        if _is_zero(tree):
            return self.io.xp.zeros(self.size, self.io.dtype)
        parts = [tree] if self._single else list(_taken(self._structure, tree, what))
        vectors = [self.entry(x, s, what) for x, s in zip(parts, self.shapes, strict=True)]
        return vectors[0] if self._single else self.io.xp.concatenate(vectors)

    def pack_rows(self, tree, what, count):
        """Return what the caller's function gave for `count` blocks as rows of a matrix."""
        xp = self.io.xp
        if _is_zero(tree):
            return xp.zeros((count, self.size), self.io.dtype)
        parts = [tree] if self._single else list(_taken(self._structure, tree, what))
        rows = [
            self.entry(x, (count, *s), what).reshape(count, -1)
            for x, s in zip(parts, self.shapes, strict=True)
        ]
        return rows[0] if self._single else xp.concatenate(rows, axis=1)

    def entry(self, x, shape, what):
        """Return one array that the caller's function gave, of a known shape, as a vector."""
        xp = self.io.xp
        if _is_zero(x):
            return xp.zeros(math.prod(shape), self.io.dtype)
        if not (xp is np and type(x) is np.ndarray and x.dtype.kind in "fiub"):
            x = _arrived(x, self.io, what)
        if x.shape != shape:
            came = f"of shape {tuple(x.shape)}" if x.shape else "as a single number"
            raise ValueError(f"{what} {came}; expected shape {tuple(shape)}")
        # A copy: the caller may give the same memory again next time.
        return xp.array(x, dtype=self.io.dtype, order="C").reshape(-1)


def _is_zero(value):
    return value is None or (isinstance(value, numbers.Number) and value == 0)


def _arrived(x, io, what):
    """Return an array from the caller's function as one of the back end in use."""
    try:
        given = Ingest(array=x)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{what} that is no array of numbers: {error}") from error
    if given.be.name == "cupy" and io.be.name == "numpy":
        raise TypeError(f"{what} in device memory; expected a {io.kind} array like the start")
    return given.raw("array")


def _filled(structure, parts):
    if isinstance(structure, int):
        return parts[structure]
    if isinstance(structure, dict):
        return {key: _filled(entry, parts) for key, entry in structure.items()}
    return like(structure, [_filled(entry, parts) for entry in structure])


def _taken(structure, tree, what):
    """Yield the leaves of a tree of the given structure, in order; None stands for zeros."""
    if isinstance(structure, int) or _is_zero(tree):
        yield from [tree] * _leaves(structure)
        return
    if isinstance(structure, dict):
        if not isinstance(tree, dict) or tree.keys() != structure.keys():
            keys = ", ".join(map(repr, structure))
            raise ValueError(f"{what} as {describe(tree)}; expected a dictionary of {keys}")
        pairs = [(entry, tree[key]) for key, entry in structure.items()]
    else:
        if not isinstance(tree, list | tuple) or len(tree) != len(structure):
            raise ValueError(
                f"{what} as {describe(tree)}; expected a {type(structure).__name__} "
                f"of {len(structure)} entries"
            )
        pairs = list(zip(structure, tree, strict=True))
    for entry, branch in pairs:
        yield from _taken(entry, branch, what)


def _leaves(structure):
    """Return the number of arrays in a structure."""
    if isinstance(structure, int):
        return 1
    entries = structure.values() if isinstance(structure, dict) else structure
    return sum(map(_leaves, entries))
