import gc
import os
import pickle
import subprocess
import sys
import weakref
from fractions import Fraction
from types import SimpleNamespace

import numba
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from solvers._core.arrays import Ingest, is_sparse, kind_of, to_numpy
from tests.core.kinds import FOREIGN, KINDS, as_kind, assert_same_kind

MATRIX = np.arange(12.0).reshape(3, 4) - 5


class Elsewhere:
    """An array-API array in a memory of our choice that nobody can read."""

    dtype = np.dtype(np.float64)
    shape = (2,)

    def __init__(self, code, number=0):
        self.code = code, number

    def __array_namespace__(self):
        return np

    def __dlpack_device__(self):
        return self.code

    def __dlpack__(self, **_):
        raise BufferError("sealed")


def frozen(x):
    x.flags.writeable = False
    return x


# ------------------------------------------------------------------------------ in and out again
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_shared_on_the_way_in_and_comes_back_as_itself(kind):
    x = as_kind(MATRIX.astype(np.float32), kind)
    io = Ingest(x=x)
    assert (io.kind, kind_of(x), io.be.name) == (kind, kind, "numpy")
    assert np.shares_memory(io["x"], np.from_dlpack(x))
    back = io.out(io["x"] * 2)
    assert_same_kind(back, x)
    np.testing.assert_array_equal(to_numpy(back), 2 * MATRIX)
    np.testing.assert_array_equal(to_numpy(x), MATRIX)


@pytest.mark.parametrize("kind", ["numpy", "torch", "array_api_strict"])
def test_double_precision_is_kept(kind):
    x = as_kind(MATRIX, kind)
    assert_same_kind(Ingest(x=x).out(np.ones(3)), x)


def test_jax_keeps_double_precision_where_the_user_enabled_it():
    jax = pytest.importorskip("jax")
    with jax.enable_x64(True):
        x = jax.numpy.asarray(MATRIX)
        assert_same_kind(Ingest(x=x).out(np.ones(3)), x)


