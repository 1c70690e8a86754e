"""What the kernels of block coordinate descent must compute, on whatever back end.

Test classes inherit from `KernelTests` and bring the fixture `be`, the back end. Oracles are the
Python rules of losses and penalties, which tests of their own check, and formulas in NumPy.
"""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import logsumexp, softmax

from solvers import losses, penalties
from solvers._core.rules import function_of

LOSSES = [
    losses.Squared(),
    losses.Logistic(),
    losses.Huber(0.7),
    losses.SquaredHinge(),
    losses.Poisson(),
]
PENALTIES = [
    penalties.ElasticBox(0.4, 0.2, -1.0, 2.0),
    penalties.L1(0.7),
    penalties.MCP(0.5, 3.0),
    penalties.SCAD(0.4, 3.7),
    penalties.Lq(0.4, 0.5),
]
RTOL = {"float32": 2e-5, "float64": 1e-12}
each_size = pytest.mark.parametrize("n", [1, 33, 1000])
each_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)
each_penalty = pytest.mark.parametrize("penalty", PENALTIES, ids=repr)


def rule(bound, name):
    return function_of(type(bound), name)


class KernelTests:
    @pytest.fixture
    def kernels(self, be):
        return be.kernels("solvers.bcd")

    def on(self, be, *arrays):
        return [be.xp.asarray(x) for x in arrays]

    @pytest.fixture
    def samples(self, rng, n, dtype):
        y = np.sign(rng.normal(size=n) + 0.1)
        return [v.astype(dtype) for v in (y, 2 * rng.normal(size=n), rng.random(n))]

    @each_size
    @each_loss
    def test_losses_are_summed_and_derived(self, be, kernels, loss, n, samples, dtype):
        bound, sent = losses.bind(loss), self.on(be, *samples)
        rows = [tuple(map(float, row)) for row in zip(*samples, strict=True)]
        total = sum(s * rule(bound, "value")(bound, y, z) for y, z, s in rows)
        assert_allclose(be.host(kernels.loss_sum(bound, *sent)), total, rtol=RTOL[dtype])
        for kernel, name in (
            (kernels.loss_slopes, "derivative"),
            (kernels.loss_curvatures, "curvature"),
        ):
            out = be.xp.empty_like(sent[1])
            kernel(bound, *sent, out)
            expected = [s * rule(bound, name)(bound, y, z) for y, z, s in rows]
            assert_allclose(be.host(out).reshape(-1), expected, rtol=RTOL[dtype], atol=1e-7)

    @each_size
    @each_loss
    def test_a_change_is_exact_however_small_the_step(self, be, kernels, loss, n, samples):
        y, z, s = (v.astype(float) for v in samples)
        bound = losses.bind(loss)
        dz = np.cos(np.arange(n))
        sent = self.on(be, y, z, dz)
        for t in (1e-3, 1e-7):
            change = be.host(kernels.loss_change(bound, *sent, t, be.xp.asarray(s)))
            slope = rule(bound, "derivative")
            middle = z + 0.5 * t * dz
            first = sum(s[i] * slope(bound, y[i], middle[i]) * dz[i] for i in range(n))
            # Midpoints are right up to the third derivative, and kinks of the second.
            assert_allclose(change, t * first, rtol=1e-3, atol=t * (t + 1e-8))

    @each_size
    @pytest.mark.parametrize("C", [2, 5, 40])
    def test_softmax(self, be, kernels, rng, n, C, dtype):
        y = rng.integers(0, C, n)
        z, s = 3 * rng.normal(size=(n, C)).astype(dtype), rng.random(n).astype(dtype)
        z[0] += 90.0
        sent = self.on(be, y, z, s)
        expected = (s * (logsumexp(z.astype(float), axis=1) - z[np.arange(n), y])).sum()
        assert_allclose(be.host(kernels.softmax_sum(*sent)), expected, rtol=RTOL[dtype])
        out = be.xp.empty_like(sent[1])
        kernels.softmax_slopes(*sent, out)
        slopes = s[:, None] * (softmax(z.astype(float), axis=1) - np.eye(C)[y])
        assert_allclose(be.host(out), slopes, atol=1e-6 if dtype == "float32" else 1e-14)

    @each_size
    @each_penalty
    def test_penalties_are_summed_and_their_rules_called(
        self, be, kernels, rng, penalty, n, dtype
    ):
        weights = 0.5 + rng.random(n)
        host = penalties.bind(penalty, n, dtype, weights)
        bound = type(host)(*self.on(be, *host))
        w = np.round(rng.normal(size=n), 1).clip(-1, 2).astype(dtype)
        g = (2 * rng.normal(size=n)).astype(dtype)
        L = 1.2 + rng.random(n)
        L[::7] = 0.0
        there = self.on(be, w, g, L)
        exact = type(host)(*(field.astype(float) for field in host))
        value, prox, distance = (rule(exact, name) for name in ("value", "prox", "distance"))

        total = sum(value(exact, float(w[j]), j) for j in range(n))
        assert_allclose(be.host(kernels.penalty_sum(bound, there[0])), total, rtol=RTOL[dtype])

        def check(kernel, args, expected):
            out = be.xp.empty_like(there[0])
            kernel(bound, *args, out)
            atol = 2e-5 if dtype == "float32" else 1e-13
            assert_allclose(be.host(out).reshape(-1), expected, rtol=RTOL[dtype], atol=atol)

        steps = 1.0 / np.where(L > 0, L, 1.0)
        moved = [prox(exact, float(w[j]), steps[j], j) for j in range(n)]
        check(kernels.prox_all, (there[0], be.xp.asarray(steps)), moved)
        check(
            kernels.distances,
            there[:2],
            [distance(exact, float(w[j]), float(g[j]), j) for j in range(n)],
        )
        target = [prox(exact, float(w[j]) - float(g[j]) * steps[j], steps[j], j) for j in range(n)]
        change = np.where(L > 0, np.array(target) - w, 0.0)
        check(kernels.prox_steps, there, change)
        # The score is the fall of the quadratic bound with the penalty.
        score = [
            value(exact, float(w[j]), j)
            - value(exact, target[j], j)
            - change[j] * (g[j] + 0.5 * L[j] * change[j])
            if L[j] > 0
            else 0.0
            for j in range(n)
        ]
        check(kernels.prox_scores, there, np.maximum(score, 0.0))
