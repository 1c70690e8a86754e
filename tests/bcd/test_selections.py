"""Selection rules choose the block that their formula says, by enumeration and dense algebra."""

import itertools
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from solvers import bcd, penalties
from solvers.bcd._state import open_state
from solvers.bcd.rules import SELECTIONS, check_rules, cut
from solvers.bcd.rules._scores import block_diagonal, variable_diagonal

FIXED = [[0, 4], [1, 6, 2], [5], [3, 7]]


def posed(rng, kind="squared", penalty=None, n=15, p=8):
    """A small problem with columns of different lengths, and its point, gradient and Hessian."""
    X = rng.standard_normal((n, p)) * 10.0 ** rng.uniform(-0.5, 0.5, p)
    x = np.where(rng.random(p) < 0.5, 0.0, rng.standard_normal(p))
    if kind == "quadratic":
        A, b = X.T @ X / n, rng.standard_normal(p)
        model = bcd.Problem.quadratic(A, b).model
        return model, x, A @ x - b, A
    s = rng.uniform(0.2, 1.0, n)
    s /= s.sum()
    y = rng.standard_normal(n)
    y = np.sign(y) if kind == "logistic" else y
    datafit = "logistic" if kind == "logistic" else "quadratic"
    model = bcd.Problem(X, y, datafit=datafit, penalty=penalty, sample_weight=s).model
    H = X.T @ (s[:, None] * X)
    if kind == "logistic":
        return model, x, -X.T @ (s * y / (1.0 + np.exp(y * (X @ x)))), 0.25 * H
    return model, x, X.T @ (s * (X @ x - y)), H


def chooser(model, x, selection, partition="variable", size=None, norm=2, seed=0):
    rules = check_rules(
        model, partition=partition, block_size=size, selection=selection, update="auto"
    )
    rng = np.random.default_rng(seed)
    options = SimpleNamespace(**rules, norm=norm, rng=rng)
    state = open_state(model, np.asarray(x, model.dtype), model.zeros()[1])
    make = SELECTIONS[options.selection].make
    return state, make(state, cut(model, options), options.block_size, rng, options)


def fixed(model):
    """The blocks of `FIXED`."""
    return check_rules(model, partition=FIXED, block_size=None, selection="gs", update="auto")[
        "partition"
    ]


def chosen(*args, **options):
    number, block = chooser(*args, **options)[1]()
    return number, block.tolist()


def subsets(p, size):
    return [list(block) for block in itertools.combinations(range(p), size)]


def best(candidates, score):
    """The first of the best ones."""
    scores = [score(block) for block in candidates]
    return candidates[int(np.argmax(scores))]


def largest_eigenvalue(H, b):
    return np.linalg.eigvalsh(H[np.ix_(b, b)])[-1]


# ---- formulas


@pytest.mark.parametrize("kind", ["squared", "logistic", "quadratic"])
@pytest.mark.parametrize("seed", range(4))
def test_rules_on_fixed_blocks_maximise_their_formula(kind, seed):
    model, x, g, H = posed(np.random.default_rng(seed), kind)

    def diagonal(b):
        one, two = len(b) * np.diag(H)[b], abs(H[np.ix_(b, b)]).sum(axis=1)
        return one if (1 / one).sum() >= (1 / two).sum() else two

    formulas = {
        "gs": lambda b: g[b] @ g[b],
        "gs-s": lambda b: g[b] @ g[b],
        "gsl": lambda b: g[b] @ g[b] / largest_eigenvalue(H, b),
        "gsd": lambda b: (g[b] ** 2 / diagonal(b)).sum(),
        "gs-r": lambda b: (g[b] ** 2 / np.diag(H)[b]).sum(),
        "gs-q": lambda b: (g[b] ** 2 / np.diag(H)[b]).sum(),
        "gsq": lambda b: g[b] @ np.linalg.solve(H[np.ix_(b, b)], g[b]),
    }
    for name, formula in formulas.items():
        want = best(FIXED, formula)
        assert chosen(model, x, name, FIXED) == (FIXED.index(want), want), name


@pytest.mark.parametrize("seed", range(4))
def test_with_norm_1_the_scores_are_sums_of_absolute_values(seed):
    model, x, g, H = posed(np.random.default_rng(seed))
    formulas = {
        "gs": lambda b: abs(g[b]).sum(),
        "gsl": lambda b: abs(g[b]).sum() / largest_eigenvalue(H, b) ** 0.5,
        "gs-q": lambda b: (abs(g[b]) / np.diag(H)[b] ** 0.5).sum(),
    }
    for name, formula in formulas.items():
        assert chosen(model, x, name, FIXED, norm=1)[1] == best(FIXED, formula), name


