"""Small immutable objects whose few scalar rules are compiled into kernels.

A loss or a penalty is a NamedTuple; its rules (value, proximal point, ...) are plain Python
functions, registered here. Kernels receive a tuple of a class that is derived from it, whose name
contains a digest of the rules: Numba tells tuples apart by the name and the fields of their class
only, in memory and in its cache on disk, and would run old rules, or those of another class with
the same name, without a word.
"""

import hashlib
from collections import namedtuple
from types import CodeType

# By the class that kernels see: the functions by name.
_functions: dict[type, dict] = {}
# By public class: the class that kernels see.
_compiled: dict[type, type] = {}


def register(cls, **functions):
    """Give a NamedTuple class its rules.

    Parameters
    ----------
    cls : type
        A subclass of `typing.NamedTuple`.
    **functions : function
        Rules by name. They are compiled by Numba: numbers in, a number out, with `math` and
        ``if``; they may read the tuple's fields and global numbers, but no closures.
    """
    if not (isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields")):
        raise TypeError(f"`cls` came as {cls!r}; expected a class made with typing.NamedTuple")
    for name, function in functions.items():
        if not hasattr(function, "__code__"):
            raise TypeError(f"`{name}` came as {function!r}; expected a plain function")
        if function.__closure__:
            raise ValueError(
                f"`{name}` uses variables of an enclosing function; expected one that uses its "
                "arguments and global numbers only"
            )
    digest = hashlib.sha256("".join(map(_text, functions.values())).encode()).hexdigest()[:16]
    compiled = __getattr__("__".join([cls.__name__, *cls._fields, digest]))
    _functions[compiled] = functions
    _compiled[cls] = compiled
    return cls


def compiled_class(cls):
    """Return the class under which kernels know a registered one, or None."""
    return _compiled.get(cls)


def function_of(compiled, name):
    """Return a rule of a class that kernels know, or None."""
    return _functions.get(compiled, {}).get(name)


def __getattr__(name):
    # Numba's index of its cache names classes of this module, perhaps ones that are not
    # registered yet, or never will be again.
    if "__" not in name.strip("_") or name.startswith("_"):
        raise AttributeError(name)
    first, *fields, digest = name.split("__")
    made = namedtuple(f"{first}_{digest}", fields)  # noqa: PYI024 (its fields are data)
    made.__name__ = made.__qualname__ = name
    made.__module__ = __name__
    globals()[name] = made
    return made


def _text(function):
    """Return what a function computes as text: code, constants and global numbers."""
    code = function.__code__
    numbers = {
        name: value
        for name in code.co_names
        if isinstance(value := function.__globals__.get(name), int | float)
    }
    return f"{function.__name__}{code.co_varnames}{code.co_names}{_constants(code)}{numbers}"


def _constants(code):
    inner = [_constants(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()}{inner}"
