"""Levels written in PyTorch and JAX; where these are installed."""

import sys

import numpy as np
import pytest

from solvers import bilevel

X, Y = np.array([0.3, -1.2, 2.0]), np.array([[1.0, -0.5], [0.2, 2.0]])
V = np.array([[1.0, 0.0], [-2.0, 0.5]])


def torch_kind():
    torch = pytest.importorskip("torch")
    return torch, torch.as_tensor, torch.Tensor, bilevel.from_torch


def jax_kind():
    jax = pytest.importorskip("jax")
    return jax.numpy, jax.numpy.asarray, jax.Array, bilevel.from_jax


KINDS = {"torch": torch_kind, "jax": jax_kind}
each_kind = pytest.mark.parametrize("kind", KINDS)


def curved(xp):
    return lambda x, y: (xp.cos(x[:2]) * (y**3).sum(1)).sum() + x[2] * (y * y).sum()


def by_hand(x, y, v):
    """Return value, gradients and the two products for `curved`."""
    weights = np.cos(x[:2])
    value = weights @ (y**3).sum(1) + x[2] * (y * y).sum()
    gx = np.r_[-np.sin(x[:2]) * (y**3).sum(1), (y * y).sum()]
    gy = 3 * weights[:, None] * y**2 + 2 * x[2] * y
    yy = 6 * weights[:, None] * y * v + 2 * x[2] * v
    xy = np.r_[-np.sin(x[:2]) * (3 * y**2 * v).sum(1), 2 * (y * v).sum()]
    return value, gx, gy, yy, xy


@each_kind
@pytest.mark.parametrize("own", [False, True], ids=["NumPy arrays", "own arrays"])
def test_derivatives_are_those_of_the_formula(kind, own):
    xp, make, cls, adapt = KINDS[kind]()
    x, y, v = ((make(a.astype(np.float32)) if own else a) for a in (X, Y, V))
    level = adapt(curved(xp))
    got = *level(x, y), level.hvp_yy(x, y, v), level.hvp_xy(x, y, v)
    for answer, wanted in zip(got, by_hand(X, Y, V), strict=True):
        assert isinstance(answer, cls if own else np.ndarray)
        assert str(answer.dtype).endswith("float32" if own else "float64")
        np.testing.assert_allclose(np.asarray(answer), wanted, rtol=1e-5 if own else 1e-13)


@each_kind
def test_whole_numbers_are_differentiated_in_double_precision(kind):
    _, make, _, adapt = KINDS[kind]()
    level = adapt(lambda x, y: (x * x).sum() * (y * y).sum())
    for x, y in (([1, 2], [3]), (np.array([1, 2]), np.array([3]))):
        _, gx, gy = level(x, y)
        np.testing.assert_array_equal(gx, [18.0, 36.0])
        np.testing.assert_array_equal(gy, [30.0])
    np.testing.assert_array_equal(np.asarray(level(make([1, 2]), make([3]))[1]), [18, 36])


@each_kind
def test_samples_come_as_indices_of_the_framework(kind):
    _, make, cls, adapt = KINDS[kind]()
    data, seen = np.arange(12.0).reshape(6, 2), []

    def fun(x, y, idx):
        seen.append(idx)
        rows = make(data)[idx]
        return ((rows @ y) ** 2).sum() / (2 * len(idx)) + (x * y).sum()

    level = adapt(fun, n_samples=6)
    assert level.n_samples == 6
    x, y, v, idx = np.ones(2), np.array([1.0, -2.0]), np.array([0.5, 1.0]), np.array([4, 1, 1])
    rows = data[idx]
    _, gx, gy = level(x, y, idx)
    assert isinstance(seen[0], cls)
    np.testing.assert_allclose(gx, y)
    np.testing.assert_allclose(gy, rows.T @ rows @ y / 3 + x)
    np.testing.assert_allclose(level.hvp_yy(x, y, v, idx), rows.T @ rows @ v / 3)
    np.testing.assert_allclose(level.hvp_xy(x, y, v, idx), v)


@each_kind
def test_nested_arrays_keep_their_structure(kind):
    _, _, _, adapt = KINDS[kind]()
    level = adapt(lambda x, y: (x["a"] ** 2).sum() * (y[0] * y[1]).sum() + x["b"] * y[1][0])
    x, y = {"a": X, "b": np.array(2.0)}, [X + 1, X - 2]
    value, gx, gy = level(x, y)
    square, product = X @ X, y[0] @ y[1]
    assert float(value) == pytest.approx(square * product + 2 * y[1][0])
    np.testing.assert_allclose(gx["a"], 2 * X * product)
    assert float(gx["b"]) == pytest.approx(y[1][0])
    np.testing.assert_allclose(gy[0], square * y[1])
    np.testing.assert_allclose(gy[1], square * y[0] + [2, 0, 0])
    step = level.hvp_xy(x, y, [np.zeros(3), np.ones(3)])
    np.testing.assert_allclose(step["a"], 2 * X * y[0].sum())
    assert float(step["b"]) == pytest.approx(1)


