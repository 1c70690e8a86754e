"""States of runs: in memory, in files, and what may be wrong with them."""

import json
import pickle
import warnings

import numpy as np
import pytest

from solvers import ConvergenceWarning, Status, bilevel
from solvers.bilevel._checkpoint import State, carried
from tests.bilevel.test_penalty_sgd import BOX, METHODS, Ridge


def run(problem, **options):
    options = {"X": BOX, "rng": 3, "batch": 32, "epochs": 4, "callback_every": 0.25, **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        args = problem.upper, problem.lower, problem.x0, problem.y0
        return bilevel.penalty_sgd(*args, **options)


def interrupted(problem, reports, **options):
    """Return the result of a run that is stopped after some reports."""
    left = iter(range(reports - 1))
    stop = lambda intermediate_result: next(left, None) is None  # noqa: E731
    res = run(problem, callback=stop, **options)
    assert res.status is Status.CALLBACK
    return res


@pytest.fixture(scope="module")
def ridge():
    return Ridge()


@pytest.fixture(scope="module")
def ready():
    """A problem whose steps run in one kernel."""
    ridge = Ridge()
    return bilevel.problems.RidgeHPO(ridge.A, ridge.b, ridge.V, ridge.c)


@pytest.mark.parametrize("method", METHODS)
def test_a_run_goes_on_bit_for_bit(ridge, method):
    whole = run(ridge, method=method)
    part = interrupted(ridge, 5, method=method)
    rest = run(ridge, method=method, resume=part.state)
    assert part.nit < rest.nit == whole.nit
    for name in ("x", "y", "z", "y_sigma"):
        assert np.array_equal(rest[name], whole[name]), name


@pytest.mark.parametrize("reports", [3, 14])
def test_the_kernel_goes_on_bit_for_bit_before_and_within_the_average(ready, reports):
    whole = run(ready)
    part = interrupted(ready, reports)
    rest = run(ready, resume=pickle.loads(pickle.dumps(part.state)))
    assert np.array_equal(rest.x, whole.x)
    assert np.array_equal(rest.y, whole.y)


def test_a_file_serves_as_well_as_a_state(ridge, tmp_path):
    path = tmp_path / "run.npz"
    whole = run(ridge)
    interrupted(ridge, 5, checkpoint=path)
    assert np.array_equal(run(ridge, resume=path).x, whole.x)
    assert np.array_equal(run(ridge, resume=str(path)).x, whole.x)
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]


def test_a_run_that_is_over_has_nothing_left_to_do(ridge):
    whole = run(ridge)
    again = run(ridge, resume=whole.state)
    assert again.nit == whole.nit
    assert np.array_equal(again.x, whole.x)


def test_more_epochs_go_on_from_the_end(ridge):
    part = run(ridge)
    more = run(ridge, resume=part.state, epochs=8)
    assert more.nit == 2 * part.nit
    assert more.history["nit"][0] > part.nit


def test_a_callable_gets_states_as_often_as_was_asked(ridge):
    every, last = [], []
    run(ridge, checkpoint=every.append, checkpoint_every=0)
    run(ridge, checkpoint=last.append, checkpoint_every=1e6)
    assert len(every) == 20
    assert [state.nit for state in last] == [40]
    assert every[-1].nit == 40


def test_states_in_hand_do_not_change_as_the_run_goes_on(ridge):
    first = []
    run(ridge, method="saba", checkpoint=first.append, checkpoint_every=0)
    before = run(ridge, method="saba", resume=first[2]).x
    assert np.array_equal(before, run(ridge, method="saba").x)


def test_what_is_nested_comes_back_from_a_file_as_it_was(tmp_path):
    data = {
        "array": np.arange(6.0).reshape(2, 3),
        "single": np.ones(2, np.float32),
        "plain": [1, 0.1, float("inf"), None, True, "text", 2**90],
        "nested": {0.25: (np.zeros(0), [{"a": (1,)}])},
    }
    State("penalty", 7, (2, 3, "float64"), data).save(tmp_path / "state")
    back = State.load(tmp_path / "state")
    assert (back.method, back.nit, back.sizes) == ("penalty", 7, (2, 3, "float64"))
    assert back.data["plain"] == data["plain"]
    assert back.data["array"].dtype == np.float64
    assert back.data["single"].dtype == np.float32
    assert np.array_equal(back.data["array"], data["array"])
    (key,) = back.data["nested"]
    assert key == 0.25
    assert back.data["nested"][key][1] == [{"a": (1,)}]
    assert isinstance(back.data["nested"][key], tuple)