def test_both_norms_can_disagree():
    model = bcd.Problem.quadratic(np.eye(5), np.array([3.0, 2.0, 2.0, 0.0, 0.0])).model
    blocks = [[0, 3], [1, 2], [4]]
    assert chosen(model, np.zeros(5), "gs", blocks)[0] == 0
    assert chosen(model, np.zeros(5), "gs", blocks, norm=1)[0] == 1


@pytest.mark.parametrize("kind", ["squared", "logistic", "quadratic"])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_rules_on_any_blocks_maximise_their_formula(rng, kind, size):
    model, x, g, H = posed(rng, kind)
    L, rows = np.diag(H), abs(H).sum(axis=1)
    D = rows if kind == "quadratic" and (1 / rows).sum() > (1 / (size * L)).sum() else size * L
    formulas = {
        "gs": lambda b: (g[b] ** 2).sum(),
        "gs-s": lambda b: (g[b] ** 2).sum(),
        "gsl": lambda b: (g[b] ** 2).sum() / L[b].max(),
        "gsd": lambda b: (g[b] ** 2 / D[b]).sum(),
        "gs-r": lambda b: (g[b] ** 2 / L[b]).sum(),
        "gs-q": lambda b: (g[b] ** 2 / L[b]).sum(),
    }
    for name, formula in formulas.items():
        got = chosen(model, x, name, size=size)
        assert got == (None, best(subsets(8, size), formula)), name


@pytest.mark.parametrize("search", ["gsq", "mi", "gsq-iht"])
@pytest.mark.parametrize("kind", ["squared", "logistic", "quadratic"])
@pytest.mark.parametrize("seed", range(5))
def test_searched_blocks_lie_between_those_of_gsd_and_the_best(search, kind, seed):
    model, x, g, H = posed(np.random.default_rng(seed), kind)

    def fall(b):
        return g[b] @ np.linalg.solve(H[np.ix_(b, b)], g[b])

    block = chosen(model, x, search, size=3)[1]
    assert block == sorted(set(block))
    assert len(block) == 3
    most = fall(best(subsets(8, 3), fall))
    assert fall(block) <= most * (1 + 1e-9)
    if search != "gsq-iht":
        assert fall(block) >= fall(chosen(model, x, "gsd", size=3)[1]) * (1 - 1e-9)


def test_the_search_finds_a_pair_that_single_scores_miss():
    # Alone, unknown 1 promises little; after unknown 0 a lot.
    A = np.eye(5)
    A[0, 1] = A[1, 0] = 0.999
    b = np.array([1.0, -0.9, 1.2, 0.95, 0.0])
    model = bcd.Problem.quadratic(A, b).model
    assert chosen(model, np.zeros(5), "gs-q", size=3)[1] == [0, 2, 3]
    assert chosen(model, np.zeros(5), "gsq", size=3)[1] == [0, 1, 2]


# ---- maximum improvement, legal diagonals, guaranteed progress


@pytest.mark.parametrize("seed", range(6))
def test_on_quadratics_the_largest_improvement_is_that_of_gsq(seed):
    model, x, g, A = posed(np.random.default_rng(seed), "quadratic")

    def improvement(b):
        d = np.zeros(8)
        d[b] = np.linalg.solve(A[np.ix_(b, b)], -g[b])
        return model.objective(x) - model.objective(x + d)

    want = best(FIXED, improvement)
    assert chosen(model, x, "mi", FIXED)[1] == want
    assert chosen(model, x, "gsq", FIXED)[1] == want


@pytest.mark.parametrize("ridge", [0.0, 0.3])
def test_maximum_improvement_minimises_over_each_block(rng, ridge):
    penalty = penalties.L2(ridge) if ridge else None
    model, x, _, _ = posed(rng, "logistic", penalty)
    _, select = chooser(model, x, "mi", FIXED)
    number, _ = select()
    falls = []
    for b in FIXED:

        def moved(d, b=b):
            w = x.copy()
            w[b] += d
            return model.objective(w, 0.0)

        found = minimize(moved, np.zeros(len(b)), method="BFGS", options={"gtol": 1e-9})
        falls.append(model.objective(x, 0.0) - found.fun)
    np.testing.assert_allclose(select.scores, falls, rtol=1e-6, atol=1e-9)
    assert number == int(np.argmax(falls))


