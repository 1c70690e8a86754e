"""What all solvers of the family share: what comes in, how a run can end, what comes out."""

import copy
import inspect
import pickle
import subprocess
import sys
import warnings
from collections import namedtuple
from pathlib import Path

import _cuda_on_cpu
import numpy as np
import pytest
from _cupy_standin import run_with_standin

import solvers
from solvers import bilevel
from solvers._core.result import Status

A = np.array([[2.0, 0.3, 0.0], [0.3, 1.0, 0.2], [0.0, 0.2, 0.7]])
B = np.array([[1.0, 0.0], [0.5, -1.0], [0.0, 2.0]])
T = np.array([1.0, -1.0, 0.5])
# y(x) = A^-1 B x, so psi = |A^-1 B x - T|^2 / 2 + |x|^2 / 2 is least at:
J = np.linalg.solve(A, B)
SOLUTION = np.linalg.solve(J.T @ J + np.eye(2), J.T @ T)
X0, Y0 = np.zeros(2), np.zeros(3)


def lower(x, y):
    return 0.5 * y @ A @ y - y @ (B @ x), -B.T @ y, A @ y - B @ x


def upper(x, y):
    return 0.5 * (y - T) @ (y - T) + 0.5 * x @ x, 1.0 * x, y - T


def solve(upper=upper, lower=lower, x0=X0, y0=Y0, **options):
    return bilevel.penalty(upper, lower, x0, y0, **options)


@pytest.fixture(scope="module")
def solution():
    return solve()


# ------------------------------------------------------------------------------------ bad input


def answering(level, place, change):
    """Return a level whose answer is changed at one place."""

    def changed(x, y):
        answer = list(level(x, y))
        answer[place] = change(answer[place])
        return tuple(answer)

    return changed


