"""PyTorch and JAX: arrays in, the same out, and derivatives; where these are installed."""

import copy
import pickle
import sys

import numpy as np
import pytest
from scipy.optimize import NonlinearConstraint

from solvers import constrained

X0 = np.array([0.9, 0.4, -0.3], dtype=np.float32)


def torch_kind():
    torch = pytest.importorskip("torch")
    return torch, torch.as_tensor, torch.Tensor


def jax_kind():
    jax = pytest.importorskip("jax")
    return jax.numpy, jax.numpy.asarray, jax.Array


KINDS = {"torch": torch_kind, "jax": jax_kind}
each_kind = pytest.mark.parametrize("kind", KINDS)


def sphere(**changes):
    given = {
        "fun": lambda x: (x * x).sum() - 1,
        "jac": lambda x: 2 * x,
        "hess": lambda x, v: 2 * v[0] * eye_like(x),
        **changes,
    }
    return NonlinearConstraint(given["fun"], 0, 0, jac=given["jac"], hess=given["hess"])


def eye_like(x):
    """Return the identity by means that all kinds have."""
    return (x[:, None] - x[None, :] == 0) * (x[:, None] * 0 + 1)


def fun(x):
    return ((x - 2) ** 2).sum()


def solve(x0, **changes):
    given = {
        "fun": fun,
        "jac": lambda x: 2 * (x - 2),
        "hess": lambda x: 2 * eye_like(x),
        "constraints": sphere(),
        "tol": 1e-4,
        **changes,
    }
    return constrained.minimize(given.pop("fun"), x0, **given)


@each_kind
def test_results_are_of_the_callers_kind_and_precision(kind):
    _, make, cls = KINDS[kind]()
    res = solve(make(X0))
    assert res.success
    for name in ("x", "lam", "jac", "bound_lam"):
        assert isinstance(getattr(res, name), cls), name
        assert "float32" in str(getattr(res, name).dtype), name
    assert isinstance(res.v[0], cls)
    assert isinstance(res.fun, float)
    np.testing.assert_allclose(np.asarray(res.x), 1 / np.sqrt(3), atol=1e-4)


@each_kind
def test_functions_see_the_callers_kind_and_precision(kind):
    _, make, cls = KINDS[kind]()
    seen = []

    def watched(function):
        def call(*args):
            seen.extend(args)
            return function(*args)

        return call

    con = sphere()
    solve(
        make(X0),
        fun=watched(fun),
        constraints=sphere(fun=watched(con.fun), jac=watched(con.jac), hess=watched(con.hess)),
    )
    assert all(isinstance(v, cls) and "float32" in str(v.dtype) for v in seen)


@each_kind
def test_nothing_of_the_callers_is_modified(kind):
    _, make, _ = KINDS[kind]()
    x0, lam0 = make(X0.copy()), make(np.ones(1, np.float32))
    solve(x0, lam0=lam0)
    np.testing.assert_array_equal(np.asarray(x0), X0)
    np.testing.assert_array_equal(np.asarray(lam0), 1)


@each_kind
def test_copies_pickles_and_warm_starts_work(kind):
    _, make, _ = KINDS[kind]()
    res = solve(make(X0))
    for other in (copy.deepcopy(res), pickle.loads(pickle.dumps(res))):
        np.testing.assert_array_equal(np.asarray(other.x), np.asarray(res.x))
    assert solve(res).nit <= 1
    assert solve(res.x, lam0=res.lam).nit <= 1


@each_kind
def test_a_callback_sees_the_callers_kind(kind):
    _, make, cls = KINDS[kind]()
    seen = []
    solve(make(X0), callback=seen.append)
    assert isinstance(seen[0].x, cls)
    assert isinstance(seen[0].lam, cls)


@each_kind
def test_lists_and_numbers_go_with_every_kind(kind):
    _, make, cls = KINDS[kind]()
    res = solve(make(X0), jac=lambda x: (2 * (x - 2)).tolist(), lam0=[0.0])
    assert res.success
    assert isinstance(res.x, cls)


@each_kind
def test_kinds_do_not_mix(kind):
    _, make, _ = KINDS[kind]()
    with pytest.raises(TypeError, match=rf"^`jac` returned a numpy array .* for a {kind} array"):
        solve(make(X0), jac=lambda x: np.ones(3))
    with pytest.raises(TypeError, match=rf"^`jac` returned a {kind} array .* for a numpy array"):
        solve(X0, jac=lambda x: make(np.ones(3)))
    with pytest.raises(TypeError, match=r"^`lam0` came as a numpy array and `x0` as"):
        solve(make(X0), lam0=np.zeros(1))