@pytest.mark.parametrize("kind", ["squared", "logistic", "quadratic"])
@pytest.mark.parametrize("seed", range(3))
def test_diagonals_are_above_the_hessian_of_every_block(kind, seed):
    model, x, _, H = posed(np.random.default_rng(seed), kind)
    state, _ = chooser(model, x, "gs")
    for size in (1, 2, 5, 8):
        D = variable_diagonal(state, size)
        for b in subsets(8, size):
            assert np.linalg.eigvalsh(np.diag(D[b]) - H[np.ix_(b, b)])[0] >= -1e-12
    D = block_diagonal(state, fixed(model))
    for b in FIXED:
        assert np.linalg.eigvalsh(np.diag(D[b]) - H[np.ix_(b, b)])[0] >= -1e-12


def test_the_smaller_entries_of_two_legal_diagonals_are_not_legal():
    # Why one of them is taken as a whole.
    H = np.array([[1.0, 3.0], [3.0, 9.0]])
    D = np.minimum(2 * np.diag(H), abs(H).sum(axis=1))
    assert np.linalg.eigvalsh(np.diag(D) - H)[0] < -0.1


@pytest.mark.parametrize("penalty", [None, penalties.L1(0.1), penalties.Box(-0.5, 0.5)])
@pytest.mark.parametrize("kind", ["squared", "logistic"])
@pytest.mark.parametrize("partition", ["variable", FIXED])
def test_a_diagonal_step_gains_what_the_scores_of_gsd_promise(rng, penalty, kind, partition):
    model, x, _, _ = posed(rng, kind, penalty)
    x = np.clip(x, -0.5, 0.5)
    state, select = chooser(model, x, "gsd", partition, None if partition == FIXED else 3)
    number, block = select()
    if number is None:
        D, promised = variable_diagonal(state, 3), select.scores[block].sum()
    else:
        D, promised = block_diagonal(state, fixed(model)), select.scores[number]
    assert promised > 0
    v, step = x[block] - state.gradient()[block] / D[block], 1.0 / D[block]
    new, w = np.empty(block.size), x.copy()
    model.kernels.prox_all(penalties.take(model.bound, block), v, step, new)
    w[block] = new
    assert model.objective(x, 0.0) - model.objective(w, 0.0) >= promised * (1 - 1e-9)


# ---- penalties and bounds


def test_with_a_penalty_names_mean_their_proximal_forms(rng):
    a = 0.2
    model, x, g, H = posed(rng, penalty=penalties.L1(a))
    L = np.diag(H)
    distance = np.where(x != 0, abs(g + a * np.sign(x)), np.maximum(abs(g) - a, 0.0))

    def gain(L):
        # By brute force: the least of the model along a fine grid and at its kinks.
        d = np.concatenate([np.linspace(-9.0, 9.0, 60001), np.zeros(1)])
        model_of = lambda j, d: g[j] * d + L[j] / 2 * d * d + a * (abs(x[j] + d) - abs(x[j]))  # noqa: E731
        return np.array([-min(model_of(j, d).min(), model_of(j, -x[j])) for j in range(8)])

    z = x - g / L
    step = np.sign(z) * np.maximum(abs(z) - a / L, 0.0) - x
    for name, want in (
        ("gs", distance**2),
        ("gs-s", distance**2),
        ("gs-r", L * step**2),
        ("gs-q", gain(L)),
        ("gsq", gain(L)),
        ("mi", gain(L)),
        ("gsd", gain(3 * L)),
    ):
        _, select = chooser(model, x, name, size=3)
        _, block = select()
        np.testing.assert_allclose(select.scores, want, atol=1e-6 * want.max(), err_msg=name)
        assert block.tolist() == sorted(np.argsort(-want)[:3].tolist()), name
    at_zero = x == 0
    plain = np.maximum(abs(g) - a, 0.0) ** 2 / (2 * L)
    np.testing.assert_allclose(gain(L)[at_zero], plain[at_zero], atol=1e-6)


def test_blocks_larger_than_the_violations_hold_the_support(rng):
    penalty = penalties.L1(0.1)
    model = bcd.Problem(
        np.eye(6) * 6**0.5, np.array([0, 2.0, 0, 0, 3.0, 0]), penalty=penalty
    ).model
    # Optimal but for unknown 1; unknown 4 is where it should be.
    x = np.array([0, 0, 0, 0, 3.0 / 6**0.5 - 0.1, 0.0])
    state, select = chooser(model, x, "gs-q", size=2)
    state.gradient()[4] = -0.1
    assert select()[1].tolist() == [1, 4]


