import subprocess
import sys
from pathlib import Path

import _cuda_on_cpu
import numpy as np
import pytest
import scipy.linalg
from _cupy_standin import run_with_standin

from solvers._core.backend import CudaSource, available_backends, blocks, get_backend

has_compiler = pytest.mark.skipif(
    _cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or ""
)


def test_the_numpy_back_end_is_numpy_and_scipy():
    be = get_backend("numpy")
    assert be.xp is np
    assert be.linalg is scipy.linalg
    assert be is get_backend("numpy")
    assert "numpy" in available_backends()


def test_on_numpy_host_makes_python_numbers_and_leaves_arrays():
    host, x = get_backend("numpy").host, np.arange(3)
    assert type(host(np.float32(0.5))) is type(host(np.array(0.5))) is float
    assert type(host(np.bool_(True))) is bool
    assert host(2) == 2
    one, same = host(x.sum(), x)
    assert type(one) is int
    assert same is x


def test_cholesky_refuses_a_matrix_that_is_not_positive_definite():
    be, A = get_backend("numpy"), np.array([[4.0, 2.0], [2.0, 2.0]])
    np.testing.assert_allclose(be.cholesky(A), [[2.0, 0.0], [1.0, 1.0]])
    with pytest.raises(np.linalg.LinAlgError):
        be.cholesky(-A)


def test_an_unknown_back_end_is_refused_by_name():
    with pytest.raises(ValueError, match=r"^`name` came as 'torch'; expected"):
        get_backend("torch")


def run_with_cupy(cupy, code):
    """Run code where `import cupy` gives a module of the given text."""
    start = f"import sys, types; sys.modules['cupy'] = m = types.ModuleType('cupy'); {cupy}\n"
    command = [sys.executable, "-c", start + code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_cupy_the_error_names_the_extra_to_install():
    out = run_with_cupy(
        "sys.modules['cupy'] = None",
        """
from solvers._core.backend import available_backends, get_backend
print(available_backends())
try:
    get_backend("cupy")
except ImportError as error:
    print(error)
""",
    )
    assert out.startswith("('numpy',)")
    assert "pip install array-solvers[cuda13]" in out


def test_cupy_without_a_device_counts_as_absent_and_says_so():
    out = run_with_cupy(
        "m.__version__ = '14.2'; m.cuda = types.SimpleNamespace(is_available=lambda: False)",
        """
from solvers._core.backend import available_backends, get_backend
print(available_backends())
try:
    get_backend("cupy")
except RuntimeError as error:
    print(error)
""",
    )
    assert out.startswith("('numpy',)")
    assert "CuPy 14.2 is installed but finds no CUDA device" in out


def test_there_is_a_block_for_every_row_but_never_none_and_never_too_many():
    assert [blocks(n) for n in (0, 1, 65535, 10**9)] == [1, 1, 65535, 65535]
    assert [blocks(n, 256) for n in (0, 1, 256, 257)] == [1, 1, 1, 2]


def test_a_header_is_put_in_once_and_lines_keep_their_numbers(tmp_path):
    (tmp_path / "b.cuh").write_text('#include "a.cuh"\nb\n')
    (tmp_path / "a.cuh").write_text("a\n")
    (tmp_path / "gpu.cu").write_text('// first\n#include "a.cuh"\n#include "b.cuh"\nlast\n')
    seen, where = {}, None
    for line in CudaSource(tmp_path / "gpu.py").code.splitlines():
        if line.startswith("#line"):
            number, name = line.split(maxsplit=2)[1:]
            where = [int(number), name.strip('"')]
        elif where is None:
            where = [2, "gpu.cu"]
        else:
            seen.setdefault(line, tuple(where))
            where[0] += 1
    assert [seen[k] for k in ("a", "b", "last")] == [
        ("a.cuh", 1)[::-1],
        (2, "b.cuh"),
        (4, "gpu.cu"),
    ]


@has_compiler
def test_the_cupy_back_end_passes_its_tests_on_the_stand_in():
    run_with_standin(Path(__file__).parent / "on_device.py")
