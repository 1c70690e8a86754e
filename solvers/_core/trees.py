"""Arrays nested in lists, tuples and dictionaries."""

import numpy as np


def is_tree(value):
    """Tell whether a value is a list, tuple or dictionary of arrays, not of numbers."""
    if isinstance(value, dict):
        return True
    return isinstance(value, list | tuple) and any(
        (hasattr(entry, "shape") and not isinstance(entry, np.generic)) or is_tree(entry)
        for entry in value
    )


def like(sequence, entries):
    """Return entries as a list, tuple or named tuple like a given one."""
    cls = type(sequence)
    return cls(*entries) if hasattr(cls, "_fields") else cls(entries)


def leaves(tree):
    """Yield the arrays of a tree, in order."""
    if not is_tree(tree):
        yield tree
        return
    for entry in tree.values() if isinstance(tree, dict) else tree:
        yield from leaves(entry)


def refilled(tree, parts):
    """Return a tree of the same structure whose arrays come from an iterator."""
    if not is_tree(tree):
        return next(parts)
    if isinstance(tree, dict):
        return {key: refilled(entry, parts) for key, entry in tree.items()}
    return like(tree, [refilled(entry, parts) for entry in tree])