def test_a_column_of_zeros_is_never_chosen_before_another(rng):
    X = rng.standard_normal((9, 4))
    X[:, 0] = 0.0
    model = bcd.Problem(X, rng.standard_normal(9)).model
    for name in ("gs", "gsl", "gsd", "gsq", "gs-r", "gs-q", "gsq-iht"):
        assert chosen(model, np.zeros(4), name, size=3)[1] == [1, 2, 3], name
    for name in ("gs", "gsl", "gsd", "gsq", "mi", "lipschitz"):
        assert chosen(model, np.zeros(4), name, [[0], [1], [2], [3]])[0] > 0, name


# ---- the order of things


def test_ties_go_to_the_lowest_index():
    model = bcd.Problem.quadratic(2.0 * np.eye(6), np.ones(6)).model
    for name in ("gs", "gsl", "gsd", "gsq", "gs-q"):
        assert chosen(model, np.zeros(6), name, size=3)[1] == [0, 1, 2], name
        assert chosen(model, np.zeros(6), name, "order", size=2)[0] == 0, name
    sparse = bcd.Problem.quadratic(sp.csr_array(2.0 * np.eye(6)), np.ones(6)).model
    assert chosen(sparse, np.zeros(6), "gs", size=1)[1] == [0]


def test_cyclic_and_perm_visit_every_block_in_each_round(rng):
    model, x, _, _ = posed(rng)
    _, select = chooser(model, x, "cyclic", FIXED)
    assert [select()[0] for _ in range(8)] == [0, 1, 2, 3, 0, 1, 2, 3]
    _, select = chooser(model, x, "perm", FIXED)
    rounds = [[select()[0] for _ in range(4)] for _ in range(6)]
    assert all(sorted(numbers) == [0, 1, 2, 3] for numbers in rounds)
    assert len({tuple(numbers) for numbers in rounds}) > 1


def test_random_blocks_follow_the_generator_and_are_equally_likely(rng):
    model, x, _, _ = posed(rng)
    _, select = chooser(model, x, "random", FIXED, seed=3)
    drawn = [select()[0] for _ in range(4000)]
    # Five standard deviations of a frequency.
    assert abs(np.bincount(drawn) / 4000 - 0.25).max() < 5 * (0.25 * 0.75 / 4000) ** 0.5
    _, again = chooser(model, x, "random", FIXED, seed=3)
    assert drawn[:50] == [again()[0] for _ in range(50)]
    _, select = chooser(model, x, "random", size=3)
    blocks = [tuple(select()[1]) for _ in range(2000)]
    assert set(blocks) == set(itertools.combinations(range(8), 3))


def test_lipschitz_draws_in_proportion_to_the_constants(rng):
    model, x, _, H = posed(rng)
    L = np.array([largest_eigenvalue(H, b) for b in FIXED])
    _, select = chooser(model, x, "lipschitz", FIXED)
    counts = np.bincount([select()[0] for _ in range(4000)], minlength=4)
    assert abs(counts / 4000 - L / L.sum()).max() < 5 * (0.25 / 4000) ** 0.5


# ---- the heap and the nearest neighbour


@given(seed=st.integers(0, 2**32 - 1), rule=st.sampled_from(["gs", "gsl", "gsd", "gsq", "gs-r"]))
def test_the_heap_chooses_what_a_look_at_all_scores_chooses(seed, rule):
    rng = np.random.default_rng(seed)
    p = int(rng.integers(1, 30))
    R = sp.random_array((p, p), density=0.15, rng=rng).toarray()
    A = R @ R.T + np.diag(rng.uniform(0.5, 2.0, p))
    b = rng.standard_normal(p)
    l1 = 0.2 if rng.random() < 0.5 else 0.0
    sparse, dense = (
        bcd.Problem.quadratic(form(A), b, l1=l1).model for form in (sp.csr_array, np.asarray)
    )
    (state, select), (other, look) = (
        chooser(model, np.zeros(p), rule, size=1) for model in (sparse, dense)
    )
    assert type(select).__name__ == "Heap"
    for _ in range(25):
        (_, one), (_, two) = select(), look()
        scores = look.scores
        # Rounding may differ between a sparse and a dense gradient.
        assert scores[one[0]] >= scores[two[0]] - 1e-9 * max(scores.max(), 1.0)
        new = np.empty(1)
        j = one[0]
        v = state.x[one] - state.gradient()[one] / A[j, j]
        dense.kernels.prox_all(penalties.take(dense.bound, one), v, np.array([1 / A[j, j]]), new)
        d = new - state.x[one]
        state.move(state.line(one, d))
        other.move(other.line(one, d))