@each_kind
def test_the_certificate_takes_every_kind(kind):
    _, make, _ = KINDS[kind]()
    x = make(np.full(3, 1 / np.sqrt(3), np.float32))
    problem = {"jac": lambda x: 2 * (x - 2), "constraints": sphere(), "tol": 1e-5}
    assert constrained.certify(x, fun, **problem).holds
    # 2 (x - 2) + 2 lam x = 0
    lam = make(np.array([2 * np.sqrt(3) - 1], np.float32))
    assert constrained.certify(x, fun, lam=lam, **problem).value <= 1e-5
    assert constrained.certify(x, fun, lam=lam + 1, **problem).value >= 1


def test_complex_steps_need_numpy():
    _, make, _ = torch_kind()
    with pytest.raises(ValueError, match=r"^`jac` came as 'cs'; expected NumPy"):
        solve(make(X0), jac="cs")


def test_gradients_that_carry_a_graph_are_refused_by_name():
    torch, make, _ = torch_kind()
    w = torch.ones(3, requires_grad=True)
    with pytest.raises(ValueError, match=r"^`jac` returned .* requires grad"):
        solve(make(X0), jac=lambda x: x * w)


# ------------------------------------------------------------ automatic differentiation
def curved(xp):
    return lambda x: (x**3).sum() + x[0] * x[1]


def pair(xp):
    return lambda x: xp.stack([x[0] * x[1], (x * x).sum()])


X, V, P = np.array([1.0, 2.0, 3.0]), np.array([1.0, -1.0]), np.array([1.0, 0.0, 2.0])
HESS = np.array([[6.0, 1, 0], [1, 12, 0], [0, 0, 18]])
PAIR_JAC = np.array([[2.0, 1, 0], [2, 4, 6]])
PAIR_HESS = np.array([[-2.0, 1, 0], [1, -2, 0], [0, 0, -2]])


@each_kind
@pytest.mark.parametrize("own", [False, True], ids=["NumPy arrays", "own arrays"])
def test_derivatives_are_those_of_the_formula(kind, own):
    xp, make, cls = KINDS[kind]()
    to = (lambda v: make(v.astype(np.float32))) if own else np.asarray
    one, two = (constrained.autodiff(f(xp), kind) for f in (curved, pair))
    x, v, p = map(to, (X, V, P))
    for got, want in (
        (one.fun(x), 38),
        (one.jac(x), 3 * X**2 + [2, 1, 0]),
        (one.hess(x), HESS),
        (one.hessp(x, p), HESS @ P),
        (two.jac(x), PAIR_JAC),
        (two.vjp(x, v), PAIR_JAC.T @ V),
        (two.hess(x, v), PAIR_HESS),
        (two.hessp(x, p, v), PAIR_HESS @ P),
    ):
        assert isinstance(got, cls if own else np.ndarray)
        assert str(got.dtype).endswith("float32" if own else "float64")
        np.testing.assert_allclose(np.asarray(got), want, rtol=1e-6 if own else 1e-14)


@each_kind
@pytest.mark.parametrize("large", [False, True], ids=["matrices", "products"])
def test_minimize_differentiates_what_it_is_told_to(kind, large, monkeypatch):
    KINDS[kind]()
    if large:
        monkeypatch.setattr("solvers.constrained._smooth._DENSE", 2)
    con = NonlinearConstraint(lambda x: (x * x).sum(), 1, 1, jac=kind)
    res = constrained.minimize(fun, X0.astype(np.float64), jac=kind, constraints=con)
    assert res.success
    assert res.x.dtype == np.float64
    np.testing.assert_allclose(res.x, 1 / np.sqrt(3), atol=1e-8)
    assert (res.nhvp > 0) == large
    assert (res.nhev > 0) != large


@each_kind
def test_the_hessian_alone_may_be_differentiated(kind):
    _, make, _ = KINDS[kind]()
    res = solve(make(X0), hess=kind, constraints=sphere(hess=kind))
    assert res.success
    assert res.nhev > 0


def test_autodiff_refuses_what_it_does_not_know():
    with pytest.raises(TypeError, match=r"^`fun` came as int"):
        constrained.autodiff(3, "torch")
    with pytest.raises(ValueError, match=r"^`backend` came as 'autograd'; expected one of 'jax'"):
        constrained.autodiff(fun, "autograd")


def test_a_backend_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="'torch' needs a package: run `pip"):
        constrained.autodiff(fun, "torch")
