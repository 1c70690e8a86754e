"""The two compute back ends, NumPy and CuPy, and the loader of CUDA kernels.

A solver asks its `Backend` for arrays (`xp`), decompositions (`linalg`), kernels and host values,
and cannot tell which of the two it got.
"""

import re
import threading
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path

import numpy as np

_CUDA_TYPE = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
_INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)
# Where a kernel source finds what it includes, after its own folder.
_HEADERS = (Path(__file__).parent / "kernels", Path(__file__).parents[1])


class Backend:
    """One way to compute: an array module and what belongs to it.

    Parameters
    ----------
    name : {"numpy", "cupy"}
        Name of the array module.

    Attributes
    ----------
    xp : module
        `numpy` or `cupy`.
    """

    def __init__(self, name):
        self.name = name
        self.xp = np if name == "numpy" else _cupy()
        self._kernels = {}

    def __repr__(self):
        return f"Backend({self.name!r})"

    def __reduce__(self):
        # Modules do not pickle, and every process has one of each.
        return get_backend, (self.name,)

    @cached_property
    def linalg(self):
        """`scipy.linalg`, or its CuPy counterpart for triangular and LU solves.

        QR, SVD and eigenvalues are in ``xp.linalg`` on both.
        """
        return import_module("scipy.linalg" if self.name == "numpy" else "cupyx.scipy.linalg")

    @cached_property
    def sparse(self):
        """`scipy.sparse`, or its CuPy counterpart."""
        return import_module("scipy.sparse" if self.name == "numpy" else "cupyx.scipy.sparse")

    def cholesky(self, A):
        """Return the lower Cholesky factor; LinAlgError if `A` is not positive definite."""
        if self.name == "numpy":
            return np.linalg.cholesky(A)
        # Unless told to look at the outcome, CuPy returns what a failed factorisation left.
        with import_module("cupyx").errstate(linalg="raise"):
            return self.xp.linalg.cholesky(A)

    def kernels(self, package, part=None):
        """Return the kernel module of a package for these arrays.

        Parameters
        ----------
        package : str
            Such as "solvers.ot".
        part : str, optional
            A folder in the package's `kernels`, for those that are needed less often.
        """
        key = package, part
        # Asking the import system costs as much as a small kernel.
        if key not in self._kernels:
            where = f"{package}.kernels" + (f".{part}" if part else "")
            side = "cpu" if self.name == "numpy" else "gpu"
            self._kernels[key] = import_module(f"{where}.{side}")
        return self._kernels[key]

    def free_memory(self):
        """Return how many bytes can still be allocated on the current CUDA device."""
        # What CuPy's pool has kept of freed arrays counts as used on the device.
        return self.xp.cuda.Device().mem_info[0] + self.xp.get_default_memory_pool().free_bytes()

    def host(self, *values):
        """Bring scalars and small arrays to the host; the only transfer that solvers make.

        Parameters
        ----------
        *values : array or number
            Anything with ``dtype``, in device memory or not, or a Python number.

        Returns
        -------
        float, int, bool or numpy.ndarray, or a tuple of them
            Python numbers for zero-dimensional values; one value, or a tuple if several were
            given. However many there are, the device is waited for once.
        """
        if self.name == "cupy":
            values = _from_device(self.xp, values)
        if len(values) == 1:
            return _plain(values[0])
        return tuple(map(_plain, values))


@cache
def get_backend(name):
    """Return the back end called "numpy" or "cupy".

    Raises
    ------
    ImportError
        If CuPy is asked for and not installed.
    RuntimeError
        If CuPy is asked for and finds no CUDA device.
    """
    if name not in ("numpy", "cupy"):
        raise ValueError(f"`name` came as {name!r}; expected 'numpy' or 'cupy'")
    return Backend(name)


def available_backends():
    """Return the names of the back ends that can compute here, as a tuple."""
    try:
        _cupy()
    except (ImportError, RuntimeError):
        return ("numpy",)
    return ("numpy", "cupy")


def _cupy():
    try:
        cupy = import_module("cupy")
    except ImportError as error:
        raise ImportError(
            "CUDA arrays need CuPy: run `pip install array-solvers[cuda13]`, "
            "or `array-solvers[cuda12]` for a driver older than 580"
        ) from error
    # CuPy imports without a driver and fails only later, with a status code.
    if not cupy.cuda.is_available():
        raise RuntimeError(
            f"CuPy {cupy.__version__} is installed but finds no CUDA device; "
            "check `nvidia-smi`, or pass NumPy arrays"
        )
    return cupy


