"""Run CUDA kernels on the CPU and check everything they do (Linux and g++; tests only).

`CpuRawModule` has the interface of `cupy.RawModule`, for NumPy arrays. Each launch runs the
threads of a block as fibers in a random order and raises `CudaError` for whatever a GPU would
silently get wrong: arguments of the wrong kind or size, reads and writes out of bounds, races,
shared memory read before it is written, divergent barriers and shuffles, deadlocks, undefined
integer and pointer arithmetic. Not supported: communication between blocks other than by atomics.
"""

import contextlib
import ctypes
import functools
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

POLICIES = ("fair", "subset", "starve")

_HERE = Path(__file__).parent
_HEADER, _RUNTIME = _HERE / "cuda_on_cpu.h", _HERE / "runtime.cpp"
_COMPILER = os.environ.get("CXX", "g++")
_COMMON = ("-std=gnu++17", "-fPIC", "-U_FORTIFY_SOURCE", f"-I{_HERE}")
# -O1 keeps one memory access per access in the source, nearly; without contraction the float
# operations are those of NumPy.
_KERNEL_FLAGS = (
    *("-O1", "-g", "-w", "-ffp-contract=off"),
    *("-fsanitize=thread,undefined", "-fno-sanitize-recover=all"),
)
_TEMPLATE = re.compile(
    r"^template <((?:(?:class|typename) [A-Z]\w*(?:, )?)+)>\s+__global__\s+void\s+"
    r"(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(",
    re.MULTILINE,
)
# What a template parameter stands for.
_CHOICES = {
    "Loss": ("Squared", "Logistic", "Huber", "SquaredHinge", "Poisson"),
    "Penalty": ("ElasticBox<{T}>", "MCP<{T}>", "SCAD<{T}>", "Lq<{T}>"),
}
_DYNAMIC_SHARED = re.compile(r"extern __shared__ (\w+) (\w+)\[\];")
_C_NAMES = {"f4": "float", "f8": "double", "i4": "int", "i8": "long long", "u4": "unsigned"}


class CudaError(RuntimeError):
    """A launch that is wrong on a GPU, whether or not it would look so there."""


class CompileError(RuntimeError):
    """A source that does not compile."""


def missing():
    """Return why kernels cannot run here, or None."""
    if not sys.platform.startswith("linux"):
        return "running CUDA kernels on the CPU needs Linux"
    if not shutil.which(_COMPILER):
        return f"running CUDA kernels on the CPU needs a C++ compiler; {_COMPILER} is not here"
    return None


def instances(code):
    """Return the name expressions of all kernels in a source, for float and double.

    A template parameter of one letter is an element type, `Loss` and `Penalty` are the structs of
    `losses.cuh` and `penalties.cuh`; kernels with others are left out.
    """
    found = []
    for parameters, name in _TEMPLATE.findall(code):
        words = [parameter.split()[-1] for parameter in parameters.split(", ")]
        choices = [
            ("float", "double") if len(word) == 1 else _CHOICES.get(word, ()) for word in words
        ]
        for types in itertools.product(*choices):
            found.append(f"{name}<{', '.join(types)}>".replace("{T}", types[0]))
    return tuple(found)


@contextlib.contextmanager
def schedule(policy, seed=0):
    """Launch in a given order of threads: "fair", "subset" or "starve" (one warp waits)."""
    before = CpuKernel.schedule
    CpuKernel.schedule = (policy, seed)
    try:
        yield
    finally:
        CpuKernel.schedule = before


class CpuRawModule:
    """Kernels of one CUDA source; the arguments are those of `cupy.RawModule`."""

    def __init__(self, *, code, options=(), name_expressions=()):
        unknown = set(options) - {"-std=c++17"}
        if unknown:
            raise ValueError(f"`options` came with {sorted(unknown)}, unknown to this compiler")
        self.code = code
        self.names = tuple(name_expressions)

    @functools.cached_property
    def path(self):
        """The compiled library; compiled once for each text."""
        return _build(_translate(self.code, self.names), _runtime())

    @functools.cached_property
    def _library(self):
        return ctypes.CDLL(str(self.path))

    def get_function(self, name):
        """Return a kernel by the name expression it was compiled for."""
        entry = _Kernel.in_dll(self._library, f"kernel_{self.names.index(name)}")
        return CpuKernel(name, entry, self._library.launch, self.path)


