import itertools
import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from solvers.completion._observations import Entries, observe, read_entries

SHAPE = 7, 9


@pytest.fixture
def data(rng):
    """Rows, columns and values, in no order, and the same with NaN for gaps."""
    rows, cols = np.nonzero(rng.random(SHAPE) < 0.5)
    order = rng.permutation(rows.size)
    rows, cols = rows[order], cols[order]
    vals = rng.normal(size=rows.size)
    vals[3] = 0.0
    dense = np.full(SHAPE, np.nan)
    dense[rows, cols] = vals
    return rows, cols, vals, dense


def table(M, shape=None, weights=None, **options):
    """What the door makes of a matrix: entries by row with NaN elsewhere, and their weights."""
    obs = observe(read_entries(M, shape, weights), **options)
    out = np.full(obs.shape, np.nan)
    out[obs.rows, obs.cols] = obs.by_row.val
    w = np.full(obs.shape, np.nan)
    w[obs.rows, obs.cols] = obs.by_row.weight if obs.by_row.weight.size else 1.0
    return out, w


def masked(dense):
    return np.ma.masked_invalid(dense)


def hard_masked(dense):
    return np.ma.array(np.nan_to_num(dense, nan=5.0), mask=np.isnan(dense), hard_mask=True)


def unsorted(dense):
    csr = coo(dense).tocsr()
    ptr, idx, val = csr.indptr, csr.indices.copy(), csr.data.copy()
    for i, j in itertools.pairwise(ptr):
        idx[i:j], val[i:j] = idx[i:j][::-1].copy(), val[i:j][::-1].copy()
    return sp.csr_array((val, idx, ptr), shape=dense.shape)


def coo(dense):
    rows, cols = np.nonzero(~np.isnan(dense))
    return sp.coo_array((dense[rows, cols], (rows, cols)), shape=dense.shape)


def long_indices(dense):
    csr = coo(dense).tocsr()
    csr.indices, csr.indptr = csr.indices.astype(np.int64), csr.indptr.astype(np.int64)
    return csr


def strided(dense):
    wide = np.full((2 * dense.shape[0], 3 * dense.shape[1]), np.inf)
    wide[::2, ::3] = dense
    return wide[::2, ::3]


def read_only(dense):
    dense = dense.copy()
    dense.flags.writeable = False
    return dense


FORMS = {
    "array": lambda x: x,
    "list": lambda x: x.tolist(),
    "Fortran": np.asfortranarray,
    "strided": strided,
    "backwards": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "read-only": read_only,
    "big-endian": lambda x: x.astype(">f8"),
    "masked": masked,
    "hard mask": hard_masked,
    "coo": coo,
    "coo matrix": lambda x: sp.coo_matrix(coo(x)),
    "csr": lambda x: coo(x).tocsr(),
    "csc": lambda x: coo(x).tocsc(),
    "unsorted": unsorted,
    "long indices": long_indices,
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_entries(data, form):
    M = FORMS[form](data[3])
    np.testing.assert_array_equal(table(M)[0], data[3])
    np.testing.assert_array_equal(table(M, SHAPE)[0], data[3])


@pytest.mark.parametrize("form", ["lil", "dok", "dia", "bsr"])
def test_formats_that_do_not_keep_zeros_apart_are_read_too(data, form):
    M = np.nan_to_num(data[3])
    got = table(sp.coo_array(M).asformat(form))[0]
    np.testing.assert_array_equal(np.nan_to_num(got), M)


@pytest.mark.parametrize("form", ["array", "masked", "unsorted", "strided"])
def test_reading_changes_nothing_of_the_callers(data, form):
    M = FORMS[form](data[3])
    parts = (M.data, M.indices, M.indptr) if form == "unsorted" else (np.ma.getdata(M),)
    before = [part.copy() for part in parts]
    observe(read_entries(M, None, np.ones(data[2].size)))
    for part, copy in zip(parts, before, strict=True):
        np.testing.assert_array_equal(part, copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x.astype(np.int8),
        lambda x: x.astype(np.uint64),
        lambda x: x.astype(">i4"),
        lambda x: np.repeat(x, 2)[::2],
        lambda x: x.tolist(),
        read_only,
    ],
    ids=["int8", "uint64", "big-endian", "strided", "list", "read-only"],
)
def test_triples_may_come_in_any_layout(data, change):
    rows, cols, vals, dense = data
    got = table((change(rows), change(cols), vals), SHAPE)[0]
    np.testing.assert_array_equal(got, dense)
    np.testing.assert_array_equal(table((rows, cols, vals[::-1].copy()[::-1]), SHAPE)[0], dense)


