"""What passes over coefficients and columns must compute, on whatever back end.

Test classes inherit from `ScreenKernelTests` and bring the fixture `be`, the back end.
"""

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose

from solvers import penalties
from solvers._core.rules import function_of

RTOL = {"float32": 1e-5, "float64": 1e-12}
each_shape = pytest.mark.parametrize("shape", [(1, 1), (7, 3), (130, 70), (3, 2100)])


class ScreenKernelTests:
    @pytest.fixture
    def kernels(self, be):
        return be.kernels("solvers.bcd", "screen")

    @pytest.fixture
    def data(self, rng, shape, dtype):
        n = shape[0]
        X = (rng.normal(size=shape) * (rng.random(shape) < 0.5)).astype(dtype)
        return X, rng.random(n), rng.normal(size=n)

    def csc(self, be, X):
        A = sp.csc_array(X)
        return [be.xp.asarray(part) for part in (A.indptr, A.indices, A.data)]

    @each_shape
    @pytest.mark.parametrize("form", ["rows", "columns", "csc"])
    def test_moments_are_sums_over_columns(self, be, kernels, data, form, dtype):
        X, s, y = data
        exact = X.astype(float)
        out = be.xp.full((3, X.shape[1]), np.nan)
        vectors = be.xp.asarray(s), be.xp.asarray(y)
        given = {
            "rows": lambda: (be.xp.asarray(X),),
            "columns": lambda: (be.xp.asarray(np.ascontiguousarray(X.T)),),
            "csc": lambda: self.csc(be, X),
        }[form]()
        getattr(kernels, f"moments_{form}")(*given, *vectors, *out)
        expected = [s @ exact**2, s @ exact, (s * y) @ exact]
        assert_allclose(be.host(out).reshape(3, -1), expected, rtol=1e-12, atol=1e-12)

    @each_shape
    def test_columns_are_gathered_and_multiplied(self, be, kernels, rng, data, dtype):
        X, s, _ = data
        n, p = X.shape
        where = rng.permutation(p)[: 1 + p // 2]
        first, there = where.size // 2, be.xp.asarray(where)
        weights, w = be.xp.asarray(s), rng.normal(size=where.size).astype(dtype)
        rows = be.xp.empty((where.size, n))
        kernels.gather(be.xp.asarray(X), there, weights, rows)
        assert_allclose(be.host(rows).reshape(rows.shape), (s[:, None] * X[:, where]).T)

        csc = self.csc(be, X)
        z = be.xp.empty(n)
        kernels.dot_csc(*csc, there, be.xp.asarray(w), z)
        exact = X[:, where].astype(float)
        assert_allclose(be.host(z).reshape(-1), exact @ w, rtol=RTOL[dtype], atol=RTOL[dtype])

        cross = be.xp.empty((where.size, where.size - first))
        kernels.gram_csc(*csc, weights, there, first, cross)
        gram = exact.T @ (s[:, None] * exact[:, first:])
        assert_allclose(be.host(cross).reshape(cross.shape), gram, rtol=1e-9, atol=1e-12)

    def test_many_entries_are_multiplied_strip_by_strip(self, be, kernels, rng):
        X = rng.normal(size=(700, 90)) * (rng.random((700, 90)) < 0.9)
        s, where = rng.random(700), rng.permutation(90)
        cross = be.xp.empty((90, 60))
        kernels.gram_csc(*self.csc(be, X), be.xp.asarray(s), be.xp.asarray(where), 30, cross)
        exact = X[:, where].T @ (s[:, None] * X[:, where[30:]])
        assert_allclose(be.host(cross).reshape(cross.shape), exact, rtol=1e-9, atol=1e-11)

    @pytest.mark.parametrize("p", [1, 33, 1000])
    def test_a_survey_sees_scores_violations_and_dual_constraints(
        self, be, kernels, rng, p, dtype
    ):
        alpha, ridge = rng.choice([0.0, 0.5, 1.0], p), rng.choice([0.0, 0.3], p)
        lo, hi = rng.choice([-np.inf, -1.0, 0.0], p), rng.choice([np.inf, 1.0], p)
        bound = penalties.bind(penalties.ElasticBox(alpha, ridge, lo, hi), p, dtype)
        w = rng.choice([0.0, 0.5, -0.5], p).clip(lo, hi).astype(dtype)
        g, unit = rng.normal(size=p).astype(dtype), 0.5 + rng.random(p).astype(dtype)
        L = np.where(rng.random(p) < 0.1, 0.0, 0.5 + rng.random(p))
        sent = [be.xp.asarray(v) for v in (w, g, L, unit)]
        out = be.xp.empty((3, p), dtype)
        kernels.survey(type(bound)(*map(be.xp.asarray, bound)), *sent, *out)

        exact = type(bound)(*(field.astype(float) for field in bound))
        prox, distance = (function_of(type(bound), name) for name in ("prox", "distance"))
        rows = [tuple(map(float, row)) for row in zip(w, g, L, unit, strict=True)]
        scores, violations, steepness = [], [], []
        for j, (x, slope, bend, size) in enumerate(rows):
            d = prox(exact, x - slope / bend, 1.0 / bend, j) - x if bend else 0.0
            pulls = [-slope if hi[j] > x else 0.0, slope if lo[j] < x else 0.0]
            share = max(0.0, *pulls) / alpha[j] if alpha[j] else 0.0
            scores.append(0.5 * bend * d * d if d else share - 1.0)
            violations.append(distance(exact, x, slope, j) / size)
            sides = [-slope if hi[j] == np.inf else 0.0, slope if lo[j] == -np.inf else 0.0]
            linear = alpha[j] > 0 and ridge[j] == 0
            steepness.append(max(0.0, *sides) / size if linear else 0.0)
        got = be.host(out).reshape(3, -1)
        assert_allclose(got, [scores, violations, steepness], rtol=RTOL[dtype], atol=1e-6)
