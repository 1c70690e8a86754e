"""The tables of rules, and the check that a combination is legal."""

from typing import Any, NamedTuple

from ..._core.validation import check_choice, check_count
from ...losses import register as register_datafit  # noqa: F401
from ...penalties import register as register_penalty  # noqa: F401


class Partition(NamedTuple):
    """How unknowns are cut into blocks.

    Attributes
    ----------
    make : callable or None
        ``make(problem, size, rng)`` returns `Blocks`; None: any set of unknowns is a block.
    graph : bool
        Whether it needs the sparsity pattern of a quadratic's matrix.
    forest : bool
        Whether the matrix of each block is a forest.
    about : str
        One sentence for the documentation.
    """

    make: Any
    graph: bool
    forest: bool
    about: str


class Selection(NamedTuple):
    """How the block to move is chosen.

    Attributes
    ----------
    make : callable
        ``make(state, blocks, size, rng, options)`` returns a function without arguments that
        returns (number of the block or None, indices of its unknowns).
    greedy : bool
        Whether it looks at the whole gradient.
    fixed, variable : bool
        Whether it chooses among fixed blocks, and whether it makes up its own.
    about : str
        One sentence for the documentation.
    """

    make: Any
    greedy: bool
    fixed: bool
    variable: bool
    about: str


class Update(NamedTuple):
    """How a block moves.

    Attributes
    ----------
    make : callable
        ``make(state, options)`` returns ``step(number, block)``, which moves the state and tells
        by how much the objective fell.
    smooth, composite : bool
        Whether it is for problems without, and with, a penalty or bounds.
    about : str
        One sentence for the documentation.
    """

    make: Any
    smooth: bool
    composite: bool
    about: str


class Blocks(NamedTuple):
    """Fixed blocks: block number b is ``idx[ptr[b]:ptr[b + 1]]``."""

    ptr: Any
    idx: Any


PARTITIONS: dict[str, Partition] = {}
SELECTIONS: dict[str, Selection] = {}
UPDATES: dict[str, Update] = {}
# Until their makers are there, names are legal.
_NAMES = {
    "partition": (
        "variable order random sort avg hsort havg redblack tree forest_variable".split()
    ),
    "selection": ("gsq gs gsl gsd mi gs-s gs-r gs-q random cyclic perm lipschitz nn".split()),
    "update": (
        "auto gradient lipschitz_ls matrix newton cubic exact tree prox_newton two_metric".split()
    ),
}


def register_partition(name, make, *, graph=False, forest=False, about=""):
    """Add a partition; see `Partition`."""
    PARTITIONS[name] = Partition(make, graph, forest, about)


def register_selection(name, make, *, greedy, fixed=True, variable=False, about=""):
    """Add a selection rule; see `Selection`."""
    SELECTIONS[name] = Selection(make, greedy, fixed, variable, about)


def register_update(name, make, *, smooth=True, composite=True, about=""):
    """Add an update; see `Update`."""
    UPDATES[name] = Update(make, smooth, composite, about)


def is_default(partition, block_size, selection, update):
    """Tell whether a caller left all four rules as they are."""
    rules = partition, block_size, selection, update
    return rules == ("variable", None, "gsq", "auto")


def check_rules(problem, *, partition, block_size, selection, update):
    """Return the four rules, once they are known and fit together and to the problem."""
    given = {"partition": partition, "selection": selection, "update": update}
    for name, value in given.items():
        check_choice(value, name, tuple(_NAMES[name]))
    block_size = check_count(block_size, "block_size", minimum=1, allow_none=True)
    if block_size is not None and block_size > problem.size:
        raise ValueError(
            f"`block_size` came as {block_size}; expected at most {problem.size}, the unknowns"
        )
    return {**given, "block_size": block_size}