def test_narrow_indices_reach_beyond_their_own_range():
    rows = np.array([0, 100], np.int8)
    assert table((rows, rows, [1.0, 2.0]), (300, 300))[0][100, 100] == 2.0


def test_whole_numbers_and_booleans_become_double_precision(data):
    rows, cols, vals, _ = data
    for kind in (int, bool, np.int8):
        entries = read_entries((rows, cols, np.rint(vals).astype(kind)), SHAPE)
        assert entries.vals.dtype == np.float64
    ints = np.ma.array(np.arange(6).reshape(2, 3), mask=[[0, 1, 0], [0, 0, 1]])
    expected = [[0.0, np.nan, 2.0], [3.0, 4.0, np.nan]]
    np.testing.assert_array_equal(table(ints)[0], expected)
    np.testing.assert_array_equal(table(np.ma.array(ints.data, mask=np.ma.nomask))[0], ints.data)
    yes = sp.csr_array(np.array([[True, False], [False, True]]))
    np.testing.assert_array_equal(table(yes)[0], [[1.0, np.nan], [np.nan, 1.0]])


def test_precision_is_kept_or_as_asked(data):
    rows, cols, vals, dense = data
    single = vals.astype(np.float32)
    assert read_entries((rows, cols, single), SHAPE).vals.dtype == np.float32
    assert read_entries(dense.astype(np.float32)).vals.dtype == np.float32
    # A weight of double precision asks for it.
    assert read_entries((rows, cols, single), SHAPE, vals**2).vals.dtype == np.float64
    wide = np.dtype(np.float64)
    assert read_entries((rows, cols, single), SHAPE, None, wide).vals.dtype == np.float64


def test_data_frames_bring_their_gaps(data):
    pandas = pytest.importorskip("pandas")
    dense = data[3]
    np.testing.assert_array_equal(table(pandas.DataFrame(dense))[0], dense)
    frame = pandas.DataFrame({"a": [1, None, 3], "b": [True, False, True]}).astype({"a": "Int64"})
    np.testing.assert_array_equal(table(frame)[0], [[1, 1], [np.nan, 0], [3, 1]])
    rows, cols, vals, _ = data
    series = tuple(pandas.Series(x) for x in (rows, cols, vals))
    np.testing.assert_array_equal(table(series, SHAPE)[0], dense)


def test_explicit_zeros_are_entries(data):
    assert table(coo(data[3]))[0][data[0][3], data[1][3]] == 0.0


@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (6, 1)])
def test_the_smallest_shapes_are_read(shape):
    M = np.arange(np.prod(shape), dtype=float).reshape(shape)
    M[-1, -1] = np.nan if M.size > 1 else 2.0
    np.testing.assert_array_equal(table(M)[0], M)


def test_sides_agree_with_each_other_and_with_the_callers_order(data):
    rows, cols, vals, _ = data
    obs = observe(read_entries((rows, cols, vals), SHAPE, vals**2 + 1.0))
    by_row, by_col = obs.by_row, obs.by_col
    np.testing.assert_array_equal(np.lexsort((obs.cols, obs.rows)), np.arange(obs.size))
    np.testing.assert_array_equal(by_col.val, by_row.val[by_col.perm])
    np.testing.assert_array_equal(by_col.weight, by_row.weight[by_col.perm])
    np.testing.assert_array_equal(by_col.idx, obs.rows[by_col.perm])
    assert by_row.perm.size == 0
    assert (by_row.ptr.dtype, by_row.idx.dtype, by_col.perm.dtype) == (
        np.int64,
        np.int32,
        np.int32,
    )
    np.testing.assert_array_equal(obs.in_callers_order(by_row.val, np.nan), vals)
    other = obs.with_values(by_row.val + 1.0, by_row.weight)
    np.testing.assert_array_equal(other.by_col.val, by_col.val + 1.0)


# Weights and duplicates.


@pytest.mark.parametrize("form", ["coo", "csr", "csc", "unsorted", "triples", "array", "masked"])
def test_weights_follow_the_stored_entries(data, form):
    rows, cols, vals, dense = data
    M = (rows, cols, vals) if form == "triples" else FORMS[form](dense)
    if form == "triples":
        places = rows, cols
    elif form in ("array", "masked"):
        places = np.nonzero(~np.isnan(dense))
    else:
        places = M.tocoo().coords
    weights = 1.0 + places[0] + 100.0 * places[1]
    i, j = np.indices(SHAPE)
    expected = np.where(np.isnan(dense), np.nan, 1.0 + i + 100.0 * j)
    np.testing.assert_array_equal(table(M, SHAPE, weights)[1], expected)


