"""The one way kernels are compiled: cached on disk, without the GIL, and timed.

Kernel modules are imported on first use only, so that importing `solvers` never loads Numba.
"""

import os
import threading
import time

import numba
from numba.core import event

# Reductions vectorise only when they may be reassociated; the flags that make
# NaN and infinity undefined (`nnan`, `ninf`, so also `fastmath=True`) stay off.
REDUCE = frozenset({"reassoc", "contract", "nsz", "arcp"})
# The magic-number rounding inside `exp` would be folded away by `reassoc`.
EXACT = frozenset({"contract", "nsz"})

_CACHE = os.environ.get("SOLVERS_NUMBA_CACHE", "1") != "0"


def kernel(*, fastmath=False, parallel=False, inline=False):
    """Return a decorator that compiles a function on its first call.

    Parameters
    ----------
    fastmath : frozenset or False
        `REDUCE`, `EXACT` or nothing.
    parallel : bool
        Whether `prange` loops run on several threads.
    inline : bool
        Ask LLVM to inline the function into its callers.
    """
    options = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": set(fastmath) if fastmath else False,
        "parallel": parallel,
    }
    if inline:
        options["forceinline"] = True

    def decorate(function):
        if not _CACHE:
            return numba.njit(**options)(function)
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:
            # No folder for the cache can be written (a read-only home): compile per process.
            return numba.njit(**options)(function)

    return decorate


class _CompileClock(event.Listener):
    """Adds up the seconds that this thread spends compiling; nested compilations count once."""

    def __init__(self):
        self._local = threading.local()

    def on_start(self, ev):
        local = self._local
        if getattr(local, "depth", 0) == 0:
            local.started = time.perf_counter()
        local.depth = getattr(local, "depth", 0) + 1

    def on_end(self, ev):
        local = self._local
        local.depth -= 1
        if local.depth == 0:
            local.total = self.seconds + time.perf_counter() - local.started

    @property
    def seconds(self):
        return getattr(self._local, "total", 0.0)


_clock = _CompileClock()
event.register("numba:compile", _clock)


def compile_seconds():
    """Return the seconds this thread has spent compiling kernels since it started."""
    return _clock.seconds