def _plain(value):
    return value.item() if getattr(value, "shape", None) == () else value


def _from_device(cupy, values):
    """Copy all CuPy arrays among `values` to the host in one transfer."""
    where = [k for k, v in enumerate(values) if isinstance(v, cupy.ndarray)]
    if not where:
        return values
    # As bytes, arrays of different types travel together without rounding.
    flat = [cupy.ascontiguousarray(values[k]).reshape(-1).view(np.uint8) for k in where]
    packed = (flat[0] if len(flat) == 1 else cupy.concatenate(flat)).get()
    pieces = np.split(packed, np.cumsum([piece.size for piece in flat])[:-1])
    values = list(values)
    for k, piece in zip(where, pieces, strict=True):
        # The copy is aligned, and does not keep the other pieces in memory.
        values[k] = piece.view(values[k].dtype).reshape(values[k].shape).copy()
    return tuple(values)


class CudaSource:
    """The CUDA source beside a `gpu.py`; each kernel is compiled when it is first launched.

    Parameters
    ----------
    path : str or Path
        Path of the launching module; its suffix is replaced by ``.cu``.

    Attributes
    ----------
    code : str
        The source with its headers in place of the ``#include`` lines. (CuPy's disk cache knows
        a kernel by its text: a change in a header must show there.)

    Examples
    --------
    The launcher of a kernel ``template <class T> __global__ void row_sum(...)``::

        _cuda = CudaSource(__file__)


        def row_sum(A, out):
            n, m = A.shape
            _cuda.launch("row_sum", A.dtype, blocks(n), 256, (A, m, n, m, out))
    """

    def __init__(self, path):
        self.path = Path(path).with_suffix(".cu")
        self._functions = {}
        self._lock = threading.Lock()

    @cached_property
    def code(self):
        return _with_headers(self.path, set())

    def launch(self, name, types, grid, block, args, *, shared=0):
        """Launch a kernel on the current device and stream.

        Parameters
        ----------
        name : str
            Name of the kernel.
        types : dtype, str or tuple of them
            The kernel's template arguments: float32 or float64, or a C++ type such as
            ``"L1<T>"``, where ``T`` stands for the first.
        grid, block : int or tuple of int
            Numbers of blocks, and of threads in a block.
        args : tuple
            Arguments in the kernel's order. A CUDA kernel takes the bytes it is given, so
            Python floats become the first type, integers ``long long`` and bools ``bool``;
            NumPy scalars keep their type.
        shared : int
            Bytes of dynamic shared memory in each block.
        """
        types = types if isinstance(types, tuple) else (types,)
        T = np.dtype(types[0])
        function = self._function(f"{name}<{', '.join(_cpp(t, T) for t in types)}>")
        function(_dim(grid), _dim(block), tuple(_exact(x, T) for x in args), shared_mem=shared)

    def _function(self, expression):
        with self._lock:
            if expression not in self._functions:
                module = _cupy().RawModule(
                    code=self.code, options=("-std=c++17",), name_expressions=(expression,)
                )
                self._functions[expression] = module.get_function(expression)
            return self._functions[expression]


def blocks(n, per_block=1):
    """Return how many blocks to launch for `n` rows; kernels stride over what is left."""
    return min(max(-(-n // per_block), 1), 65535)


def _with_headers(path, seen):
    """Return the text of a CUDA file with each header it includes put in once."""

    def header(match):
        name = match[1]
        found = next(p / name for p in (path.parent, *_HEADERS) if (p / name).exists())
        if found in seen:
            return ""
        seen.add(found)
        line = text.count("\n", 0, match.start()) + 2
        return f'#line 1 "{name}"\n{_with_headers(found, seen)}\n#line {line} "{path.name}"'

    text = path.read_text(encoding="utf-8")
    return _INCLUDE.sub(header, text)


def _cpp(t, T):
    return re.sub(r"\bT\b", _CUDA_TYPE[T], t) if isinstance(t, str) else _CUDA_TYPE[np.dtype(t)]


def _exact(x, T):
    if isinstance(x, bool):
        return np.bool_(x)
    if isinstance(x, int):
        return np.int64(x)
    return T.type(x) if type(x) is float else x


def _dim(size):
    return size if isinstance(size, tuple) else (size,)