def test_weights_of_a_dense_matrix_may_have_its_shape_and_gaps(data):
    dense = data[3]
    i, j = np.indices(SHAPE)
    # What is said of missing entries does not matter.
    weights = np.where(np.isnan(dense), np.nan, 1.0 + i + 100.0 * j)
    for M in (dense, masked(dense)):
        np.testing.assert_array_equal(table(M, None, weights)[1], weights)


def test_entries_of_weight_zero_and_those_left_out_are_gone(data):
    rows, cols, vals, dense = data
    weights = np.ones(vals.size)
    weights[[1, 5]] = 0.0
    expected = dense.copy()
    for p in (1, 5, 2, 8):
        expected[rows[p], cols[p]] = np.nan
    entries = read_entries((rows, cols, vals), SHAPE, weights)
    obs = observe(entries, without=np.array([2, 8]))
    got = np.full(SHAPE, np.nan)
    got[obs.rows, obs.cols] = obs.by_row.val
    np.testing.assert_array_equal(got, expected)
    back = obs.in_callers_order(np.ones(obs.size), 0.0)
    np.testing.assert_array_equal(np.flatnonzero(back == 0.0), [1, 2, 5, 8])


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 2, st.integers(-9, 9), st.integers(0, 2))))
def test_duplicates_are_merged_as_told(entries):
    entries.append((0, 0, 1, 1))
    rows, cols, vals, weights = map(np.array, zip(*entries, strict=True))
    groups = {}
    for i, j, v, w in entries:
        if w:
            groups.setdefault((i, j), []).append((float(v), float(w)))
    rules = {
        "mean": lambda vw: (
            sum(v * w for v, w in vw) / sum(w for _, w in vw),
            sum(w for _, w in vw),
        ),
        "sum": lambda vw: (sum(v for v, _ in vw), vw[-1][1]),
        "last": lambda vw: vw[-1],
    }
    entered = read_entries((rows, cols, vals), (4, 4), weights)
    for duplicates, rule in rules.items():
        obs = observe(entered, duplicates)
        assert list(zip(obs.rows.tolist(), obs.cols.tolist(), strict=True)) == sorted(groups)
        found = np.stack([obs.by_row.val, obs.by_row.weight], axis=1)
        np.testing.assert_allclose(found, [rule(groups[k]) for k in sorted(groups)], rtol=1e-14)
        # Whoever asks for his entries gets the merged ones.
        places = obs.in_callers_order(obs.rows * 10.0 + obs.cols, -1.0)
        np.testing.assert_array_equal(places, np.where(weights > 0, 10.0 * rows + cols, -1.0))
        np.testing.assert_array_equal(obs.by_col.val, obs.by_row.val[obs.by_col.perm])


def test_a_mean_without_weights_counts_its_entries():
    M = sp.coo_array(([1.0, 4.0, 5.0], ([0, 1, 1], [0, 1, 1])), shape=(2, 2))
    values, weights = table(M, duplicates="mean")
    assert (values[1, 1], weights[1, 1], weights[0, 0]) == (4.5, 2.0, 1.0)


def test_duplicates_are_an_error_that_names_the_first_pair():
    M = sp.coo_array((np.ones(5), ([2, 0, 1, 2, 1], [1, 0, 2, 1, 2])), shape=(3, 3))
    with pytest.raises(ValueError, match=r"^`M` holds the entry \(1, 2\) twice; .*'mean'"):
        observe(read_entries(M))
    # The end of a row and the beginning of the next are no duplicates.
    fine = sp.coo_array((np.ones(3), ([0, 1, 2], [1, 1, 1])), shape=(4, 3))
    assert observe(read_entries(fine)).size == 3


# What does not fit in 32 bits.


def test_places_are_wide_where_there_are_too_many_for_32_bits(data, monkeypatch):
    from solvers.completion.kernels import cpu

    monkeypatch.setattr(cpu, "_LARGEST_PLACE", 4)
    rows, cols, vals, _ = data
    obs = observe(read_entries((rows, cols, vals), SHAPE))
    assert obs.by_col.perm.dtype == np.int64
    np.testing.assert_array_equal(obs.in_callers_order(obs.by_row.val, np.nan), vals)
    np.testing.assert_array_equal(obs.by_col.val, obs.by_row.val[obs.by_col.perm])