AWKWARD = {
    "negative strides": MATRIX[::-1, ::-1],
    "transposed": MATRIX.T,
    "every other column": MATRIX[:, ::2],
    "read-only": frozen(MATRIX.copy()),
    "one value": np.broadcast_to(2.5, (3, 4)),
    "big-endian": MATRIX.astype(">f8"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", AWKWARD)
def test_any_layout_can_be_handed_out(layout, kind):
    v = AWKWARD[layout]
    back = Ingest(x=as_kind(np.ones(2, np.float32), kind)).out(v)
    np.testing.assert_array_equal(to_numpy(back), v)
    if kind == "numpy":
        assert back.flags.c_contiguous
        assert back.flags.owndata
        assert back.flags.writeable
        assert back.dtype.isnative
    if kind == "torch":
        assert back.is_contiguous()


def test_floating_results_take_the_precision_of_the_call_and_others_keep_theirs():
    out = Ingest(x=MATRIX.astype(np.float32)).out
    assert out(np.ones(2)).dtype == np.float32
    assert out(np.arange(2)).dtype == np.arange(2).dtype
    assert out(np.array([True])).dtype == bool
    assert out(None) is None


@pytest.mark.parametrize("x", [MATRIX, frozen(MATRIX.copy()), MATRIX.T, MATRIX.astype(int)])
def test_what_goes_out_is_never_the_callers_or_the_solvers_input(x):
    io = Ingest(x=x)
    back = io.out(io["x"])
    assert not np.shares_memory(back, x)
    assert not np.shares_memory(back, io["x"])


@pytest.mark.parametrize("kind", KINDS)
def test_the_way_back_can_be_pickled(kind):
    x = as_kind(np.ones(2, np.float32), kind)
    out = pickle.loads(pickle.dumps(Ingest(x=x).out))
    assert_same_kind(out(np.zeros(3)), x)


def test_a_jax_result_returns_to_the_device_it_came_from():
    pytest.importorskip("jax")
    code = """
import jax, numpy as np
from solvers._core.arrays import Ingest
x = jax.device_put(np.ones(2, np.float32), jax.devices()[1])
assert Ingest(x=x).out(np.ones(3)).devices() == x.devices() != {jax.devices()[0]}
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    run_python(code, **flags)


def run_python(code, **env):
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_door_imports_no_framework_to_recognise_one():
    code = """
import sys, numpy as np
from solvers._core.arrays import Ingest
Ingest(x=np.ones(2), y=[1, 2]).out(np.ones(2))
heavy = {"torch", "jax", "cupy", "pandas", "numba", "scipy"} & set(sys.modules)
assert not heavy, heavy
"""
    run_python(code)


# ------------------------------------------------------------------------------------ normal form
@st.composite
def laid_out(draw):
    """Numbers and an array that holds them in a drawn type, order, byte order and alignment."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)))
    dtype = np.dtype(draw(st.sampled_from(["f4", "f8", "i2", "u4", "i8", "?"])))
    dtype = dtype.newbyteorder(draw(st.sampled_from("<>")))
    values = np.arange(np.prod(shape)).reshape(shape) % 2 if dtype.kind == "b" else None
    values = np.arange(np.prod(shape)).reshape(shape) if values is None else values
    x = np.asarray(values, dtype=dtype, order=draw(st.sampled_from("CF")))
    if draw(st.booleans()):
        x = np.repeat(x, 2, axis=-1)[..., ::2]
    if draw(st.booleans()):
        x = np.flip(np.flip(x).copy())
    if draw(st.booleans()):
        memory = np.empty(x.nbytes + 1, np.uint8)[1:]
        unaligned = memory.view(dtype).reshape(x.shape)
        unaligned[...] = x
        x = unaligned
    x.flags.writeable = draw(st.booleans())
    return values.tolist(), x


@given(laid_out())
def test_every_layout_reaches_the_kernels_as_one_type(pair):
    values, x = pair
    io = Ingest(x=x)
    expected = numba.float32 if x.dtype.kind == "f" and x.itemsize == 4 else numba.float64
    layouts = [io["x"], io.transposed("x"), io.copy("x")]
    assert {numba.typeof(y) for y in layouts} == {numba.types.Array(expected, x.ndim, "C")}
    assert all(y.flags.aligned for y in layouts)
    assert io["x"].tolist() == io.copy("x").tolist() == io.transposed("x").T.tolist() == values


def test_numbers_off_their_natural_address_are_moved():
    x = np.zeros(17, np.uint8)[1:].view(np.float64)
    assert not x.flags.aligned
    assert Ingest(x=x)["x"].flags.aligned


@pytest.mark.parametrize("make", [np.copy, lambda x: frozen(x.copy())])
def test_a_normal_array_is_viewed_even_if_it_is_read_only(make):
    x = make(MATRIX)
    writable = x.flags.writeable
    io = Ingest(x=x)
    assert np.shares_memory(io["x"], x)
    assert io["x"] is io["x"]
    assert x.flags.writeable == writable


def test_a_view_keeps_the_callers_memory_alive():
    x = frozen(MATRIX.copy())
    alive = weakref.ref(x)
    y = Ingest(x=x)["x"]
    del x
    gc.collect()
    assert alive() is not None
    assert y[2, 3] == MATRIX[2, 3]


def test_a_read_only_memory_map_is_not_copied(tmp_path):
    MATRIX.tofile(tmp_path / "C")
    C = np.memmap(tmp_path / "C", dtype=np.float64, mode="r", shape=MATRIX.shape)
    y = Ingest(C=C)["C"]
    assert np.shares_memory(y, C)
    assert type(y) is np.ndarray
    np.testing.assert_array_equal(y, MATRIX)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_the_transpose_of_a_fortran_ordered_matrix_is_a_view(kind):
    x = as_kind(MATRIX, kind).T
    io = Ingest(x=x)
    assert io.is_fortran("x")
    assert np.shares_memory(io.transposed("x"), to_numpy(x))
    np.testing.assert_array_equal(io["x"], MATRIX.T)


@pytest.mark.parametrize(
    "x", [MATRIX, MATRIX[:1], MATRIX[:, ::2], np.ones(3), np.ones((2, 2, 2)).T]
)
def test_only_a_matrix_in_fortran_order_alone_counts_as_fortran(x):
    assert not Ingest(x=x).is_fortran("x")


def test_warm_starts_are_copied():
    x = np.ones(3)
    io = Ingest(x=x)
    io.copy("x")[:] = 7
    assert x.tolist() == io["x"].tolist() == [1, 1, 1]


def test_a_copy_that_cannot_fit_is_refused_before_it_is_made():
    huge = np.broadcast_to(1.0, (2**25, 2**25))
    with pytest.raises(MemoryError, match=r"^`C` in C order as float64 needs 9.01e\+06 GB"):
        Ingest(C=huge)["C"]


# ------------------------------------------------------------- kind, precision, what joins what
def test_single_precision_needs_every_floating_argument():
    single, double, whole = np.ones(2, "f4"), np.ones(2), np.ones(2, int)
    assert Ingest(a=single).dtype == np.float32
    assert Ingest(a=single, b=whole, c=None, d=[0.5], e=1.5, f=np.float64(2)).dtype == np.float32
    assert Ingest(a=single, b=double).dtype == np.float64
    assert Ingest(a=whole).dtype == Ingest(a=[1, 2]).dtype == Ingest().dtype == np.float64


def test_arguments_that_were_left_out_are_not_there():
    io = Ingest(a=None, b=[1.0])
    assert "a" not in io
    assert "b" in io


@pytest.mark.parametrize("kind", FOREIGN)
def test_plain_numbers_join_any_kind(kind):
    x = as_kind(np.ones(2, np.float32), kind)
    io = Ingest(a=[1, 2], b=(0.5,), s=2.0, t=np.float64(3), x=x)
    assert io.kind == kind
    assert io["a"].tolist() == [1, 2]
    assert_same_kind(io.out(io["a"]), x)


@pytest.mark.parametrize("kind", FOREIGN)
def test_two_kinds_in_one_call_are_refused_by_both_names(kind):
    x = as_kind(np.ones(2, np.float32), kind)
    with pytest.raises(TypeError, match=rf"^`b` came as a {kind} array and `a` as a numpy array"):
        Ingest(a=np.ones(2), b=x)
    with pytest.raises(TypeError, match=rf"^`b` came as a numpy array and `a` as a {kind} array"):
        Ingest(a=x, b=np.ones(2))


def test_two_devices_in_one_call_are_refused_by_both_names():
    with pytest.raises(TypeError, match=r"^`b` came on device cuda:1 and `a` on cuda:0"):
        Ingest(a=Elsewhere(2, 0), b=Elsewhere(13, 1))
    with pytest.raises(TypeError, match=r"^`b` came on device cpu and `a` on cuda:0"):
        Ingest(a=Elsewhere(2), b=Elsewhere(3))


def test_memory_out_of_reach_is_refused_by_name():
    with pytest.raises(TypeError, match=r"^`a` came on device 8; expected the CPU or a CUDA"):
        Ingest(a=Elsewhere(8))
    with pytest.raises(TypeError, match=r"^`a` came as .*Elsewhere.* DLPack refuses: sealed"):
        Ingest(a=Elsewhere(1))


def test_pandas_objects_become_numpy_arrays_and_missing_values_nan():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False]})
    assert Ingest(x=frame)["x"].tolist() == [[1, 0.5, 1], [2, 1.5, 0]]
    frame["a"] = pandas.array([1, None], dtype="Int64")
    np.testing.assert_array_equal(Ingest(x=frame)["x"], [[1, 0.5, 1], [np.nan, 1.5, 0]])
    single = pandas.Series([1, 2], dtype="float32")
    io = Ingest(x=single, y=pandas.Index([1, 2]))
    assert (io.kind, io.dtype) == ("numpy", np.float32)
    big = pandas.DataFrame(np.ones((5, 3)))
    assert np.shares_memory(Ingest(x=big).transposed("x"), big.to_numpy())


