"""Checks of what a caller passes: one sentence each, with the argument's name first.

A message reads "`tol` came as -1.0; expected a positive number". TypeError is for the wrong kind
of thing, ValueError for a wrong value of the right kind. Each check returns the value in the
form that the solvers use.
"""

import math
import numbers
import os
import reprlib
from pathlib import Path

import numpy as np

# A block of this many numbers stays in the cache between its two reductions.
_BLOCK = 1 << 17
# Asking the system for its free memory costs more than such an array.
_SMALL_ALLOCATION = 1 << 26
_CGROUP = Path("/sys/fs/cgroup")


def describe(value):
    """Return what a message calls a value of the wrong kind: its type and, if any, its shape."""
    cls = type(value)
    root = cls.__module__.partition(".")[0]
    name = cls.__name__ if root == "builtins" else f"{root}.{cls.__name__}"
    shape = getattr(value, "shape", None)
    return name if shape is None else f"{name} of shape {tuple(shape)}"


def _type_error(name, value, expected):
    return TypeError(f"`{name}` came as {describe(value)}; expected {expected}")


def _value_error(name, value, expected):
    return ValueError(f"`{name}` came as {reprlib.repr(value)}; expected {expected}")


def _real(value, name, expected):
    # Python and NumPy numbers register as Real; arrays of any kind, even of no dimension, do not.
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise _type_error(name, value, expected)
    return float(value)


def check_positive(value, name, *, allow_none=False, allow_inf=False):
    """Return a number above 0 as a float."""
    if value is None and allow_none:
        return None
    expected = "a positive number" if allow_inf else "a positive finite number"
    number = _real(value, name, expected)
    if not number > 0 or (math.isinf(number) and not allow_inf):
        raise _value_error(name, value, expected)
    return number


def check_nonnegative(value, name, *, allow_none=False, allow_inf=False):
    """Return a number of at least 0 as a float."""
    if value is None and allow_none:
        return None
    expected = "a number >= 0" if allow_inf else "a finite number >= 0"
    number = _real(value, name, expected)
    if not number >= 0 or (math.isinf(number) and not allow_inf):
        raise _value_error(name, value, expected)
    return number


def check_count(value, name, *, minimum=0, allow_none=False):
    """Return a whole number of at least `minimum` as an int."""
    if value is None and allow_none:
        return None
    expected = f"a whole number >= {minimum}"
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise _type_error(name, value, expected)
    if value < minimum:
        raise _value_error(name, value, expected)
    return int(value)


def check_flag(value, name):
    """Return True or False."""
    if not isinstance(value, bool | np.bool_):
        raise _type_error(name, value, "True or False")
    return bool(value)


def check_flag_or_stride(value, name):
    """Return a stride: 0 for False, 1 for True, or the whole number itself."""
    if isinstance(value, bool | np.bool_):
        return int(value)
    expected = "True, False or a stride (a whole number >= 1)"
    if not isinstance(value, numbers.Integral):
        raise _type_error(name, value, expected)
    if value < 1:
        raise _value_error(name, value, expected)
    return int(value)


def check_choice(value, name, choices):
    """Return one of `choices` (words, possibly None), or list them."""
    expected = f"one of {', '.join(map(repr, choices))}"
    if not isinstance(value, str | None):
        raise _type_error(name, value, expected)
    if value not in choices:
        raise _value_error(name, value, expected)
    return value


def check_callable(value, name):
    """Return a callable or None."""
    if value is not None and not callable(value):
        raise _type_error(name, value, "a callable or None")
    return value


def check_time_limit(value):
    """Return `time_limit` in seconds, or None."""
    return check_positive(value, "time_limit", allow_none=True, allow_inf=True)


def check_threads(n_threads):
    """Return `n_threads` as an int within what Numba may use, or None."""
    n_threads = check_count(n_threads, "n_threads", minimum=1, allow_none=True)
    if n_threads is None:
        return None
    import numba

    cap = numba.config.NUMBA_NUM_THREADS
    if n_threads > cap:
        expected = f"at most {cap}, the threads of this process (see NUMBA_NUM_THREADS)"
        raise _value_error("n_threads", n_threads, expected)
    return n_threads