BAD = {
    "no x0": ({"x0": None}, TypeError, "`x0` came as None"),
    "no y0": ({"y0": None}, TypeError, "`y0` came as None"),
    "NaN in x0": ({"x0": np.array([0.0, np.nan])}, ValueError, "`x0` contains NaN"),
    "infinite y0": ({"y0": np.full(3, np.inf)}, ValueError, "`y0` contains inf"),
    "empty x0": ({"x0": np.zeros(0)}, ValueError, "`x0` came empty"),
    "empty tree": ({"x0": {}}, ValueError, "`x0` came empty"),
    "NaN in a tree": ({"x0": {"a": np.full(2, np.nan)}}, ValueError, r"`x0\['a'\]` contains NaN"),
    "None in a tree": ({"x0": [X0, None]}, TypeError, r"`x0\[1\]` came as None"),
    "complex x0": ({"x0": X0 + 0j}, TypeError, "`x0` .* complex128"),
    "text": ({"y0": ["a", "b"]}, TypeError, "`y0`"),
    "two precisions": (
        {"y0": Y0.astype(np.float32)},
        TypeError,
        "`y0` came as float32 and `x0` as float64",
    ),
    "upper no function": ({"upper": 3}, TypeError, "`upper` came as int"),
    "lower missing": ({"lower": None}, TypeError, "`lower` came as NoneType"),
    "X without projection": ({"X": 3.0}, TypeError, "`X` came as float"),
    "one number for an answer": (
        {"upper": lambda x, y: 1.0},
        TypeError,
        r"`upper` returned 1.0; expected \(value",
    ),
    "an array for a value": (
        {"upper": answering(upper, 0, lambda v: np.array([v]))},
        TypeError,
        "`upper` returned a value array.*; expected a number",
    ),
    "text for a value": (
        {"lower": answering(lower, 0, lambda v: "a")},
        TypeError,
        "`lower` returned a value 'a'",
    ),
    "NaN at the start": (
        {"lower": answering(lower, 0, lambda v: np.nan)},
        ValueError,
        r"`lower` is not finite at \(x0, y0\)",
    ),
    "NaN in a gradient": (
        {"upper": answering(upper, 2, lambda v: v * np.nan)},
        ValueError,
        r"`upper` is not finite at \(x0, y0\)",
    ),
    "a long gradient": (
        {"lower": answering(lower, 2, lambda v: np.zeros(9))},
        ValueError,
        r"`lower` returned grad_y of shape \(9,\); expected shape \(3,\)",
    ),
    "a number for a gradient": (
        {"upper": answering(upper, 1, lambda v: 2.0)},
        ValueError,
        r"`upper` returned grad_x as a single number; expected shape \(2,\)",
    ),
    "a complex gradient": (
        {"upper": answering(upper, 2, lambda v: v + 0j)},
        TypeError,
        "`upper` returned grad_y that is no array of numbers: .* complex128",
    ),
    "an object gradient": (
        {"upper": answering(upper, 2, lambda v: v.astype(object))},
        TypeError,
        "`upper` returned grad_y that is no array of numbers",
    ),
    "maxiter": ({"maxiter": -1}, ValueError, "`maxiter`"),
    "maxiter of the wrong kind": ({"maxiter": 1.5}, TypeError, "`maxiter`"),
    "maxiter_inner": ({"maxiter_inner": 0}, ValueError, "`maxiter_inner`"),
    "tol": ({"tol": 0.0}, ValueError, "`tol`"),
    "tol_inner": ({"tol_inner": -1.0}, ValueError, "`tol_inner`"),
    "time_limit": ({"time_limit": 0.0}, ValueError, "`time_limit`"),
    "callback": ({"callback": 1}, TypeError, "`callback`"),
    "progress": ({"progress": 1}, TypeError, "`progress`"),
    "history": ({"history": -1}, ValueError, "`history`"),
    "how": ({"how": "guess"}, ValueError, "`how`"),
    "rng": ({"rng": "three"}, TypeError, "`rng`"),
    "n_threads": ({"n_threads": 0}, ValueError, "`n_threads`"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(case):
    change, kind, message = BAD[case]
    with pytest.raises(kind, match=message):
        solve(**change)


def test_a_tree_of_the_wrong_structure_is_refused_by_name():
    x0 = {"a": np.zeros(1), "b": [np.zeros(1)]}

    def with_grad_x(grad_x):
        return lambda x, y: (0.0, grad_x, np.zeros(3))

    for grad_x, message in (
        (np.zeros(2), "`upper` returned grad_x as numpy.ndarray of shape .*; expected a dict"),
        ({"a": np.zeros(1)}, "expected a dictionary of 'a', 'b'"),
        ({"a": np.zeros(1), "b": np.zeros(1)}, "expected a list of 1 entries"),
        ({"a": np.zeros(1), "b": [np.zeros(2)]}, r"of shape \(2,\); expected shape \(1,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            solve(with_grad_x(grad_x), lambda x, y: (0.0, None, 1.0 * y), x0)


def test_what_a_function_of_the_caller_raises_gets_through():
    calls = []

    def failing(x, y):
        calls.append(1)
        if len(calls) == 8:
            raise LookupError("out of data")
        return lower(x, y)

    with pytest.raises(LookupError, match="out of data"):
        solve(lower=failing, progress=False)
    with pytest.raises(ZeroDivisionError):
        solve(callback=lambda intermediate_result: 1 / 0)


# ------------------------------------------------------------------------- what functions return


def same(res, ref, atol=1e-6):
    return np.allclose(res.x, ref.x, atol=atol) and np.allclose(res.y, ref.y, atol=atol)


def test_the_answer_is_the_solution(solution):
    assert solution.success
    assert np.allclose(solution.x, SOLUTION, atol=1e-6)
    assert np.allclose(solution.y, J @ SOLUTION, atol=1e-5)


def test_functions_may_write_to_what_they_get(solution):
    def writing(level):
        def written(x, y):
            answer = level(x, y)
            x[...], y[...] = np.nan, np.nan
            return answer

        return written

    x0, y0 = X0.copy(), Y0.copy()
    res = solve(writing(upper), writing(lower), x0, y0)
    assert np.array_equal(res.x, solution.x)
    assert not x0.any()
    assert not y0.any()


def test_functions_may_give_the_same_memory_again(solution):
    gx, gy = np.empty(2), np.empty(3)

    def reusing(x, y):
        value, gx[...], gy[...] = lower(x, y)
        return value, gx, gy

    assert np.array_equal(solve(lower=reusing).x, solution.x)


def test_zeros_may_be_left_out(solution):
    def without(x, y):
        return 0.5 * (y - T) @ (y - T), None, y - T

    def nought(x, y):
        return 0.5 * (y - T) @ (y - T), 0, y - T

    one, two = solve(without), solve(nought)
    assert np.array_equal(one.x, two.x)
    # Without |x|^2 the best y in the range of A^-1 B is the projection of T.
    assert np.allclose(one.x, np.linalg.lstsq(J, T, rcond=None)[0], atol=1e-5)


@pytest.mark.parametrize("convert", [np.asfortranarray, np.float32, np.ndarray.tolist])
def test_gradients_may_come_in_any_memory_precision_or_list(convert):
    res = solve(lower=answering(lower, 2, convert), tol=1e-2)
    assert res.success == res.certificate.holds
    assert np.allclose(res.x, SOLUTION, atol=2e-2)
    assert res.x.dtype == np.float64


def test_oracles_of_separate_functions_are_the_same_problem(solution):
    def parts(level):
        return bilevel.Oracle(*(lambda x, y, k=k: level(x, y)[k] for k in range(3)))

    res = solve(parts(upper), parts(lower))
    assert same(res, solution)
    assert res.counts["n_gx"] < solution.counts["n_gx"], "grad_x is asked for where it is needed"


def test_functions_of_samples_get_all_of_them_and_cannot_change_them(solution):
    seen = []

    def sampled(x, y, idx):
        seen.append(idx)
        return lower(x, y)

    res = solve(lower=bilevel.Oracle(value_and_grads=sampled, n_samples=5))
    assert np.array_equal(res.x, solution.x)
    assert all(np.array_equal(idx, np.arange(5)) for idx in seen)
    assert res.counts["n_samples"] == 5 * res.counts["n_g"]
    with pytest.raises(ValueError, match="read-only"):
        seen[0][0] = 3


def test_a_function_that_breaks_down_on_the_way_keeps_the_last_finite_answer():
    calls = []

    def dying(x, y):
        calls.append(1)
        value, gx, gy = upper(x, y)
        return (value, gx, gy) if len(calls) < 25 else (np.nan, gx * np.nan, gy * np.nan)

    with pytest.warns(solvers.ConvergenceWarning):
        res = solve(dying)
    assert not res.success
    assert res.certificate.value == np.inf
    assert np.isfinite(res.x).all()
    assert np.isfinite(res.y).all()


# -------------------------------------------------------------------------------- kinds of arrays


def test_inputs_are_not_changed_and_their_layout_does_not_matter(solution):
    frozen = X0.copy()
    frozen.flags.writeable = False
    for x0 in (frozen, np.zeros(4)[::2], X0.astype(">f8"), np.zeros(2, int), [0, 0], (0.0, 0.0)):
        before = np.array(x0)
        res = solve(x0=x0, y0=[np.float64(0)] * 3)
        assert np.array_equal(np.array(x0), before)
        assert np.array_equal(res.x, solution.x)
        assert type(res.x) is np.ndarray
        assert res.x.dtype == np.float64
        assert res.x.flags.writeable
        assert res.x.flags.owndata


Pair = namedtuple("Pair", "first second")


def test_nested_variables_keep_their_structure(solution):
    x0 = Pair(np.zeros(1), {"b": (np.zeros(()),)})
    y0 = [np.zeros((1, 2)), np.zeros(1)]

    def nested(level):
        def fun(x, y):
            x, y = np.r_[x.first, x.second["b"][0]], np.r_[y[0][0], y[1]]
            value, gx, gy = level(x, y)
            return value, Pair(gx[:1], {"b": (gx[1],)}), [gy[None, :2], gy[2:]]

        return fun

    res = solve(nested(upper), nested(lower), x0, y0)
    for tree in (res.x, res.jac):
        assert isinstance(tree, Pair)
        assert tree.first.shape == (1,)
        assert tree.second["b"][0].shape == ()
    for tree in (res.y, res.y_sigma, res.z):
        assert isinstance(tree, list)
        assert [v.shape for v in tree] == [(1, 2), (1,)]
    assert np.array_equal(np.r_[res.x.first, res.x.second["b"][0]], solution.x)
    twin = pickle.loads(pickle.dumps(res))
    assert np.array_equal(twin.x.first, res.x.first)
    assert "nested" not in repr(twin)


def test_a_part_of_a_tree_may_be_left_out(solution):
    def split(level):
        def fun(x, y):
            value, gx, gy = level(np.r_[x["a"], x["b"]], y)
            return value, {"a": gx[:1], "b": gx[1:]}, gy

        return fun

    def without(level):
        def fun(x, y):
            value, gx, gy = level(np.r_[x["a"], 0.0], y)
            return value, {"a": gx[:1], "b": None}, gy

        return fun

    start = {"a": np.zeros(1), "b": np.ones(1)}
    whole = solve(split(upper), split(lower), start)
    assert np.allclose(np.r_[whole.x["a"], whole.x["b"]], solution.x, atol=1e-6)
    part = solve(without(upper), without(lower), start)
    assert part.x["b"] == 1
    assert np.allclose(part.x["a"], J[:, 0] @ T / (J[:, 0] @ J[:, 0] + 1), atol=1e-6)


def test_float32_comes_back_as_float32():
    def single(level):
        return lambda x, y: tuple(np.float32(v) for v in level(x, y))

    start = X0.astype(np.float32), Y0.astype(np.float32)
    res = solve(single(upper), single(lower), *start, tol=5e-2)
    assert {v.dtype for v in (res.x, res.y, res.z, res.jac)} == {np.dtype(np.float32)}
    assert np.allclose(res.x, SOLUTION, atol=1e-2)
    assert bilevel.certify(single(upper), single(lower), *start).tol == 3e-3


# ------------------------------------------------------------------------------------- the result


def test_the_result_prints_pickles_copies_and_says_whom_to_cite(solution):
    for twin in (pickle.loads(pickle.dumps(solution)), copy.deepcopy(solution)):
        assert type(twin) is bilevel.BilevelResult
        assert np.array_equal(twin.x, solution.x)
        assert twin.certificate == solution.certificate
    assert "hyper-stationarity" in solution.summary()
    assert "certificate" in repr(solution)
    assert "kwon2024penalty" in solution.cite()
    assert "array_solvers" in solution.cite()
    fields = inspect.get_annotations(bilevel.BilevelResult)
    assert set(fields) <= set(dir(solution))


def test_bounds_and_counts_agree_with_the_problem(solution):
    psi = upper(SOLUTION, J @ SOLUTION)[0]
    assert solution.psi_lower <= psi + 1e-9 <= solution.fun + 1e-6
    assert solution.gap == solution.fun - solution.psi_lower
    assert set(solution.counts) == {"n_f", "n_g", "n_gx", "n_gy", "n_hvp", "n_samples"}
    assert solution.counts["n_hvp"] == 0


def test_counts_leave_out_what_the_certificate_asked_for():
    calls = {"upper": 0, "lower": 0}

    def counting(level, name):
        def fun(x, y):
            calls[name] += 1
            return level(x, y)

        return fun

    res = solve(counting(upper, "upper"), counting(lower, "lower"))
    assert 0 < res.counts["n_f"] < calls["upper"]
    assert 0 < res.counts["n_g"] < calls["lower"]
    before = dict(calls)
    bilevel.certify(counting(upper, "upper"), counting(lower, "lower"), res.x, res.y)
    assert calls["lower"] > before["lower"]


def test_history_is_a_table_of_what_happened(solution):
    table = solution.history
    assert {"nit", "seconds", "optimality", "fun", "sigma", "n_g"} <= set(table)
    assert {len(column) for column in table.values()} == {solution.nit}
    assert (np.diff(table["n_g"]) > 0).all()
    assert (np.diff(table["sigma"]) <= 0).all()
    assert solve(history=False).history == {}


def test_a_result_starts_the_next_run(solution):
    again = bilevel.penalty(upper, lower, solution, tol=1e-4)
    assert again.success
    assert again.nit <= 1
    assert same(again, solution, atol=1e-4)


# ------------------------------------------------------------------------------- how a run can end


@pytest.mark.parametrize("stop", [lambda: True, lambda: next(iter(()))])
def test_the_callback_sees_the_variables_and_may_end_the_run(stop):
    seen = []

    def callback(intermediate_result):
        seen.append(intermediate_result)
        return stop()

    res = solve(callback=callback, tol=1e-9)
    assert res.status is Status.CALLBACK
    assert len(seen) == 1
    assert seen[0].x.shape == (2,)
    assert seen[0].y.shape == (3,)
    assert seen[0].nit == 1
    assert {"optimality", "seconds", "n_g"} <= set(seen[0])
    assert res.success == res.certificate.holds


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"maxiter": 1}, Status.MAXITER),
        ({"maxiter": 0}, Status.MAXITER),
        ({"time_limit": 1e-9, "maxiter": 10**6}, Status.TIME_LIMIT),
    ],
)
def test_a_limit_ends_the_run_with_one_warning(options, status):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        res = solve(tol=1e-300, **options)
    assert res.status is status
    assert not res.success
    assert res.nit <= 1
    assert [w.category for w in seen] == [solvers.ConvergenceWarning]
    assert seen[0].filename == __file__, "the warning points to the caller"
    assert np.isfinite(res.x).all()
    assert np.isfinite(res.y).all()


