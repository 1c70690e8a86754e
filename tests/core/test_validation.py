import math
import tracemalloc
from decimal import Decimal
from fractions import Fraction

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solvers._core import validation
from solvers._core.arrays import Ingest
from solvers._core.validation import (
    check_array,
    check_callable,
    check_choice,
    check_count,
    check_flag,
    check_flag_or_stride,
    check_memory,
    check_nonnegative,
    check_positive,
    check_threads,
    check_time_limit,
)

NO_NUMBERS = ["1", None, True, np.True_, 1j, Decimal(1), np.ones(1), np.array(1.0), [1.0], {}]


# ---------------------------------------------------------------------------------------- scalars
@pytest.mark.parametrize("value", [1, 0.5, 1e-300, np.float32(0.5), np.int8(3), Fraction(1, 2)])
def test_positive_numbers_become_floats(value):
    for check in (check_positive, check_nonnegative):
        number = check(value, "tol")
        assert type(number) is float
        assert number == value


@pytest.mark.parametrize("value", [-1.0, -1e-300, math.nan, math.inf, -math.inf, np.float64(-2)])
def test_numbers_out_of_range_are_value_errors_that_show_the_value(value):
    for check in (check_positive, check_nonnegative):
        with pytest.raises(ValueError, match=r"^`tol` came as .*; expected a .*number") as e:
            check(value, "tol")
        assert repr(value) in str(e.value)


def test_zero_is_not_positive_but_not_negative_either():
    with pytest.raises(ValueError, match=r"^`reg` came as 0; expected a positive finite number$"):
        check_positive(0, "reg")
    assert check_nonnegative(0, "reg") == 0.0


def test_infinity_and_none_pass_where_they_are_legal():
    for check in (check_positive, check_nonnegative):
        assert check(math.inf, "reg_m", allow_inf=True) == math.inf
        assert check(None, "reg_m", allow_none=True) is None
        with pytest.raises(ValueError, match=r"^`reg_m` came as nan"):
            check(math.nan, "reg_m", allow_inf=True)


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_number_is_a_type_error(value):
    for check in (check_positive, check_nonnegative, check_count):
        with pytest.raises(
            TypeError, match=rf"^`tol` came as .*{type(value).__name__}.*; expected"
        ):
            check(value, "tol")


@pytest.mark.parametrize("value", [0, 3, np.int64(5), np.uint8(7)])
def test_counts_become_ints(value):
    count = check_count(value, "maxiter")
    assert type(count) is int
    assert count == value


def test_counts_are_whole_and_not_too_small():
    with pytest.raises(ValueError, match=r"^`maxiter` came as -1; expected a whole number >= 0$"):
        check_count(-1, "maxiter")
    with pytest.raises(ValueError, match=r"^`rank` came as 0; expected a whole number >= 1$"):
        check_count(0, "rank", minimum=1)
    for value in (3.0, np.float64(3)):
        with pytest.raises(TypeError, match=r"^`maxiter` came as .*float.*; expected a whole"):
            check_count(value, "maxiter")
    assert check_count(None, "maxiter", allow_none=True) is None


def test_a_flag_is_true_or_false():
    assert check_flag(True, "progress") is True
    assert check_flag(np.False_, "progress") is False
    for value in (1, None, "yes"):
        with pytest.raises(TypeError, match=r"^`progress` came as .*; expected True or False$"):
            check_flag(value, "progress")


def test_history_is_a_flag_or_a_stride():
    values = [
        check_flag_or_stride(v, "history") for v in (False, True, np.True_, 1, 7, np.int8(9))
    ]
    assert values == [0, 1, 1, 1, 7, 9]
    for value, error in ((0, ValueError), (-2, ValueError), (2.0, TypeError), (None, TypeError)):
        with pytest.raises(error, match=r"^`history` came as .*; expected True, False or a"):
            check_flag_or_stride(value, "history")


def test_an_unknown_word_is_refused_with_the_legal_ones():
    words = ("auto", "log", None)
    assert [check_choice(word, "method", words) for word in words] == list(words)
    with pytest.raises(ValueError, match=r"^`method` came as 'lgo'; expected one of 'auto', "):
        check_choice("lgo", "method", words)
    with pytest.raises(ValueError, match=r"^`method` came as None"):
        check_choice(None, "method", ("auto",))
    for value in (3, np.array(["auto"]), ["auto"]):
        with pytest.raises(TypeError, match=r"^`method` came as .*; expected one of 'auto'"):
            check_choice(value, "method", words)


def test_a_callback_can_be_called_or_is_left_out():
    assert check_callable(print, "callback") is print
    assert check_callable(None, "callback") is None
    with pytest.raises(TypeError, match=r"^`callback` came as int; expected a callable or None$"):
        check_callable(3, "callback")


def test_a_time_limit_is_positive():
    assert [check_time_limit(v) for v in (None, 3, math.inf)] == [None, 3.0, math.inf]
    for value in (-1.0, 0):
        with pytest.raises(ValueError, match=r"^`time_limit` came as .*; expected a positive"):
            check_time_limit(value)


