"""Label propagation against sparse and dense solves, and its edges: components, bounds, scales."""

import numpy as np
import pytest
import scipy.optimize
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st

from solvers import ConvergenceWarning, Status
from solvers.bcd import label_propagation
from tests.bcd.graphs import laplacian, lattice, random_forest, random_graph, weighted

METHODS = ["auto", "tree", "redblack", "forest_variable", "cg", "cholesky"]


def connected(n, edges, seed):
    """A random graph with a path through all nodes."""
    rng = np.random.default_rng(seed)
    path = weighted(np.arange(n - 1), np.arange(1, n), rng.uniform(0.5, 2, n - 1), n)
    return (random_graph(n, edges, seed) + path).tocsr()


def some_values(n, count, seed):
    rng = np.random.default_rng(seed)
    y = np.full(n, np.nan)
    y[rng.choice(n, count, replace=False)] = rng.standard_normal(count)
    return y


def harmonic(W, Y):
    """Values of unlabelled nodes (rows of NaN) by a dense solve."""
    L, known = laplacian(W).toarray(), ~np.isnan(Y[:, 0])
    X = Y.copy()
    X[~known] = np.linalg.solve(L[~known][:, ~known], -L[~known][:, known] @ Y[known])
    return X


def anchored(W, y, alpha):
    known = ~np.isnan(y)
    A = laplacian(W).toarray() + alpha * np.diag(known)
    return np.linalg.solve(A, np.where(known, alpha * np.nan_to_num(y), 0.0))


