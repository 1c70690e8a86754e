"""How many threads work, and how parallel kernels stay out of each other's way.

Numba counts threads per Python thread, BLAS per process. Under Numba's `workqueue` layer two
launches at a time abort the process; under GNU OpenMP a launch in a forked child kills the
child. Kernels therefore ask `strips` whether to run in parallel, and launch under `guard`.
"""

import contextlib
import functools
import math
import os
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

# Element operations, of a nanosecond or so, below which waking the workers (some 50 us) costs more
# than they save.
_SMALL_WORK = 4e5
_CGROUP = Path("/sys/fs/cgroup")

_process = SimpleNamespace(lock=threading.RLock(), pool_is_lost=False)


def _after_fork_in_child():
    """Note that the parent's worker threads do not exist here, and free a lock they may hold."""
    _process.lock = threading.RLock()
    numba = sys.modules.get("numba")
    with contextlib.suppress(AttributeError, ValueError):
        # Raises unless the parent had started the threads; then this process may start its own.
        numba.threading_layer()
        _process.pool_is_lost = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def strips(work):
    """Return into how many parallel strips a kernel should cut its loop; 1 means run serially.

    Parameters
    ----------
    work : float
        Element operations of the whole loop.
    """
    if work < _SMALL_WORK or _process.pool_is_lost:
        return 1
    _layer()
    import numba

    return numba.get_num_threads()


def guard():
    """Return the context in which a parallel kernel is launched."""
    return _process.lock if _layer() == "workqueue" else contextlib.nullcontext()


@functools.cache
def _layer():
    """Start Numba's threads, once, and return their layer."""
    import numba

    with _sleeping_workers():
        numba.get_num_threads()
    return numba.threading_layer()


@contextlib.contextmanager
def _sleeping_workers():
    """Let the threads that OpenMP starts here sleep, not spin, between two loops.

    A spinning worker uses up its share of a busy core, and is then off it for whole time slices
    while its loop waits: kernels of 0.1 ms took 8 ms. OpenMP reads the variable as it loads.
    """
    name = "OMP_WAIT_POLICY"
    if name in os.environ:
        yield
        return
    os.environ[name] = "passive"
    try:
        yield
    finally:
        del os.environ[name]


@contextlib.contextmanager
def limit(n_threads):
    """Run a block with `n_threads` threads in kernels and BLAS, and restore the counts after it.

    Parameters
    ----------
    n_threads : int or None
        None keeps the present counts, or fewer where ``SOLVERS_NUM_THREADS``,
        ``OMP_NUM_THREADS`` or the container's CPU quota says so.
    """
    cap = _cap() if n_threads is None else 0
    # The system is asked for its processors only where that may matter; it takes its time.
    if math.isinf(cap) or cap >= os.cpu_count():
        yield
        return
    _layer()
    import numba

    before = numba.get_num_threads()
    n_threads = min(before, cap) if n_threads is None else n_threads
    numba.set_num_threads(n_threads)
    _blas.enter(n_threads)
    try:
        yield
    finally:
        _blas.leave(n_threads)
        numba.set_num_threads(before)


@contextlib.contextmanager
def serial_blas():
    """Run a block with one thread in BLAS, the kernels' as they are.

    For many products with narrow matrices: they gain nothing from threads, and wait for them for
    as long as other programs keep the processors busy (10 ms in place of 0.1).
    """
    _blas.enter(1)
    try:
        yield
    finally:
        _blas.leave(1)


def _cap():
    return min(_variable("SOLVERS_NUM_THREADS"), _variable("OMP_NUM_THREADS"), _quota())


def _variable(name):
    # OpenMP takes one number per nesting level; the first counts here.
    outermost = os.environ.get(name, "").partition(",")[0].strip()
    return int(outermost) if outermost.isdecimal() and int(outermost) else math.inf


@functools.cache
def _quota():
    """CPUs that the container may keep busy (control groups, version 2, then 1)."""
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        with contextlib.suppress(OSError):
            text = " ".join((_CGROUP / file).read_text(encoding="ascii") for file in files)
            quota, period = text.split()
            return math.inf if quota in ("max", "-1") else math.ceil(int(quota) / int(period))
    return math.inf


class _Blas:
    """The BLAS thread count: of the whole process, so the last to leave restores it."""

    def __init__(self):
        self._wanted = []
        self._found = {}

    def enter(self, n_threads):
        with _process.lock:
            known = len(self._found) == len(_present_blas())
            as_before = known and self._wanted[-1:] == [n_threads]
            self._wanted.append(n_threads)
            # The libraries take their time to be told what they know.
            if not as_before:
                self._set(n_threads)

    def leave(self, n_threads):
        with _process.lock:
            self._wanted.remove(n_threads)
            if self._wanted:
                if self._wanted[-1] != n_threads:
                    self._set(self._wanted[-1])
                return
            for library, count in self._found.values():
                library.set_num_threads(count)
            self._found.clear()

    def _set(self, n_threads):
        for library in _present_blas():
            if library.filepath not in self._found:
                self._found[library.filepath] = library, library.num_threads
            library.set_num_threads(min(n_threads, self._found[library.filepath][1]))


def _present_blas():
    return _blas_libraries("scipy.linalg" in sys.modules)


@functools.cache
def _blas_libraries(with_scipy):
    """Find the BLAS libraries in use; SciPy brings its own, so its arrival is a reason to look."""
    try:
        import threadpoolctl
    except ImportError:
        return ()
    return threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers


_blas = _Blas()
