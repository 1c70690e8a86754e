import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from solvers import completion
from solvers._core.backend import get_backend
from solvers.completion import _certificate_report as report

seeds = st.integers(0, 2**32 - 1)
numpy = get_backend("numpy")


def csr(mask):
    S = sp.csr_matrix(mask.astype(float))
    return S.indptr.astype(np.int64), S.indices


def components_by_spreading(mask):
    """Labels, in no particular order, by passing the smallest number on until nothing changes."""
    m, n = mask.shape
    labels = np.arange(m + n)
    while True:
        before = labels.copy()
        for i, j in zip(*np.nonzero(mask), strict=True):
            labels[i] = labels[m + j] = min(labels[i], labels[m + j])
        if np.array_equal(before, labels):
            break
    labels[np.r_[mask.sum(axis=1), mask.sum(axis=0)] == 0] = -1
    return labels


@given(seeds)
def test_components_are_those_of_the_bipartite_graph(seed):
    rng = np.random.default_rng(seed)
    m, n = rng.integers(1, 12, size=2)
    mask = rng.random((m, n)) < rng.uniform(0.0, 0.4)
    found, expected = report.components(numpy, *csr(mask), n), components_by_spreading(mask)
    assert found.shape == (m + n,)
    assert np.array_equal(found == -1, expected == -1)
    same = found[:, None] == found
    assert np.array_equal(same, expected[:, None] == expected)
    assert set(found) - {-1} == set(range(found.max() + 1))


@given(seeds)
def test_rows_are_determined_by_as_many_independent_entries_as_the_rank(seed):
    rng = np.random.default_rng(seed)
    m, n = rng.integers(2, 15, size=2)
    k = rng.integers(1, min(m, n) + 1)
    V = rng.normal(size=(n, k))
    V[rng.random(n) < 0.3, 0] = 0.0
    if k > 1:
        # Columns that say the same twice.
        V[n // 2 :] = V[: n - n // 2] * rng.uniform(0.5, 2.0, size=(n - n // 2, 1))
    Q, R = np.linalg.qr(V)
    if abs(np.diag(R)).min() <= 1e-3:
        return
    mask = rng.random((m, n)) < rng.uniform(0.1, 1.0)
    singular = [np.linalg.svd(Q[row], compute_uv=False) for row in mask]
    expected = [
        i
        for i, s in enumerate(singular)
        if mask[i].sum() < k or s[-1] ** 2 < 1e-10 * mask[i].sum() / n
    ]
    assert report.unidentified(numpy, *csr(mask), Q).tolist() == expected


def test_batches_change_nothing(monkeypatch, rng):
    Q = np.linalg.qr(rng.normal(size=(30, 3)))[0]
    Q[::2, 2] = 0.0
    mask = rng.random((200, 30)) < rng.random((200, 1))
    mask[::3, 1::2] = False
    whole = report.unidentified(numpy, *csr(mask), Q)
    assert 60 <= whole.size < 140
    monkeypatch.setattr(report, "_BATCH", 100)
    assert np.array_equal(report.unidentified(numpy, *csr(mask), Q), whole)
    # Without any effort only the counts are left, and what they say is still so.
    monkeypatch.setattr(report, "_WORK", 0.0)
    few = report.unidentified(numpy, *csr(mask), Q)
    assert np.array_equal(few, np.flatnonzero(mask.sum(axis=1) < 3))


def test_each_component_has_its_own_basis(rng):
    # Two blocks, one of them a million times smaller: its rows are as well determined.
    V = np.vstack([np.eye(4, 2), 1e-9 * rng.normal(size=(5, 2))])
    V = np.linalg.qr(V)[0]
    labels = np.repeat([1, 0], [4, 5])
    mask = np.zeros((3, 9), bool)
    mask[0, :3] = mask[1, 5:] = mask[2, 4:5] = True
    assert 1 in report.unidentified(numpy, *csr(mask), V)
    Q = report.own_bases(numpy, V, labels)
    assert report.unidentified(numpy, *csr(mask), Q).tolist() == [2]
    for part, size in ((Q[:4], 4), (Q[4:], 5)):
        assert np.allclose(part.T @ part, size / 9 * np.eye(2), atol=1e-12)
    one = report.own_bases(numpy, V, np.zeros(9, int))
    assert one is V


@pytest.mark.parametrize("k", [0, 2])
def test_rows_without_entries_are_never_determined(k):
    mask = np.array([[True, True, True], [False, False, False]])
    V = np.linalg.qr(np.arange(9.0).reshape(3, 3) ** 2)[0][:, :k]
    assert report.unidentified(numpy, *csr(mask), V).tolist() == [1]


@given(seeds)
def test_the_curvature_is_the_worst_case_of_all_changes_that_keep_the_rank(seed):
    rng = np.random.default_rng(seed)
    m, n = rng.integers(2, 7, size=2)
    k = rng.integers(1, min(m, n) + 1)
    U, V = (np.linalg.qr(rng.normal(size=(size, k)))[0] for size in (m, n))
    mask = rng.random((m, n)) < rng.uniform(0.3, 1.0)
    mask[0, 0] = True
    # An orthonormal basis of all A V^T + U B^T, by brute force.
    changes = [np.outer(e, v).ravel() for e in np.eye(m) for v in V.T]
    changes += [np.outer(u, e).ravel() for e in np.eye(n) for u in U.T]
    basis, s, _ = np.linalg.svd(np.array(changes).T, full_matrices=False)
    basis = basis[mask.ravel()][:, s > 1e-9]
    J = np.linalg.svd(basis, compute_uv=False)
    least = J[-1] ** 2 if basis.shape[0] >= basis.shape[1] else 0.0
    found = report.smallest_curvature(numpy, *np.nonzero(mask), U, V)
    assert found == pytest.approx(least * m * n / mask.sum(), rel=1e-9, abs=1e-12)


def test_an_exact_fit_says_what_it_leaves_open(rng):
    L, R = rng.normal(size=(9, 1)), rng.normal(size=(8, 1))
    M = L @ R.T
    assert completion.certify(M, L, [1.0], R).details["curvature"] == pytest.approx(1.0)
    tree = np.full(M.shape, np.nan)
    tree[0], tree[:, 0] = M[0], M[:, 0]
    assert completion.certify(tree, L, [1.0], R).details["curvature"] > 1e-3
    M[:4, :3] = M[4:, 3:] = np.nan
    found = completion.certify(M, L, [1.0], R)
    assert found.holds
    assert found.details["components"] == 2
    assert found.details["curvature"] <= 1e-12
    res = completion.alternating_minimization(M, 1, rng=0)
    assert res.success
    assert "fall into 2 parts" in res.message
    assert len(set(res.components)) == 2
    tree[1, 0] = np.nan
    res = completion.alternating_minimization(tree, 1, rng=0)
    assert "Too few entries determine 1 row." in res.message
    assert res.unidentified_rows.tolist() == [1]