def test_shapes_whose_places_need_64_bits_are_fine():
    # i * n + j does not fit in 32 bits, and neither do sums of such.
    shape = 3, 2**31 - 1
    entries = read_entries(([0, 2, 2], [0, 2**31 - 2, 5], [1.0, 2.0, 3.0]), shape)
    assert entries.cols.dtype == np.int32
    assert entries.cols.max() == 2**31 - 2
    with pytest.raises(ValueError, match=r"^`shape` came as \(2147483648, 3\); expected at most"):
        read_entries(([0], [0], [1.0]), (2**31, 3))


# Errors.


def bad(data):
    rows, cols, vals, dense = data

    def put(x, where, value):
        x = x.copy()
        x[where] = value
        return x

    broken = coo(dense).tocsr()
    broken.indices = put(broken.indices, 4, 60)
    stray = coo(dense)
    stray.coords = put(stray.coords[0], 2, -1), stray.coords[1]
    nan_in_mask = np.ma.array(dense, mask=np.isnan(dense) & (np.arange(9) > 0))
    triple = rows, cols, vals
    return {
        "empty triples": (([], [], []), SHAPE, None, ValueError, "^`M` holds no observed entries"),
        "all missing": (np.full((2, 3), np.nan), None, None, ValueError, "^`M` holds no observed"),
        "nothing stored": (sp.csr_array(SHAPE), None, None, ValueError, "^`M` holds no observed"),
        "all masked": (np.ma.masked_all((2, 2)), None, None, ValueError, "^`M` holds no observed"),
        "no rows": (np.empty((0, 3)), None, None, ValueError, "^`M` holds no observed"),
        "nan value": (
            (rows, cols, put(vals, 17, np.nan)),
            SHAPE,
            None,
            ValueError,
            r"^`vals` contains nan at vals\[17\]; expected finite",
        ),
        "inf stored": (
            sp.csr_array([[1.0, np.inf]]),
            None,
            None,
            ValueError,
            r"^`M` contains inf at M.data\[1\]",
        ),
        "inf in dense": (
            put(dense, (3, 4), -np.inf),
            None,
            None,
            ValueError,
            r"^`M` contains -inf at \(3, 4\); expected finite numbers, or NaN",
        ),
        "nan not masked": (
            nan_in_mask,
            None,
            None,
            ValueError,
            r"^`M` contains nan at \(\d, 0\); .* where the mask is False",
        ),
        "row outside": (
            (put(rows, 3, 12), cols, vals),
            SHAPE,
            None,
            ValueError,
            r"^`rows` contains 12 at rows\[3\]; expected numbers in \[0, 7\)",
        ),
        "negative column": (
            (rows, put(cols, 6, -1), vals),
            SHAPE,
            None,
            ValueError,
            r"^`cols` contains -1 at cols\[6\]",
        ),
        "negative int8": (
            (put(rows.astype(np.int8), 2, -3), cols, vals),
            SHAPE,
            None,
            ValueError,
            r"^`rows` contains -3 at rows\[2\]",
        ),
        "huge uint64": (
            (put(rows.astype(np.uint64), 2, 2**64 - 1), cols, vals),
            SHAPE,
            None,
            ValueError,
            r"^`rows` contains 18446744073709551615 at rows\[2\]",
        ),
        "sparse with stray index": (
            broken,
            None,
            None,
            ValueError,
            r"^`M` holds indices outside its shape \(7, 9\)",
        ),
        "negative in sparse": (stray, None, None, ValueError, "^`M` holds indices outside"),
        "float index": (
            (rows + 0.5, cols, vals),
            SHAPE,
            None,
            TypeError,
            "^`rows` came with dtype",
        ),
        "bool index": ((rows > 2, cols, vals), SHAPE, None, TypeError, "^`rows` came with dtype"),
        "unequal lengths": (
            (rows, cols[1:], vals),
            SHAPE,
            None,
            ValueError,
            "^`rows`, `cols` and `vals` came with shapes",
        ),
        "matrices as triples": ((dense,) * 3, SHAPE, None, ValueError, "^`rows`, `cols` and"),
        "two parts": ((rows, cols), SHAPE, None, ValueError, "^`M` came as a tuple of 2"),
        "no shape": (triple, None, None, TypeError, "^`shape` is required"),
        "shape of another kind": (triple, 7, None, TypeError, "^`shape` came as int"),
        "three lengths": (triple, (7, 9, 1), None, TypeError, "^`shape` came as tuple"),
        "no length": (triple, (0, 9), None, ValueError, "^`shape` came as 0"),
        "half a length": (triple, (7.5, 9), None, TypeError, "^`shape` came as float"),
        "other shape": (
            dense,
            (9, 7),
            None,
            ValueError,
            r"^`shape` came as \(9, 7\); expected \(7",
        ),
        "other sparse shape": (coo(dense), (9, 7), None, ValueError, r"^`shape` came as \(9, 7\)"),
        "vector": (vals, None, None, ValueError, "^`M` came 1-D"),
        "cube": (dense[None], None, None, ValueError, "^`M` came 3-D"),
        "number": (3.0, None, None, ValueError, "^`M` came 0-D"),
        "sparse vector": (sp.coo_array(np.ones(3)), None, None, ValueError, "^`M` came 1-D"),
        "complex": ((rows, cols, vals + 0j), SHAPE, None, TypeError, "^`vals` .* complex128"),
        "complex dense": (dense + 0j, None, None, TypeError, "^`M` .* complex128"),
        "complex sparse": (coo(dense + 0j), None, None, TypeError, "^`M` .* complex128"),
        "half": (dense.astype(np.float16), None, None, TypeError, "^`M` .* float16"),
        "objects": (
            (rows, cols, vals.astype(object)),
            SHAPE,
            None,
            TypeError,
            "^`vals` .* object",
        ),
        "strings": (np.full((2, 2), "a"), None, None, TypeError, "^`M` .* str"),
        "no array": (object(), None, None, TypeError, "^`M` came as object"),
        "negative weight": (
            triple,
            SHAPE,
            put(vals**2, 2, -1.0),
            ValueError,
            "^`weights` contains -1",
        ),
        "nan weight": (
            triple,
            SHAPE,
            put(vals**2, 2, np.nan),
            ValueError,
            r"^`weights` contains nan at weights\[2\]",
        ),
        "weights of other length": (
            triple,
            SHAPE,
            np.ones(3),
            ValueError,
            r"^`weights` came with shape \(3,\); expected one for each entry = \(\d+,\)",
        ),
        "weights as matrix": (
            triple,
            SHAPE,
            np.ones(SHAPE),
            ValueError,
            "^`weights` came with shape",
        ),
        "weights of other shape": (
            dense,
            None,
            np.ones((9, 7)),
            ValueError,
            "^`weights` came with",
        ),
        "weights as words": (triple, SHAPE, "ones", TypeError, "^`weights` came as str"),
    }


