"""Updates of blocks: their formulas, their guarantees, and every legal combination."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from solvers import Status, bcd, penalties
from solvers.bcd._state import Line, open_state
from solvers.bcd.rules import PARTITIONS, SELECTIONS, UPDATES, check_rules
from solvers.bcd.rules import _block as blocks
from solvers.bcd.rules._block import (
    Memory,
    View,
    backtrack,
    factorise,
    largest_eigenvalue,
)
from solvers.bcd.rules._updates import cubic_step

rng0 = np.random.default_rng(5)
X = rng0.standard_normal((24, 5))
Y = X @ np.array([1.0, -2.0, 0.0, 0.0, 0.5]) + 0.5 * rng0.standard_normal(24)
LABELS = np.sign(Y)
CHAIN = sp.diags_array([[-1.0] * 4, [3.0, 2.5, 4.0, 2.7, 3.0], [-1.0] * 4], offsets=[-1, 0, 1])
PROBLEMS = {
    "lasso": bcd.Problem(X, Y, penalty=penalties.L1(0.1)),
    "elastic logistic": bcd.Problem(
        X, LABELS, datafit="logistic", penalty=penalties.ElasticNet(0.2, 0.5)
    ),
    "ridge logistic": bcd.Problem(X, LABELS, datafit="logistic", penalty=penalties.L2(0.2)),
    "least squares": bcd.Problem(X, Y),
    "chain": bcd.Problem.quadratic(sp.csr_array(CHAIN), rng0.standard_normal(5)),
}
OPTIONS = SimpleNamespace(block_size=3)


def legal():
    """Each legal triple with a problem, which goes round among those that it is legal for."""
    turn = itertools.count()
    for partition, selection, update in itertools.product(PARTITIONS, SELECTIONS, UPDATES):
        size = None if PARTITIONS[partition].graph else 1 if SELECTIONS[selection].single else 2
        rules = {
            "partition": partition,
            "block_size": size,
            "selection": selection,
            "update": update,
        }
        fits = []
        for name, problem in PROBLEMS.items():
            try:
                check_rules(problem.model, **rules)
            except ValueError:
                continue
            fits.append(name)
        if fits:
            yield fits[next(turn) % len(fits)], rules


TRIPLES = list(legal())


def test_there_are_combinations_of_every_rule():
    for table, word in ((PARTITIONS, "partition"), (SELECTIONS, "selection"), (UPDATES, "update")):
        assert {rules[word] for _, rules in TRIPLES} == set(table)
    assert len(TRIPLES) > 500


def descends(triples, update):
    for name, rules in triples:
        if rules["update"] != update:
            continue
        res = bcd.minimize(PROBLEMS[name], **rules, working_set=False, rng=0)
        fun = res.history["fun"]
        assert res.success, (name, rules, res.message)
        assert res.certificate.value <= 1e-8
        assert np.diff(fun).max(initial=0.0) <= 1e-12 * np.abs(fun).max(), (name, rules)


@pytest.mark.parametrize("update", UPDATES)
def test_every_fifth_legal_triple_descends_to_its_certificate(update):
    descends(TRIPLES[::5], update)


@pytest.mark.slow
@pytest.mark.parametrize("update", UPDATES)
def test_every_legal_triple_descends_to_its_certificate(update):
    descends(TRIPLES, update)


def view_of(problem, x=None, seed=0):
    model = problem.model
    x = np.random.default_rng(seed).standard_normal(model.size) if x is None else x
    state = open_state(model, np.asarray(x, model.dtype), model.zeros()[1])
    return state, View(state)


def step_of(update, state):
    return UPDATES[update].make(state, OPTIONS)


# ------------------------------------------------------------------------------------ formulas
def test_gradient_steps_are_proximal_steps_over_the_largest_eigenvalue():
    block = np.array([0, 2, 3])
    for name in ("lasso", "ridge logistic"):
        state, _ = view_of(PROBLEMS[name])
        x, g = state.x[block].copy(), state.partial(block).copy()
        H = (X[:, block].T @ X[:, block]) / 24 * (1.0 if name == "lasso" else 0.25)
        L = np.linalg.eigvalsh(H)[-1] * (1 + 1e-6)
        step_of("gradient", state)(None, block)
        if name == "lasso":
            v = x - g / L
            want = np.sign(v) * np.maximum(abs(v) - 0.1 / L, 0.0)
        else:
            # The ridge counts as part of the smooth function, and so of its curvature.
            want = x - (g + 0.2 * x) / (L + 0.2)
        np.testing.assert_allclose(state.x[block], want, rtol=1e-5)


@pytest.mark.parametrize("update", ["matrix", "newton", "exact", "prox_newton"])
def test_updates_of_quadratics_minimise_over_the_block(update):
    block = np.array([1, 2, 4])
    state, _ = view_of(PROBLEMS["chain"])
    step_of(update, state)(None, block)
    assert np.abs(state.gradient()[block]).max() <= 1e-10
    state, view = view_of(PROBLEMS["lasso"])
    step_of(update, state)(None, block)
    assert view.violation(view.part(block)) <= 1e-10


def test_exact_updates_of_other_losses_leave_a_hundredth():
    for name in ("elastic logistic", "ridge logistic"):
        state, view = view_of(PROBLEMS[name])
        block = np.array([0, 1, 3])
        before = view.violation(view.part(block))
        step_of("exact", state)(None, block)
        assert view.violation(view.part(block)) <= 1e-2 * before


@pytest.mark.parametrize("update", [u for u in UPDATES if u not in ("auto", "tree")])
@pytest.mark.parametrize("name", PROBLEMS)
def test_updates_tell_by_how_much_they_lower_the_objective(update, name):
    rule = UPDATES[update]
    if name in ("lasso", "elastic logistic") and not rule.composite:
        pytest.skip("for smooth problems")
    state, _ = view_of(PROBLEMS[name])
    step = step_of(update, state)
    for number, block in enumerate([np.array([0, 1]), np.array([2, 3, 4])] * 3):
        before = state.objective()
        fell = step(number % 2, block)
        assert before - state.objective() == pytest.approx(fell, rel=1e-5, abs=1e-13)
        assert fell >= -1e-14


def test_newton_steps_are_shortened_where_they_overshoot():
    # Flat tails of the logistic loss: the full step goes far past the minimiser.
    problem = bcd.Problem(np.ones((4, 1)), [1.0, 1, 1, -1], datafit="logistic")
    state, view = view_of(problem, [6.0])
    block = np.array([0])
    part, H = view.part(block), state.hessian(block)
    full = view.newton_step(part, H)
    assert state.line(block, full).change() > 0
    fell = step_of("newton", state)(None, block)
    t = (state.x[0] - 6.0) / full[0]
    assert 0 < t < 1
    assert fell >= 1e-4 * t * abs(view.predicted(part, full))


def test_backtracking_stays_between_a_tenth_and_a_half_of_the_last_step():
    tried = []

    def change(t):
        tried.append(t)
        return -t + 40.0 * t**2 + 900.0 * t**3

    t, value = backtrack(change, -1.0, lambda: 0.0)
    ratios = np.array(tried[1:]) / tried[:-1]
    assert len(tried) > 2
    assert (ratios >= 0.1 - 1e-12).all()
    assert (ratios <= 0.5 + 1e-12).all()
    assert value <= -1e-4 * t
    assert value == change(t)
    assert backtrack(lambda t: math.inf if t > 0.01 else -t, -1.0, lambda: 0.0)[0] <= 0.01
    assert backtrack(lambda t: t, -1.0, lambda: 0.0) == (0.0, 0.0)


# ---------------------------------------------------------------------------------- cubic model
@given(st.integers(0, 10**6))
@settings(max_examples=60)
def test_cubic_steps_minimise_the_cubic_model(seed):
    rng = np.random.default_rng(seed)
    tau = rng.integers(1, 6)
    R = rng.standard_normal((tau, rng.integers(0, tau + 1)))
    H, g = R @ R.T, rng.standard_normal(tau) * 10.0 ** rng.uniform(-3, 3)
    M = 10.0 ** rng.uniform(-3, 2)
    _, view = view_of(PROBLEMS["chain"])
    d = cubic_step(H, g, M, view)

    def model(d):
        size = np.linalg.norm(d)
        return g @ d + 0.5 * d @ H @ d + M / 6 * size**3

    def slope(d):
        return g + H @ d + 0.5 * M * np.linalg.norm(d) * d

    assert np.linalg.norm(slope(d)) <= 1e-9 * np.linalg.norm(g)
    best = min(
        minimize(model, start, jac=slope, method="BFGS", options={"gtol": 1e-10}).fun
        for start in (-g / np.linalg.norm(g), rng.standard_normal(tau))
    )
    assert model(d) <= best + 1e-9 * abs(best)


def test_a_cubic_step_without_a_slope_stays():
    _, view = view_of(PROBLEMS["chain"])
    assert (cubic_step(np.eye(3), np.zeros(3), 1.0, view) == 0).all()


def test_cubic_steps_never_need_a_line_search():
    problem = bcd.Problem(np.ones((4, 1)), [1.0, 1, 1, -1], datafit="logistic")
    for start in (-8.0, 6.0, 0.5):
        state, _ = view_of(problem, [start])
        step = step_of("cubic", state)
        falls = [step(0, np.array([0])) for _ in range(20)]
        assert min(falls) >= -1e-15
        assert falls[0] > 0
        # The optimum of three against one.
    assert state.x[0] == pytest.approx(np.log(3.0), abs=1e-8)


# -------------------------------------------------------------------------- two metrics, ladder
@pytest.mark.parametrize(
    "penalty",
    [
        penalties.L1(0.1),
        penalties.PositiveL1(0.1),
        penalties.Box(-0.2, 0.4),
        penalties.ElasticBox(0.1, 0.3, -0.5, 0.2),
    ],
)
def test_two_metric_projection_solves_boxes_and_kinks(penalty):
    problem = bcd.Problem(X, Y, penalty=penalty)
    rules = {"partition": "order", "block_size": 5, "selection": "cyclic"}
    res = bcd.minimize(problem, **rules, update="two_metric", tol=1e-12)
    want = bcd.minimize(problem, **rules, update="gradient", tol=1e-12, maxiter=10**5)
    assert res.success
    assert res.fun == pytest.approx(want.fun, rel=1e-11)
    np.testing.assert_allclose(res.x, want.x, atol=1e-6)
    np.testing.assert_array_equal(res.x == 0, want.x == 0)
    assert res.nit < 20


def test_second_order_blocks_that_hold_the_support_end_in_few_steps():
    rng = np.random.default_rng(1)
    D = rng.standard_normal((100, 60)) + 0.5
    w = np.where(np.arange(60) < 12, 1.0, 0.0)
    problem = bcd.Problem(D, D @ w + rng.standard_normal(100), penalty=penalties.PositiveL1(0.3))
    for update in ("exact", "prox_newton", "two_metric"):
        res = bcd.minimize(problem, block_size=30, update=update, tol=1e-13)
        assert res.nit < 30
        assert len(res.support) < 25
        g = D.T @ (D @ res.x - problem.model.y) / 100 + 0.3
        assert np.abs(np.where(res.x > 0, g, np.minimum(g, 0))).max() <= 1e-12


@pytest.mark.parametrize("update", ["prox_newton", "exact", "matrix", "gradient"])
def test_concave_penalties_descend_to_stationary_points(update):
    # Far from the optimum the logistic loss hardly bends, and the penalty does; labels that no
    # plane separates keep the optimum away from infinity.
    labels = np.where(np.arange(24) % 4 == 0, -LABELS, LABELS)
    problem = bcd.Problem(X, labels, datafit="logistic", penalty=penalties.MCP(0.05, 30.0))
    res = bcd.minimize(problem, update=update, block_size=3, x0=np.full(5, 5.0))
    assert res.success
    assert np.diff(res.history["fun"]).max() <= 1e-13


def test_a_curvature_that_is_not_found_ends_the_run(monkeypatch):
    monkeypatch.setattr(Line, "change", lambda self, t=1.0: math.inf)
    with pytest.warns(match="not found in 60 doublings"):
        res = bcd.minimize(PROBLEMS["ridge logistic"], update="lipschitz_ls")
    assert res.status is Status.NUMERICAL
    assert np.isfinite(res.x).all()


def test_found_curvatures_are_halved_after_twenty_successes():
    state, _ = view_of(PROBLEMS["lasso"])
    step, block, lengths = step_of("lipschitz_ls", state), np.arange(5), []
    prox = View.prox_step
    seen = []

    def spy(self, part, L):
        seen.append(L)
        return prox(self, part, L)

    View.prox_step = spy
    try:
        for _ in range(60):
            step(0, block)
            lengths.append(seen[-1])
    finally:
        View.prox_step = prox
    drops = np.flatnonzero(np.array(seen[1:]) < seen[:-1])
    assert drops.size
    assert drops[0] >= 20 - 1
    assert np.isclose(seen[drops[0] + 1], 0.5 * seen[drops[0]])


@pytest.mark.parametrize("rank", [0, 2, 5])
def test_singular_systems_are_solved_on_their_range(rank):
    rng = np.random.default_rng(rank)
    R = rng.standard_normal((5, rank))
    H = R @ R.T
    _, view = view_of(PROBLEMS["chain"])
    want = H @ rng.standard_normal(5)
    got = H @ factorise(H, view.ridge, view.be)(want)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_matrices_that_rounding_made_indefinite_fall_back_on_eigenvalues():
    _, view = view_of(PROBLEMS["chain"])
    H = np.diag([1.0, 2.0, -1e-5])
    d = factorise(H, view.ridge, view.be)(np.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(d, [1.0, 0.5, 0.0])
    with pytest.raises(blocks.BreakdownError):
        factorise(np.array([[1.0, np.nan], [np.nan, 1.0]]), view.ridge, view.be)


@pytest.mark.parametrize("tau", [1, 20, 100, 150])
@pytest.mark.parametrize("spread", [0.0, 1e-6, 1.0])
def test_largest_eigenvalues_are_bounded_from_above_and_closely(tau, spread):
    rng = np.random.default_rng(tau)
    Q = np.linalg.qr(rng.standard_normal((tau, tau)))[0]
    values = 1.0 + spread * rng.random(tau)
    H = (Q * values) @ Q.T
    _, view = view_of(PROBLEMS["chain"])
    top = largest_eigenvalue(0.5 * (H + H.T), view.be)
    assert values.max() * (1 - 1e-12) <= top <= 1.1 * values.max() * max(1, spread * np.sqrt(tau))


def test_what_is_remembered_has_a_limit(monkeypatch):
    monkeypatch.setattr(blocks, "_CACHE_BYTES", 3 * 80)
    computed = []

    def compute(block):
        computed.append(block)
        return np.zeros(10)

    memory = Memory(compute)
    for number in (0, 1, 2, 0, 3, 0, 1):
        memory(number, number)
    # 1 went when 3 came, as 0 had been used since.
    assert computed == [0, 1, 2, 3, 1]
    memory(None, 9)
    memory(None, 9)
    assert computed[-2:] == [9, 9]
