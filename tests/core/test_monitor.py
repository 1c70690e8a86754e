import builtins
import logging
import math
import sys
import types
import warnings

import numpy as np
import pytest

from solvers import Certificate, ConvergenceWarning, Result, Status
from solvers._core.monitor import Monitor

CLOCK = "solvers._core.kernels.jit"


def monitor(**changes):
    return Monitor("newton", "gap", **{"tol": 1e-3, "maxiter": 100, **changes})


def finish(mon, value=1.0, **fields):
    """Finish with a certificate of this value, and expect a warning where one is due."""
    certificate = Certificate("relative gap", value, 1e-3, {})
    if certificate.holds or mon.status is Status.CALLBACK:
        return mon.finish(Result, certificate, **fields)
    with pytest.warns(ConvergenceWarning) as seen:
        res = mon.finish(Result, certificate, **fields)
    assert [str(w.message) for w in seen] == [f"newton: {res.message}"]
    return res


def halve(mon, **more):
    """Run a solver whose residual after iteration k is 2^-k."""
    for turn in mon:
        mon.record(0.5 ** (turn + 1), **more)


def test_a_run_converges_at_the_first_value_within_the_tolerance():
    mon = monitor()
    halve(mon)
    res = finish(mon, 0.5**10)
    assert (res.status, res.nit, res.success) == (Status.CONVERGED, 10, True)
    assert (
        res.message == "relative gap 0.000977 is within the tolerance 0.001 after 10 iterations."
    )
    assert res.method == "newton"


