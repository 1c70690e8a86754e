"""Bounds of the spectral norm, and the products that they are made of."""

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from solvers._core import threads
from solvers._core.backend import get_backend
from solvers.completion import _certificate_gap as gap
from solvers.completion._certificate_case import Slope, entries

seeds = st.integers(0, 2**32 - 1)
numpy = get_backend("numpy")


def slope_of(rng, m, n, density=0.3, rank=0):
    """A slope and the same as a dense matrix."""
    S = sp.random_array((m, n), density=density, format="csr", rng=rng)
    S.data -= 0.5
    S = sp.csr_matrix(S)
    low_rank = (rng.normal(size=(m, rank)), rng.normal(size=(n, rank))) if rank else (None, None)
    dense = S.toarray() - low_rank[0] @ low_rank[1].T if rank else S.toarray()
    return Slope(numpy, S, *low_rank), dense


def split_of(dense, U, V):
    """The blocks' norms that `bound_norm` is told."""

    class Split:
        pass

    split = Split()
    split.U, split.V = U, V
    split.core = np.linalg.norm(U.T @ dense @ V, 2) if U.shape[1] else 0.0
    split.left = np.linalg.norm(dense @ V - U @ (U.T @ dense @ V))
    split.right = np.linalg.norm(dense.T @ U - V @ (V.T @ dense.T @ U))
    return split


def bases(rng, dense, r):
    """Orthonormal columns, some of which are singular vectors."""
    m, n = dense.shape
    U, _, Vt = np.linalg.svd(dense)
    some = rng.permutation(min(m, n))[:r]
    U, V = U[:, some], Vt[some].T
    if rng.random() < 0.5:
        U, V = U + 0.1 * rng.normal(size=U.shape), V + 0.1 * rng.normal(size=V.shape)
    return np.linalg.qr(U)[0], np.linalg.qr(V)[0]


@given(seeds, st.sampled_from([0, 2]))
def test_bounds_enclose_the_norm_of_the_rest_at_every_step(seed, rank):
    rng = np.random.default_rng(seed)
    m, n = rng.integers(1, 40, size=2)
    slope, dense = slope_of(rng, m, n, rng.uniform(0.02, 1.0), rank)
    U, V = bases(rng, dense, rng.integers(0, min(m, n) + 1))
    rest = dense - U @ (U.T @ dense)
    rest = np.linalg.norm(rest - (rest @ V) @ V.T, 2)
    slack = 1e-12 * (np.linalg.norm(dense, 2) + 1e-300)
    for lower, upper in gap.rest_norms(slope, U, V):
        assert lower <= rest + slack
        assert rest <= upper + slack


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("rank", [0, 3])
def test_bounds_close_in_on_the_norm_as_far_as_they_are_asked_to(monkeypatch, rng, exact, rank):
    monkeypatch.setattr(gap, "_SMALL", 0)
    if not exact:
        monkeypatch.setattr(gap, "_EXACT", 0)
    for m, n in ((230, 210), (210, 230)):
        slope, dense = slope_of(rng, m, n, 0.1, rank)
        norm = np.linalg.norm(dense, 2)
        split = split_of(dense, *bases(rng, dense, 4))
        rough = gap.bound_norm(slope, split, lambda low, up: up <= 2 * low)
        assert rough.lower <= norm * (1 + 1e-12)
        assert norm <= rough.upper <= 2 * rough.lower
        assert not rough.exact
        close = gap.bound_norm(slope, split, lambda low, up: False)
        assert close.exact is exact
        assert norm <= close.upper * (1 + 1e-15)
        assert close.upper <= (1 + 1e-12 if exact else 1.05) * norm


def test_the_answers_own_directions_do_not_hide_a_larger_one(rng):
    # All that the answer spans has norm 1 exactly; one unseen direction in 210 has more.
    U, V = (np.linalg.qr(rng.normal(size=(size, 210)))[0] for size in (260, 240))
    s = np.r_[np.ones(20), 1.001, rng.uniform(0.0, 0.9, size=189)]
    slope = Slope(numpy, sp.csr_matrix((U * s) @ V.T))
    split = split_of((U * s) @ V.T, U[:, :20], V[:, :20])
    found = gap.bound_norm(slope, split, lambda low, up: up <= (1 + 1e-9) * low)
    assert 1.001 * (1 - 1e-12) <= found.upper <= 1.001 * (1 + 1e-6)
    assert found.lower == pytest.approx(1.001, rel=1e-9)


def test_what_ties_the_answer_to_the_rest_counts(rng):
    # One direction within, one without, and something between them: the norm is 1.01.
    U, V = (np.linalg.qr(rng.normal(size=(size, 2)))[0] for size in (260, 240))
    dense = U @ np.array([[1.0, 0.01], [0.01, 1.0]]) @ V.T
    split = split_of(dense, U[:, :1], V[:, :1])
    slope = Slope(numpy, sp.csr_matrix(dense))
    found = gap.bound_norm(slope, split, lambda low, up: up <= 1.05 * low)
    assert found.lower == pytest.approx(1.0, rel=1e-12)
    assert found.upper == pytest.approx(1.01, rel=1e-9)


def test_a_spectrum_without_gaps_does_not_fool_the_bounds():
    eigenvalues = np.r_[np.linspace(0.0, 0.99, 239), 1.0]
    slope = Slope(numpy, sp.csr_matrix(sp.diags_array(np.sqrt(eigenvalues))))
    nobody = np.empty((240, 0))
    found = list(gap.rest_norms(slope, nobody, nobody))
    assert all(lower <= 1.0 + 1e-12 and upper >= 1.0 for lower, upper in found)
    lowers = [lower for lower, _ in found]
    assert np.diff(lowers).min() >= -1e-12
    assert found[-1][1] <= 1.02


def test_products_are_the_same_in_strips(monkeypatch, rng):
    A, B = rng.normal(size=(31, 4)), rng.normal(size=(23, 4))
    rows, cols = rng.integers(0, 31, size=100), rng.integers(0, 23, size=100)
    for strips in (1, 3):
        monkeypatch.setattr(threads, "strips", lambda work, strips=strips: strips)
        for density in (0.0, 0.05, 1.0):
            slope, dense = slope_of(np.random.default_rng(0), 31, 23, density, 2)
            assert np.allclose(slope.times(B), dense @ B, atol=1e-12)
            assert np.allclose(slope.transposed_times(A), dense.T @ A, atol=1e-12)
        assert np.allclose(entries(numpy, A, B, rows, cols), (A @ B.T)[rows, cols], atol=1e-13)
