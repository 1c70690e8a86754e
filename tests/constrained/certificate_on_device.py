"""The certificate of device arrays is that of host arrays; runs where `cupy` is the stand-in."""

from types import SimpleNamespace

import cupy
import numpy as np
import pytest
from scipy.optimize import NonlinearConstraint

from solvers.constrained import certify, minimize

RNG = np.random.default_rng(0)
A = RNG.normal(size=(3, 6))
X = RNG.normal(size=6)
LOW, HIGH = A @ X - [0.0, 0.5, 1.0], A @ X + [0.0, 0.0, 1.0]
G = RNG.normal(size=6)
BOUNDS = [(x - 0.1 * (i % 2), None) for i, x in enumerate(X)]


def problem(xp, kind):
    """The same problem on the host (`np`) and on the device."""
    form = {
        "dense": xp.asarray,
        "operator": lambda A: SimpleNamespace(
            shape=A.shape,
            matvec=lambda v: xp.asarray(A) @ v,
            rmatvec=lambda v: xp.asarray(A).T @ v,
        ),
    }[kind]
    J, S, g = form(A), xp.asarray(A), xp.asarray(G)
    con = NonlinearConstraint(lambda x: S @ x, LOW, HIGH, jac=lambda x: J)
    return {
        "fun": lambda x: g @ x + x @ x,
        "jac": lambda x: g + 2 * x,
        "hess": lambda x: 2 * xp.eye(6),
        "constraints": con,
        "bounds": BOUNDS,
    }


@pytest.mark.parametrize("kind", ["dense", "operator"])
def test_all_numbers_agree_with_those_of_the_host(kind, device):
    there = certify(cupy.asarray(X), **problem(cupy, kind))
    here = certify(X, **problem(np, "dense"))
    assert there.value == pytest.approx(here.value, rel=1e-7)
    for name, number in here.details.items():
        # What an operator adds up is not seen, so its floors are smaller.
        if kind != "operator" or "floor" not in name:
            assert there.details[name] == pytest.approx(number, rel=1e-6, abs=1e-12, nan_ok=True)


def test_multipliers_given_on_the_device_are_used(device):
    lam = np.array([0.3, -0.2, 0.1])
    there = certify(cupy.asarray(X), lam=cupy.asarray(lam), **problem(cupy, "dense"))
    here = certify(X, lam=lam, **problem(np, "dense"))
    assert there.value == pytest.approx(here.value, rel=1e-12)


def test_the_answer_of_a_solve_is_certified_on_the_host(device):
    words = problem(cupy, "dense")
    res = minimize(x0=cupy.asarray(X), **words, tol=1e-7)
    assert res.success
    assert type(res.lam) is cupy.ndarray
    assert type(res.certificate.value) is float
