"""The door: arrays of any kind come in as NumPy or CuPy arrays, results go back as they came.

PyTorch, JAX and other array-API arrays share their memory through DLPack; no array moves between
host and device. This is the only file that knows PyTorch and JAX, and it imports them only to
hand results back.
"""

import contextlib
import importlib
import numbers
from dataclasses import dataclass

import numpy as np

from .backend import get_backend
from .validation import check_memory, describe

_KINDS = {"numpy": "numpy", "cupy": "cupy", "torch": "torch", "jax": "jax", "jaxlib": "jax"}
# Plain numbers take the kind and the precision of the arrays they come with.
_PLAIN = (numbers.Number, np.generic, list, tuple, range)
_REAL = {"bool", "float32", "float64"} | {f"{u}int{k}" for u in ("", "u") for k in (8, 16, 32, 64)}
# Device codes of DLPack: host memory, also page-locked; CUDA memory, also managed.
_HOST, _CUDA = {1, 3, 11}, {2, 13}


def kind_of(x):
    """Return the kind of array that a result for `x` should be.

    That is 'numpy' (also for lists, numbers and pandas), 'cupy', 'torch', 'jax', or the package
    of another array that follows the array API. No package is imported to find out.
    """
    if type(x) is np.ndarray:
        return "numpy"
    roots = [root for root, _ in _origins(x)]
    known = [_KINDS[root] for root in roots if root in _KINDS]
    if known:
        return known[0]
    return roots[0] if hasattr(x, "__array_namespace__") else "numpy"


def is_sparse(x):
    """Tell whether `x` is a sparse array or matrix of SciPy or CuPy."""
    # Nearly always; the rest costs a microsecond.
    return type(x) is not np.ndarray and any(
        (root == "scipy" and rest.startswith("sparse"))
        or (root == "cupyx" and rest.startswith("scipy.sparse"))
        for root, rest in _origins(x)
    )


def to_numpy(x):
    """Return any array as a NumPy array on the host, sharing memory where it already is there."""
    kind = kind_of(x)
    if kind == "numpy":
        return np.asarray(x)
    if kind == "cupy":
        return np.asarray(get_backend("cupy").host(x))
    if kind == "torch":
        return x.detach().cpu().resolve_conj().resolve_neg().numpy()
    return np.asarray(x) if kind == "jax" else np.from_dlpack(x)


