import copy
import logging
import warnings

import numpy as np
import pytest
import scipy.sparse as sp

import solvers
from solvers import completion
from solvers.completion._als import als
from solvers.completion._driver import complete

SHAPE = 24, 18


@pytest.fixture
def data(rng):
    """Entries of a matrix of rank 2, in no order, and the matrix."""
    X = rng.normal(size=(24, 2)) @ rng.normal(size=(2, 18))
    rows, cols = np.nonzero(rng.random(SHAPE) < 0.6)
    order = rng.permutation(rows.size)
    rows, cols = rows[order], cols[order]
    return rows, cols, X[rows, cols], X


def solve(data, rank=2, *, pipeline=als, noise=0.0, **options):
    rows, cols, vals = data[:3]
    if noise:
        vals = vals + noise * np.random.default_rng(1).normal(size=vals.size)
    options = {"shape": SHAPE, "rng": 0, **options}
    return complete("toy", (rows, cols, vals), rank, pipeline, **options)


def dense(res):
    return (res.U * res.s) @ res.V.T


def test_the_answer_is_in_the_callers_unit(data):
    rows, cols, vals, X = data
    res = solve((rows, cols, 1e6 * vals), tol=1e-10)
    assert res.success
    np.testing.assert_allclose(dense(res), 1e6 * X, rtol=1e-5, atol=1.0)
    np.testing.assert_allclose(res.U.T @ res.U, np.eye(2), atol=1e-12)
    assert np.all(np.diff(res.s) <= 0)
    assert res.oversampling == pytest.approx(vals.size / (2 * (24 + 18 - 2)))


@pytest.mark.parametrize(
    "options",
    [{"lam": 0.5}, {"lam": 0.5, "bias": True, "lam_bias": 0.2}, {"loss": "huber", "delta": 0.1}],
    ids=["ridge", "biases", "huber"],
)
def test_scaling_the_data_scales_the_answer(data, options):
    rows, cols, vals, _ = data
    solve_ = completion.alternating_minimization
    kwargs = {"shape": SHAPE, "rng": 0, "tol": 1e-9, "method": "altmin", "maxiter": 3000}
    one = solve_((rows, cols, vals), 2, **kwargs, **options)
    scaled = {k: 8.0 * v if k in ("lam", "delta") else v for k, v in options.items()}
    many = solve_((rows, cols, 8.0 * vals), 2, **kwargs, **scaled)
    np.testing.assert_allclose(many.todense(), 8.0 * one.todense(), rtol=1e-6, atol=1e-6)
    assert many.fun == pytest.approx(64.0 * one.fun, rel=1e-6)


@pytest.mark.parametrize("bias", [False, True])
def test_the_reported_objective_is_that_of_the_answer(data, bias):
    rows, cols, _, _ = data
    lam, lam_bias = 0.7, 0.2
    vals = data[2] + 4.0
    res = solve((rows, cols, vals), lam=lam, lam_bias=lam_bias, bias=bias)
    estimate = res.mu + res.row_bias[:, None] + res.col_bias + dense(res)
    r = estimate[rows, cols] - vals
    expected = 0.5 * r @ r + lam * res.s.sum()
    expected += 0.5 * lam_bias * (res.row_bias @ res.row_bias + res.col_bias @ res.col_bias)
    assert res.fun == pytest.approx(expected)
    assert res.history["objective"][-1] == pytest.approx(expected, rel=1e-6)
    assert res.rmse == pytest.approx(np.sqrt(np.mean(r**2)))


# Starts.


def test_every_form_of_a_start_is_taken(data):
    res = solve(data, tol=1e-12, maxiter=2000)
    A, B = res.factors()
    for x0 in (res, (A, B), (res.U, res.s, res.V), [A.tolist(), B.tolist()], (2.0 * A, 0.5 * B)):
        warm = solve(data, tol=1e-10, x0=x0)
        assert warm.success
        assert warm.nit <= 1
    # What is missing is filled.
    wider = solve(data, rank=3, x0=res, tol=1e-8, maxiter=2000)
    assert wider.success
    assert wider.rank == 3


def test_a_start_brings_its_biases(data):
    rows, cols, vals, _ = data
    options = {"lam": 0.3, "bias": True, "method": "altmin", "shape": SHAPE, "rng": 0}
    first = completion.alternating_minimization((rows, cols, vals + rows), 2, **options, tol=1e-9)
    again = completion.alternating_minimization(
        (rows, cols, vals + rows), 2, **options, tol=1e-8, x0=first
    )
    assert first.success
    assert again.nit <= 1