def test_values_that_are_not_judged_do_not_end_the_run():
    mon = monitor()
    assert not mon.record(0.0, judge=False)
    assert mon.record(0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("judge", [True, False])
def test_a_value_that_is_not_finite_ends_the_run(value, judge):
    seen = []
    mon = monitor(callback=seen.append)
    assert mon.record(value, judge=judge)
    assert finish(mon).status is Status.NUMERICAL
    assert not seen


def test_maxiter_ends_the_run_and_the_sentence_says_so():
    mon = monitor(maxiter=3)
    halve(mon)
    res = finish(mon, 0.125)
    assert (res.status, res.nit) == (Status.MAXITER, 3)
    assert "maxiter = 3" in res.message
    assert "0.125" in res.message


def test_no_iteration_is_allowed_if_maxiter_is_zero():
    mon = monitor(maxiter=0)
    assert list(mon) == []
    assert finish(mon).status is Status.MAXITER


def test_without_maxiter_the_run_goes_on():
    mon = monitor(maxiter=None, tol=0.5**2000)
    mon.record(1.0, iterations=10**6)
    assert mon.status is None


@pytest.mark.parametrize("loop", ["iterate", "record"])
def test_time_limit_ends_the_run(loop):
    mon = monitor(time_limit=0.0)
    if loop == "iterate":
        assert list(mon) == []
    else:
        assert mon.record(1.0)
    res = finish(mon)
    assert res.status is Status.TIME_LIMIT
    assert "`time_limit`" in res.message


def test_stalling_is_noticed_only_where_asked_for_and_where_judged():
    mon = monitor(stall=5, maxiter=50)
    for value in (1.0, 0.9, 0.9, 0.8999, 0.8998, 0.8997):
        assert not mon.record(value)
    # A new stage is a new chance, and values that are not judged say nothing.
    mon.stage("again")
    for _ in range(9):
        assert not mon.record(0.9, judge=False)
    for _ in range(5):
        mon.record(0.9)
    assert not mon.record(0.8)
    for _ in range(4):
        assert not mon.record(0.8)
    assert mon.record(0.8)
    assert "less than 1 % in 5 iterations" in finish(mon).message
    patient = monitor(maxiter=50)
    for _ in patient:
        patient.record(1.0)
    assert patient.status is Status.MAXITER


def _stop(intermediate_result):
    raise StopIteration


@pytest.mark.parametrize("callback", [_stop, lambda r: True, lambda r: np.True_])
def test_callback_ends_the_run_without_a_warning(callback):
    mon = monitor(callback=callback)
    halve(mon)
    res = finish(mon, 0.5)
    assert (res.status, res.nit, res.success) == (Status.CALLBACK, 1, False)
    assert "asked to stop after 1 iteration" in res.message


def test_callback_is_not_called_again_after_it_asked_to_stop():
    seen = []
    mon = monitor(callback=lambda r: seen.append(r.nit) or True)
    assert [mon.record(1.0), mon.record(1.0), mon.record(0.0)] == [True] * 3
    assert seen == [1]
    assert mon.nit == 1


def test_convergence_wins_over_a_callback_that_stops_at_the_same_iteration():
    seen = []
    mon = monitor(callback=lambda r: seen.append(r.gap) or True)
    mon.record(1e-4)
    assert seen == [1e-4]
    assert mon.status is Status.CONVERGED


def test_callback_wins_over_maxiter():
    mon = monitor(callback=lambda r: True, maxiter=1)
    mon.record(1.0)
    assert mon.status is Status.CALLBACK


def test_callback_sees_the_row_and_the_state_and_cannot_write():
    seen = []
    f = np.ones(3)
    mon = monitor(callback=seen.append)
    mon.record(0.5, fun=np.float32(2.0), state=lambda: {"f": f, "reg": 0.1})
    (view,) = seen
    assert isinstance(view, Result)
    assert (view.nit, view.gap, view.fun, view.reg, view.method) == (1, 0.5, 2.0, 0.1, "newton")
    assert view.seconds >= 0
    assert np.shares_memory(view.f, f)
    with pytest.raises(ValueError, match="read-only"):
        view.f[0] = 7.0
    f[0] = 2.0


def test_state_is_not_built_for_nobody():
    def state():
        raise AssertionError("built without a callback")

    assert not monitor().record(1.0, state=state)


def test_what_a_callback_raises_reaches_the_caller():
    def fail(intermediate_result):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        monitor(callback=fail).record(1.0)


@pytest.mark.parametrize("series", [{}, {"fun": 2.0}, {"fun": 2.0, "step": 3.0}])
def test_device_scalars_cross_once_per_record(series):
    class Device:
        calls = 0

        def host(self, *values):
            self.calls += 1
            return values if len(values) > 1 else values[0]

    be = Device()
    mon = monitor(be=be)
    mon.record(1.0, **series)
    mon.record(1e-4, **series)
    res = finish(mon, 0.0)
    assert be.calls == 2
    assert {k: v[1] for k, v in res.history.items() if k in series} == series


def test_history_is_a_table_in_which_missing_entries_are_nan():
    mon = monitor()
    mon.record(0.5, judge=False, step=1.0)
    mon.record(1e-4, fun=np.float32(3.0))
    table = finish(mon, 1e-4).history
    assert list(table) == ["nit", "seconds", "gap", "step", "fun"]
    assert all(column.shape == (2,) for column in table.values())
    np.testing.assert_array_equal(table["nit"], [1, 2])
    np.testing.assert_array_equal(table["gap"], [0.5, 1e-4])
    np.testing.assert_array_equal(table["step"], [1.0, np.nan])
    np.testing.assert_array_equal(table["fun"], [np.nan, 3.0])
    assert (np.diff(table["seconds"]) >= 0).all()


@pytest.mark.parametrize(
    ("history", "kept"),
    [(True, range(1, 11)), (1, range(1, 11)), (3, [1, 4, 7, 10]), (4, [1, 5, 9, 10])],
)
def test_history_keeps_every_so_many_rows_and_the_last(history, kept):
    mon = monitor(history=history)
    halve(mon)
    table = finish(mon, 0.0).history
    np.testing.assert_array_equal(table["nit"], kept)
    assert {len(column) for column in table.values()} == {len(kept)}
    assert table["nit"].dtype == np.int64


def test_without_a_history_there_is_no_table():
    mon = monitor(history=False)
    halve(mon)
    assert finish(mon, 0.0).history == {}


def test_a_run_of_no_iterations_has_an_empty_table():
    table = finish(monitor(), 0.0).history
    assert {name: column.shape for name, column in table.items()} == {
        "nit": (0,),
        "seconds": (0,),
        "gap": (0,),
    }


def test_blocks_of_iterations_count_in_full():
    mon = monitor(maxiter=25)
    assert not mon.record(1.0, iterations=10)
    assert not mon.record(1.0, iterations=10)
    assert mon.record(1.0, iterations=5)
    np.testing.assert_array_equal(finish(mon).history["nit"], [10, 20, 25])


def test_stages_add_up_and_a_stage_can_be_entered_again():
    mon = monitor()
    for name, count in (("sinkhorn", 3), ("newton", 1), ("sinkhorn", 2)):
        mon.stage(name)
        for _ in range(count):
            mon.record(1.0)
    res = finish(mon, 0.0)
    assert [(name, nit) for name, nit, _ in res.stages] == [("sinkhorn", 5), ("newton", 1)]
    assert all(seconds > 0 for _, _, seconds in res.stages)
    assert sum(seconds for _, _, seconds in res.stages) <= res.seconds


def test_a_run_without_stages_is_one_stage():
    mon = monitor()
    mon.record(1e-4)
    assert [row[:2] for row in finish(mon, 0.0).stages] == [("newton", 1)]


@pytest.mark.parametrize("status", [None, *Status])
@pytest.mark.parametrize("holds", [True, False])
def test_the_certificate_alone_decides_success(status, holds):
    mon = monitor()
    if status is not None:
        mon.end(status, "For a reason.")
    res = finish(mon, 0.0 if holds else 1.0)
    assert res.success is res.certificate.holds is holds
    if status is Status.CALLBACK:
        assert res.status is Status.CALLBACK
    elif holds:
        assert res.status is Status.CONVERGED
        assert "reason" not in res.message
    elif status in (None, Status.CONVERGED):
        assert res.status is Status.STALLED
    else:
        assert res.status is status
        assert res.message.endswith("For a reason.")


def test_a_residual_that_disagrees_with_the_certificate_is_reported():
    mon = monitor()
    mon.record(1e-4)
    res = finish(mon, 0.25)
    assert res.status is Status.STALLED
    assert "relative gap 0.25" in res.message
    assert "own residual had reached the tolerance" in res.message


def test_the_warning_points_at_the_callers_line():
    # A module of the package, as far as its file name tells, between the caller and the monitor.
    path = sys.modules[Monitor.__module__].__file__.replace("monitor.py", "made_up.py")
    family = types.ModuleType("family")
    exec(compile("def solve(finish):\n    return finish()", path, "exec"), vars(family))
    mon = monitor(maxiter=0)
    certificate = Certificate("gap", 1.0, 1e-3, {})
    with pytest.warns(ConvergenceWarning) as seen:
        family.solve(lambda: mon.finish(Result, certificate))
    assert seen[0].filename == __file__
    with pytest.warns(ConvergenceWarning) as seen:
        exec(
            compile("outcome = mon.finish(Result, certificate)", path, "exec"),
            {"mon": mon, "Result": Result, "certificate": certificate},
        )
    assert seen[0].filename == __file__


def test_an_inner_run_can_stay_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        res = monitor(maxiter=0).finish(Result, Certificate("gap", 1.0, 0.0, {}), warn=False)
    assert not res.success


def test_answers_stand_in_the_result_in_their_order():
    res = finish(monitor(), 0.0, x=np.zeros(2), fun=1.0)
    keys = list(res)
    assert keys.index("nit") < keys.index("x") < keys.index("fun") < keys.index("certificate")


def test_compilation_is_reported_apart(monkeypatch):
    # The module of the compile clock may appear only after the run began.
    monkeypatch.setitem(sys.modules, CLOCK, None)
    mon = monitor()
    monkeypatch.setitem(sys.modules, CLOCK, types.SimpleNamespace(compile_seconds=lambda: -50.0))
    mon.record(1e-4)
    res = finish(mon, 0.0)
    assert res.compile_seconds == -50.0
    assert 50.0 <= res.seconds < 60.0
    assert 50.0 <= res.history["seconds"][0] <= res.seconds


@pytest.mark.parametrize("maxiter", [100, None])
@pytest.mark.parametrize("installed", [True, False])
def test_progress_goes_to_stderr_and_leaves_stdout_clean(installed, maxiter, monkeypatch, capsys):
    if installed:
        pytest.importorskip("tqdm")
    else:
        load = builtins.__import__

        def refuse(name, *rest):
            if name == "tqdm":
                raise ImportError(name)
            return load(name, *rest)

        monkeypatch.setattr(builtins, "__import__", refuse)
    mon = monitor(progress=True, maxiter=maxiter)
    halve(mon)
    finish(mon, 0.0)
    out, err = capsys.readouterr()
    assert out == ""
    assert "newton" in err
    assert "gap 9.77e-04" in err


def test_the_run_is_logged(caplog):
    mon = monitor()
    with caplog.at_level(logging.DEBUG, logger="solvers"):
        mon.stage("sweeps")
        mon.record(1e-4)
        res = finish(mon, 0.0)
    assert [r.levelname for r in caplog.records] == ["DEBUG", "DEBUG", "INFO"]
    assert caplog.messages[-1] == f"newton: {res.message}"