@pytest.mark.parametrize("column", [["u"], [1j], ["2020-01-01"]])
def test_frames_of_anything_but_numbers_are_refused_by_name(column):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": [1.0], "c": column})
    if column == ["2020-01-01"]:
        frame["c"] = pandas.to_datetime(frame["c"])
    with pytest.raises(TypeError, match=r"^`X` came as pandas.DataFrame") as e:
        Ingest(X=frame)
    assert str(frame["c"].dtype) in str(e.value)


# --------------------------------------------------------------------------------------- refusals
def structured():
    return np.zeros(2, dtype=[("a", float)])


REFUSED = {
    "complex": (lambda: MATRIX + 0j, "complex128"),
    "complex numbers in a list": (lambda: [1j], "complex128"),
    "objects": (lambda: MATRIX.astype(object), "object"),
    "fractions": (lambda: [Fraction(1, 2)], "object"),
    "None in a list": (lambda: [None, 1.0], "object"),
    "strings": (lambda: np.array(["a"]), "str"),
    "a string": (lambda: "abc", "str"),
    "half precision": (lambda: MATRIX.astype(np.float16), "float16"),
    "dates": (lambda: np.array(["2020-01-01"], "M8[D]"), "datetime64"),
    "records": (structured, "void"),
    "no array": (object, "object"),
    "a dict": (lambda: {"a": 1}, "dict"),
    "a generator": (lambda: (k for k in range(3)), "generator"),
    "a masked array": (lambda: np.ma.masked_invalid(MATRIX), r"np\.ma\.filled\(C\)"),
    "a random generator": (lambda: np.random.default_rng(0), "Generator"),
    "a device array": (
        lambda: SimpleNamespace(__cuda_array_interface__={}),
        r"cupy\.asarray\(C\)",
    ),
}
if np.dtype(np.longdouble).itemsize > 8:
    REFUSED["long double"] = (lambda: MATRIX.astype(np.longdouble), "float")


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_array_of_real_numbers_is_a_type_error_by_name(case):
    make, word = REFUSED[case]
    with pytest.raises(TypeError, match=rf"^`C` came as .*{word}"):
        Ingest(a=np.ones(2), C=make())