def test_a_start_is_not_written_to(data):
    res = solve(data, tol=1e-2)
    A, B = res.factors()
    before = A.copy(), B.copy(), copy.deepcopy(dict(res))
    solve(data, x0=(A, B))
    solve(data, x0=res)
    np.testing.assert_array_equal(A, before[0])
    np.testing.assert_array_equal(B, before[1])
    np.testing.assert_array_equal(res.U, before[2]["U"])


# Validation.


def test_a_fraction_is_taken_out_at_random_and_reported(data):
    rows, cols, vals, _ = data
    res = solve(data, validation=0.2, tol=1e-9, maxiter=2000)
    assert res.holdout.size == round(0.2 * vals.size)
    assert np.unique(res.holdout).size == res.holdout.size
    error = res.predict(rows[res.holdout], cols[res.holdout]) - vals[res.holdout]
    assert res.rmse_validation == pytest.approx(np.sqrt(np.mean(error**2)), abs=1e-12)
    same = solve(data, validation=0.2, rng=0)
    np.testing.assert_array_equal(same.holdout, res.holdout)
    assert not np.array_equal(solve(data, validation=0.2, rng=1).holdout, res.holdout)


def test_held_out_entries_have_no_part_in_the_fit(data):
    rows, cols, vals, _ = data
    res = solve(data, validation=0.2, lam=0.1, patience=10**6)
    keep = np.ones(vals.size, bool)
    keep[res.holdout] = False
    alone = solve((rows[keep], cols[keep], vals[keep]), lam=0.1)
    np.testing.assert_allclose(dense(res), dense(alone), atol=1e-6)
    weights = np.ones(vals.size)
    weights[:50] = 0.0
    res = solve(data, validation=0.3, weights=weights, lam=0.1, patience=10**6)
    assert res.holdout.min() >= 50


def test_the_run_ends_with_the_best_iterate_when_others_get_worse(rng):
    # Noise alone: the longer, the worse.
    rows, cols = np.nonzero(rng.random(SHAPE) < 0.5)
    vals = rng.normal(size=rows.size)
    held = rows[::5], cols[::5], vals[::5]
    fit = np.arange(rows.size) % 5 > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        res = solve((rows[fit], cols[fit], vals[fit]), 6, validation=held, patience=3, tol=1e-12)
    assert res.status is solvers.Status.CALLBACK
    assert "held-out error" in res.message
    assert res.holdout is None
    series = res.history["rmse_val"]
    assert np.argmin(series) == series.size - 4
    assert res.rmse_validation == pytest.approx(series.min(), rel=1e-6)
    longer = solve((rows[fit], cols[fit], vals[fit]), 6, validation=held, patience=9, tol=1e-12)
    assert longer.nit > res.nit


def test_a_run_that_converges_returns_its_last_iterate(data):
    held = data[0][:5], data[1][:5], data[2][:5] + 100.0
    res = solve(data, validation=held, patience=10**6, tol=1e-9, maxiter=2000)
    assert res.success
    assert res.rmse_validation > 50.0


# Ends.


def test_options_that_end_a_run_do_and_say_so(data):
    options = {"tol": 1e-14, "noise": 0.1}
    with pytest.warns(solvers.ConvergenceWarning, match="ftol"):
        settled = solve(data, ftol=1e-3, **options)
    with pytest.warns(solvers.ConvergenceWarning, match="gtol"):
        flat = solve(data, gtol=1e-3, **options)
    with pytest.warns(solvers.ConvergenceWarning, match="maxiter = 3"):
        short = solve(data, maxiter=3, **options)
    with pytest.warns(solvers.ConvergenceWarning, match="time limit"):
        late = solve(data, time_limit=1e-9, **options)
    assert [r.status.name for r in (settled, flat, short, late)] == [
        "STALLED",
        "STALLED",
        "MAXITER",
        "TIME_LIMIT",
    ]
    assert flat.history["grad"][-1] <= 1e-3 < flat.history["grad"][-2]
    assert short.nit == 3


def breaking(how):
    """An engine that breaks down after two good iterations."""

    def engine(problem, rank, watch, options):
        x = als(problem, rank, watch, options, maxiter=2, tol=1e-300)
        watch.begin("broken")
        if how == "decomposition":
            raise np.linalg.LinAlgError("SVD did not converge")
        A = np.full_like(x.U, np.nan)
        state = A, x.V, x.row_bias, x.col_bias
        if how == "recorded":
            watch.record(lambda: state, fun=np.nan, relres=np.nan)
        return x._replace(U=A)

    return engine


