"""Matrices come in as they are, whatever their form, and stay as they were."""

import itertools

import numpy as np
import pytest
import scipy.sparse as sp

from solvers.bcd._design import read_design

SHAPE = 7, 5


@pytest.fixture(name="X")
def matrix(rng):
    """Whole numbers, some of them zero, so that every precision holds them."""
    return np.where(rng.random(SHAPE) < 0.6, rng.integers(-4, 5, SHAPE), 0).astype(np.float64)


def read(X):
    return read_design(X)[1]


def dense(design):
    return design.X.toarray() if design.sparse else np.asarray(design.X)


def strided(X):
    wide = np.full((2 * SHAPE[0], 3 * SHAPE[1]), np.nan)
    wide[::2, ::3] = X
    return wide[::2, ::3]


def read_only(X):
    X = X.copy()
    X.flags.writeable = False
    return X


def unsorted(X):
    csc = sp.csc_array(X)
    for i, j in itertools.pairwise(csc.indptr):
        csc.indices[i:j], csc.data[i:j] = csc.indices[i:j][::-1].copy(), csc.data[i:j][::-1].copy()
    return sp.csc_array((csc.data, csc.indices, csc.indptr), shape=csc.shape)


def twice(kind):
    """Half of every entry, stored two times."""

    def form(X):
        rows, cols = np.nonzero(X)
        order = np.argsort(np.tile(cols, 2), kind="stable")
        rows, cols = np.tile(rows, 2)[order], np.tile(cols, 2)[order]
        vals = 0.5 * X[rows, cols]
        if kind == "coo":
            return sp.coo_array((vals, (rows, cols)), shape=X.shape)
        ptr = np.searchsorted(cols, np.arange(X.shape[1] + 1))
        return sp.csc_array((vals, rows, ptr), shape=X.shape)

    return form


def stored_zeros(X):
    csc = sp.csc_array(np.ones_like(X))
    csc.data[:] = X.T.ravel()
    return csc


def read_only_sparse(X):
    csc = sp.csc_array(X)
    for part in (csc.data, csc.indices, csc.indptr):
        part.flags.writeable = False
    return csc


def long_indices(X):
    csc = sp.csc_array(X)
    csc.indices, csc.indptr = csc.indices.astype(np.int64), csc.indptr.astype(np.int64)
    return csc


