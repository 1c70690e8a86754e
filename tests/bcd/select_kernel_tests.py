"""What the kernels that choose blocks must compute, on whatever back end.

Test classes inherit from `SelectKernelTests` and bring the fixture `be`, the back end. Oracles
are sorts, dense algebra and enumeration.
"""

import itertools

import numpy as np
import pytest


def largest(scores, size):
    """The indices of the largest scores by a stable sort; NaN is the smallest."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    return np.sort(np.argsort(-scores, kind="stable")[:size])


class SelectKernelTests:
    @pytest.fixture
    def kernels(self, be):
        return be.kernels("solvers.bcd", "select")

    def top(self, be, kernels, scores, size):
        out = be.xp.empty(size, np.int64)
        kernels.top(be.xp.asarray(scores), out)
        return np.atleast_1d(be.host(out))

    @pytest.mark.parametrize("n", [1, 2, 7, 300])
    @pytest.mark.parametrize("kind", ["normal", "ties", "equal", "sorted", "wide", "holes"])
    def test_the_largest_are_found_and_ties_go_to_the_lowest(self, be, kernels, rng, n, kind):
        scores = rng.standard_normal(n)
        scores = {
            "normal": scores,
            "ties": np.round(scores),
            "equal": np.zeros(n),
            "sorted": np.sort(scores),
            "wide": scores * 10.0 ** rng.uniform(-300, 300, n),
            "holes": np.where(scores > 0.5, np.nan, np.where(scores < -0.5, -np.inf, scores)),
        }[kind]
        for size in sorted({1, 2, n // 3, n - 1, n} & set(range(1, n + 1))):
            got = self.top(be, kernels, scores, size)
            np.testing.assert_array_equal(got, largest(scores, size))

    def test_zeros_of_either_sign_are_equal(self, be, kernels):
        scores = np.array([-0.0, 0.0, -0.0, 0.0])
        assert self.top(be, kernels, scores, 2).tolist() == [0, 1]

    def test_scores_are_added_up_over_blocks(self, be, kernels, rng):
        sizes = [1, 40, 0, 7, 300]
        ptr = np.cumsum([0, *sizes])
        idx, scores = rng.permutation(ptr[-1]), rng.standard_normal(ptr[-1])
        out = be.xp.full(len(sizes), 9.0)
        kernels.block_sums(*(be.xp.asarray(x) for x in (scores, ptr, idx)), out)
        want = [scores[idx[a:b]].sum() for a, b in itertools.pairwise(ptr)]
        np.testing.assert_allclose(be.host(out), want, atol=1e-12)

    @pytest.mark.parametrize("size", [1, 2, 3, 6])
    def test_the_limit_of_the_best_ratio_is_found(self, be, kernels, rng, size):
        for _ in range(20):
            square, L = rng.random(6), np.round(rng.random(6), 1)
            order = np.argsort(L, kind="stable")
            heap = be.xp.empty(size)
            args = (be.xp.asarray(x) for x in (square, L, order))
            last = int(be.host(be.xp.asarray(kernels.best_limit(*args, heap))))
            limit = L[order[last]]
            inside = np.sort(square[(limit >= L) & (L > 0)])[::-1][:size].sum()
            inside /= max(limit, 1e-300)
            blocks = [list(b) for b in itertools.combinations(np.flatnonzero(L > 0), size)]
            if blocks:
                best = max(square[b].sum() / L[b].max() for b in blocks)
                assert inside == pytest.approx(best)

    def test_pursuit_takes_what_helps_most_next(self, be, kernels, rng):
        for c, size in ((1, 1), (5, 3), (40, 17)):
            R = rng.standard_normal((c, c + 3))
            H, g = R @ R.T, rng.standard_normal(c)
            chosen = be.xp.empty(size, np.int64)
            gain = kernels.pursue(be.xp.asarray(H), be.xp.asarray(g), chosen)
            chosen = np.atleast_1d(be.host(chosen)).tolist()

            def fall(b, H=H, g=g):
                return g[b] @ np.linalg.solve(H[np.ix_(b, b)], g[b]) if b else 0.0

            for k, i in enumerate(chosen):
                rest = [j for j in range(c) if j not in chosen[:k]]
                best = max(fall([*chosen[:k], j]) for j in rest)
                assert fall(chosen[: k + 1]) == pytest.approx(best, rel=1e-8), i
            assert float(be.host(be.xp.asarray(gain))) == pytest.approx(fall(chosen), rel=1e-8)

    def test_pursuit_leaves_out_what_depends_on_the_chosen(self, be, kernels):
        X = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
        chosen = be.xp.empty(3, np.int64)
        g = be.xp.asarray(X @ np.array([1.0, 0.1]))
        gain = kernels.pursue(be.xp.asarray(X @ X.T), g, chosen)
        assert np.atleast_1d(be.host(chosen)).tolist() == [0, 2, -1]
        assert float(be.host(be.xp.asarray(gain))) == pytest.approx(1.01)