@pytest.mark.parametrize("how", ["recorded", "unseen", "decomposition"])
def test_a_breakdown_returns_the_last_sound_iterate(data, how):
    with pytest.warns(solvers.ConvergenceWarning, match="not finite or a breakdown"):
        res = solve(data, pipeline=breaking(how), noise=0.1, tol=1e-12)
    assert res.status is solvers.Status.NUMERICAL
    with pytest.warns(solvers.ConvergenceWarning):
        two = solve(data, maxiter=2, noise=0.1, tol=1e-12)
    np.testing.assert_allclose(dense(res), dense(two), atol=1e-12)


def test_a_breakdown_at_once_returns_zeros(data):
    def engine(problem, rank, watch, options):
        raise np.linalg.LinAlgError

    with pytest.warns(solvers.ConvergenceWarning):
        res = solve(data, pipeline=engine)
    np.testing.assert_array_equal(dense(res), 0.0)
    assert res.relres == pytest.approx(1.0)


def test_an_engine_that_says_more_than_the_certificate_is_sent_back(data):
    goals = []

    def engine(problem, rank, watch, options):
        goals.append(options.tol)
        return als(problem, rank, watch, options, tol=50.0 * options.tol)

    res = solve(data, pipeline=engine, tol=1e-6, noise=0.1)
    assert res.success
    np.testing.assert_allclose(goals, [1e-6, 1e-7, 1e-8])


def test_single_precision_is_asked_for_no_more_than_it_has(data):
    res = solve((*data[:2], data[2].astype(np.float32)), tol=1e-12, lam=0.1)
    assert res.success
    assert res.nit < 400
    assert res.certificate.tol > 1e-7


# What is watched.


def test_a_callback_sees_the_callers_unit_and_cannot_write(data):
    rows, cols, vals, _ = data
    seen = []

    def look(intermediate_result):
        seen.append(intermediate_result)
        with pytest.raises(ValueError, match="read-only"):
            intermediate_result.U[0, 0] = 1.0

    res = solve((rows, cols, 50.0 * vals), callback=look, tol=1e-9, maxiter=2000)
    assert len(seen) == res.nit
    last = seen[-1]
    X = (last.U * last.s) @ last.V.T
    assert np.linalg.norm(X[rows, cols] / 50.0 - vals) <= 2.0 * last.relres * np.linalg.norm(vals)
    assert {"nit", "relres", "objective", "grad"} <= set(last)


def test_history_has_what_the_page_says(data):
    table = solve(data).history
    assert {"seconds", "relres", "objective", "grad", "inner_steps"} <= set(table)
    assert (np.diff(table["objective"]) <= 1e-12 * table["objective"][0]).all()
    assert solve(data, history=False).history == {}
    assert len(solve(data, history=4).history["nit"]) < len(table["nit"])


def test_a_run_talks_through_logging_alone(data, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="solvers"):
        solve(data)
    assert "toy" in caplog.text
    assert capsys.readouterr() == ("", "")


def test_precision_may_be_chosen(data):
    res = solve(data, dtype="float32", tol=1e-4)
    assert {res.U.dtype, res.s.dtype, res.V.dtype} == {np.dtype(np.float32)}
    single = (*data[:2], data[2].astype(np.float32))
    assert solve(single, dtype=np.float64).U.dtype == np.float64


