import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import numba
import pytest
import scipy.linalg  # noqa: F401 (it brings a second BLAS)

from solvers._core import threads
from solvers._core.threads import guard, limit, strips

many = pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="one thread only")


def blas_threads():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    return {
        m["filepath"]: m["num_threads"]
        for m in threadpoolctl.threadpool_info()
        if m["user_api"] == "blas"
    }


@pytest.fixture(autouse=True)
def _no_limits_from_outside(monkeypatch):
    for name in ("SOLVERS_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(threads, "_quota", lambda: math.inf)


@pytest.mark.parametrize("layer", ["omp", "workqueue"])
def test_concurrent_launches_and_forked_children_are_safe(layer):
    done = subprocess.run(
        [sys.executable, "-m", "tests.core.launches"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "NUMBA_THREADING_LAYER": layer},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if "No threading layer could be loaded" in done.stderr:
        pytest.skip(f"Numba has no {layer} here")
    assert done.returncode == 0, done.stderr


def test_small_work_runs_serially_and_big_work_on_all_threads():
    assert strips(1e5) == 1
    assert strips(1e6) == numba.get_num_threads()


def test_workqueue_launches_are_one_at_a_time_and_others_are_free(monkeypatch):
    monkeypatch.setattr(threads, "_layer", lambda: "workqueue")
    with guard(), guard():
        entered = threading.Event()

        def launch():
            with guard():
                entered.set()

        other = threading.Thread(target=launch)
        other.start()
        assert not entered.wait(0.05)
    other.join(5)
    assert entered.is_set()
    monkeypatch.setattr(threads, "_layer", lambda: "omp")
    assert guard() is not guard()


@many
def test_a_limit_holds_inside_for_kernels_and_blas_and_ends_with_an_error():
    kernels, blas = numba.get_num_threads(), blas_threads()

    def fail():
        with limit(1):
            assert numba.get_num_threads() == strips(1e6) == 1
            assert set(blas_threads().values()) == {1}
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (numba.get_num_threads(), blas_threads()) == (kernels, blas)


@many
def test_no_limit_changes_nothing():
    kernels, blas = numba.get_num_threads(), blas_threads()
    with limit(None):
        assert (numba.get_num_threads(), blas_threads()) == (kernels, blas)
    with limit(1), limit(None):
        assert numba.get_num_threads() == 1


@many
def test_limits_nest():
    with limit(1):
        with limit(2):
            assert numba.get_num_threads() == max(blas_threads().values()) == 2
        assert numba.get_num_threads() == max(blas_threads().values()) == 1


@many
def test_overlapping_limits_of_two_threads_leave_blas_as_it_was():
    before = blas_threads()
    entered, leave = threading.Event(), threading.Event()

    def longer():
        with limit(2):
            entered.set()
            leave.wait(5)

    other = threading.Thread(target=longer)
    with limit(1):
        other.start()
        entered.wait(5)
    leave.set()
    other.join(5)
    assert blas_threads() == before


@many
def test_a_library_with_fewer_threads_by_the_users_wish_keeps_them():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(1, user_api="blas"), limit(2):
        assert set(blas_threads().values()) == {1}


@many
@pytest.mark.parametrize("variable", ["SOLVERS_NUM_THREADS", "OMP_NUM_THREADS"])
def test_the_environment_caps_the_default_but_not_a_wish(variable, monkeypatch):
    monkeypatch.setenv(variable, "1,4")
    with limit(None):
        assert numba.get_num_threads() == 1
    with limit(2):
        assert numba.get_num_threads() == 2
    for nonsense in ("", "0", "many"):
        monkeypatch.setenv(variable, nonsense)
        with limit(None):
            assert numba.get_num_threads() > 1


QUOTAS = [
    ({"cpu.max": "150000 100000"}, 2),
    ({"cpu.max": "max 100000"}, math.inf),
    ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, math.inf),
    ({}, math.inf),
]


@pytest.mark.parametrize(("files", "cpus"), QUOTAS)
def test_a_containers_quota_is_read_in_whole_cpus(files, cpus, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(threads, "_CGROUP", tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert threads._quota.__wrapped__() == cpus


@many
def test_a_container_with_one_cpu_gets_one_thread(monkeypatch):
    monkeypatch.setattr(threads, "_quota", lambda: 1)
    with limit(None):
        assert numba.get_num_threads() == 1
