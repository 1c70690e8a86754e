import numba
import numpy as np
import pytest
import scipy.sparse as sp

from solvers._core.sketch import SRHT, Gaussian, SparseSign


def count_sketch(s, n, *, rng):
    return SparseSign(s, n, 1, rng=rng)


KINDS = pytest.mark.parametrize("kind", [SparseSign, count_sketch, SRHT, Gaussian])


def matrix(sketch):
    return sketch.apply(np.eye(sketch.shape[1]))


def coherent_basis(rng, n, d):
    """Orthonormal columns, half of them unit vectors, so that single rows carry all the weight."""
    half = d // 2
    A = rng.standard_normal((n, d))
    # A distance at which columns of the Hadamard matrix agree in all their leading entries.
    heavy = 256 * np.arange(half)
    A[:, :half], A[heavy] = 0, 0
    A[heavy, :half] = np.eye(half)
    return np.linalg.qr(A)[0]


@KINDS
def test_the_mean_of_the_gram_matrices_is_the_identity(kind, rng):
    s, n, draws = 6, 10, 400
    grams = np.array([(S := matrix(kind(s, n, rng=rng))).T @ S for _ in range(draws)])
    sigma = grams.std(axis=0) / np.sqrt(draws)
    np.testing.assert_array_less(np.abs(grams.mean(axis=0) - np.eye(n)), 5 * sigma + 1e-12)


@pytest.mark.parametrize("kind", [SparseSign, SRHT, Gaussian])
def test_lengths_in_a_coherent_subspace_change_by_less_than_half(kind, rng):
    n, d = 3000, 24
    Q = coherent_basis(rng, n, d)
    for _ in range(10):
        lengths = np.linalg.svd(kind(8 * d, n, rng=rng).apply(Q), compute_uv=False)
        assert np.abs(lengths - 1).max() <= 0.5


@KINDS
@pytest.mark.parametrize(("s", "n"), [(7, 40), (60, 40), (40, 40), (1, 5), (3, 1), (9, 5000)])
def test_the_transpose_is_the_adjoint(kind, s, n, rng):
    S = kind(s, n, rng=rng)
    X, Y = rng.standard_normal((n, 3)), rng.standard_normal((s, 3))
    forth, back = S.apply(X), S.apply_t(Y)
    assert forth.shape == (s, 3)
    assert back.shape == (n, 3)
    np.testing.assert_allclose(np.sum(forth * Y), np.sum(X * back), rtol=1e-11)


@KINDS
def test_equal_seeds_draw_equal_matrices(kind):
    first = matrix(kind(8, 30, rng=5))
    np.testing.assert_array_equal(first, matrix(kind(8, 30, rng=5)))
    np.testing.assert_array_equal(first, matrix(kind(8, 30, rng=np.random.default_rng(5))))
    assert np.any(first != matrix(kind(8, 30, rng=6)))
    stream = np.random.default_rng(5)
    assert np.any(matrix(kind(8, 30, rng=stream)) != matrix(kind(8, 30, rng=stream)))


@KINDS
def test_applying_is_linear_and_the_same_each_time(kind, rng):
    S = kind(8, 30, rng=rng)
    A, B = rng.standard_normal((2, 30, 4))
    np.testing.assert_array_equal(S.apply(A), S.apply(A))
    np.testing.assert_allclose(S.apply(2 * A - B), 2 * S.apply(A) - S.apply(B), atol=1e-13)
    np.testing.assert_allclose(S.apply(A), matrix(S) @ A, atol=1e-13)


@KINDS
def test_vectors_are_columns(kind, rng):
    S, x, y = kind(8, 30, rng=rng), rng.standard_normal(30), rng.standard_normal(8)
    np.testing.assert_array_equal(S.apply(x), S.apply(x[:, None])[:, 0])
    np.testing.assert_array_equal(S.apply_t(y), S.apply_t(y[:, None])[:, 0])