def test_overflow_in_a_function_of_the_caller_is_no_warning():
    def steep(x, y):
        with np.errstate():
            value, gx, gy = lower(x, y)
            return value + 0 * np.exp(1e3 * np.ones(1))[0] if y[0] > 1e9 else value, gx, gy

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert solve(lower=steep).success
        with pytest.raises(ValueError, match="`upper` is not finite"):
            solve(answering(upper, 0, lambda v: float(np.exp(np.float64(1e4)))))


def test_no_compiler_is_loaded_for_plain_functions():
    code = (
        "import math, sys, numpy as np\n"
        "from solvers import bilevel\n"
        "from solvers._core import threads\n"
        "threads._cap = lambda: math.inf  # Numba too is told of a limit\n"
        "res = bilevel.penalty(lambda x, y: (0.5 * (y - 1) @ (y - 1), None, y - 1.0),\n"
        "                      lambda x, y: (0.5 * (y - x) @ (y - x), x - y, y - x),\n"
        "                      np.zeros(2), np.zeros(2))\n"
        "assert res.success\n"
        "print([m for m in ('numba', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -------------------------------------------------------------------------- one contract for all


def sampled(level):
    return bilevel.Oracle(value_and_grads=lambda x, y, idx: level(x, y), n_samples=4)


WITH_PRODUCTS = bilevel.Oracle(
    value_and_grads=lower, hvp_yy=lambda x, y, v: A @ v, hvp_xy=lambda x, y, v: -B.T @ v
)
TIE = bilevel.Affine(np.ones((1, 2)), np.ones((1, 3)), np.ones(1))
CALLS = {
    "penalty": lambda **o: bilevel.penalty(upper, lower, X0, Y0, **o),
    "lvhba": lambda **o: bilevel.lvhba(upper, lower, TIE, X0, Y0, **o),
    "implicit": lambda **o: bilevel.implicit(upper, WITH_PRODUCTS, X0, Y0, **o),
    "unroll": lambda **o: bilevel.unroll(upper, WITH_PRODUCTS, X0, Y0, **o),
    "borep": lambda **o: bilevel.borep(upper, lower, X0, Y0, **o),
    "penalty_sgd": lambda **o: bilevel.penalty_sgd(
        sampled(upper), sampled(lower), X0, Y0, batch=2, **{"epochs": 3, **o}
    ),
}
SHARED = {
    "time_limit": (None, -1.0),
    "callback": (None, 3),
    "progress": (False, "yes"),
    "n_threads": (None, 0),
    "rng": (None, "three"),
    "checkpoint": (None, 3),
    "checkpoint_every": (60, -1),
    "resume": (None, 3),
    "history": (True, -1),
    "how": ("auto", "guess"),
}


@pytest.mark.parametrize("name", [*CALLS, "bsvrb"])
def test_all_solvers_share_their_options(name):
    parameters = inspect.signature(getattr(bilevel, name)).parameters
    assert {word: parameters[word].default for word in SHARED} == {
        word: default for word, (default, _) in SHARED.items()
    }
    assert all(parameters[word].kind is inspect.Parameter.KEYWORD_ONLY for word in SHARED)


@pytest.mark.parametrize("word", [*SHARED, "tol"])
@pytest.mark.parametrize("name", CALLS)
def test_all_solvers_refuse_bad_options_by_name(name, word):
    wrong = -1.0 if word == "tol" else SHARED[word][1]
    with pytest.raises((TypeError, ValueError), match=f"^`{word}`"):
        CALLS[name](**{word: wrong})


@pytest.mark.parametrize("name", CALLS)
def test_all_solvers_end_early_with_one_warning_and_a_result_that_pickles(name):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        res = CALLS[name](tol=1e-300, time_limit=1e-9)
    assert res.status is Status.TIME_LIMIT
    assert [w.category for w in seen] == [solvers.ConvergenceWarning]
    assert seen[0].filename == __file__
    twin = pickle.loads(pickle.dumps(res))
    assert np.array_equal(twin.x, res.x)
    assert twin.certificate == res.certificate
    assert np.isfinite(res.x).all()
    assert np.isfinite(res.y).all()
    assert "@" in res.cite()
    assert not X0.any()
    assert not Y0.any()


@pytest.mark.parametrize("name", CALLS)
def test_all_solvers_tell_their_callback_and_keep_a_table(name):
    seen = []

    def callback(intermediate_result):
        seen.append((int(intermediate_result.nit), intermediate_result.x.shape))
        return len(seen) == 2

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        res = CALLS[name](tol=1e-300, callback=callback)
    assert res.status is Status.CALLBACK
    assert len(seen) == 2
    assert seen[0][0] < seen[1][0]
    assert seen[0][1] == (2,)
    assert {"nit", "seconds", "optimality", "n_g"} <= set(res.history)
    assert len({len(column) for column in res.history.values()}) == 1


@pytest.mark.skipif(_cuda_on_cpu.missing() is not None, reason=_cuda_on_cpu.missing() or "")
def test_solvers_take_and_return_arrays_of_the_device():
    run_with_standin(Path(__file__).parent / "driver_on_device.py")


@pytest.mark.parametrize("unit", [1e-8, 1e-3, 1e-1, 1e2])
@pytest.mark.parametrize("solve", [bilevel.penalty, bilevel.implicit])
def test_the_unit_of_the_upper_level_does_not_matter(solve, unit):
    rng = np.random.default_rng(5)
    X = rng.standard_normal((60, 8))
    t = np.sign(X[:, 0] + 0.5 * rng.standard_normal(60))
    problem = bilevel.problems.LogisticHPO(X[:30], t[:30], X[30:], t[30:])

    def upper(x, y):
        value, gx, gy = problem.upper(x, y)
        return unit * value, unit * gx, unit * gy

    start = problem.x0, problem.y0
    res = solve(upper, problem.lower, *start, X=bilevel.box(-8, 4), tol=1e-5)
    assert res.success