def framework(name):
    """Import and return "torch" or "jax", for what differentiates the caller's functions.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{name!r} needs a package: run `pip install {name}`") from error


class Ingest:
    """The array arguments of one call, as arrays of one back end and one precision.

    Parameters
    ----------
    sparse_hint : dict, optional
        For arguments that may not be sparse, what to do instead, as the end of a sentence.
    dtype : numpy.dtype, optional
        Precision to compute in, in place of the arguments' own.
    **arrays
        Arguments by name; None stands for one that the caller left out.

    Attributes
    ----------
    kind : str
        Kind of array that goes back to the caller, see `kind_of`.
    be : Backend
        NumPy for arrays on the host, CuPy for CUDA arrays.
    xp : module
        ``be.xp``.
    dtype : numpy.dtype
        float32 if every floating-point argument is float32, else float64.
    device : context manager
        Makes the arrays' device the current one; a solver runs inside it.
    out : Outlet
        ``io.out(v)`` hands a result back.
    bounds : dict
        Smallest and largest entry, by name, of the arrays that `check_array` has looked through.

    Raises
    ------
    TypeError
        If an argument is no dense array of real numbers, or kinds or devices differ.
    ValueError
        If a tensor requires gradients.

    Notes
    -----
    ``io["C"]`` is C-contiguous, aligned, native and of `dtype`: a view of the caller's memory if
    that is so already, else one copy. It counts as writable even where the caller's array is
    read-only, because Numba compiles anew for read-only arrays. Solvers never write to it.
    """

    def __init__(self, *, sparse_hint=None, dtype=None, **arrays):
        hints = sparse_hint or {}
        given = {name: x for name, x in arrays.items() if x is not None}
        checked = {name: _checked(name, x, hints.get(name)) for name, x in given.items()}
        # Whatever plain numbers say of kind, device and precision does not count.
        strong = {name: x for name, x in checked.items() if not isinstance(given[name], _PLAIN)}
        self.kind, where = _common_home(strong)
        self.be = get_backend("numpy" if where == "cpu" else "cupy")
        self.xp = self.be.xp
        floating = {_dtype_name(x) for x in strong.values()} & {"float32", "float64"}
        own = np.float32 if floating == {"float32"} else np.float64
        self.dtype = np.dtype(own if dtype is None else dtype)
        self.device = contextlib.nullcontext()
        if self.be.name == "cupy":
            self.device = self.xp.cuda.Device(int(where.partition(":")[2]))
        with self.device:
            self._raw = {name: _shared(name, x, self.xp) for name, x in checked.items()}
        self._normal, self.bounds = {}, {}
        self.out = _outlet(self.kind, self.dtype, next(iter(strong.values()), None))

    def __contains__(self, name):
        return name in self._raw

    def __getitem__(self, name):
        if name not in self._normal:
            self._normal[name] = self._normal_form(name, self._raw[name])
        return self._normal[name]

    def raw(self, name):
        """Return an argument as it came: any order and dtype, perhaps read-only."""
        return self._raw[name]

    def is_fortran(self, name):
        """Tell whether an argument is a matrix whose columns are contiguous, and not its rows."""
        x = self._raw[name]
        return x.ndim == 2 and x.flags.f_contiguous and not x.flags.c_contiguous

    def transposed(self, name):
        """Return the transpose in normal form: a view if the argument is Fortran-ordered."""
        key = (name, "transposed")
        if key not in self._normal:
            self._normal[key] = self._normal_form(name, self._raw[name].T)
        return self._normal[key]

    def copy(self, name):
        """Return a copy in normal form, for warm starts that a solver updates in place."""
        return self.xp.array(self._raw[name], dtype=self.dtype, order="C")

    def _normal_form(self, name, x):
        on_host = self.be.name == "numpy"
        ready = x.dtype == self.dtype and x.flags.c_contiguous
        if not (ready and (not on_host or x.flags.aligned)):
            if on_host:
                check_memory(x.size * self.dtype.itemsize, f"`{name}` in C order as {self.dtype}")
            with self.device, np.errstate(over="ignore"):  # an overflow shows as infinity
                x = self.xp.array(x, dtype=self.dtype, order="C")
        elif on_host and not x.flags.writeable:
            x = np.asarray(_Writable(x))
        # A view, so that `Outlet` sees that the memory may be the caller's.
        return x.view()


@dataclass(frozen=True)
class Outlet:
    """The way back: turns results into the caller's kind of array, on the caller's device.

    It holds no arrays and pickles, so that results can convert their fields when asked.

    Parameters
    ----------
    kind : str
        As in `kind_of`.
    dtype : numpy.dtype
        Precision of floating-point results.
    home : tuple or str
        JAX: platform and number of the device; other array-API packages: the namespace.
    """

    kind: str
    dtype: np.dtype
    home: tuple | str = ""

    def __call__(self, v):
        """Return `v`, an array of the back end, in the caller's kind.

        It is C-contiguous, writable and owns its memory, copied only where it must be.
        Floating-point values get the precision of the call, other types stay. JAX keeps float64
        only with ``jax_enable_x64``. None stays None.
        """
        if v is None:
            return None
        v = _owned(v, self.dtype)
        if self.kind in ("numpy", "cupy"):
            return v
        if self.kind == "torch":
            return importlib.import_module("torch").from_dlpack(v)
        if self.kind == "jax":
            return _to_jax(v, *self.home)
        return importlib.import_module(self.home).from_dlpack(v)


class _Writable:
    """Presents the memory of a read-only array as writable, and keeps it alive."""

    def __init__(self, x):
        self._owner = x
        interface = x.__array_interface__
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def _origins(x):
    """Yield (package, rest of the module path) for each class that `x` is an instance of."""
    for cls in type(x).__mro__:
        root, _, rest = cls.__module__.partition(".")
        yield root, rest


def _dtype_name(x):
    # NumPy's own names leave out the byte order; others print as "torch.float32".
    return getattr(x.dtype, "name", None) or str(x.dtype).rpartition(".")[2]


def _checked(name, x, sparse_hint):
    """Return `x` as an array of its own framework that is dense, concrete and real, or raise."""
    if is_sparse(x):
        hint = sparse_hint or f"pass `{name}.toarray()` if that fits in memory"
        raise TypeError(f"`{name}` came as {describe(x)}; expected a dense array: {hint}")
    kind = kind_of(x)
    if kind != "numpy":
        _refuse_unsharable(name, x, kind)
    array = _as_numpy(name, x) if kind == "numpy" else x
    if _dtype_name(array) not in _REAL:
        raise TypeError(
            f"`{name}` came as {describe(x)} with dtype {_dtype_name(array)}; "
            "expected float32, float64, integers or booleans"
        )
    return array


def _as_numpy(name, x):
    if isinstance(x, np.matrix | np.ma.MaskedArray):
        remedy = "np.asarray" if isinstance(x, np.matrix) else "np.ma.filled"
        raise TypeError(
            f"`{name}` came as {describe(x)}; expected a plain array: pass {remedy}({name})"
        )
    if hasattr(x, "__cuda_array_interface__"):
        raise TypeError(
            f"`{name}` came as {describe(x)} in device memory; expected an array that "
            f"supports DLPack: pass cupy.asarray({name})"
        )
    try:
        return _from_pandas(name, x) if _is_pandas(x) else np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:
        # A ragged list has the right kind and the wrong value.
        raise type(error)(
            f"`{name}` came as {describe(x)}; expected an array of numbers ({error})"
        ) from error


def _is_pandas(x):
    return any(root == "pandas" for root, _ in _origins(x)) and hasattr(x, "to_numpy")


def _from_pandas(name, x):
    dtypes = list(x.dtypes) if x.ndim == 2 else [x.dtype]
    if any(str(dtype).startswith("Sparse") for dtype in dtypes):
        raise TypeError("it is sparse; densify it first")
    if not all(dtype.kind in "fiub" for dtype in dtypes):
        raise TypeError(f"it holds {', '.join(sorted({str(dtype) for dtype in dtypes}))}")
    if all(isinstance(dtype, np.dtype) for dtype in dtypes):
        # Without a common type, booleans beside numbers would become objects.
        return x.to_numpy(dtype=np.result_type(*dtypes) if dtypes else None)
    return x.to_numpy(dtype=np.float64, na_value=np.nan)


def _refuse_unsharable(name, x, kind):
    """Raise for what DLPack refuses, or worse, what it accepts and misreads."""
    came = f"`{name}` came as {describe(x)}"
    if kind == "jax" and any(cls.__name__ == "Tracer" for cls in type(x).__mro__):
        raise TypeError(
            f"{came}, a traced JAX array; expected concrete numbers: "
            "call outside jit, or through jax.pure_callback"
        )
    if not hasattr(x, "__dlpack__"):
        raise TypeError(f"{came}; expected a dense array of numbers")
    if kind == "jax" and x.is_deleted():
        raise TypeError(f"{came} that was deleted or donated; expected an array with data")
    if kind == "torch":
        if str(x.layout) != "torch.strided":
            raise TypeError(f"{came} and layout {x.layout}; expected a dense tensor")
        if x.device.type == "meta":
            raise TypeError(f"{came} on the meta device; expected a tensor with data")
        if x.requires_grad:
            raise ValueError(f"{came} that requires grad; expected data: pass {name}.detach()")


def _common_home(strong):
    """Return the one kind and device ("cpu" or "cuda:<number>") of all arrays."""
    homes = {name: (kind_of(x), _device(name, x)) for name, x in strong.items()}
    if not homes:
        return "numpy", "cpu"
    first, (kind, device) = next(iter(homes.items()))
    for name, (other_kind, other_device) in homes.items():
        if other_kind != kind:
            raise TypeError(
                f"`{name}` came as a {other_kind} array and `{first}` as a {kind} array; "
                "expected one kind: convert one of them"
            )
        if other_device != device:
            raise TypeError(
                f"`{name}` came on device {other_device} and `{first}` on {device}; "
                "expected one device: move one of them"
            )
    return kind, device


def _device(name, x):
    if isinstance(x, np.ndarray):
        return "cpu"
    try:
        code, number = x.__dlpack_device__()
    except (BufferError, RuntimeError, ValueError) as error:
        raise TypeError(f"`{name}` came on a device that cannot be shared: {error}") from error
    if code in _HOST:
        return "cpu"
    if code in _CUDA:
        return f"cuda:{number}"
    raise TypeError(
        f"`{name}` came on device {getattr(x, 'device', code)}; expected the CPU or a CUDA device"
    )


def _shared(name, x, xp):
    """Return the memory of `x` as an array of `xp`."""
    if isinstance(x, np.ndarray):
        return np.asarray(x) if xp is np else xp.asarray(x)
    if isinstance(x, xp.ndarray):
        return x
    if kind_of(x) == "torch":
        x = x.resolve_neg()  # DLPack would drop the sign
    try:
        return xp.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"`{name}` came as {describe(x)} that DLPack refuses: {error}") from error


def _outlet(kind, dtype, x):
    if kind == "jax":
        device = next(iter(x.devices()))
        return Outlet(kind, dtype, (device.platform, device.id))
    if kind in ("numpy", "cupy", "torch"):
        return Outlet(kind, dtype)
    return Outlet(kind, dtype, x.__array_namespace__().__name__)


def _owned(v, dtype):
    """Return `v` as it may be given away; torch aborts the process on negative strides."""
    xp = get_backend("cupy").xp if kind_of(v) == "cupy" else np
    v = xp.asarray(v)
    v = xp.asarray(v, dtype=dtype if v.dtype.kind == "f" else v.dtype, order="C")
    mine = v.flags.owndata and getattr(v.flags, "writeable", True)
    return v if mine else v.copy(order="C")


def _to_jax(v, platform, number):
    jax = importlib.import_module("jax")
    if not isinstance(v, np.ndarray):
        return jax.numpy.from_dlpack(v)
    device = next(d for d in jax.devices(platform) if d.id == number)
    return jax.device_put(v, device)
