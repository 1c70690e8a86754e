import pickle
import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import solvers
from solvers.ot import TransportMap, sinkhorn_newton
from tests.ot import reference


@parametrize_with_checks([TransportMap()])
def test_scikit_learn_finds_nothing_to_complain_about(estimator, check):
    check(estimator)


def clouds(rng, n=40, k=30):
    return rng.normal(size=(n, 2)), rng.normal(size=(k, 2)) * [0.5, 2.0] + [4.0, -1.0]


@pytest.mark.parametrize("cost", ["sqeuclidean", "euclidean", "cityblock", "cosine"])
def test_images_are_the_means_of_the_plans_rows(rng, cost):
    x, y = clouds(rng)
    map_ = TransportMap(cost=cost, reg=0.2).fit(x, y)
    C = cdist(x, y, cost)
    f, g = reference.sinkhorn(np.full(40, 1 / 40), np.full(30, 1 / 30), C, 0.2)
    P = np.exp((f[:, None] + g - C) / 0.2) / (40 * 30)
    np.testing.assert_allclose(map_.transform(x), 40 * P @ y, rtol=0, atol=1e-5)
    np.testing.assert_allclose(map_.transform(x), 40 * map_.result_.apply(y), atol=1e-6)


def test_new_points_move_as_fitted_ones_nearby(rng):
    x, y = clouds(rng)
    map_ = TransportMap().fit(x, y)
    near = map_.transform(x + 1e-7)
    np.testing.assert_allclose(near, map_.transform(x), atol=1e-4)
    far = map_.transform(np.array([[1e6, -1e6], [-1e6, 1e6]]))
    assert np.all((far >= y.min(axis=0)) & (far <= y.max(axis=0)))


def test_a_linear_map_between_gaussians_is_recovered_where_there_are_points(rng):
    x = rng.normal(size=(1500, 2))
    y = rng.normal(size=(1500, 2)) * [2.0, 0.5] + [3.0, 0.0]
    moved = TransportMap(reg=0.05).fit(x, y).transform(x)
    truth = x * [2.0, 0.5] + [3.0, 0.0]
    assert np.square(moved - truth).mean() < 0.05 * truth.var(axis=0).sum()


def test_where_the_target_comes_from(rng):
    x, y = clouds(rng)
    labels = np.arange(40) % 3
    given = TransportMap(target=y).fit(x, labels)
    np.testing.assert_array_equal(given.target_, y)
    np.testing.assert_array_equal(given.transform(x), TransportMap().fit(x, y).transform(x))
    np.testing.assert_array_equal(TransportMap(target=x).fit(x, y).target_, y)
    np.testing.assert_array_equal(TransportMap().fit(x).target_, x)
    np.testing.assert_array_equal(
        given.fit_transform(x, labels), given.fit(x, labels).transform(x)
    )


def test_the_certificate_stays_with_the_estimator(rng):
    x, y = clouds(rng)
    map_ = TransportMap(tol=1e-10).fit(x, y)
    assert map_.result_.certificate.holds
    assert map_.result_.certificate.tol == 1e-10
    assert map_.n_iter_ == map_.result_.nit
    assert map_.reg_ == pytest.approx(0.05 * cdist(x, y, "sqeuclidean").std())
    twin = sinkhorn_newton(None, None, cdist(x, y, "sqeuclidean"), tol=1e-10)
    np.testing.assert_allclose(map_.potential_, twin.g, rtol=0, atol=1e-7)
    with pytest.warns(solvers.ConvergenceWarning, match="maxiter"):
        TransportMap(max_iter=1, reg=1e-3).fit(x, y)


def test_it_works_in_pipelines_clones_and_pickles(rng):
    x, y = clouds(rng)
    pipe = make_pipeline(StandardScaler(), PCA(2), TransportMap(target=y, reg=0.3))
    moved = pipe.fit_transform(x)
    assert np.abs(moved.mean(axis=0) - y.mean(axis=0)).max() < 1e-6
    twin = clone(pipe).fit(x)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(pipe)).transform(x), twin.transform(x))
    changed = pipe.set_params(transportmap__reg=3.0).fit_transform(x)
    assert changed.var() < moved.var()


def test_names_and_precision_are_kept(rng):
    pandas = pytest.importorskip("pandas")
    x, y = clouds(rng)
    frame = pandas.DataFrame(x, columns=["east", "north"])
    map_ = TransportMap().set_output(transform="pandas").fit(frame, y)
    moved = map_.transform(frame)
    assert list(moved.columns) == ["east", "north"] == list(map_.feature_names_in_)
    single = TransportMap().fit(x.astype("f4"), y.astype("f4"))
    assert single.transform(x.astype("f4")).dtype == np.float32
    np.testing.assert_allclose(single.transform(x.astype("f4")), moved, atol=1e-3)


def test_bad_input_is_refused_by_name(rng):
    x, y = clouds(rng)
    for name, map_, target in (
        ("y", TransportMap(), y[:, :1]),
        ("target", TransportMap(target=np.ones((4, 3))), None),
    ):
        with pytest.raises(ValueError, match=rf"^`{name}`"):
            map_.fit(x, target)
    with pytest.raises(ValueError, match="NaN"):
        TransportMap().fit(x, np.full((3, 2), np.nan))
    for change, kind in (
        ({"cost": "l2"}, ValueError),
        ({"reg": -1.0}, ValueError),
        ({"tol": "small"}, TypeError),
    ):
        with pytest.raises(kind, match=rf"^`{next(iter(change))}`"):
            TransportMap(**change).fit(x, y)
    with pytest.raises(NotFittedError):
        TransportMap().transform(x)


def test_the_family_loads_scikit_learn_only_for_the_estimator():
    code = (
        "import sys, solvers.ot as ot; ot.sinkhorn; dir(ot); assert 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
