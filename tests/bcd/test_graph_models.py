"""What label propagation, clustering and factorisation share: options, records and results."""

import copy
import pickle

import numba
import numpy as np
import pytest

from solvers import Certificate, ConvergenceWarning, Result, Status
from solvers.bcd import BlockResult, label_propagation, nmf, transductive_clustering
from tests.bcd.graphs import lattice


def propagate(**options):
    y = np.full(64, np.nan)
    y[[0, 30, 63]] = [1.0, 2.0, 4.0]
    return label_propagation(lattice(8, 8), y, method="cg", **options)


def cluster(**options):
    X = np.random.default_rng(0).standard_normal((40, 2))
    return transductive_clustering(X, 3, W=lattice(8, 5), lam=0.5, **{"rng": 0, **options})


def factorise(**options):
    return nmf(np.random.default_rng(1).random((9, 7)), 2, **{"rng": 0, "tol": 1e-6, **options})


models = pytest.mark.parametrize("run", [propagate, cluster, factorise])


@models
def test_a_result_is_complete_and_survives_pickle_and_copy(run):
    res = run()
    assert isinstance(res, BlockResult)
    assert isinstance(res.certificate, Certificate)
    assert res.success
    for back in (pickle.loads(pickle.dumps(res)), copy.deepcopy(res)):
        assert type(back) is type(res)
        np.testing.assert_array_equal(back.x, res.x)
    for field in BlockResult.__annotations__:
        if not field.startswith("_"):
            assert field in res
    assert res.fun == res.certificate.details["primal"]
    assert res.kkt == res.certificate.details["kkt"]
    assert res.npass > 0
    assert res.n_blocks >= 0
    rows = res.x != 0 if res.x.ndim == 1 else (res.x != 0).any(axis=1)
    np.testing.assert_array_equal(res.support, np.flatnonzero(rows))
    assert res.message in res.summary()
    assert "nutini2022block" in res.cite()
    assert len(repr(res)) < 5000


@models
def test_history_is_a_table_that_can_be_thinned_or_left_off(run):
    res = run()
    assert {"nit", "seconds", "value", "fun"} <= set(res.history)
    assert res.history["nit"][-1] == res.nit
    assert res.history["fun"][-1] == pytest.approx(res.fun, rel=1e-6, abs=1e-9)
    thinned = run(history=4)
    assert 0 < len(thinned.history["nit"]) < len(res.history["nit"])
    off = run(history=False)
    assert off.history == {}
    np.testing.assert_array_equal(off.x, res.x)


@models
def test_progress_goes_to_stderr(run, capsys):
    res = run(progress=True)
    out, err = capsys.readouterr()
    assert (out, res.method in err) == ("", True)


@models
def test_a_callback_sees_read_only_iterates_and_changes_nothing(run):
    seen = []

    def look(intermediate_result):
        assert isinstance(intermediate_result, Result)
        assert not intermediate_result.x.flags.writeable
        seen.append((intermediate_result.nit, intermediate_result.x.copy()))

    res = run(callback=look)
    assert [nit for nit, _ in seen] == list(range(1, res.nit + 1))
    np.testing.assert_array_equal(seen[-1][1], res.x)
    np.testing.assert_array_equal(run().x, res.x)


def test_a_callback_sees_prototypes_where_the_points_are():
    seen = []
    res = cluster(callback=lambda r: seen.append(r.prototypes))
    np.testing.assert_array_equal(seen[-1], res.prototypes)


@models
def test_limits_end_a_run_and_are_named(run):
    with pytest.warns(ConvergenceWarning, match="maxiter"):
        res = run(maxiter=2, tol=1e-300)
    assert (res.status, res.nit) == (Status.MAXITER, 2)
    with pytest.warns(ConvergenceWarning, match="maxiter"):
        res = run(maxiter=0, tol=1e-300)
    assert (res.status, res.nit) == (Status.MAXITER, 0)
    assert np.isfinite(res.x).all()
    with pytest.warns(ConvergenceWarning, match="time_limit"):
        res = run(time_limit=1e-9, tol=1e-300)
    assert res.status is Status.TIME_LIMIT


@models
def test_threads_are_the_callers_again_afterwards(run):
    before = numba.get_num_threads()
    np.testing.assert_array_equal(run(n_threads=1).x, run().x)
    assert numba.get_num_threads() == before


@models
def test_a_loose_tolerance_ends_earlier_and_never_claims_more(run):
    loose, tight = run(tol=1e-2), run(tol=1e-7)
    assert loose.nit < tight.nit
    for res, tol in ((loose, 1e-2), (tight, 1e-7)):
        assert res.certificate.tol == tol
        assert res.success == (res.certificate.value <= tol)


@models
@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("tol", -1.0, ValueError),
        ("tol", np.nan, ValueError),
        ("maxiter", -1, ValueError),
        ("time_limit", -1.0, ValueError),
        ("callback", 3, TypeError),
        ("progress", "yes", TypeError),
        ("history", -1, ValueError),
        ("n_threads", 0, ValueError),
    ],
)
def test_bad_options_are_refused_by_name(run, option, value, kind):
    with pytest.raises(kind, match=f"^`{option}`"):
        run(**{option: value})
