"""Ready-made problems: their formulas, gradients and products, in every form they are asked for."""

import numpy as np
import pytest
import scipy.sparse

from solvers.bilevel import problems

N, M, P, K = 37, 23, 6, 3
NAMES = ["Quadratic", "RidgeHPO", "LogisticHPO", "SoftmaxHPO", "WeightedTraining",
         "HyperCleaning", "HyperCleaning classes", "SvmHPO"]  # fmt: skip


def data(name, seed=0, sparse=False):
    """Return the arguments of a problem."""
    rng = np.random.default_rng(seed)
    if name == "Quadratic":
        A, F = (np.cov(rng.standard_normal((P, 3 * P))) for _ in range(2))
        return (
            A,
            rng.standard_normal((P, 4)),
            *rng.standard_normal((1, P)),
            F,
            rng.random(P),
            0.3,
        )
    X, Xv = rng.standard_normal((N, P)), rng.standard_normal((M, P))
    if sparse:
        X, Xv = (scipy.sparse.csr_array(x * (rng.random(x.shape) < 0.4)) for x in (X, Xv))
    t, tv = rng.standard_normal(N), rng.standard_normal(M)
    if name in ("SoftmaxHPO", "HyperCleaning classes"):
        t, tv = rng.integers(K, size=N), rng.integers(K, size=M)
    elif name != "RidgeHPO":
        t, tv = np.sign(t), np.sign(tv)
    groups = (rng.integers(4, size=N),) if name == "WeightedTraining" else ()
    return X, t, Xv, tv, *groups


def make(name, **options):
    return getattr(problems, name.split()[0])(*data(name, **options))


def point(problem, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(-2, 1, problem.x0.shape), *rng.standard_normal((3, *problem.y0.shape))


def levels(problem):
    return problem.upper, problem.lower


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_differences_of_values(name):
    problem = make(name)
    x, y, v, _ = point(problem)
    u, e = np.cos(np.arange(x.size)), 1e-5
    for level in levels(problem):
        _, gx, gy = level(x, y)
        slope = (level(x, y + e * v)[0] - level(x, y - e * v)[0]) / (2 * e)
        assert slope == pytest.approx((gy * v).sum(), rel=1e-7, abs=1e-8)
        slope = (level(x + e * u, y)[0] - level(x - e * u, y)[0]) / (2 * e)
        assert slope == pytest.approx(gx @ u, rel=1e-7, abs=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_second_derivatives_are_the_differences_of_gradients(name):
    problem = make(name)
    lower = problem.lower
    x, y, v, _ = point(problem)
    e = 1e-5
    _, gx, gy = (a - b for a, b in zip(lower(x, y + e * v), lower(x, y - e * v), strict=True))
    np.testing.assert_allclose(lower.hvp_yy(x, y, v), gy / (2 * e), rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(lower.hvp_xy(x, y, v), gx / (2 * e), rtol=1e-6, atol=1e-7)
    assert lower.precond_y(x).shape == y.shape
    assert (lower.precond_y(x) > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_pair_is_two_looks(name):
    problem = make(name)
    x, y, z, _ = point(problem)
    for level in levels(problem):
        value, *gradients = level.pair(x, y, z)
        at_y, at_z = level(x, y), level(x, z)
        assert value == pytest.approx(at_y[0] - at_z[0], rel=1e-12)
        expected = at_y[1], at_z[1], at_y[2], at_z[2]
        for found, wanted in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)
