"""What combinations of rules are legal, and the sentences for those that are not."""

import math

import numpy as np

from ... import losses, penalties
from ..._core.arrays import to_numpy
from ..._core.rules import compiled_class, function_of
from ..._core.validation import check_count, describe
from ._register import PARTITIONS, SELECTIONS, UPDATES, Blocks

# Blocks of this many unknowns unless the caller says otherwise, or fewer if there are fewer.
BLOCK_SIZE = 50


def is_default(partition, block_size, selection, update):
    """Tell whether a caller left all four rules as they are."""
    words = isinstance(partition, str) and (partition, selection, update)
    return words == ("variable", "gsq", "auto") and block_size is None


def is_smooth(problem):
    """Tell whether a problem has neither kinks nor bounds; squares may be penalised."""
    if problem.groups is not None or not hasattr(problem.bound, "lo"):
        return False
    penalty, xp = problem.bound, problem.xp
    free = (penalty.alpha == 0) & xp.isinf(penalty.lo) & xp.isinf(penalty.hi)
    return bool(problem.be.host(free.all()))


def has_lipschitz(problem):
    """Tell whether the second derivatives of the smooth part are bounded."""
    return problem.quadratic or math.isfinite(losses.CURVATURE[type(problem.loss)])


def check_rules(problem, *, partition, block_size, selection, update):
    """Return the four rules, once they are known and fit together and to the problem.

    Parameters
    ----------
    problem : GLM or Quadratic
    partition : str, array of labels, or list of index lists
        A name in `PARTITIONS`, or the blocks themselves: a label for each unknown (of several
        classes: for each feature), or for each block the list of its unknowns.
    block_size : int or None
        None: at most 50 unknowns, one for selection "nn"; for partitions that bring their own
        sizes (graph partitions, the caller's blocks) the only legal value.
    selection, update : str
        Names in `SELECTIONS` and `UPDATES`; "_" for "-", no hyphen at all and capitals are
        understood too.

    Returns
    -------
    dict
        The arguments by name: names as in the tables, blocks as `Blocks`.
    """
    default = is_default(partition, block_size, selection, update)
    selection = _word(selection, "selection", SELECTIONS)
    update = _word(update, "update", UPDATES)
    partition = _partition(problem, partition)
    block_size = _block_size(problem, partition, block_size, selection)
    # Solvers that choose for themselves may be asked to solve anything.
    if not default:
        _check_partition(problem, partition)
        _check_selection(problem, partition, selection)
        _check_update(problem, partition, update)
    return {
        "partition": partition,
        "block_size": block_size,
        "selection": selection,
        "update": update,
    }


def _word(value, name, table):
    """Return the table's spelling of a word."""
    if value in table:
        return value
    if not isinstance(value, str):
        raise TypeError(f"`{name}` came as {describe(value)}; expected {_one_of(table)}")
    for plain in (_hyphened, _bare):
        found = [word for word in table if plain(word) == plain(value)]
        if found:
            return found[0]
    raise ValueError(f"`{name}` came as {value!r}; expected {_one_of(table)}")


def _hyphened(word):
    return word.lower().replace("_", "-")


def _bare(word):
    return _hyphened(word).replace("-", "")


def _one_of(words):
    return f"one of {', '.join(map(repr, words))}"


def _partition(problem, given):
    if isinstance(given, str):
        return _word(given, "partition", PARTITIONS)
    expected = (
        f"expected {_one_of(PARTITIONS)}, labels of shape ({problem.size},), or a list of lists "
        "of unknowns"
    )
    if given is None or callable(given) or np.isscalar(given):
        raise TypeError(f"`partition` came as {describe(given)}; {expected}")
    if isinstance(given, list | tuple) and any(np.ndim(part) > 0 for part in given):
        ptr, idx = _listed(problem.size, given)
    else:
        ptr, idx = _labelled(problem, to_numpy(given), expected)
    return Blocks(ptr, problem.xp.asarray(idx))