def test_a_numpy_matrix_is_refused():
    with pytest.warns(PendingDeprecationWarning):
        x = np.matrix([[1.0]])
    with pytest.raises(TypeError, match=r"^`C` came as numpy.matrix .* pass np.asarray\(C\)"):
        Ingest(C=x)


def test_a_ragged_list_is_a_value_error_by_name():
    with pytest.raises(ValueError, match=r"^`C` came as list; expected an array of numbers"):
        Ingest(C=[[1, 2], [3]])


@pytest.mark.parametrize("form", [scipy.sparse.csr_array, scipy.sparse.coo_matrix])
def test_sparse_matrices_are_refused_with_a_remedy(form):
    S = form(MATRIX)
    assert is_sparse(S)
    assert not is_sparse(MATRIX)
    with pytest.raises(
        TypeError, match=r"^`C` came as scipy\..*dense array: pass `C.toarray\(\)`"
    ):
        Ingest(C=S)
    with pytest.raises(TypeError, match=r"^`C` .* dense array: pass a PointCloud"):
        Ingest(C=S, sparse_hint={"C": "pass a PointCloud"})


TORCH_REFUSED = {
    "requires grad": (lambda t: t.ones(2, requires_grad=True), ValueError, r"C\.detach\(\)"),
    "parameter": (lambda t: t.nn.Parameter(t.ones(2)), ValueError, r"C\.detach\(\)"),
    "sparse": (lambda t: t.eye(2).to_sparse(), TypeError, "dense"),
    "meta": (lambda t: t.ones(2, device="meta"), TypeError, "meta device"),
    "half": (lambda t: t.ones(2, dtype=t.float16), TypeError, "float16"),
    "bfloat16": (lambda t: t.ones(2, dtype=t.bfloat16), TypeError, "bfloat16"),
    "conjugate": (lambda t: t.tensor([1j]).conj(), TypeError, "complex64"),
    "no tensor": (lambda t: t.float32, TypeError, "torch.dtype"),
}


@pytest.mark.parametrize("case", TORCH_REFUSED)
def test_tensors_that_cannot_be_shared_are_refused_by_name(case):
    torch = pytest.importorskip("torch")
    make, error, word = TORCH_REFUSED[case]
    with pytest.raises(error, match=rf"^`C` came as .*{word}"):
        Ingest(C=make(torch))


def test_a_lazily_negated_tensor_keeps_its_sign():
    torch = pytest.importorskip("torch")
    x = torch.tensor([1 + 2j, 3 - 4j]).conj().imag
    assert x.is_neg()
    assert Ingest(x=x)["x"].tolist() == to_numpy(x).tolist() == [-2, 4]


def test_expanded_tensors_and_booleans_come_in():
    torch = pytest.importorskip("torch")
    io = Ingest(x=torch.ones(3).expand(2, 3), y=torch.tensor([True, False]))
    assert io["x"].tolist() == [[1, 1, 1]] * 2
    assert io["y"].tolist() == [1, 0]


def test_traced_jax_arrays_are_refused_with_a_way_out():
    jax = pytest.importorskip("jax")
    for transform in (jax.jit, jax.vmap, jax.grad):
        with pytest.raises(TypeError, match=r"^`C` came as .* traced .* outside jit"):
            transform(lambda x: Ingest(C=x))(jax.numpy.ones(3))


def test_jax_arrays_without_readable_numbers_are_refused_by_name():
    jax = pytest.importorskip("jax")
    from jax.experimental.sparse import BCOO

    deleted = jax.numpy.ones(3)
    deleted.delete()
    half, key = jax.numpy.ones(3, "bfloat16"), jax.random.key(0)
    for x in (deleted, half, key, BCOO.fromdense(jax.numpy.eye(2))):
        with pytest.raises(TypeError, match=r"^`C` came as jax"):
            Ingest(C=x)


# ---------------------------------------------------------------------------------- on the device
@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["cupy", "torch", "jax"])
def test_device_arrays_stay_on_the_device_and_come_back_as_they_were(kind):
    cupy = pytest.importorskip("cupy")
    x = cupy.asarray(MATRIX, dtype=np.float32)
    if kind != "cupy":
        package = pytest.importorskip("jax.numpy" if kind == "jax" else kind)
        x = package.from_dlpack(x)
    io = Ingest(x=x, y=[1.0, 2.0])
    assert (io.kind, io.be.name, io["x"].dtype) == (kind, "cupy", np.float32)
    with io.device:
        back = io.out(io["x"][::-1] * 2)
    assert_same_kind(back, x)
    assert isinstance(io["y"], cupy.ndarray)
    np.testing.assert_array_equal(to_numpy(back), 2 * MATRIX[::-1])
    assert io.transposed("x").shape == (4, 3)
    with pytest.raises(TypeError, match=r"^`b` came as a numpy array"):
        Ingest(a=x, b=MATRIX)
