import subprocess
import sys

from conftest import ROOT


def test_imports_run_one_way():
    code = "import sys; from importlinter.cli import lint_imports as f; sys.exit(f(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
