import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from solvers._core.kernels import jit

ROOT = Path(__file__).parents[2]

SQUARES = """
from solvers._core.kernels.jit import REDUCE, kernel

@kernel(fastmath=REDUCE)
def squares(x):
    total = 0.0
    for i in range(x.size):
        total += x[i] * x[i]
    return total
"""

CALL_AND_REPORT = """
import time
import numpy as np
from solvers._core.kernels.jit import compile_seconds
from squares import squares
start = time.perf_counter()
assert squares(np.full(4, 0.5)) == 1.0
elapsed = time.perf_counter() - start
assert compile_seconds() < elapsed
print(compile_seconds(), sum(squares.stats.cache_hits.values()), squares.stats.cache_path)
"""

needs_compiler = pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the compiler is off")


def python(code, folder, **environment):
    """Run code in a fresh process that finds modules in `folder` and here; return its words."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, **environment},
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "squares.py").write_text(SQUARES)
    return tmp_path


@needs_compiler
def test_only_the_first_process_compiles(folder):
    cache = str(folder / "cache")
    seconds, hits, place = python(CALL_AND_REPORT, folder, NUMBA_CACHE_DIR=cache)
    assert float(seconds) > 0.01
    assert hits == "0"
    assert place.startswith(cache)
    seconds, hits, place = python(CALL_AND_REPORT, folder, NUMBA_CACHE_DIR=cache)
    assert float(seconds) == 0
    assert hits == "1"


@needs_compiler
def test_the_cache_can_be_switched_off(folder):
    code = "from squares import squares; print(squares.stats.cache_path)"
    assert python(code, folder, SOLVERS_NUMBA_CACHE="0") == ["None"]


@needs_compiler
def test_without_a_folder_for_the_cache_kernels_compile_and_run(folder, monkeypatch):
    # Even the superuser can create nothing below a file.
    (folder / "__pycache__").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(folder / "squares.py" / "cache"))
    for name in ("HOME", "LOCALAPPDATA", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(folder / "squares.py"))
    spec = importlib.util.spec_from_file_location("squares", folder / "squares.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.squares(np.full(4, 0.5)) == 1.0
    assert module.squares.stats.cache_path is None


def test_kernels_run_as_plain_python_with_the_compiler_off(folder):
    code = """
import math
import numpy as np
from solvers._core.kernels.vmath import exp, log, vmax, vmin
from squares import squares
assert squares(np.full(4, 0.5)) == 1.0 and not hasattr(squares, "py_func")
for number in (np.float32, np.float64):
    assert type(exp(number(-1))) is number and abs(exp(number(-1)) - math.exp(-1)) < 1e-7
    one, nan = number(1), number("nan")
    assert math.isnan(vmax(one, nan)) and math.isnan(vmin(one, nan)) and vmax(one, one) == 1
assert exp(np.float32(-88)) == 0 and log(np.float32(0)) == -math.inf and log(math.e) == 1
"""
    python(code, folder, NUMBA_DISABLE_JIT="1")


@needs_compiler
def test_the_compile_clock_stands_still_while_compiled_kernels_run(monkeypatch):
    monkeypatch.setattr(jit, "_CACHE", False)

    @jit.kernel()
    def double(x):
        return 2 * x

    before = jit.compile_seconds()
    double(1.0)
    compiled = jit.compile_seconds()
    double(2.0)
    assert before < compiled == jit.compile_seconds()


@needs_compiler
def test_division_by_zero_in_a_kernel_gives_infinity():
    @jit.kernel()
    def quotient(x, y):
        return x / y

    assert quotient(1.0, 0.0) == np.inf
