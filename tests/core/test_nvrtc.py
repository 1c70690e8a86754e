"""Every CUDA source compiles for every GPU generation, without a GPU (needs the extra `nvrtc`)."""

import ctypes
import ctypes.util
import importlib.util
import re
from pathlib import Path

import pytest
from _cuda_on_cpu import instances
from conftest import ROOT

from solvers._core.backend import CudaSource

pytestmark = pytest.mark.nvrtc

SOURCES = [*sorted((ROOT / "solvers").rglob("*.cu")), ROOT / "tests/_cuda_on_cpu/demo.cu"]
# Turing, Ampere (server and desktop), Ada, Hopper, Blackwell (server and desktop).
ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)


@pytest.fixture(scope="module")
def nvrtc():
    """The compiler library, from NVIDIA's wheel or the system; called without any binding."""
    package = importlib.util.find_spec("nvidia")
    folders = [Path(p) for p in package.submodule_search_locations] if package else []
    found = [str(f) for folder in folders for f in folder.glob("*/lib/libnvrtc.so.*[0-9]")]
    found = found or [ctypes.util.find_library("nvrtc")]
    if not found[0]:
        pytest.skip("libnvrtc is not here; `pip install -e .[nvrtc]`")
    return ctypes.CDLL(found[0])


def compile_with(nvrtc, code, names, architecture):
    """Return NVRTC's verdict (0: compiled) and its log with the assembler's report."""
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), code.encode(), b"source.cu", 0, None, None)
    for name in names:
        nvrtc.nvrtcAddNameExpression(program, name.encode())
    options = [b"-std=c++17", b"-arch=sm_%d" % architecture, b"-Xptxas=-v"]
    options = (ctypes.c_char_p * len(options))(*options)
    verdict = nvrtc.nvrtcCompileProgram(program, len(options), options)
    nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    nvrtc.nvrtcGetProgramLog(program, log)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    return verdict, log.value.decode()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_source_compiles_without_warnings_or_spills(nvrtc, path, architecture):
    code = CudaSource(path).code
    verdict, log = compile_with(nvrtc, code, instances(code), architecture)
    assert verdict == 0, log
    assert "warning" not in log, log
    spills = re.findall(r"(\d+) bytes spill stores", log)
    # Functions that a kernel calls, such as pow, have a line of their own.
    assert len(spills) >= len(instances(code)), log
    assert set(spills) <= {"0"}, log


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("template <class T> __global__ void f(T* x) { x[0] = none; }", "undefined"),
        ("template <class T> __global__ void f(T* x) { int unused; }", "warning"),
        (
            "template <class T> __global__ void __launch_bounds__(1024) f(T* x) {\n"
            "  T many[200];\n"
            "  for (int k = 0; k < 200; ++k) many[k] = x[k * k];\n"
            "  for (int k = 0; k < 200; ++k) x[k] = many[199 - k] * many[k];\n}",
            r"[1-9]\d* bytes spill stores",
        ),
    ],
)
def test_errors_warnings_and_spills_show_in_the_log(nvrtc, code, complaint):
    assert re.search(complaint, compile_with(nvrtc, code, ["f<double>"], 80)[1])