class CpuKernel:
    """One kernel, called as ``kernel(grid, block, args, shared_mem=0)``.

    Attributes
    ----------
    traffic : list of (int, int)
        Bytes that the latest launch loaded from and stored to each array argument. Arrays that
        overlap count as one, the first.
    """

    # Set by `schedule`; None draws one from the number of launches so far.
    schedule = None
    # A launch with more memory accesses is taken to wait for ever.
    most_accesses = 1_000_000_000
    _launches = 0
    # A library's launch in progress is in its global variables.
    _lock = threading.Lock()

    def __init__(self, name, entry, launch, library):
        self.name = name
        self._entry = entry
        self._launch = launch
        self._path = library
        self.parameters = entry.parameters[: entry.count]
        self.traffic = None

    def __call__(self, grid, block, args, *, shared_mem=0):
        grid, block = _dim("grid", grid, 2**31 - 1), _dim("block", block, 1024)
        if block.x * block.y * block.z > 1024:
            raise CudaError(f"{self.name}: a block holds at most 1024 threads")
        if not 0 <= shared_mem <= 48 << 10:
            raise CudaError(f"{self.name}: {shared_mem} bytes of shared memory; 49152 at most")
        arguments, regions = self._arguments(args)
        report = _Report()
        with self._lock:
            CpuKernel._launches += 1
            policy, seed = self.schedule or (POLICIES[self._launches % 3], self._launches)
            spec = _Launch(
                grid,
                block,
                shared_mem,
                POLICIES.index(policy),
                # Small seeds would draw small first numbers.
                (seed + 1) * 0x9E3779B97F4A7C15 % 2**64,
                self.most_accesses,
                (_Region * len(regions))(*regions),
                len(regions),
                (_Argument * len(arguments))(*arguments),
                len(arguments),
            )
            failed = self._launch(
                ctypes.byref(self._entry), ctypes.byref(spec), ctypes.byref(report)
            )
        if failed:
            raise CudaError(self._explain(report))
        self.traffic = [(0, 0)] * len(arguments)
        for region in spec.regions[: len(regions)]:
            self.traffic[region.argument] = (region.loaded, region.stored)

    def _arguments(self, args):
        """Check the arguments against the C++ signature and find the memory they lie in."""
        if len(args) != len(self.parameters):
            raise CudaError(f"{self.name} takes {len(self.parameters)} arguments, got {len(args)}")
        arguments = [_Argument(region=-1) for _ in args]
        arrays = []
        passed = map(_as_cupy_passes, args)
        for k, (x, parameter) in enumerate(zip(passed, self.parameters, strict=True)):
            if parameter.pointer != (x is None or isinstance(x, np.ndarray)):
                raise CudaError(self._mismatch(k, x))
            if x is None:
                continue
            if (x.dtype.kind, x.dtype.itemsize) != (parameter.kind.decode(), parameter.size):
                raise CudaError(self._mismatch(k, x))
            if parameter.pointer:
                arrays.append((k, x, parameter.constant))
            else:
                arguments[k].value[: parameter.size] = np.asarray(x).tobytes()
        return arguments, self._regions(arrays, arguments)

    def _regions(self, arrays, arguments):
        """Join arrays that overlap, so that what one writes another reads."""
        bounds = sorted((*_byte_bounds(x), k, x, constant) for k, x, constant in arrays)
        regions = []
        for low, high, k, x, constant in bounds:
            last = regions[-1] if regions else None
            end = last.host + last.size if last else 0
            if low < end:
                self._check_alias(k, arrays)
                last.size = max(end, high) - last.host
                last.item = min(last.item, x.itemsize)
                last.constant &= constant
            else:
                regions.append(
                    _Region(
                        host=low,
                        size=high - low,
                        item=x.itemsize,
                        constant=constant,
                        argument=k,
                    )
                )
            arguments[k].region = len(regions) - 1
            arguments[k].offset = x.ctypes.data - regions[-1].host
        return regions

    def _check_alias(self, k, arrays):
        """Refuse that a kernel writes to what it takes for two arrays."""
        _, mine, my_constant = next(a for a in arrays if a[0] == k)
        for other, x, constant in arrays:
            if other != k and not (constant and my_constant) and np.shares_memory(x, mine):
                raise CudaError(f"{self.name}: arguments {k} and {other} share memory")

    def _mismatch(self, k, x):
        parameter = self.parameters[k]
        code = f"{parameter.kind.decode()}{parameter.size}"
        wanted = _C_NAMES.get(code, code) + " *" * parameter.pointer
        came = "None" if x is None else f"{x.dtype} {'array' * isinstance(x, np.ndarray)}".strip()
        return f"{self.name}: argument {k} came as {came}; the kernel declares `{wanted}`"

    def _explain(self, report):
        message = f"{self.name}: {report.message.decode()}"
        lines = [_source_line(self._path, code) for code in report.code if code]
        if lines and all(lines):
            message += f" ({' and '.join(lines)})"
        return message


def _byte_bounds(x):
    if not x.size:
        return x.ctypes.data, x.ctypes.data
    reach = [(n - 1) * stride for n, stride in zip(x.shape, x.strides, strict=True)]
    low = x.ctypes.data + sum(r for r in reach if r < 0)
    return low, x.ctypes.data + sum(r for r in reach if r > 0) + x.itemsize


def _as_cupy_passes(x):
    """Convert Python numbers as CuPy does."""
    if isinstance(x, bool):
        return np.bool_(x)
    if isinstance(x, int):
        return np.int64(x)
    if isinstance(x, float) and not isinstance(x, np.generic):
        return np.float64(x)
    if x is None or isinstance(x, np.generic | np.ndarray):
        return x
    raise TypeError(f"a kernel cannot take a {type(x).__name__}")


