"""PyTorch and JAX arrays in, the same out; where these packages are installed."""

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse as sp

from solvers import bcd


@pytest.fixture
def data(rng):
    """A regression in single precision, which JAX keeps without being told."""
    X = rng.normal(size=(40, 15)).astype(np.float32)
    w = np.where(np.arange(15) < 4, 1.0, 0.0).astype(np.float32)
    return X, X @ w + 0.1 * rng.normal(size=40).astype(np.float32)


def torch_kind():
    torch = pytest.importorskip("torch")
    return torch.as_tensor, torch.Tensor


def jax_kind():
    jax = pytest.importorskip("jax")
    return jax.numpy.asarray, jax.Array


KINDS = {"torch": torch_kind, "jax": jax_kind}
each_kind = pytest.mark.parametrize("kind", KINDS)


def solve(X, y, **options):
    return bcd.lasso(X, y, 0.1, tol=1e-5, **options)


@each_kind
def test_results_are_of_the_callers_kind(data, kind):
    make, cls = KINDS[kind]()
    numpy, theirs = solve(*data), solve(*map(make, data))
    for name in ("x", "coef", "support", "active_set"):
        assert isinstance(getattr(theirs, name), cls), name
        np.testing.assert_array_equal(np.asarray(getattr(theirs, name)), getattr(numpy, name))
    assert "float32" in str(theirs.x.dtype)
    assert isinstance(theirs.intercept, float)
    assert isinstance(theirs.history["seconds"], np.ndarray)


@each_kind
def test_nothing_of_the_callers_is_modified(data, kind):
    make, _ = KINDS[kind]()
    given = [make(array.copy()) for array in data]
    start = make(np.ones(15, np.float32))
    solve(*given, x0=start)
    for array, before in zip((*given, start), (*data, np.ones(15)), strict=True):
        np.testing.assert_array_equal(np.asarray(array), before)


@each_kind
def test_kinds_do_not_mix(data, kind):
    make, _ = KINDS[kind]()
    X, y = data
    for call in (
        lambda: solve(make(X), y),
        lambda: solve(X, make(y)),
        lambda: solve(sp.csc_array(X), make(y)),
        lambda: solve(make(X), make(y), sample_weight=np.ones(40)),
        lambda: solve(make(X), make(y), weights=np.ones(15)),
    ):
        with pytest.raises(TypeError, match=r"^`\w+` came as a \w+ array and `\w+` as"):
            call()


@each_kind
def test_plain_numbers_go_with_every_kind(data, kind):
    make, cls = KINDS[kind]()
    res = solve(*map(make, data), sample_weight=[1.0] * 40, weights=[1.0] * 15)
    assert isinstance(res.x, cls)


@each_kind
def test_copies_pickles_and_warm_starts_work(data, kind):
    make, _ = KINDS[kind]()
    given = list(map(make, data))
    res = solve(*given)
    for other in (copy.deepcopy(res), pickle.loads(pickle.dumps(res))):
        np.testing.assert_array_equal(np.asarray(other.x), np.asarray(res.x))
    assert solve(*given, x0=res).nit <= 1
    assert solve(*given, x0=res.x).nit <= 1


@each_kind
def test_a_callback_sees_the_callers_kind(data, kind):
    make, cls = KINDS[kind]()
    seen = []
    solve(*map(make, data), callback=seen.append)
    assert seen
    assert isinstance(seen[0].x, cls)


@each_kind
def test_classes_and_paths_are_of_the_callers_kind(data, kind):
    make, cls = KINDS[kind]()
    X, y = data
    labels = (y > 0).astype(np.int32)
    ours, theirs = (
        bcd.logistic(to(X), to(labels), 0.05, fit_intercept=True) for to in (np.asarray, make)
    )
    np.testing.assert_array_equal(np.asarray(theirs.x), ours.x)
    assert theirs.classes.tolist() == [0, 1]
    path = bcd.path(bcd.lasso, make(X), make(y), alphas=[0.3, 0.1])
    assert isinstance(path.coefs, cls)
    assert tuple(path.coefs.shape) == (2, 15)


def test_tensors_that_need_gradients_are_refused(data):
    make, _ = torch_kind()
    with pytest.raises(ValueError, match=r"^`X` .*\.detach\(\)"):
        solve(make(data[0]).requires_grad_(), make(data[1]))


def test_sparse_tensors_are_refused_by_name(data):
    make, _ = torch_kind()
    with pytest.raises(TypeError, match=r"^`X` .*layout"):
        solve(make(data[0]).to_sparse(), make(data[1]))