def check_array(
    io,
    name,
    *,
    ndim=None,
    shape=None,
    means=None,
    finite=True,
    plus_inf=False,
    minimum=None,
    nonempty=True,
    transposed=False,
):
    """Return one argument of an `Ingest` in normal form, once it has passed.

    Parameters
    ----------
    io : Ingest
        Holds the arguments of the call.
    name : str
        The argument; None is returned where the caller left it out.
    ndim : int or tuple of int, optional
        Legal numbers of dimensions.
    shape : tuple, optional
        Legal shape; None stands for any length.
    means : str, optional
        The expected shape in the caller's terms, such as ``"(a.size, b.size)"``.
    finite : bool
        Refuse NaN and infinities. False looks at no entry.
    plus_inf : bool
        Let ``+inf`` pass all the same.
    minimum : float, optional
        Smallest legal entry.
    nonempty : bool
        Refuse arrays without entries.
    transposed : bool
        Return the transpose, C-contiguous; no copy if the argument is Fortran-ordered.
    """
    if name not in io:
        return None
    given = io.raw(name).shape
    legal = (ndim,) if isinstance(ndim, int) else ndim
    if legal is not None and len(given) not in legal:
        expected = " or ".join(f"{k}-D" for k in legal)
        raise ValueError(f"`{name}` came {len(given)}-D, with shape {given}; expected {expected}")
    if shape is not None and not _fits(given, shape):
        wanted = str(shape).replace("None", "any")
        expected = wanted if means is None else f"{means} = {wanted}"
        raise ValueError(f"`{name}` came with shape {given}; expected {expected}")
    if 0 in given:
        if nonempty:
            raise ValueError(f"`{name}` came empty, with shape {given}; expected entries")
        finite = False
    x = io.transposed(name) if transposed else io[name]
    if finite:
        _check_entries(io, name, x, plus_inf, minimum)
    return x


def check_sparse(X, name, form):
    """Check a sparse matrix of numbers; return it compressed, with entries sorted and unique.

    Parameters
    ----------
    form : {"csr", "csc"}
        Compressed rows or columns.
    """
    if X.ndim != 2:
        raise ValueError(f"`{name}` came {X.ndim}-D; expected 2-D")
    if 0 in X.shape:
        raise ValueError(f"`{name}` came empty, with shape {X.shape}; expected entries")
    if X.dtype.kind not in "fiub":
        raise TypeError(
            f"`{name}` came as {describe(X)} with dtype {X.dtype}; expected float32, float64, "
            "integers or booleans"
        )
    # The sum of two small integers may not fit into one.
    exact = X.astype(np.float64) if X.dtype.kind in "iu" else X
    out = exact.tocsr() if form == "csr" else exact.tocsc()
    if not out.has_canonical_format:
        # The caller's matrix stays as it is.
        out = out.copy() if out is X else out
        out.sum_duplicates()
    return out


def _fits(given, shape):
    return len(given) == len(shape) and all(
        wanted in (None, length) for length, wanted in zip(given, shape, strict=True)
    )


def _check_entries(io, name, x, plus_inf, minimum):
    low, high = io.bounds[name] = _extremes(io, x)
    if math.isnan(low):
        found, expected = "NaN", "numbers"
    elif low == -math.inf or (high == math.inf and not plus_inf):
        found, expected = f"{low if low == -math.inf else high}", "finite numbers"
    elif minimum is not None and low < minimum:
        found, expected = f"{low:.6g}", f"entries >= {minimum:g}"
    else:
        return
    raise ValueError(f"`{name}` contains {found}; expected {expected}")


def _extremes(io, x):
    """Smallest and largest entry, NaN if any is NaN, without a temporary of the size of `x`."""
    if io.be.name != "numpy":
        with io.device:
            return io.be.host(x.min(), x.max())
    flat = x.reshape(-1)
    blocks = [flat[k : k + _BLOCK] for k in range(0, flat.size, _BLOCK)]
    # One visit per block: the second reduction finds it in the cache.
    ends = np.array([(block.min(), block.max()) for block in blocks])
    return float(ends[:, 0].min()), float(ends[:, 1].max())


def check_memory(nbytes, what, remedy="", *, be=None):
    """Raise MemoryError where an allocation is bound to fail.

    Parameters
    ----------
    nbytes : int
        Size of the allocation.
    what : str
        What it is for, as the subject of the sentence.
    remedy : str
        What to do instead, as a sentence.
    be : Backend, optional
        Whose memory it is; by default the host's.
    """
    if nbytes < _SMALL_ALLOCATION:
        return
    free = _free_memory() if be is None or be.name == "numpy" else be.free_memory()
    if nbytes > free:
        sentence = f"{what} needs {nbytes / 1e9:.3g} GB; {free / 1e9:.3g} GB are free"
        raise MemoryError(f"{sentence}. {remedy}".rstrip(" ."))


def _free_memory():
    """Bytes that this process may still allocate; infinity where the system does not tell."""
    return min(_free_on_machine(), _free_in_container())


def _free_on_machine():
    # Linux promises more than it has and kills later, so its own refusal cannot be waited for.
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return math.inf
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return math.inf


def _free_in_container():
    try:
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = (_CGROUP / "memory.stat").read_text(encoding="ascii").split()
    except OSError:
        return math.inf
    # "anon" leaves out the page cache, which gives way to an allocation.
    return math.inf if limit == "max" else int(limit) - int(used[used.index("anon") + 1])