def test_threads_are_at_least_one_and_at_most_what_numba_has():
    cap = numba.config.NUMBA_NUM_THREADS
    assert check_threads(None) is None
    assert check_threads(np.int64(cap)) == cap
    with pytest.raises(ValueError, match=r"^`n_threads` came as 0; expected a whole number >= 1$"):
        check_threads(0)
    with pytest.raises(
        ValueError, match=rf"^`n_threads` came as {cap + 1}; expected at most {cap}"
    ):
        check_threads(cap + 1)
    with pytest.raises(TypeError, match=r"^`n_threads` came as float"):
        check_threads(1.0)


# ----------------------------------------------------------------------------------------- arrays
def test_a_legal_array_comes_back_in_normal_form():
    C = np.arange(6).reshape(2, 3)
    io = Ingest(C=C.astype(">i4"))
    x = check_array(io, "C", ndim=2, shape=(2, None), minimum=0)
    assert x is io["C"]
    assert x.dtype == np.float64
    np.testing.assert_array_equal(x, C)


def test_the_transpose_is_checked_in_the_callers_terms():
    C = np.asfortranarray(np.ones((2, 3)))
    Ct = check_array(Ingest(C=C), "C", shape=(2, 3), transposed=True)
    assert Ct.shape == (3, 2)
    assert np.shares_memory(Ct, C)


def test_an_argument_that_was_left_out_stays_out():
    assert check_array(Ingest(a=None), "a", ndim=1) is None


WRONG_SHAPES = [
    ({"ndim": 2}, "`C` came 1-D, with shape (3,); expected 2-D"),
    ({"ndim": (2, 3)}, "`C` came 1-D, with shape (3,); expected 2-D or 3-D"),
    ({"shape": (4,)}, "`C` came with shape (3,); expected (4,)"),
    ({"shape": (None, 4)}, "`C` came with shape (3,); expected (any, 4)"),
    ({"shape": (4,), "means": "(b.size,)"}, "`C` came with shape (3,); expected (b.size,) = (4,)"),
]


@pytest.mark.parametrize(("options", "message"), WRONG_SHAPES)
def test_a_wrong_shape_is_refused_with_the_right_one(options, message):
    with pytest.raises(ValueError, match=r"^`C`") as e:
        check_array(Ingest(C=np.ones(3)), "C", **options)
    assert str(e.value) == message


def test_an_empty_array_is_refused_unless_it_is_legal():
    io = Ingest(C=np.ones((0, 3)))
    with pytest.raises(ValueError, match=r"^`C` came empty, with shape \(0, 3\)"):
        check_array(io, "C")
    assert check_array(io, "C", nonempty=False).shape == (0, 3)


entries = st.sampled_from([1.0, -2.0, 0.0, math.nan, math.inf, -math.inf])


@given(st.lists(entries, min_size=1, max_size=12), st.booleans(), st.sampled_from(["f4", "f8"]))
def test_every_illegal_entry_is_found_and_no_legal_one(values, plus_inf, dtype):
    legal = all(math.isfinite(v) or (plus_inf and v == math.inf) for v in values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "_BLOCK", 5)  # entries on both sides of block borders
        io = Ingest(C=np.array(values, dtype=dtype))
        if legal:
            assert check_array(io, "C", plus_inf=plus_inf).tolist() == values
            return
        with pytest.raises(ValueError, match=r"^`C` contains (NaN|inf|-inf); expected ") as e:
            check_array(io, "C", plus_inf=plus_inf)
    assert ("NaN" in str(e.value)) == any(map(math.isnan, values))


def test_nan_may_be_data():
    values = np.array([1.0, math.nan, math.inf])
    assert check_array(Ingest(M=values), "M", finite=False).tolist()[0] == 1.0


def test_entries_below_the_minimum_are_refused_with_the_worst():
    io = Ingest(a=[0.5, -1e-3, -2e-3])
    with pytest.raises(ValueError, match=r"^`a` contains -0.002; expected entries >= 0$"):
        check_array(io, "a", minimum=0)
    assert check_array(io, "a", minimum=-1).size == 3


def test_a_big_array_is_checked_without_a_temporary():
    C = np.ones((2000, 1000))
    io = Ingest(C=C)
    tracemalloc.start()
    try:
        check_array(io, "C", ndim=2, minimum=0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < C.size / 20, "even one byte per entry would be 20 times more"


# ----------------------------------------------------------------------------------------- memory
def test_an_allocation_that_cannot_succeed_is_refused_with_a_remedy():
    message = r"^`plan` needs 1e\+09 GB; [\d.e+]+ GB are free\. Use `plan_sparse`$"
    with pytest.raises(MemoryError, match=message):
        check_memory(10**18, "`plan`", "Use `plan_sparse`.")
    check_memory(1000, "`plan`")


def test_a_container_may_leave_less_memory_than_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(validation, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("300000000\n")
    (tmp_path / "memory.stat").write_text("anon 100000000\nfile 999\n")
    check_memory(150_000_000, "`C`")
    with pytest.raises(MemoryError, match=r"^`C` needs 0.25 GB; 0.2 GB are free$"):
        check_memory(250_000_000, "`C`")
    (tmp_path / "memory.max").write_text("max\n")
    check_memory(250_000_000, "`C`")