@KINDS
def test_precision_is_kept_and_the_matrix_is_the_same_in_both(kind, rng):
    S, A = kind(8, 300, rng=rng), rng.standard_normal((300, 5))
    single = S.apply(A.astype(np.float32))
    assert single.dtype == S.apply_t(single).dtype == np.float32
    np.testing.assert_allclose(single, S.apply(A), rtol=0, atol=1e-4)
    np.testing.assert_allclose(S.apply_t(single), S.apply_t(S.apply(A)), rtol=0, atol=1e-3)


@KINDS
def test_memory_layout_does_not_matter_and_input_is_not_written_to(kind, rng):
    S, A = kind(8, 40, rng=rng), rng.standard_normal((40, 6))
    frozen = A.copy()
    frozen.flags.writeable = False
    for same in (frozen, np.asfortranarray(A), np.repeat(A, 2, axis=1)[:, ::2], A[::-1][::-1]):
        before = same.copy()
        np.testing.assert_allclose(S.apply(same), S.apply(A), rtol=0, atol=1e-13)
        np.testing.assert_array_equal(same, before)


@pytest.mark.parametrize("kind", [SparseSign, count_sketch, Gaussian])
@pytest.mark.parametrize("convert", [sp.csr_array, sp.csr_matrix, sp.coo_array, sp.csc_array])
def test_a_sparse_matrix_gives_what_the_dense_one_gives(kind, convert, rng):
    A = rng.standard_normal((200, 7)) * (rng.random((200, 7)) < 0.1)
    A[50:100] = 0
    S = kind(12, 200, rng=rng)
    got = S.apply(convert(A))
    assert isinstance(got, np.ndarray)
    np.testing.assert_allclose(got, S.apply(A), atol=1e-13)


def test_a_hadamard_sketch_refuses_to_make_a_sparse_matrix_dense():
    with pytest.raises(TypeError, match=r"`A` came as a sparse .* SparseSign"):
        SRHT(4, 10, rng=0).apply(sp.eye_array(10, format="csr"))


@pytest.mark.parametrize(("s", "nnz"), [(40, 8), (43, 8), (5, 8), (9, 1)])
def test_a_column_of_sparse_signs_has_one_entry_in_each_range_of_rows(s, nnz):
    S = matrix(SparseSign(s, 500, nnz, rng=0))
    nnz = min(s, nnz)
    for a, b in zip(np.arange(nnz) * s // nnz, np.arange(1, nnz + 1) * s // nnz, strict=True):
        entries = S[a:b]
        np.testing.assert_array_equal((entries != 0).sum(axis=0), 1)
        np.testing.assert_allclose(np.abs(entries.sum(axis=0)), nnz**-0.5)
        # Every row is as likely as the others, and each sign as the other.
        counts = (entries != 0).sum(axis=1)
        expected = 500 / (b - a)
        assert np.all(np.abs(counts - expected) <= 5 * np.sqrt(expected))
        assert abs((entries > 0).sum() - 250) <= 5 * np.sqrt(125)


def test_all_rows_of_the_hadamard_transform_keep_lengths_exactly(rng):
    S = SRHT(64, 50, rng=rng)
    np.testing.assert_allclose(matrix(S).T @ matrix(S), np.eye(50), atol=1e-14)
    assert np.all(np.abs(np.abs(matrix(S)) - 1 / 8) < 1e-15)


@pytest.mark.skipif(numba.config.DISABLE_JIT, reason="the compiler is off")
@pytest.mark.parametrize("kind", [SparseSign, SRHT])
def test_the_number_of_threads_changes_no_digit(kind, rng):
    S, A, Y = (
        kind(300, 4000, rng=rng),
        rng.standard_normal((4000, 70)),
        rng.standard_normal((300, 70)),
    )
    before = numba.get_num_threads()
    results = []
    for threads in (1, before):
        numba.set_num_threads(threads)
        results.append((S.apply(A), S.apply_t(Y)))
    numba.set_num_threads(before)
    for one, many in zip(*results, strict=True):
        np.testing.assert_array_equal(one, many)
    np.testing.assert_allclose(np.sum(results[0][0] * Y), np.sum(A * results[0][1]), rtol=1e-11)