def _dim(name, size, most):
    size = (*size, 1, 1)[:3]
    limits = (most, 65535 if name == "grid" else most, 65535 if name == "grid" else 64)
    if not all(1 <= s <= limit for s, limit in zip(size, limits, strict=True)):
        raise CudaError(f"`{name}` came as {size}; it may be up to {limits}")
    return _Dim(*size)


def _translate(code, names):
    """Turn a CUDA source into C++ with one entry for each kernel instance."""
    code = _DYNAMIC_SHARED.sub(r"\1* \2 = (\1*)::cuda_on_cpu::dynamic_shared;", code)
    entries = "\n".join(
        f"cuda_on_cpu::Kernel kernel_{k} = cuda_on_cpu::Entry<&{name}>::described();"
        for k, name in enumerate(names)
    )
    # In a namespace kernels may be called what functions of the C library are called.
    return (
        '#include "cuda_on_cpu.h"\nnamespace cuda_source {\n'
        f'#line 1 "source.cu"\n{code}\n#line 1 "entries"\nextern "C" {{\n{entries}\n}}\n}}\n'
    )


@functools.cache
def _folder():
    try:
        (_HERE / "build").mkdir(exist_ok=True)
        return _HERE / "build"
    except OSError:
        return Path(tempfile.mkdtemp(prefix="cuda_on_cpu_"))


def _digest(*parts):
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


def _compile(*command, output, source=""):
    """Run the compiler; the result appears under its name only when it is whole."""
    partial = output.with_name(f"{output.name}.{os.getpid()}.{threading.get_ident()}")
    done = subprocess.run(
        [_COMPILER, *command, "-o", partial],
        input=source,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise CompileError(done.stderr[:4000])
    partial.replace(output)


def _runtime():
    text = _HEADER.read_text(encoding="utf-8") + _RUNTIME.read_text(encoding="utf-8")
    output = _folder() / f"runtime-{_digest(text, *_COMMON)}.o"
    if not output.exists():
        _compile("-O2", *_COMMON, "-c", _RUNTIME, output=output)
    return output


def _build(source, runtime):
    name = f"kernels-{_digest(source, runtime.name, *_COMMON, *_KERNEL_FLAGS)}"
    compiled, library = _folder() / f"{name}.o", _folder() / f"{name}.so"
    if not library.exists():
        command = (*_COMMON, *_KERNEL_FLAGS, "-x", "c++", "-c", "-")
        _compile(*command, output=compiled, source=source)
        # Linked without -fsanitize: the runtime answers the calls that the flag put in.
        _compile("-shared", compiled, runtime, output=library)
    return library


def _source_line(library, code):
    """Return "file:line" of an address in a library, or None."""
    if not shutil.which("addr2line"):
        return None
    done = subprocess.run(
        ["addr2line", "-i", "-s", "-e", library, hex(code - 1)],
        capture_output=True,
        text=True,
        check=False,
    )
    # Through the inlined calls outwards, to the first line that is the kernel author's.
    lines = [re.sub(r" \(.*", "", line) for line in done.stdout.splitlines()]
    return next((at for at in lines if not at.startswith(("cuda_on_cpu.h", "??"))), None)


class _Dim(ctypes.Structure):
    _fields_ = (("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint))


class _Parameter(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_char),
        ("pointer", ctypes.c_bool),
        ("constant", ctypes.c_bool),
        ("size", ctypes.c_uint),
    )


class _Kernel(ctypes.Structure):
    _fields_ = (
        ("call", ctypes.c_void_p),
        ("parameters", ctypes.POINTER(_Parameter)),
        ("count", ctypes.c_uint),
    )


class _Region(ctypes.Structure):
    _fields_ = (
        ("host", ctypes.c_size_t),
        ("size", ctypes.c_size_t),
        ("item", ctypes.c_size_t),
        ("constant", ctypes.c_int),
        ("argument", ctypes.c_int),
        ("loaded", ctypes.c_uint64),
        ("stored", ctypes.c_uint64),
        ("here", ctypes.c_size_t),
    )


class _Argument(ctypes.Structure):
    _fields_ = (
        ("region", ctypes.c_int),
        ("offset", ctypes.c_size_t),
        ("value", ctypes.c_ubyte * 64),
    )


class _Launch(ctypes.Structure):
    _fields_ = (
        ("grid", _Dim),
        ("block", _Dim),
        ("shared", ctypes.c_size_t),
        ("policy", ctypes.c_int),
        ("seed", ctypes.c_uint64),
        ("most_accesses", ctypes.c_uint64),
        ("regions", ctypes.POINTER(_Region)),
        ("n_regions", ctypes.c_int),
        ("arguments", ctypes.POINTER(_Argument)),
        ("n_arguments", ctypes.c_int),
    )


class _Report(ctypes.Structure):
    _fields_ = (("message", ctypes.c_char * 1024), ("code", ctypes.c_uint64 * 2))