def test_numbers_of_numpy_become_plain():
    plain = carried({"a": [np.float64(0.1), np.int64(3)]}, lambda a: a)
    assert json.dumps(plain) == '{"a": [0.1, 3]}'


def test_a_file_that_is_there_survives_a_failure(tmp_path):
    path = tmp_path / "state.npz"
    State("penalty", 1, (), {}).save(path)
    with pytest.raises(TypeError):
        State("penalty", 2, (), {"no": object()}).save(path)
    assert State.load(path).nit == 1
    assert [p.name for p in tmp_path.iterdir()] == ["state.npz"]


def coupled(**options):
    """Solve a lower level that a constraint ties to x."""
    rng = np.random.default_rng(2)
    Q, s = rng.standard_normal((4, 4)), rng.standard_normal(4)

    def upper(x, y):
        return (x - s) @ (x - s) + (y - 1) @ (y - 1), 2 * (x - s), 2 * (y - 1)

    def lower(x, y):
        r = Q @ y - x
        return 0.5 * r @ r + 0.05 * y @ y, -r, Q.T @ r + 0.1 * y

    tie = bilevel.Affine(np.eye(4), np.eye(4), np.full(4, 0.3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return bilevel.lvhba(upper, lower, tie, np.zeros(4), np.zeros(4), **options)


@pytest.mark.parametrize(("method", "limits"), [("robust", (6, 14)), ("single-loop", (75, 130))])
def test_coupled_levels_go_on_bit_for_bit(method, limits):
    options = {"method": method, "maxiter": 200, "tol": 1e-9, "c_max": 100.0}
    whole = coupled(**options)
    for limit in limits:
        part = coupled(**{**options, "maxiter": limit})
        assert part.status is Status.MAXITER
        rest = coupled(**options, resume=part.state)
        assert rest.nit == whole.nit
        assert np.array_equal(rest.x, whole.x)
        assert np.array_equal(rest.y, whole.y)
    # From a later stage there is less left to do.
    assert rest.counts["n_g"] < whole.counts["n_g"]


def deterministic(**options):
    ridge = Ridge()
    every = {"f": np.arange(ridge.m), "g": np.arange(ridge.n)}
    levels = [lambda x, y, h=h: getattr(ridge, h)(x, y, every[h]) for h in "fg"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return bilevel.penalty(*levels, ridge.x0, ridge.y0, X=BOX, **options)


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_penalty_goes_on_bit_for_bit(stop):
    whole = deterministic(tol=1e-8)
    part = deterministic(tol=1e-8, maxiter=stop)
    rest = deterministic(tol=1e-8, resume=part.state)
    assert part.nit == stop < whole.nit == rest.nit
    for name in ("x", "y", "jac"):
        assert np.array_equal(rest[name], whole[name]), name


@pytest.mark.parametrize(
    ("option", "kind", "words"),
    [
        ({"checkpoint": 3}, TypeError, "`checkpoint` came as int"),
        ({"checkpoint": "no/such/folder/run.npz"}, ValueError, "`checkpoint`"),
        ({"checkpoint_every": -1}, ValueError, "`checkpoint_every`"),
        ({"checkpoint_every": "1"}, TypeError, "`checkpoint_every`"),
        ({"resume": 3}, TypeError, "`resume` came as int"),
        ({"resume": "no such file"}, ValueError, "`resume` came as 'no such file'"),
        ({"resume": State("lvhba", 1, (), {})}, ValueError, "`resume` came as a state of lvhba"),
        ({"resume": State("penalty_sgd", 1, (9, 9, "float64"), {})}, ValueError, "`resume`.*9, 9"),
    ],
)
def test_wrong_states_and_paths_are_named(ridge, option, kind, words):
    with pytest.raises(kind, match=words):
        run(ridge, **option)


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_a_file_of_something_else_is_refused(ridge, tmp_path, content):
    path = tmp_path / "other.npz"
    if content is None:
        np.savez(path, a=np.ones(2))
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"`resume` came as .*no state"):
        run(ridge, resume=path)