NAMES = list(bad((np.zeros(20, int), np.zeros(20, int), np.zeros(20), np.ones(SHAPE))))


@pytest.mark.parametrize("name", NAMES)
def test_bad_data_are_refused_by_name(data, name):
    M, shape, weights, kind, message = bad(data)[name]
    with pytest.raises(kind, match=message):
        read_entries(M, shape, weights)


@pytest.mark.filterwarnings("ignore:the matrix subclass")
def test_a_numpy_matrix_is_refused_with_a_remedy():
    with pytest.raises(TypeError, match=r"^`M` came as numpy.matrix.*np.asarray\(M\)"):
        read_entries(np.matrix([[1.0, np.nan]]))


def test_weights_that_leave_nothing_are_refused(data):
    rows, cols, vals, _ = data
    with pytest.raises(ValueError, match=r"^`weights` leaves no observed entries"):
        observe(read_entries((rows, cols, vals), SHAPE, np.zeros(vals.size)))


def test_messages_call_the_matrix_what_the_caller_calls_it():
    for M in (sp.csr_array([[np.inf]]), [[np.inf]]):
        with pytest.raises(ValueError, match=r"^`R` contains inf"):
            read_entries(M, name="R")
    with pytest.raises(ValueError, match=r"^`R` holds the entry \(0, 0\) twice"):
        observe(read_entries(([0, 0], [0, 0], [1.0, 1.0]), (1, 1), name="R"))
    assert isinstance(read_entries(np.full((2, 2), np.nan), empty=True), Entries)


def test_reading_triples_needs_little_beyond_what_it_keeps(rng):
    count, shape = 200_000, (3000, 2000)
    flat = rng.choice(shape[0] * shape[1], count, replace=False)
    triple = flat // shape[1], flat % shape[1], rng.normal(size=count)
    observe(read_entries(triple, shape))  # compiles
    tracemalloc.start()
    obs = observe(read_entries(triple, shape))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert obs.size == count
    # 8 bytes of row and column, 4 of order, 12 by row, 16 by column; sorting has a part of it.
    assert peak < 60 * count


def test_nothing_is_no_matrix():
    with pytest.raises(TypeError, match="`M` came as NoneType"):
        read_entries(None)
