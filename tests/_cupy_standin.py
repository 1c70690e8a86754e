"""A stand-in for CuPy on machines without a GPU: arrays are NumPy's, kernels run on the CPU.

It lets the whole GPU path of a solver run in the default tests, and is stricter than CuPy: only
the functions listed here exist, so the lists say what the library uses of CuPy; NumPy arrays and
stand-in arrays do not mix; whatever waits for the device or moves data is counted in `device`.

It must never share a process with tests that want to know whether CuPy is there. Files of tests
for it (named ``on_device.py``, so that pytest does not collect them) run in a process of their
own, which `run_with_standin` starts. In it, the fixture `device` gives the counts of one test.
"""

import functools
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse
from _cuda_on_cpu import CpuRawModule, instances

TESTS = Path(__file__).parent

FUNCTIONS = """
    abs add all any arange argmax argmin argpartition argsort array asarray ascontiguousarray
    broadcast_to ceil clip concatenate copyto cos cumsum diag diff divide dot einsum empty
    empty_like exp expand_dims expm1 eye floor full full_like isfinite isinf isnan ix_ linspace
    log log1p logical_and logical_not logical_or matmul max maximum mean median min minimum
    multiply nan_to_num negative ones ones_like outer partition power prod ptp ravel reciprocal
    repeat reshape rint searchsorted sign sort sqrt square stack subtract sum take
    take_along_axis tanh tensordot tile trace transpose tril triu vdot where zeros zeros_like
"""
# These return as much as they find, so CuPy waits for the device to know how much.
WAITING = "argwhere bincount flatnonzero nonzero unique"
CONSTANTS = """
    bool_ dtype e finfo float32 float64 iinfo inf int32 int64 intp nan newaxis pi uint8
"""
LINALG = "cholesky eigh eigvalsh inv lstsq norm pinv qr solve svd"
SCIPY_LINALG = "lu_factor lu_solve solve_triangular"
METHODS = """
    all any argmax argmin astype clip copy cumsum diagonal dot fill max mean min prod ravel repeat
    reshape sort squeeze std sum swapaxes take trace transpose var
"""
ATTRIBUTES = "dtype itemsize nbytes ndim shape size strides"
SPARSE = "csr_matrix vstack"
SPARSE_ATTRIBUTES = "T col data dtype has_canonical_format indices indptr ndim nnz row shape"
OPERATORS = """
    abs add and eq floordiv ge gt iadd iand imul invert ior ipow isub itruediv le lshift lt
    matmul mod mul ne neg or pos pow radd rand rmatmul rmod rmul ror rpow rsub rtruediv sub
    truediv xor
"""


class Device:
    """Counts what costs time on a real device.

    Attributes
    ----------
    syncs : int
        How often the host waited for the device (each transfer to the host is one).
    uploads : int
        Arrays copied from the host to the device.
    launches : list of str
        Name expressions of the kernels launched.
    traffic : list of list of (int, int)
        Bytes that each of them loaded from and stored to each of its arguments.
    block : int or None
        If set, every launch of one-dimensional blocks uses this many threads in a block.
    """

    def __init__(self):
        self.reset()

    def reset(self):
        self.syncs, self.uploads, self.launches, self.traffic = 0, 0, [], []
        self.block = None


device = Device()


class ndarray:  # noqa: N801 (CuPy's name)
    """A NumPy array that plays an array in device memory."""

    # NumPy functions and scalars on the left defer to the methods here.
    __array_priority__ = 100
    __hash__ = None

    def __init__(self, host):
        self._host, self.device = host, CudaDevice()

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed; use `be.host`.")

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        if method != "__call__" or not any(isinstance(x, np.generic) for x in inputs):
            raise TypeError(f"call `xp.{ufunc.__name__}`, not `numpy.{ufunc.__name__}`")
        return _call(ufunc, *inputs, **kwargs)

    def __array_function__(self, function, types, args, kwargs):
        raise TypeError(f"call `xp.{function.__name__}`, not `numpy.{function.__name__}`")

    def __dlpack__(self, **kwargs):
        raise BufferError("the stand-in has no device memory to share")

    def __dlpack_device__(self):
        return (2, self.device.id)

    def _part(self, host):
        part = ndarray(host)
        part.device = self.device
        return part

    # What involves no kernel works for arrays of any device.
    T = property(lambda self: self._part(self._host.T))

    def view(self, dtype=None):
        return self._part(self._host.view(*([] if dtype is None else [dtype])))

    @property
    def flags(self):
        own = self._host.flags
        return types.SimpleNamespace(
            c_contiguous=own.c_contiguous, f_contiguous=own.f_contiguous, owndata=own.owndata
        )

    def get(self):
        """Copy the array to the host."""
        device.syncs += 1
        return self._host.copy()

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __bool__(self):
        return bool(self.get())

    def __index__(self):
        return self.get().__index__()

    def __repr__(self):
        return f"standin {self._host!r}"

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[k] for k in range(len(self)))

    def __getitem__(self, key):
        if any(_is_mask(k) for k in (key if isinstance(key, tuple) else (key,))):
            device.syncs += 1
        return self._part(np.asarray(self._host[_on_host(key)]))

    def __setitem__(self, key, value):
        self._host[_on_host(key)] = _on_host(value)


