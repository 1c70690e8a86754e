"""What the kernel of stochastic loops must compute, on whatever back end.

Test classes inherit from `SingleLoopKernelTests` and bring the fixture `be`, the back end. The
oracle is a loop in NumPy, in float64, over full matrices of second derivatives' diagonals.
"""

import numpy as np
import pytest
from scipy.special import expit

SQUARED, LOGISTIC, HINGE = range(3)
TOL = {"float32": 2e-4, "float64": 1e-11}


def mean_loss(kind, A, t, y):
    """Return the mean loss of a linear model and its gradient."""
    m = A @ y
    if kind == SQUARED:
        losses, slopes = 0.5 * (m - t) ** 2, m - t
    elif kind == LOGISTIC:
        losses, slopes = np.logaddexp(0, -t * m), -t * expit(-t * m)
    else:
        room = np.maximum(1 - t * m, 0)
        losses, slopes = 0.5 * room**2, -t * room
    return losses.mean(), A.T @ slopes / len(t)


def loop(kind, X, t, V, tv, low, up, rates, which, base, lo, hi, normalize, x, D, both, means):
    """Do what the kernel does, step by step; return the sum of losses and the state."""
    x, D, y, z = (np.array(v, dtype=float) for v in (x, D, *both))
    means, total = np.array(means, dtype=float), 0.0
    for (eta, beta, sigma, forget, weight, reach), i, j in zip(rates, low, up, strict=True):
        value, fy = mean_loss(kind, V[j], tv[j], y)
        gy, gz = (mean_loss(kind, X[i], t[i], v)[1] for v in (y, z))
        r = np.exp(x)[which]
        gx = np.bincount(which, 0.5 * r * (y * y - z * z), len(x))
        y, z = (v - eta * (g + r * v) / (base + r) for v, g in ((y, gy + sigma * fy), (z, gz)))
        D = (1 - forget) * D + forget * gx / sigma
        step = beta / (np.linalg.norm(D) + 1e-10) if normalize else beta
        x = np.clip(x - min(step, reach / abs(D).max()) * D, lo, hi)
        means += weight * (np.concatenate([x, y, z]) - means)
        total += value
    return total, [x, D, np.array([y, z]), means]


class SingleLoopKernelTests:
    @pytest.fixture
    def kernels(self, be):
        return be.kernels("solvers.bilevel", "single_loop")

    def compare(
        self, be, kernels, dtype, kind, groups, *, normalize=False, reach=np.inf, b=7, p=9
    ):
        rng = np.random.default_rng(5)
        n, m, steps = 23, 19, 6
        X, V = rng.standard_normal((n, p)), rng.standard_normal((m, p))
        t, tv = (np.sign(rng.standard_normal(k)) for k in (n, m))
        which = np.arange(p) if groups is None else rng.integers(0, groups, p)
        d = which.max() + 1
        low, up = (np.array([rng.permutation(k)[:b] for _ in range(steps)]) for k in (n, m))
        rates = np.column_stack(
            [rng.uniform(0.1, 0.3, (steps, 2)), np.full(steps, 0.05), np.full(steps, 0.4)]
        )
        weights = np.maximum(0, 1 / np.maximum(np.arange(steps) - 1, 1)) * (np.arange(steps) > 1)
        rates = np.column_stack([rates, weights, np.full(steps, reach)])
        x, D = rng.uniform(-2, 0, d), 0.1 * rng.standard_normal(d)
        both, means = 0.3 * rng.standard_normal((2, p)), np.zeros(d + 2 * p)
        base, lo, hi = rng.uniform(0.5, 1, p), np.full(d, -2.1), np.full(d, 0.1)
        data = [X, t, V, tv]
        data, state = (
            [v.astype(dtype) for v in vs] for vs in (data, [base, lo, hi, x, D, both, means])
        )
        plain = [np.asarray(v, dtype=float) for v in (*data, *state)]
        total, want = loop(
            kind, *plain[:4], low, up, rates, which, *plain[4:7], normalize, *plain[7:]
        )
        start = np.searchsorted(np.sort(which), np.arange(d + 1))
        members = np.argsort(which, kind="stable")
        here = [be.xp.asarray(v) for v in (*data, low, up, rates, start, members, *state)]
        state = here[-4:]
        scratch = be.xp.empty((4, p), dtype), be.xp.empty(d, dtype)
        got = kernels.single_loop(kind, *here[:-4], normalize, *state, *scratch)
        tol = TOL[dtype]
        np.testing.assert_allclose(got, total, rtol=tol)
        for have, expected in zip(state, want, strict=True):
            np.testing.assert_allclose(be.host(have), expected, rtol=tol, atol=tol)

    @pytest.mark.parametrize("groups", [None, 3, 1])
    @pytest.mark.parametrize("kind", [SQUARED, LOGISTIC, HINGE])
    def test_steps_are_those_of_a_plain_loop(self, be, kernels, kind, groups, dtype):
        self.compare(be, kernels, dtype, kind, groups)

    def test_steps_have_the_length_that_was_asked_for(self, be, kernels):
        self.compare(be, kernels, "float64", LOGISTIC, None, normalize=True)

    def test_no_entry_moves_farther_than_allowed(self, be, kernels):
        self.compare(be, kernels, "float64", SQUARED, None, reach=1e-3)

    @pytest.mark.parametrize(("b", "p"), [(1, 1), (4, 130), (3, 257)])
    def test_odd_sizes_work(self, be, kernels, b, p):
        self.compare(be, kernels, "float64", LOGISTIC, None, b=b, p=p)