@pytest.mark.parametrize("rule", ["gs", "gsl", "gsq", "gs-r"])
@pytest.mark.parametrize("l1", [0.0, 0.3])
def test_steps_from_the_heap_are_those_from_a_look_at_everything(rng, rule, l1):
    R = sp.random_array((60, 60), density=0.05, rng=rng).toarray()
    A, b = R @ R.T + np.diag(rng.uniform(0.5, 2.0, 60)), rng.standard_normal(60)
    for steps in (1, 7, 40):
        found = []
        for form in (sp.csr_array, np.asarray):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                res = bcd.minimize(
                    bcd.Problem.quadratic(form(A), b, l1=l1), block_size=1, selection=rule,
                    update="exact", working_set=False, maxiter=steps, tol=1e-15,
                )  # fmt: skip
            assert res.nit == steps
            found.append(res.x)
        assert np.count_nonzero(found[0]) <= steps
        np.testing.assert_allclose(found[0], found[1], atol=1e-12)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("kind", ["squared", "logistic"])
@pytest.mark.parametrize("form", [np.asarray, sp.csc_array])
def test_the_nearest_column_is_the_choice_of_gsl(rng, kind, intercept, form):
    for n, word in ((6, "tree"), (30, "scan")):
        X = rng.standard_normal((n, 40)) * 10.0 ** rng.uniform(-2, 2, 40)
        y = rng.standard_normal(n)
        y = np.sign(y - np.median(y)) if kind == "logistic" else y
        model = bcd.Problem(
            form(X), y, datafit="logistic" if kind == "logistic" else "quadratic",
            sample_weight=rng.uniform(0.5, 2.0, n), fit_intercept=intercept,
        ).model  # fmt: skip
        if kind == "logistic" and intercept:
            # The constants know no intercept there, and the tree must not either.
            continue
        for _ in range(10):
            x = rng.standard_normal(40) * 10.0 ** -rng.uniform(0, 2, 40)
            _, select = chooser(model, x, "nn")
            assert word in select.used
            assert select()[1].tolist() == chosen(model, x, "gsl", size=1)[1]


def test_of_equal_columns_the_first_is_the_nearest(rng):
    X = np.repeat(rng.standard_normal((5, 3)), 2, axis=1)
    model = bcd.Problem(X, rng.standard_normal(5)).model
    assert chosen(model, np.zeros(6), "nn")[1][0] % 2 == 0


# ---- kinds of data


@pytest.mark.parametrize("selection", [name for name in SELECTIONS if name != "nn"])
@pytest.mark.parametrize("penalty", [None, penalties.L1(0.05)])
def test_sparse_and_single_precision_data_lead_to_the_same_choice(rng, selection, penalty):
    X, y = rng.standard_normal((20, 9)), rng.standard_normal(20)
    x = np.where(rng.random(9) < 0.5, 0.0, rng.standard_normal(9))
    partition = "variable" if SELECTIONS[selection].variable else "sort"
    found = []
    for form in (X, np.asfortranarray(X), sp.csc_array(X), X.astype(np.float32)):
        target = y.astype(form.dtype)
        model = bcd.Problem(form, target, penalty=penalty).model
        number, block = chooser(model, x, selection, partition, size=2)[1]()
        found.append((number, block.tolist()))
        assert block.dtype == np.int64
    assert found.count(found[0]) == 4


def test_classes_are_unknowns_of_their_own(rng):
    X, labels = rng.standard_normal((30, 4)), np.arange(30) % 3
    model = bcd.Problem(X, labels, datafit="multinomial").model
    W = rng.standard_normal((4, 3))
    Q = np.exp(X @ W)
    G = (X.T @ (Q / Q.sum(axis=1, keepdims=True) - np.eye(3)[labels]) / 30).ravel()
    assert chosen(model, W.ravel(), "gs", size=4)[1] == sorted(np.argsort(-abs(G))[:4].tolist())


@pytest.mark.parametrize("penalty", [penalties.L1(0.3), penalties.PositiveL1(0.3)])
@pytest.mark.parametrize("off", [1e-3, 1e-7, 1e-11])
def test_gains_of_short_steps_are_not_lost_in_the_penalty(penalty, off):
    # One step, exact for an identity, is what is left: it gains off^2 / 2 in each unknown.
    want = np.array([100.0, 7.0, 0.5])
    model = bcd.Problem(np.eye(3), 3 * (want / 3 + 0.3), penalty=penalty).model
    x = want + off * np.array([1.0, 3.0, 2.0])
    _, select = chooser(model, x, "gs-q", size=1)
    assert select()[1].tolist() == [1]
    np.testing.assert_allclose(select.scores, (x - want) ** 2 / 6, rtol=1e-2)