@each_kind
def test_what_a_function_does_not_depend_on_gets_zeros(kind):
    _, make, _, adapt = KINDS[kind]()
    for fun in (lambda x, y: y.sum(), lambda x, y: make(np.float64(3.0))):
        level = adapt(fun)
        np.testing.assert_array_equal(level(X, Y)[1], np.zeros(3))
        np.testing.assert_array_equal(level.hvp_yy(X, Y, V), np.zeros((2, 2)))
        np.testing.assert_array_equal(level.hvp_xy(X, Y, V), np.zeros(3))


@each_kind
def test_a_problem_of_two_such_levels_is_solved(kind):
    _, make, cls, adapt = KINDS[kind]()
    upper = adapt(lambda x, y: ((y - 1) ** 2).sum() / 2 + 0.1 * (x * x).sum())
    lower = adapt(lambda x, y: ((2 * y - x) ** 2).sum() / 2)
    # y = x / 2, so x / 4 - 1 / 2 + x / 5 = 0.
    res = bilevel.penalty(upper, lower, np.zeros(2), np.zeros(2))
    assert res.success
    np.testing.assert_allclose(res.x, 10 / 9, atol=1e-5)
    start = make(np.zeros(2, np.float32))
    res = bilevel.penalty(upper, lower, start, start, tol=0.05)
    assert isinstance(res.x, cls)
    np.testing.assert_allclose(np.asarray(res.x), 10 / 9, atol=0.1)


@pytest.mark.parametrize("jit", [True, False])
def test_jax_compiles_where_it_is_told_to(jit):
    *_, adapt = jax_kind()
    calls = []

    def fun(x, y):
        calls.append(1)
        return (x * x).sum() + (y * y).sum()

    level = adapt(fun, jit=jit)
    for _ in range(3):
        level(X, Y)
    assert len(calls) == (1 if jit else 3)
    assert (level.pair is not None) == jit


def test_two_points_at_a_time_equal_one_after_the_other():
    xp, _, _, adapt = jax_kind()
    level = adapt(curved(xp))
    difference, *grads = level.pair(X, Y, Y + V)
    one, other = by_hand(X, Y, V), by_hand(X, Y + V, V)
    assert float(difference) == pytest.approx(one[0] - other[0])
    for got, wanted in zip(grads, (one[1], other[1], one[2], other[2]), strict=True):
        np.testing.assert_allclose(got, wanted)


def test_the_precision_of_jax_stays_as_the_caller_set_it():
    xp, make, _, adapt = jax_kind()
    before = make(1.5).dtype
    assert adapt(curved(xp))(X, Y)[1].dtype == np.float64
    assert make(1.5).dtype == before


def test_torch_computes_on_the_device_it_is_told_to():
    *_, adapt = torch_kind()
    seen = []

    def fun(x, y):
        seen.append(y.device)
        return (x * x).sum() + (y * y).sum()

    # The one device besides the host that is always there holds no data; asking is enough.
    with pytest.raises(NotImplementedError):
        adapt(fun, device="meta")(X, Y)
    assert seen[0].type == "meta"
    assert adapt(fun, device="cpu")(X, Y)[1].dtype == np.float64
    with pytest.raises(ValueError, match=r"^`device` came as 'abacus'; expected one that"):
        adapt(fun, device="abacus")
    with pytest.raises(TypeError, match=r"^`device` came as int; expected a name or"):
        adapt(fun, device=3)


def test_gradients_are_taken_inside_no_grad_and_the_callers_tensors_stay():
    torch, make, _, adapt = torch_kind()
    x, y = make(X.copy()), make(Y.copy())
    with torch.no_grad():
        adapt(curved(torch))(x, y)
    assert not x.requires_grad
    np.testing.assert_array_equal(x.numpy(), X)
    np.testing.assert_array_equal(y.numpy(), Y)


@each_kind
def test_wrong_arguments_are_refused(kind):
    xp, _, _, adapt = KINDS[kind]()
    with pytest.raises(TypeError, match=r"^`fun` came as int; expected a callable"):
        adapt(3)
    with pytest.raises(ValueError, match=r"^`n_samples` came as 0"):
        adapt(curved(xp), n_samples=0)
    with pytest.raises(TypeError, match=r"^`fun` returned .*; expected one number"):
        adapt(lambda x, y: x * x)(X, Y)
    with pytest.raises(TypeError, match=r"^`fun` returned float; expected one number"):
        adapt(lambda x, y: 1.5)(X, Y)


def test_jit_is_true_or_false():
    *_, adapt = jax_kind()
    with pytest.raises(TypeError, match=r"^`jit` came as"):
        adapt(lambda x, y: x, jit="yes")


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_framework_that_is_not_installed_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=f"'{name}' needs a package: run `pip"):
        getattr(bilevel, f"from_{name}")(lambda x, y: x)
