"""Arrays nested in lists, tuples and dictionaries."""


def is_tree(value):
    """Tell whether a value is a list, tuple or dictionary of arrays, not of numbers."""
    if isinstance(value, dict):
        return True
    return isinstance(value, list | tuple) and any(
        hasattr(entry, "shape") or is_tree(entry) for entry in value
    )


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
    return type(tree)(refilled(entry, parts) for entry in tree)
