"""What the asv suite shares: a kernel cache of its own, and clocks for certified answers."""

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PACKAGE = Path(__file__).resolve().parents[1] / "solvers"


def _kernel_cache():
    """Return a folder named after all sources: Numba's cache misses edits of inlined functions."""
    texts = b"\0".join(path.read_bytes() for path in sorted(PACKAGE.rglob("*.py")))
    name = f"solvers-bench-{hashlib.sha256(texts).hexdigest()[:16]}"
    return Path(tempfile.gettempdir()) / name


# Before Numba is imported.
os.environ.setdefault("NUMBA_CACHE_DIR", str(_kernel_cache()))


def marginal_error(P, a, b):
    """L1 distance of both marginals in float64; infinite when the plan is not finite."""
    error = np.abs(P.sum(1, dtype=float) - a).sum() + np.abs(P.sum(0, dtype=float) - b).sum()
    return float(error) if np.isfinite(error) else np.inf


def plan_from_potentials(f, g, problem, reg):
    """The plan of potentials in the KL convention, zero where a weight is zero."""
    a, b, C = problem[:3]
    P = np.zeros(C.shape)
    inner = np.ix_(a > 0, b > 0)
    exponent = (np.add.outer(f[a > 0], g[b > 0]) - C[inner]) / reg
    P[inner] = np.multiply.outer(a[a > 0], b[b > 0]) * np.exp(exponent)
    return P


def seconds_if_certified(solve, error, accuracy, *, repeat=5):
    """Return the median seconds of `solve()`, NaN unless `error(answer)` is always small."""
    seconds = []
    for _ in range(repeat):
        start = time.perf_counter()
        answer = solve()
        seconds.append(time.perf_counter() - start)
        if not error(answer) <= accuracy:
            return np.nan
    return statistics.median(seconds)


def in_fresh_process(code, **environment):
    """Run `code` in a new interpreter and return the numbers that it prints."""
    command = [sys.executable, "-c", code]
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)} | environment
    output = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout
    return [float(word) for word in output.split()]


class FirstCall:
    """Seconds of the first call in a fresh process, with and without compiled kernels on disk.

    A family's suite derives from it and sets `code`, which prints the seconds of two calls.
    """

    code: str
    params = (["nothing on disk", "kernels on disk"],)
    param_names = ("cache",)
    timeout = 600

    def setup(self, cache):
        self.folder = tempfile.TemporaryDirectory()
        if cache == "kernels on disk":
            self.call()

    def teardown(self, cache):
        self.folder.cleanup()

    def call(self):
        return in_fresh_process(self.code, NUMBA_CACHE_DIR=self.folder.name)

    def track_first_call_seconds(self, cache):
        return self.call()[0]

    def track_second_call_seconds(self, cache):
        return self.call()[1]

    track_first_call_seconds.unit = "seconds"  # type: ignore[attr-defined]
    track_second_call_seconds.unit = "seconds"  # type: ignore[attr-defined]