def _labelled(problem, labels, expected):
    """Return blocks of equal labels, in the order of the labels."""
    size = problem.size
    if labels.shape == problem.shape[:1]:
        labels = np.repeat(labels, size // labels.size)
    if labels.size != size:
        raise ValueError(f"`partition` came with shape {labels.shape}; {expected}")
    _, owner = np.unique(labels.reshape(-1), return_inverse=True)
    owner = owner.reshape(-1)
    ptr = np.concatenate([[0], np.cumsum(np.bincount(owner))])
    return ptr.astype(np.int64), np.argsort(owner, kind="stable").astype(np.int64)


def _listed(size, parts):
    parts = [to_numpy(part) for part in parts]
    wrong = [part for part in parts if part.ndim != 1 or part.dtype.kind not in "iu"]
    if wrong:
        raise TypeError(
            f"`partition` contains {describe(wrong[0])} of {wrong[0].dtype}; expected lists of "
            "whole numbers"
        )
    idx = np.concatenate(parts).astype(np.int64)
    if idx.min() < 0 or idx.max() >= size:
        raise ValueError(f"`partition` contains an unknown that is not in 0 ... {size - 1}")
    counts = np.bincount(idx, minlength=size)
    if (counts != 1).any():
        first = int(np.argmax(counts != 1))
        raise ValueError(
            f"`partition` has unknown {first} in {counts[first]} blocks; expected each of the "
            f"{size} unknowns in one"
        )
    return np.cumsum([0, *(part.size for part in parts)]).astype(np.int64), idx


def _block_size(problem, partition, given, selection):
    size = check_count(given, "block_size", minimum=1, allow_none=True)
    if size is not None and size > problem.size:
        raise ValueError(
            f"`block_size` came as {size}; expected at most {problem.size}, the unknowns"
        )
    if isinstance(partition, Blocks) or PARTITIONS[partition].graph:
        if size is not None:
            raise ValueError(
                f"`block_size` came as {size}; expected None, as {_shown(partition)} brings its "
                "own sizes"
            )
        return None
    if SELECTIONS[selection].single:
        if size not in (None, 1):
            raise ValueError(
                f"`block_size` came as {size}; expected 1 with selection={selection!r}"
            )
        return 1
    return min(BLOCK_SIZE, problem.size) if size is None else size


def _shown(partition):
    return "`partition`" if isinstance(partition, Blocks) else f"partition={partition!r}"


def is_fixed(partition):
    """Tell whether a checked partition has fixed blocks."""
    return isinstance(partition, Blocks) or not PARTITIONS[partition].variable


def has_forests(partition):
    """Tell whether the matrix of each block of a checked partition is a forest."""
    return isinstance(partition, str) and PARTITIONS[partition].forest


def _check_partition(problem, partition):
    if problem.groups is not None:
        raise ValueError(
            "`partition`, `block_size`, `selection` and `update` are not for group penalties, "
            "whose blocks are their groups; expected none of them"
        )
    if isinstance(partition, Blocks):
        return
    rule = PARTITIONS[partition]
    if rule.graph and not (problem.quadratic and problem.sparse):
        plain = [name for name, other in PARTITIONS.items() if not other.graph]
        raise ValueError(
            f"`partition` came as {partition!r}, which needs a quadratic whose `A` is a sparse "
            f"matrix: its entries are the graph; expected {_one_of(plain)}"
        )
    if rule.lipschitz and not has_lipschitz(problem):
        plain = [name for name, r in PARTITIONS.items() if not (r.lipschitz or r.graph)]
        raise ValueError(
            f"`partition` came as {partition!r}, but the second derivatives of "
            f"{type(problem.loss).__name__} have no bound to sort by; expected {_one_of(plain)}"
        )


def _check_selection(problem, partition, selection):
    rule, fixed = SELECTIONS[selection], is_fixed(partition)
    said = f"`selection` came as {selection!r}"
    legal = [
        name
        for name, other in SELECTIONS.items()
        if (other.fixed if fixed else other.variable)
        and (has_lipschitz(problem) or not other.lipschitz)
        and (_is_plain(problem) or not other.plain)
    ]
    if not (rule.fixed if fixed else rule.variable):
        kind = "fixed blocks" if fixed else "no fixed blocks"
        other = "partition='variable'" if fixed else "a partition such as 'order'"
        raise ValueError(
            f"{said}, but {_shown(partition)} has {kind}; expected {_one_of(legal)}, or {other}"
        )
    if rule.single and partition != "variable":
        raise ValueError(f"{said}, which needs partition='variable', not {partition!r}")
    if rule.lipschitz and not has_lipschitz(problem):
        raise ValueError(
            f"{said}, but the second derivatives of {type(problem.loss).__name__} have no bound; "
            f"expected {_one_of(legal)}"
        )
    if rule.plain and not _is_plain(problem):
        raise ValueError(
            f"{said}, which is for a loss of predictions without a penalty or bounds; "
            f"expected {_one_of(legal)}"
        )


def _is_plain(problem):
    """Tell whether the objective is a loss of predictions, one for each sample."""
    if problem.quadratic or problem.multinomial or not is_smooth(problem):
        return False
    return not problem.be.host((problem.bound.ridge != 0).any())


def _check_update(problem, partition, update):
    rule, smooth = UPDATES[update], is_smooth(problem)
    legal = [name for name in UPDATES if _objection(problem, partition, name, smooth) is None]
    objection = _objection(problem, partition, update, smooth)
    if objection is not None:
        raise ValueError(
            f"`update` came as {update!r}, {objection}; expected {_one_of(legal)}"
            + (", or partition='tree' or 'forest_variable'" if rule.forest else "")
        )


def _objection(problem, partition, update, smooth):
    """Return why an update does not fit, or None."""
    rule = UPDATES[update]
    if rule.forest and not has_forests(partition):
        return f"but the blocks of {_shown(partition)} are no forests"
    if smooth and not rule.smooth:
        return "which is for problems with a penalty or bounds"
    if not smooth and not rule.composite:
        return "which is for problems without a penalty or bounds"
    if rule.lipschitz and not has_lipschitz(problem):
        return f"but {type(problem.loss).__name__} has no bound of its second derivatives"
    if rule.cubic and not problem.quadratic and type(problem.loss) not in losses.THIRD:
        return f"but {type(problem.loss).__name__} has no bound of its third derivatives"
    if rule.bounds and type(problem.bound) is not compiled_class(penalties.ElasticBox):
        return f"which knows no {type(problem.penalty).__name__}"
    if rule.newton and function_of(type(problem.bound), "bend") is None:
        return f"but {type(problem.penalty).__name__} comes without `slope` and `bend`"
    return None
