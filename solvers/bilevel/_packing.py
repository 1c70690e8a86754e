"""Arrays of any shape, or nested in lists and dictionaries, outside; one vector inside."""

import itertools
import math
import numbers

import numpy as np

from .._core.arrays import Ingest
from .._core.trees import is_tree
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
            return type(tree)(self._look(entry, f"{path}[{k}]") for k, entry in enumerate(tree))
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

    def pack(self, tree, what):
        """Return what the caller's function gave as a vector; None and 0 mean zeros.

        Parameters
        ----------
        what : str
            Subject of the sentence if it does not fit: "`lower` returned grad_x".
        """
        xp = self.io.xp
        if tree is None or (isinstance(tree, numbers.Number) and tree == 0):
            return xp.zeros(self.size, self.io.dtype)
        parts = [tree] if self._single else list(_taken(self._structure, tree, what))
        vectors = [self._entry(x, s, what) for x, s in zip(parts, self.shapes, strict=True)]
        return vectors[0] if self._single else xp.concatenate(vectors)

    def _entry(self, x, shape, what):
        if not isinstance(x, np.ndarray) or self.io.xp is not np:
            x = Ingest(**{what: x}).raw(what)
        if x.shape != shape and x.shape != () != shape:
            raise ValueError(f"{what} of shape {tuple(x.shape)}; expected {tuple(shape)}")
        if x.shape != shape:
            raise ValueError(f"{what} as a single number; expected shape {tuple(shape)}")
        # A copy: the caller may give the same memory again next time.
        return self.io.xp.array(x, dtype=self.io.dtype, order="C").reshape(-1)


def _filled(structure, parts):
    if isinstance(structure, int):
        return parts[structure]
    if isinstance(structure, dict):
        return {key: _filled(entry, parts) for key, entry in structure.items()}
    return type(structure)(_filled(entry, parts) for entry in structure)


def _taken(structure, tree, what):
    """Yield the leaves of a tree of the given structure, in order."""
    if isinstance(structure, int):
        yield tree
        return
    keys = structure if isinstance(structure, dict) else range(len(structure))
    fits = isinstance(tree, dict if isinstance(structure, dict) else list | tuple)
    if (
        not fits
        or len(tree) != len(structure)
        or any(isinstance(tree, dict) and k not in tree for k in keys)
    ):
        raise ValueError(f"{what} as {describe(tree)}; expected the structure of {structure}")
    for key in keys:
        yield from _taken(structure[key], tree[key], what)