# ------------------------------------------------------------------------------- answers
@pytest.mark.parametrize("method", METHODS)
def test_values_are_harmonic(method):
    W, y = connected(30, 50, 0), some_values(30, 6, 0)
    res = label_propagation(W, y, method=method, tol=1e-11)
    assert res.success
    np.testing.assert_allclose(res.x, harmonic(W, y[:, None])[:, 0], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(res.x[~np.isnan(y)], y[~np.isnan(y)])
    assert res.labels is None


@pytest.mark.parametrize("method", METHODS)
def test_with_alpha_labels_may_be_wrong(method):
    W, y = connected(30, 50, 1), some_values(30, 6, 1)
    res = label_propagation(W, y, method=method, alpha=0.7, tol=1e-11)
    x = anchored(W, y, 0.7)
    np.testing.assert_allclose(res.x, x, rtol=0, atol=1e-9)
    known = ~np.isnan(y)
    energy = 0.5 * x @ laplacian(W) @ x + 0.35 * np.square(x - y)[known].sum()
    assert res.fun == pytest.approx(energy, rel=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_classes_share_a_run_and_scores_sum_to_one(method):
    W = lattice(6, 7)
    labels = np.full(42, -1)
    labels[[0, 8, 20, 41, 33]] = [7, 9, 9, 4, 7]
    res = label_propagation(W, labels, method=method, tol=1e-11)
    assert res.classes.tolist() == [4, 7, 9]
    Y = np.where(labels[:, None] >= 0, labels[:, None] == res.classes, np.nan)
    np.testing.assert_allclose(res.x, harmonic(W, Y), rtol=0, atol=1e-9)
    np.testing.assert_allclose(res.x.sum(axis=1), 1.0, atol=1e-9)
    np.testing.assert_array_equal(res.labels, res.classes[res.x.argmax(axis=1)])
    np.testing.assert_array_equal(res.labels[labels >= 0], labels[labels >= 0])


@given(st.integers(2, 25), st.integers(0, 40), st.integers(0, 10**6))
def test_values_stay_between_the_labels_and_the_order_of_nodes_does_not_matter(n, edges, seed):
    W, y = connected(n, edges, seed), some_values(n, max(n // 5, 1), seed)
    res = label_propagation(W, y)
    assert res.success
    assert np.nanmin(y) - 1e-7 <= res.x.min()
    assert res.x.max() <= np.nanmax(y) + 1e-7
    p = np.random.default_rng(seed).permutation(n)
    again = label_propagation(W[p][:, p], y[p])
    np.testing.assert_allclose(again.x, res.x[p], rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("alpha", [None, 0.4])
def test_bounds_hold_and_the_answer_is_that_of_scipy(method, alpha):
    W, y = lattice(5, 6), some_values(30, 6, 2)
    lo, hi, known = -0.1, 0.2, ~np.isnan(y)
    res = label_propagation(
        W, y, mode="box", bounds=(lo, hi), alpha=alpha, method=method, tol=1e-10
    )
    assert res.success
    L = laplacian(W).toarray() + (alpha or 0.0) * np.diag(known)
    b = (alpha or 0.0) * np.where(known, y, 0)
    free = np.ones(30, bool) if alpha else ~known
    if not alpha:
        b = b - L[:, known] @ y[known]
    A, b = L[free][:, free], b[free]
    best = scipy.optimize.minimize(
        lambda x: (0.5 * x @ A @ x - b @ x, A @ x - b),
        np.zeros(free.sum()),
        jac=True,
        bounds=[(lo, hi)] * int(free.sum()),
        options={"ftol": 1e-16, "gtol": 1e-11, "maxiter": 5000},
    )
    np.testing.assert_allclose(res.x[free], best.x, rtol=0, atol=1e-6)
    assert lo <= res.x[free].min()
    assert res.x[free].max() <= hi
    # The test is about bounds that matter.
    assert (best.x == lo).any()


def test_default_bounds_are_those_of_the_labels():
    W, y = lattice(4, 5), some_values(20, 4, 3)
    free, boxed = label_propagation(W, y), label_propagation(W, y, mode="box")
    np.testing.assert_allclose(boxed.x, free.x, rtol=0, atol=1e-6)
    labels = np.where(np.isnan(y), -1, np.arange(20) % 2)
    boxed = label_propagation(W, labels, mode="box")
    np.testing.assert_allclose(boxed.x, label_propagation(W, labels).x, rtol=0, atol=1e-6)


# --------------------------------------------------------------------- forms of the arguments
def test_dense_and_sparse_weights_give_the_same():
    W, y = connected(20, 30, 4), some_values(20, 4, 4)
    expected = label_propagation(W, y).x
    for form in (
        W.toarray(),
        W.tocsc(),
        W.tocoo(),
        sp.csr_matrix(W),
        np.asfortranarray(W.toarray()),
    ):
        np.testing.assert_allclose(label_propagation(form, y).x, expected, rtol=0, atol=1e-12)


def test_the_diagonal_and_explicit_zeros_do_not_matter():
    W, y = connected(20, 30, 4).tolil(), some_values(20, 4, 4)
    expected = label_propagation(W.tocsr(), y).x
    W.setdiag(5.0)
    noisy = W.tocsr()
    noisy.data[noisy.data == 5.0] = 5.0
    far = sp.coo_array(([0.0, 0.0], ([0, 19], [19, 0])), (20, 20))
    stored = sp.coo_array(
        (
            np.r_[noisy.tocoo().data, far.data],
            (np.r_[noisy.tocoo().row, far.row], np.r_[noisy.tocoo().col, far.col]),
        ),
        (20, 20),
    )
    np.testing.assert_allclose(label_propagation(stored, y).x, expected, rtol=0, atol=1e-12)


def test_float32_is_kept():
    W, y = lattice(6, 6).astype(np.float32), some_values(36, 6, 5).astype(np.float32)
    for method in METHODS:
        res = label_propagation(W, y, method=method, tol=1e-5)
        assert res.success
        assert res.x.dtype == np.float32
        np.testing.assert_allclose(res.x, label_propagation(lattice(6, 6), y).x, atol=1e-4)


@pytest.mark.parametrize("scale", [1e-150, 1e150])
@pytest.mark.parametrize("height", [1e-150, 1.0, 1e150])
def test_units_do_not_matter(scale, height):
    W, y = connected(20, 30, 6), some_values(20, 4, 6)
    res = label_propagation(scale * W, height * y, alpha=0.3 * scale)
    assert res.success
    np.testing.assert_allclose(res.x / height, anchored(W, y, 0.3), rtol=0, atol=1e-7)


def test_nothing_of_the_callers_is_changed():
    W, y = connected(20, 30, 7), some_values(20, 4, 7)
    W.data.flags.writeable = False
    y.flags.writeable = False
    label_propagation(W, y)


# --------------------------------------------------------------------------- components
def apart():
    """Two components, of which only the first has a label, and a lonely node."""
    W = sp.block_diag([lattice(2, 3), lattice(1, 3), sp.csr_array((1, 1))]).tocsr()
    y = np.full(10, np.nan)
    y[0], y[5] = 1.0, 3.0
    return W, y


def test_components_without_labels_are_refused_with_their_number():
    with pytest.raises(ValueError, match=r"`labels` leaves 2 of 3 .* 4 nodes"):
        label_propagation(*apart())


@pytest.mark.parametrize(("isolated", "value"), [("zero", 0.0), ("nan", np.nan)])
@pytest.mark.parametrize("alpha", [None, 2.0])
def test_components_without_labels_get_what_was_asked_for(isolated, value, alpha):
    W, y = apart()
    res = label_propagation(W, y, isolated=isolated, alpha=alpha)
    assert res.success
    np.testing.assert_array_equal(res.x[6:], np.full(4, value))
    np.testing.assert_allclose(
        res.x[:6], label_propagation(W[:6][:, :6], y[:6], alpha=alpha).x, rtol=0, atol=1e-7
    )
    labels = np.where(np.isnan(y), -1, 2)
    res = label_propagation(W, labels, isolated=isolated)
    assert res.labels.tolist() == [2] * 6 + [-1] * 4


def test_a_graph_without_edges_and_one_without_unknowns_are_done_at_once():
    for W in (sp.csr_array((3, 3)), lattice(1, 3)):
        res = label_propagation(W, [1.0, 2.0, 3.0])
        assert (res.success, res.nit) == (True, 0)
        assert res.x.tolist() == [1.0, 2.0, 3.0]


def test_labels_that_are_all_zero_leave_nothing_to_do():
    y = np.full(9, np.nan)
    y[[0, 5]] = 0.0
    res = label_propagation(lattice(3, 3), y)
    assert res.success
    assert not res.x.any()


# ----------------------------------------------------------------------------- the run
@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("mode", ["harmonic", "box"])
def test_a_solution_is_a_warm_start(method, mode):
    W, labels = connected(25, 40, 8), np.where(np.arange(25) % 8 == 0, np.arange(25), -1)
    res = label_propagation(W, labels, method=method, mode=mode)
    assert label_propagation(W, labels, method=method, mode=mode, x0=res).nit == 0
    again = label_propagation(W, labels, method=method, mode=mode, x0=res.x + 1e-6)
    assert again.success
    assert again.nit <= res.nit


def test_after_one_label_changed_the_old_answer_is_a_better_start():
    W, y = lattice(20, 20), some_values(400, 40, 9)
    old = label_propagation(W, y, method="cg", tol=1e-6)
    y[np.flatnonzero(~np.isnan(y))[0]] += 0.01
    cold, warm = (
        label_propagation(W, y, method="cg", tol=1e-6, x0=start).nit for start in (None, old)
    )
    assert warm < cold


@pytest.mark.parametrize("method", ["tree", "redblack", "forest_variable"])
def test_blocks_never_raise_the_energy(method):
    W, y = connected(40, 80, 10), some_values(40, 5, 10)
    fun = label_propagation(W, y, method=method, tol=1e-10).history["fun"]
    assert len(fun) > 3
    assert np.diff(fun).max() <= 1e-12 * abs(fun).max()
    assert fun[-1] == pytest.approx(label_propagation(W, y, method="cholesky").fun, rel=1e-12)


@pytest.mark.parametrize("alpha", [None, 0.5])
def test_few_labels_far_apart_call_for_a_hierarchy(alpha):
    W = lattice(70, 60)
    labels = np.full(4200, -1)
    labels[[0, 999, 4199]] = [0, 1, 2]
    res = label_propagation(W, labels, method="cg", alpha=alpha)
    assert res.success
    assert res.used["update"] == "multigrid cg"
    assert res.nit <= 100
    direct = label_propagation(W, labels, method="cholesky", alpha=alpha)
    np.testing.assert_allclose(res.x, direct.x, rtol=0, atol=1e-5)


def test_auto_goes_by_size_and_density():
    chosen = {}
    for name, W in {
        "few": lattice(9, 9),
        "planar": lattice(40, 40),
        "dense": connected(900, 9000, 0),
    }.items():
        chosen[name] = label_propagation(W, some_values(W.shape[0], W.shape[0] // 20, 0)).used[
            "update"
        ]
    assert chosen == {"few": "cholesky", "planar": "cholesky", "dense": "cg"}


def test_a_forest_takes_one_turn():
    W = random_forest(200, 0, cut=0.0)
    res = label_propagation(W, some_values(200, 9, 11), tol=1e-12)
    assert (res.nit, res.used["update"]) == (1, "tree")


@pytest.mark.parametrize("method", METHODS)
def test_early_ends_are_honest(method):
    W, y = lattice(12, 12), some_values(144, 3, 12)
    with pytest.warns(ConvergenceWarning, match="maxiter"):
        res = label_propagation(W, y, method=method, maxiter=1, tol=1e-300)
    assert (res.status, res.nit, res.success) == (Status.MAXITER, 1, False)
    with pytest.warns(ConvergenceWarning):
        res = label_propagation(W, y, method=method, time_limit=1e-9, tol=1e-300)
    assert res.status is Status.TIME_LIMIT
    seen = []

    def stop(intermediate_result):
        seen.append(intermediate_result.x)
        raise StopIteration

    res = label_propagation(W, y, method=method, callback=stop, tol=1e-300)
    assert res.status is Status.CALLBACK
    np.testing.assert_array_equal(seen[0], res.x)


@pytest.mark.parametrize("method", ["cg", "tree", "cholesky"])
def test_what_rounding_forbids_ends_as_stalled(method):
    W, y = lattice(15, 15).astype(np.float32), some_values(225, 3, 14).astype(np.float32)
    with pytest.warns(ConvergenceWarning, match="stopped falling"):
        res = label_propagation(W, y, method=method, tol=1e-12)
    assert res.status is Status.STALLED
    assert res.certificate.value < 1e-3


def test_the_certificate_is_the_residual_of_the_callers_system():
    W, y = connected(25, 40, 13), some_values(25, 5, 13)
    with pytest.warns(ConvergenceWarning):
        res = label_propagation(W, y, method="cg", maxiter=2)
    L, known = laplacian(W).toarray(), ~np.isnan(y)
    b = -L[~known][:, known] @ y[known]
    off = np.linalg.norm(L[~known][:, ~known] @ res.x[~known] - b) / np.linalg.norm(b)
    assert res.certificate.value == pytest.approx(off, rel=1e-10)
    assert not res.certificate.holds


# ----------------------------------------------------------------------------- bad input
W9 = lattice(3, 3)
Y9 = np.r_[1.0, np.full(7, np.nan), 2.0]
BAD = [
    ((W9[:, :5], Y9), {}, ValueError, "W"),
    ((-W9, np.full(9, np.nan)), {}, ValueError, "W"),
    ((sp.csr_array(np.triu(W9.toarray())), np.full(9, -1)), {}, ValueError, "W"),
    ((W9.toarray().astype(complex), Y9), {}, TypeError, "W"),
    ((np.where(W9.toarray() > 0, np.nan, 0), Y9), {}, ValueError, "W"),
    ((np.ones(9), Y9), {}, ValueError, "W"),
    ((W9, Y9[:5]), {}, ValueError, "labels"),
    ((W9, np.full(9, np.nan)), {}, ValueError, "labels"),
    ((W9, np.full(9, -1)), {}, ValueError, "labels"),
    ((W9, np.where(np.isnan(Y9), np.nan, np.inf)), {}, ValueError, "labels"),
    ((W9, None), {}, TypeError, "labels"),
    ((W9, ["a"] * 9), {}, TypeError, "labels"),
    ((W9, Y9), {"mode": "soft"}, ValueError, "mode"),
    ((W9, Y9), {"method": "lu"}, ValueError, "method"),
    ((W9, Y9), {"alpha": 0.0}, ValueError, "alpha"),
    ((W9, Y9), {"alpha": "1"}, TypeError, "alpha"),
    ((W9, Y9), {"bounds": (0, 1)}, ValueError, "bounds"),
    ((W9, Y9), {"mode": "box", "bounds": (1, 0)}, ValueError, "bounds"),
    ((W9, Y9), {"mode": "box", "bounds": 3}, TypeError, "bounds"),
    ((W9, Y9), {"isolated": "drop"}, ValueError, "isolated"),
    ((W9, Y9), {"symmetrize": "mean"}, ValueError, "symmetrize"),
    ((W9, Y9), {"tol": -1.0}, ValueError, "tol"),
    ((W9, Y9), {"maxiter": 1.5}, TypeError, "maxiter"),
    ((W9, Y9), {"x0": np.zeros(8)}, ValueError, "x0"),
    ((W9, Y9), {"x0": np.full(9, np.nan)}, ValueError, "x0"),
    ((W9, Y9), {"n_threads": 0}, ValueError, "n_threads"),
]


@pytest.mark.parametrize(("args", "options", "kind", "name"), BAD)
def test_bad_input_is_refused_by_name(args, options, kind, name):
    with pytest.raises(kind, match=f"^`{name}`"):
        label_propagation(*args, **options)


def test_an_asymmetric_graph_can_be_made_symmetric():
    W = sp.csr_array(np.triu(W9.toarray()))
    res = label_propagation(W, Y9, symmetrize="max")
    np.testing.assert_allclose(res.x, label_propagation(W9, Y9).x, rtol=0, atol=1e-12)
