"""Small immutable objects whose few scalar rules are compiled into kernels.

A loss or a penalty is a NamedTuple; its rules (value, proximal point, ...) are plain Python
functions, registered here. Kernels receive a tuple of a class that is derived from it, whose name
contains a digest of the rules: Numba tells tuples apart by the name and the fields of their class
only, in memory and in its cache on disk, and would run old rules, or those of another class with
the same name, without a word.
"""

import hashlib
import re
from collections import namedtuple
from numbers import Number
from types import CodeType

# By the class that kernels see: the functions by name.
_functions: dict[type, dict] = {}
# By public class: the class that kernels see.
_compiled: dict[type, type] = {}
# Class, fields and digest of the rules.
_NAME = re.compile(r"[^_]\w*?__(\w+__)*[0-9a-f]{16}")


def register(cls, **functions):
    """Give a NamedTuple class its rules.

    Parameters
    ----------
    cls : type
        A subclass of `typing.NamedTuple`.
    **functions : function
        Rules by name. They are compiled by Numba: numbers in, a number out, with `math` and
        ``if``; they may use the tuple's fields, global numbers and global functions that
        Numba compiles, but no variables of an enclosing function.

    Returns
    -------
    type
        `cls`. Registered again with other rules, it has those from then on.
    """
    if not (isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields")):
        raise TypeError(f"`cls` came as {cls!r}; expected a class made with typing.NamedTuple")
    if any("__" in name or name.strip("_") != name for name in (cls.__name__, *cls._fields)):
        raise ValueError(
            f"`cls` came as {cls!r}; expected names without double, leading or trailing "
            "underscores for it and its fields"
        )
    for name, function in functions.items():
        if not hasattr(function, "__code__"):
            raise TypeError(f"`{name}` came as {function!r}; expected a plain function")
        if function.__closure__:
            raise ValueError(
                f"`{name}` uses variables of an enclosing function; expected one that uses its "
                "arguments and global numbers only"
            )
    rules = "".join(f"{name}: {_text(f, set())}" for name, f in sorted(functions.items()))
    digest = hashlib.sha256(rules.encode()).hexdigest()[:16]
    name = "__".join([cls.__name__, *cls._fields, digest])
    # One and the same class for one name: Numba compares them by identity.
    compiled = globals().get(name) or __getattr__(name)
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
    if not _NAME.fullmatch(name):
        raise AttributeError(name)
    first, *fields, digest = name.split("__")
    made = namedtuple(f"{first}_{digest}", fields)
    made.__name__ = made.__qualname__ = name
    made.__module__ = __name__
    globals()[name] = made
    return made


def _text(function, seen):
    """Return what a function computes as text: code, constants, and globals that it uses."""
    seen.add(function)
    code = function.__code__
    used = [
        f"{name}={_global(value, seen)}"
        for name in _names(code)
        if (value := function.__globals__.get(name)) is not None
    ]
    return f"{_code(code)}{function.__defaults__}{used}"


def _global(value, seen):
    value = getattr(value, "py_func", value)  # of a function that Numba compiled
    if hasattr(value, "__code__"):
        return "again" if value in seen else _text(value, seen)
    # Modules and classes are not followed.
    return repr(value) if isinstance(value, Number | str | tuple) else ""


def _names(code):
    inner = [c for c in code.co_consts if isinstance(c, CodeType)]
    return [*code.co_names, *(name for c in inner for name in _names(c))]


def _code(code):
    constants = [_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()}{code.co_names}{code.co_varnames}{constants}"
