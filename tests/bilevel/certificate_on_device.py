"""The certificate of device arrays is that of host arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers import bilevel
from tests.bilevel.oracles import CoupledQP, Quadratic


def there(problem, names):
    """Return both levels of a problem with its matrices on the device."""
    twin = object.__new__(type(problem))
    twin.__dict__.update(problem.__dict__)
    for name in names:
        setattr(twin, name, cupy.asarray(getattr(problem, name)))
    return twin


@pytest.mark.parametrize(
    ("how", "rank"), [("auto", None), ("auto", 3), ("cg", None), ("penalty", None)]
)
def test_all_numbers_agree_with_those_of_the_host(how, rank, device):
    q = Quadratic(1, d=2, p=4, kappa=2.0, rank=rank)
    t = there(q, ())
    t.data = {name: cupy.asarray(part) for name, part in q.data.items()}
    X = bilevel.box(q.x.min(), q.x.max())
    for x in (q.x,) if how == "penalty" else (q.x, q.x + 0.01):
        y = q.best_response(x)
        ours = bilevel.certify(q.upper, q.oracle(), x, y, X=X, how=how, tol=1e-4)
        theirs = bilevel.certify(
            t.upper, t.oracle(), cupy.asarray(x), cupy.asarray(y), X=X, how=how, tol=1e-4
        )
        assert theirs.holds == ours.holds
        for name in ("stationarity", "lower_residual", "psi", "sigma"):
            assert theirs.details[name] == pytest.approx(ours.details[name], rel=1e-4, abs=1e-5)


def test_constraints_and_bounds_are_judged_there_too(device):
    p = CoupledQP(1)
    t = there(p, ("A", "B", "c", "K", "k"))
    t.upper = lambda x, y: _upper(t, x, y)
    _, x, y, _ = p.enumerated()
    rows, Y = bilevel.Affine(p.Ax, p.Ay, p.b), bilevel.box(-9, 9)
    for at in (x, x + 1e-3):
        y, _ = p.best_response(at)
        ours = bilevel.certify(p.upper, p.lower, at, y, constraints=rows, Y=Y)
        at, y = cupy.asarray(at), cupy.asarray(y)  # noqa: PLW2901
        theirs = bilevel.certify(t.upper, t.lower, at, y, constraints=rows, Y=Y)
        assert theirs.holds == ours.holds
        assert theirs.value == pytest.approx(ours.value, rel=1e-6, abs=1e-9)


def _upper(t, x, y):
    v = cupy.concatenate([x, y]) - t.k
    grad = t.K @ v
    return 0.5 * v @ grad, grad[: t.d], grad[t.d :]


def test_oracles_are_checked_there_too(device):
    q = Quadratic(1)
    t = there(q, ())
    t.data = {name: cupy.asarray(part) for name, part in q.data.items()}
    x, y = cupy.asarray(np.ones(4)), cupy.asarray(np.ones(7))
    errors = bilevel.check_oracle(t.oracle(), x, y, rng=0)
    assert max(errors.values()) < 1e-8
    wrong = bilevel.check_oracle(lambda x, y: (t.lower(x, y)[0], x, y), x, y, rng=0)
    assert min(wrong.values()) > 0.1