def _is_mask(key):
    return isinstance(key, ndarray) and key.dtype == bool


def _on_host(x):
    """Unwrap stand-in arrays, also in lists; refuse NumPy arrays as CuPy does."""
    if isinstance(x, ndarray):
        if x.device.id != CudaDevice.current:
            raise ValueError(
                "Array device must be same as the current device: "
                f"array device = {x.device.id} while current = {CudaDevice.current}"
            )
        return x._host
    if isinstance(x, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>: it is in host memory")
    if isinstance(x, list | tuple):
        return type(x)(_on_host(v) for v in x)
    return x


def _on_device(x):
    """Wrap what NumPy returned; in CuPy a single number stays an array in device memory."""
    if isinstance(x, np.ndarray | np.generic):
        return ndarray(np.asarray(x))
    if isinstance(x, tuple):
        values = [_on_device(v) for v in x]
        return type(x)(*values) if hasattr(x, "_fields") else tuple(values)
    return x


def _call(function, *args, **kwargs):
    # CuPy has no warnings for overflow and the like.
    with np.errstate(all="ignore"):
        result = function(*_on_host(args), **{k: _on_host(v) for k, v in kwargs.items()})
    # A function that returns its argument, or what it was given as `out`, returns the same object.
    same = [x for x in (*args, *kwargs.values()) if isinstance(x, ndarray) and x._host is result]
    return same[0] if same else _on_device(result)


def _forward(function, *, waits=False):
    def call(*args, **kwargs):
        device.syncs += waits
        return _call(function, *args, **kwargs)

    return call


def _method(name):
    return lambda self, *args, **kwargs: _call(
        lambda host, *a, **k: getattr(host, name)(*a, **k), self, *args, **kwargs
    )


def _operator(name):
    def call(self, *others):
        with np.errstate(all="ignore"):
            result = getattr(_on_host(self), name)(*_on_host(others))
        if result is NotImplemented:
            return result
        return self if result is self._host else _on_device(result)

    return call


for _name in METHODS.split():
    setattr(ndarray, _name, _method(_name))
for _name in OPERATORS.split():
    setattr(ndarray, f"__{_name}__", _operator(f"__{_name}__"))
for _name in ATTRIBUTES.split():
    setattr(ndarray, _name, property(lambda self, name=_name: getattr(self._host, name)))
# The door tells kinds of arrays apart by the package of their class.
ndarray.__module__ = "cupy"


def _upload(function):
    """`array` and `asarray`: the two ways in for data on the host."""

    def call(x, *args, **kwargs):
        if isinstance(x, ndarray):
            return _call(function, x, *args, **kwargs)
        if isinstance(x, np.ndarray | list | tuple) and not _holds_device_arrays(x):
            device.uploads += 1
        return ndarray(np.array(_unwrapped(x), *args, **kwargs))

    return call


def _holds_device_arrays(x):
    return isinstance(x, list | tuple) and any(isinstance(v, ndarray) for v in x)


def _unwrapped(x):
    return _on_host(x) if _holds_device_arrays(x) else x


def _filled(function):
    """`empty`: what was in the memory before must not matter."""

    def call(*args, **kwargs):
        array = _call(function, *args, **kwargs)
        array.fill(np.nan if array.dtype.kind == "f" else 1)
        return array

    return call


class errstate:  # noqa: N801 (CuPy's name)
    """`cupyx.errstate`: whether decompositions wait for the device to know if they failed."""

    linalg = "ignore"

    def __init__(self, *, linalg):
        self._wanted, self._before = linalg, errstate.linalg

    def __enter__(self):
        errstate.linalg = self._wanted

    def __exit__(self, *_):
        errstate.linalg = self._before


def _unchecked(function):
    """Unless asked to check, decompositions that fail return any numbers, as here their input."""

    def call(A, *args, **kwargs):
        device.syncs += errstate.linalg == "raise"
        try:
            return _call(function, A, *args, **kwargs)
        except np.linalg.LinAlgError:
            if errstate.linalg == "raise":
                raise
            return (args[0] if args else A).copy()

    return call


class csr_matrix:  # noqa: N801 (CuPy's name)
    """A sparse matrix of SciPy, in any format, that plays one in device memory."""

    def __init__(self, x, shape=None, dtype=None, copy=False):
        # How many entries a dense matrix has, CuPy must ask the device.
        device.syncs += isinstance(x, ndarray)
        if isinstance(x, csr_matrix):
            self._host = x._host.tocsr()
        elif isinstance(x, tuple):
            # Data with rows and columns, or with indices and the starts of rows.
            self._host = scipy.sparse.csr_matrix(_on_host(x), shape=shape)
        else:
            self._host = scipy.sparse.csr_matrix(x._host) if isinstance(x, ndarray) else x
        if dtype is not None or copy:
            self._host = scipy.sparse.csr_matrix(self._host, dtype=dtype, copy=copy)

    def sum_duplicates(self):
        self._host.sum_duplicates()

    def __getattr__(self, name):
        if name not in SPARSE_ATTRIBUTES.split():
            raise AttributeError(name)
        value = getattr(self._host, name)
        return csr_matrix(value) if scipy.sparse.issparse(value) else _on_device(value)

    def __matmul__(self, x):
        return _on_device(self._host @ _on_host(x))

    def __getitem__(self, rows):
        return csr_matrix(self._host[_on_host(rows)])

    def tocsr(self):
        return csr_matrix(self._host.tocsr())

    def tocoo(self, copy=True):
        # Through the door of another class, which keeps the format.
        return csr_matrix(self._host.tocoo())

    def astype(self, dtype):
        return csr_matrix(self._host.astype(dtype))

    def toarray(self):
        return _on_device(self._host.toarray())

    def get(self):
        device.syncs += 1
        return self._host.copy()


csr_matrix.__module__ = "cupyx.scipy.sparse"


def vstack(blocks, format=None):
    return csr_matrix(scipy.sparse.vstack([b._host for b in blocks], format=format))


class RawModule:
    """`cupy.RawModule`, with the CPU in place of the device."""

    def __init__(self, *, code, options=(), name_expressions=()):
        # All kernels of a source at once: g++ takes its time to begin with.
        names = tuple(dict.fromkeys((*instances(code), *name_expressions)))
        self._module = CpuRawModule(code=code, options=options, name_expressions=names)

    def get_function(self, name):
        kernel = self._module.get_function(name)

        def launch(grid, block, args, *, shared_mem=0):
            device.launches.append(name)
            if device.block and len(block) == 1:
                block = (device.block,)
            kernel(grid, block, tuple(map(_on_host, args)), shared_mem=shared_mem)
            device.traffic.append(kernel.traffic)

        return launch


class CudaDevice:
    """`cupy.cuda.Device`: as many as asked for, but all arrays must be on the current one."""

    current = 0
    # Free and total memory in bytes.
    mem_info = (2**36, 2**37)
    _before = ()

    def __init__(self, number=None):
        self.id = CudaDevice.current if number is None else number

    def __enter__(self):
        CudaDevice._before = (*CudaDevice._before, CudaDevice.current)
        CudaDevice.current = self.id
        return self

    def __exit__(self, *_):
        *CudaDevice._before, CudaDevice.current = CudaDevice._before


def _module(name, **contents):
    module = types.ModuleType(name)
    vars(module).update(contents)
    return module


def install():
    """Put the stand-in where CuPy is imported from."""
    cuda = _module("cupy.cuda", is_available=lambda: True, Device=CudaDevice)
    linalg = _module("cupy.linalg", **{n: _forward(getattr(np.linalg, n)) for n in LINALG.split()})
    for name in ("cholesky", "inv", "solve"):
        setattr(linalg, name, _unchecked(getattr(np.linalg, name)))
    cupy = _module(
        "cupy",
        __version__="0+standin",
        ndarray=ndarray,
        cuda=cuda,
        linalg=linalg,
        RawModule=RawModule,
        get_default_memory_pool=lambda: types.SimpleNamespace(free_bytes=lambda: 2**20),
        **{name: _forward(getattr(np, name)) for name in FUNCTIONS.split()},
        **{name: _forward(getattr(np, name), waits=True) for name in WAITING.split()},
        **{name: getattr(np, name) for name in CONSTANTS.split()},
    )
    # CuPy knows no other sort than a stable one.
    cupy.argsort = _forward(functools.partial(np.argsort, kind="stable"))
    cupy.array, cupy.asarray = _upload(np.array), _upload(np.asarray)
    cupy.empty, cupy.empty_like = _filled(np.empty), _filled(np.empty_like)
    of_scipy = {name: _forward(getattr(scipy.linalg, name)) for name in SCIPY_LINALG.split()}
    modules = {
        "cupy": cupy,
        "cupy.cuda": cuda,
        "cupy.linalg": linalg,
        "cupyx": _module("cupyx", errstate=errstate),
        "cupyx.scipy": _module("cupyx.scipy"),
        "cupyx.scipy.linalg": _module("cupyx.scipy.linalg", **of_scipy),
        "cupyx.scipy.sparse": _module("cupyx.scipy.sparse", csr_matrix=csr_matrix, vstack=vstack),
    }
    sys.modules.update(modules)


# Hooks and fixtures of the process that `run_with_standin` starts.


def pytest_configure(config):
    install()


@pytest.fixture(name="device")
def _device():
    device.reset()
    return device


def run_with_standin(file, *options):
    """Run a file of tests in a process where CuPy is the stand-in; fail if one of them fails."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "_cupy_standin", *options, str(file)]
    done = subprocess.run(
        command,
        cwd=TESTS.parent,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}{done.stderr}", pytrace=False)