FORMS = {
    "array": lambda X: X,
    "list": lambda X: X.tolist(),
    "Fortran": np.asfortranarray,
    "strided": strided,
    "backwards": lambda X: X[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": read_only,
    "big-endian": lambda X: X.astype(">f8"),
    "int8": lambda X: X.astype(np.int8),
    "int8, Fortran": lambda X: np.asfortranarray(X.astype(np.int8)),
    "csc": sp.csc_array,
    "csc matrix": sp.csc_matrix,
    "csr": sp.csr_array,
    "coo": sp.coo_matrix,
    "lil": lambda X: sp.csr_array(X).tolil(),
    "dia": lambda X: sp.csr_array(X).todia(),
    "int8, sparse": lambda X: sp.csr_array(X.astype(np.int8)),
    "unsorted": unsorted,
    "duplicates": twice("csc"),
    "duplicates, coo": twice("coo"),
    "stored zeros": stored_zeros,
    "read-only, sparse": read_only_sparse,
    "long indices": long_indices,
}


def parts(M):
    """What a caller could see change."""
    if sp.issparse(M) and M.format in ("csc", "csr"):
        return M.data, M.indices, M.indptr
    if sp.issparse(M) and M.format == "coo":
        return M.data, M.row, M.col
    return (M.toarray() if sp.issparse(M) else np.asarray(M),)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_matrix_and_stays_as_it_was(X, form):
    M = FORMS[form](X)
    before = [part.copy() for part in parts(M)]
    design = read(M)
    np.testing.assert_array_equal(dense(design), X)
    assert design.dtype == np.float64
    assert design.shape == SHAPE
    assert design.sparse == sp.issparse(M)
    for part, copy in zip(parts(M), before, strict=True):
        np.testing.assert_array_equal(part, copy)


@pytest.mark.parametrize("form", FORMS)
def test_kernels_get_plain_arrays_in_memory(X, form):
    design = read(FORMS[form](X))
    held = parts(design.X) if design.sparse else (design.X,)
    for array in held:
        assert type(array) is np.ndarray
        assert array.flags.writeable
        assert array.flags.aligned
        assert array.dtype.isnative
        assert array.flags.c_contiguous or array.flags.f_contiguous
    if design.sparse:
        assert design.X.has_canonical_format
        assert design.X.format == "csc"


@pytest.mark.parametrize("form", ["array", "Fortran", "csc"])
def test_what_is_in_form_already_is_not_copied(X, form):
    M = FORMS[form](X)
    design = read(M)
    mine, theirs = (A.data if design.sparse else A for A in (design.X, M))
    assert np.shares_memory(mine, theirs)
    assert design.fortran == (form == "Fortran")


@pytest.mark.parametrize("form", ["array", "Fortran", "csc", "csr"])
def test_single_precision_stays(X, form):
    design = read(FORMS[form](X.astype(np.float32)))
    assert design.dtype == np.float32
    assert design.astype(np.float64).dtype == np.float64
    ones = np.ones(SHAPE[0])
    assert all(moment.dtype == np.float64 for moment in design.moments(ones, ones))


@pytest.mark.parametrize("form", ["array", "Fortran", "csc"])
def test_products_columns_and_moments_are_those_of_the_matrix(X, form, rng):
    design = read(FORMS[form](X))
    w, r = rng.random((SHAPE[1], 2)), rng.random((SHAPE[0], 2))
    s, y = rng.random((2, SHAPE[0]))
    np.testing.assert_allclose(design.dot(w), X @ w, atol=1e-12)
    np.testing.assert_allclose(design.rdot(r), X.T @ r, atol=1e-12)
    where = np.array([3, 1])
    columns = design.columns(where)
    np.testing.assert_array_equal(columns.toarray() if design.sparse else columns, X[:, where])
    square, mean, cross = design.moments(s, y)
    np.testing.assert_allclose(square, s @ X**2)
    np.testing.assert_allclose(mean, s @ X, atol=1e-12)
    np.testing.assert_allclose(cross, (s * y) @ X, atol=1e-12)


def test_moments_of_single_precision_do_not_overflow():
    for M in (np.full((2, 1), 1e30, np.float32), sp.csc_array(np.full((2, 1), 1e30, np.float32))):
        square, *_ = read(M).moments(np.ones(2), np.ones(2))
        np.testing.assert_allclose(square, 2e60, rtol=1e-6)


def test_memory_maps_are_read(X, tmp_path):
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    assert type(read(mapped).X) is np.ndarray
    np.testing.assert_array_equal(dense(read(mapped)), X)
    csc = sp.csc_array(X)
    names = "data", "indices", "indptr"
    for name in names:
        np.save(tmp_path / f"{name}.npy", getattr(csc, name))
    loaded = [np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in names]
    design = read(sp.csc_array(tuple(loaded), shape=SHAPE))
    np.testing.assert_array_equal(dense(design), X)
    assert all(type(part) is np.ndarray for part in parts(design.X))


def test_duplicates_of_small_integers_do_not_overflow():
    vals, places = np.array([100, 100], np.int8), ([0, 0], [0, 0])
    assert dense(read(sp.coo_array((vals, places), shape=(2, 2))))[0, 0] == 200.0


def test_a_matrix_may_store_nothing():
    design = read(sp.csc_array((3, 2)))
    assert design.size == 0
    np.testing.assert_array_equal(design.dot(np.ones(2)), np.zeros(3))


def spoilt(X, value):
    X = X.copy()
    X[1, 1] = value
    return X


BAD = {
    "nothing": (lambda X: None, TypeError, "NoneType"),
    "a word": (lambda X: "X", TypeError, "str"),
    "an object": (lambda X: object(), TypeError, "object"),
    "objects": (lambda X: X.astype(object), TypeError, "dtype object"),
    "complex": (lambda X: X + 0j, TypeError, "complex128"),
    "complex, sparse": (lambda X: sp.csc_array(X + 0j), TypeError, "csc_array.*complex128"),
    "half precision": (lambda X: X.astype(np.float16), TypeError, "float16"),
    "masked": (np.ma.array, TypeError, "np.ma.filled"),
    "a vector": (lambda X: X[0], ValueError, "1-D"),
    "a sparse vector": (lambda X: sp.coo_array(X[0]), ValueError, "1-D"),
    "a cube": (lambda X: X[None], ValueError, "3-D"),
    "no rows": (lambda X: X[:0], ValueError, "empty"),
    "no columns": (lambda X: sp.csc_array(X)[:, :0], ValueError, "empty"),
    "NaN": (lambda X: spoilt(X, np.nan), ValueError, "NaN"),
    "infinity": (lambda X: spoilt(X, np.inf), ValueError, "inf"),
    "NaN, sparse": (lambda X: sp.csr_array(spoilt(X, np.nan)), ValueError, "NaN"),
    "ragged": (lambda X: [[1.0], [1.0, 2.0]], ValueError, "array of numbers"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_matrices_are_refused_by_name(X, fault):
    spoil, kind, words = BAD[fault]
    with pytest.raises(kind, match=rf"^`X` .*{words}"):
        read(spoil(X))


def test_sparse_matrices_are_refused_where_they_cannot_be_used(X):
    with pytest.raises(TypeError, match=r"^`V` came as scipy.csc_array.*V.toarray\(\)"):
        read_design(sp.csc_array(X), name="V", sparse_ok=False)
