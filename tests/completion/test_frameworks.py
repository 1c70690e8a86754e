"""PyTorch and JAX arrays in, the same out; where these packages are installed."""

import copy
import pickle

import numpy as np
import pytest

from solvers import completion


@pytest.fixture
def data(rng):
    """Entries of a matrix of rank 2 in single precision, and the matrix with NaN for gaps."""
    X = rng.normal(size=(30, 2)) @ rng.normal(size=(2, 20))
    rows, cols = np.nonzero(rng.random(X.shape) < 0.6)
    dense = np.full(X.shape, np.nan, np.float32)
    dense[rows, cols] = X[rows, cols]
    return rows.astype(np.int32), cols.astype(np.int32), dense[rows, cols], dense


def torch_kind():
    torch = pytest.importorskip("torch")
    return torch.as_tensor, torch.Tensor


def jax_kind():
    jax = pytest.importorskip("jax")
    return jax.numpy.asarray, jax.Array


KINDS = {"torch": torch_kind, "jax": jax_kind}
each_kind = pytest.mark.parametrize("kind", KINDS)


def solve(M, **options):
    options = {"method": "altmin", "lam": 0.1, "tol": 1e-4, "rng": 0, **options}
    return completion.alternating_minimization(M, 2, **options)


@each_kind
@pytest.mark.parametrize("form", ["triples", "dense"])
def test_results_are_of_the_callers_kind(data, kind, form):
    make, cls = KINDS[kind]()
    rows, cols, vals, dense = data
    numpy, theirs = (
        solve(tuple(map(to, (rows, cols, vals))), shape=dense.shape)
        if form == "triples"
        else solve(to(dense))
        for to in (np.asarray, make)
    )
    for name in ("U", "s", "V", "row_bias", "col_bias"):
        assert isinstance(theirs[name], cls), name
        assert "float32" in str(theirs[name].dtype)
        np.testing.assert_array_equal(np.asarray(theirs[name]), numpy[name])
    assert isinstance(theirs.history["seconds"], np.ndarray)
    assert isinstance(theirs.components, np.ndarray)


@each_kind
def test_methods_take_and_give_the_callers_kind(data, kind):
    make, cls = KINDS[kind]()
    dense = data[3]
    ours, theirs = solve(dense, bias=True), solve(make(dense), bias=True)
    i, j = np.array([3, 0]), np.array([5, 7])

    def answers(res, to):
        return (
            *res.factors(),
            res.predict(to(i), to(j)),
            res.predict([3, 0], [5, 7]),
            res.block(slice(4)),
            res.fold_in(to(dense[:5])),
            *res.top_n(to(i), 3),
        )

    for x, y in zip(answers(theirs, make), answers(ours, np.asarray), strict=True):
        assert isinstance(x, cls)
        np.testing.assert_allclose(np.asarray(x), y, rtol=1e-5, atol=1e-6)


@each_kind
def test_other_kinds_are_refused(data, kind):
    make, _ = KINDS[kind]()
    rows, cols, vals, dense = data
    res = solve(make(dense))
    for call in (
        lambda: solve((rows, cols, make(vals)), shape=dense.shape),
        lambda: solve(make(dense), weights=np.ones(vals.size)),
        lambda: res.predict(rows, cols),
        lambda: res.fold_in(dense),
    ):
        with pytest.raises(TypeError, match="array"):
            call()


@each_kind
def test_copies_pickles_and_warm_starts_work(data, kind):
    make, _ = KINDS[kind]()
    M = make(data[3])
    res = solve(M)
    for other in (copy.deepcopy(res), pickle.loads(pickle.dumps(res))):
        np.testing.assert_array_equal(np.asarray(other.todense()), np.asarray(res.todense()))
        np.testing.assert_array_equal(np.asarray(other.fold_in(M)), np.asarray(res.fold_in(M)))
    assert solve(M, x0=res).nit <= 1


@each_kind
def test_a_callback_sees_the_callers_kind(data, kind):
    make, cls = KINDS[kind]()
    seen = []
    solve(make(data[3]), callback=seen.append)
    assert seen
    assert isinstance(seen[0].U, cls)


def test_tensors_that_need_gradients_are_refused(data):
    make, _ = torch_kind()
    with pytest.raises(ValueError, match=r"^`M` .*\.detach\(\)"):
        solve(make(data[3]).requires_grad_())
