import pkgutil
import subprocess
import sys

import pytest
from conftest import ROOT

import solvers

HEAVY = "numpy scipy numba llvmlite sklearn cupy torch jax matplotlib pandas tqdm".split()  # noqa: SIM905 (words read better)
PACKAGES = [m.name for m in pkgutil.iter_modules(solvers.__path__) if m.ispkg and m.name[0] != "_"]


def loaded(code):
    """Return the top-level names that a fresh interpreter, warnings being errors, has loaded."""
    show = f"import sys; {code}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", show],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    # Tools such as debuggers may load modules into every interpreter.
    assert not set(HEAVY) & (loaded("import solvers; dir(solvers)") - loaded("pass"))


@pytest.mark.parametrize("name", PACKAGES)
def test_importing_a_family_loads_no_compiler(name):
    modules = loaded(f"import solvers.{name}; dir(solvers.{name})")
    assert not {*HEAVY, "scipy.optimize"} - {"numpy", "scipy"} & modules
