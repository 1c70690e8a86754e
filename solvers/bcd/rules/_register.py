"""The tables of rules, from which docs, messages, tests and benchmarks are made."""

from typing import Any, NamedTuple


class Partition(NamedTuple):
    """How unknowns are cut into blocks.

    Attributes
    ----------
    make : callable or None
        ``make(problem, size, rng)`` returns `Blocks`.
    about : str
        One sentence for the documentation.
    graph : bool
        Whether it needs the sparsity pattern of a quadratic's matrix.
    forest : bool
        Whether the matrix of each block is a forest.
    lipschitz : bool
        Whether it needs a bound of the second derivatives.
    variable : bool
        Whether there are no fixed blocks: they are made up as they move, of the largest scores.
    grow : callable or None
        For variable ones: ``grow(problem)`` returns ``block(scores)``, which makes up a block
        from a score for each unknown, the larger the better; None: the largest ones.
    """

    make: Any
    about: str
    graph: bool = False
    forest: bool = False
    lipschitz: bool = False
    variable: bool = False
    grow: Any = None


class Selection(NamedTuple):
    """How the block to move is chosen.

    Attributes
    ----------
    make : callable
        ``make(state, blocks, size, rng, options)`` returns a function without arguments that
        returns (number of the block or None, indices of its unknowns).
    about : str
        One sentence for the documentation.
    greedy : bool
        Whether it looks at the whole gradient.
    fixed, variable : bool
        Whether it chooses among fixed blocks, and whether it makes up its own.
    lipschitz : bool
        Whether it needs a bound of the second derivatives.
    single : bool
        Whether blocks must be single unknowns.
    plain : bool
        Whether the objective must be a loss of predictions, one for each sample, and no more.
    """

    make: Any
    about: str
    greedy: bool = True
    fixed: bool = True
    variable: bool = True
    lipschitz: bool = False
    single: bool = False
    plain: bool = False


class Update(NamedTuple):
    """How a block moves.

    Attributes
    ----------
    make : callable or None
        ``make(state, options)`` returns ``step(number, block)``, which moves the state and tells
        by how much the objective fell; None: one of the others is chosen.
    about : str
        One sentence for the documentation.
    smooth, composite : bool
        Whether it is for problems without, and with, a penalty or bounds.
    lipschitz : bool
        Whether it needs a bound of the second derivatives.
    newton : bool
        Whether it needs second derivatives of the penalty.
    bounds : bool
        Whether it knows bounds and absolute values only, as far as penalties go.
    cubic : bool
        Whether it needs a bound of the third derivatives.
    forest : bool
        Whether the matrix of each block must be a forest.
    """

    make: Any
    about: str
    smooth: bool = True
    composite: bool = True
    lipschitz: bool = False
    newton: bool = False
    bounds: bool = False
    cubic: bool = False
    forest: bool = False


class Blocks(NamedTuple):
    """Fixed blocks: block number b is ``idx[ptr[b]:ptr[b + 1]]``.

    Attributes
    ----------
    ptr : numpy.ndarray of int64
        Where blocks start and, last, where they end; on the host.
    idx : array of int64
        Each unknown once; where the data are.
    """

    ptr: Any
    idx: Any

    @property
    def number(self):
        """How many blocks there are."""
        return self.ptr.size - 1

    def __getitem__(self, b):
        """Return the unknowns of block number b."""
        return self.idx[self.ptr[b] : self.ptr[b + 1]]


PARTITIONS: dict[str, Partition] = {}
SELECTIONS: dict[str, Selection] = {}
UPDATES: dict[str, Update] = {}


def register_partition(name, make, *, about, **traits):
    """Add a partition; see `Partition` for what to say of it."""
    PARTITIONS[name] = Partition(make, about, **traits)


def register_selection(name, make, *, about, **traits):
    """Add a selection rule; see `Selection` for what to say of it."""
    SELECTIONS[name] = Selection(make, about, **traits)


def register_update(name, make, *, about, **traits):
    """Add an update; see `Update` for what to say of it."""
    UPDATES[name] = Update(make, about, **traits)