def test_threads_do_not_change_the_answer(data):
    one, two = (solve(data, lam=0.1, n_threads=n) for n in (1, None))
    np.testing.assert_allclose(dense(one), dense(two), atol=1e-10)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"rank": 0}, ValueError, "`rank` came as 0; expected .* 1 to 18"),
        ({"rank": 19}, ValueError, "`rank` came as 19"),
        ({"rank": 2.0}, TypeError, "`rank` came as float"),
        ({"rank": True}, TypeError, "`rank` came as bool"),
        ({"lam": -1.0}, ValueError, "`lam` came as -1.0"),
        ({"lam": "much"}, TypeError, "`lam` came as str"),
        ({"lam": np.inf}, ValueError, "`lam` came as inf"),
        ({"lam_bias": -1}, ValueError, "`lam_bias` came as -1"),
        ({"weighted_lambda": 1}, TypeError, "`weighted_lambda` came as int"),
        ({"bias": "yes"}, TypeError, "`bias` came as str"),
        ({"center": 0}, TypeError, "`center` came as int"),
        ({"implicit": True, "bias": True}, ValueError, "`bias` came with implicit=True"),
        ({"implicit": True, "weights": np.ones(9)}, ValueError, "`weights` came with"),
        ({"implicit": True, "loss": "huber"}, ValueError, "`loss` came with implicit=True"),
        ({"nonnegative": True, "center": True}, ValueError, "`center` came with nonnegative"),
        ({"alpha": 0.0}, ValueError, "`alpha` came as 0.0"),
        ({"loss": "cauchy"}, ValueError, "`loss` came as 'cauchy'; .* 'huber'"),
        ({"delta": 0.0}, ValueError, "`delta` came as 0.0"),
        ({"delta": "big"}, TypeError, "`delta` came as str"),
        ({"init": "zeros"}, ValueError, "`init` came as 'zeros'; .*'svd', 'random'"),
        ({"clip": "all"}, ValueError, "`clip` came as 'all'"),
        ({"mode": "fast"}, ValueError, "`mode` came as 'fast'"),
        ({"inner": "lu"}, ValueError, "`inner` came as 'lu'; .*'sketch'"),
        ({"n_init": 0}, ValueError, "`n_init` came as 0"),
        ({"tol": 0.0}, ValueError, "`tol` came as 0.0"),
        ({"tol_inner": -1.0}, ValueError, "`tol_inner` came as -1.0"),
        ({"ftol": -1.0}, ValueError, "`ftol` came as -1.0"),
        ({"gtol": np.nan}, ValueError, "`gtol` came as nan"),
        ({"maxiter": -1}, ValueError, "`maxiter` came as -1"),
        ({"maxiter_inner": 0}, ValueError, "`maxiter_inner` came as 0"),
        ({"time_limit": 0}, ValueError, "`time_limit` came as 0"),
        ({"validation": 1.0}, ValueError, "`validation` came as 1.0"),
        ({"validation": True}, TypeError, "`validation` came as bool"),
        ({"validation": [0.1]}, TypeError, "`validation` came as list"),
        ({"validation": ([99], [0], [1.0])}, ValueError, "`validation`: `rows` contains 99"),
        ({"validation": ([0], [0], ["a"])}, TypeError, "`validation`: `vals` came"),
        ({"patience": 0}, ValueError, "`patience` came as 0"),
        ({"certificate": "proof"}, ValueError, "`certificate` came as 'proof'; .*'gap'"),
        ({"certificate": 3}, TypeError, "`certificate` came as int"),
        ({"duplicates": "first"}, ValueError, "`duplicates` came as 'first'; .*'mean'"),
        ({"dtype": "float16"}, ValueError, "`dtype` came as float16"),
        ({"dtype": "number"}, TypeError, "`dtype` came as str"),
        ({"progress": 1}, TypeError, "`progress` came as int"),
        ({"history": -1}, ValueError, "`history` came as -1"),
        ({"callback": 3}, TypeError, "`callback` came as int"),
        ({"rng": "seed"}, TypeError, "`rng` came as str"),
        ({"n_threads": 0}, ValueError, "`n_threads` came as 0"),
        ({"x0": 3}, TypeError, "`x0` came as int"),
        ({"x0": (np.ones((24, 2)),)}, TypeError, "`x0` came as tuple"),
        ({"x0": (np.ones((3, 2)), np.ones((18, 2)))}, ValueError, "`x0`: `U0` came with shape"),
        ({"x0": (np.ones((24, 2)), np.ones((18, 1)))}, ValueError, "`x0`: `V0` came with shape"),
        ({"x0": (np.ones((24, 3)), np.ones((18, 3)))}, ValueError, "`x0` came with 3 columns"),
        (
            {"x0": (np.full((24, 2), np.nan), np.ones((18, 2)))},
            ValueError,
            "`x0`: `U0` contains NaN",
        ),
        (
            {"x0": (np.ones((24, 2)), [1.0, -1.0], np.ones((18, 2)))},
            ValueError,
            "`x0`: `s0` contains -1",
        ),
        ({"weights": np.zeros(9)}, ValueError, "`weights` came with shape"),
    ],
    ids=str,
)
def test_bad_options_are_refused_by_name(data, change, kind, message):
    if "weights" in change and "implicit" in change:
        change = {**change, "weights": np.ones(data[0].size)}
    with pytest.raises(kind, match=f"^{message}"):
        solve(data, **change)


def test_a_start_with_biases_of_another_matrix_is_refused(data):
    options = {"lam": 0.3, "bias": True}
    other = complete("toy", np.ones((24, 17)), 2, als, rng=0, **options)
    with pytest.raises(ValueError, match=r"^`x0`"):
        solve(data, x0=other, **options)


def test_a_matrix_that_cannot_fit_is_refused_before_it_is_tried():
    message = r"^completing 1 entries of a 2147483647 x \d+ matrix with rank 500 needs .* GB"
    with pytest.raises(MemoryError, match=message):
        complete("toy", ([0], [0], [1.0]), 500, als, shape=(2**31 - 1, 2**31 - 1))


def test_one_entry_cannot_be_held_out():
    M = sp.coo_array(([1.0], ([0], [0])), shape=(3, 3))
    with pytest.raises(ValueError, match=r"^`validation` leaves no entries"):
        complete("toy", M, 1, als, validation=0.5)
