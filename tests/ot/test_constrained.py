"""Plans under linear conditions, held against other people's optimisers and the Gibbs form."""

import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, minimize
from scipy.spatial.distance import cdist

import solvers
from solvers import ot
from solvers.ot import _constrained
from tests import oracles

seeds = st.integers(0, 2**32 - 1)


def normal(constraints):
    """Constraints with a right-hand side each."""
    return [(*c, 0.0) if len(c) == 2 else c for c in constraints]


def tilted(C, constraints, w):
    """The cost of which a constrained plan is a free one, by the documented formula."""
    return C - sum(
        x * np.asarray(D, float) for x, (D, _, _) in zip(w, normal(constraints), strict=True)
    )


def residuals(P, reg, constraints, w):
    """What the certificate promises for each constraint, by its definition."""
    M, out = P.sum(), []
    for x, (D, sign, beta) in zip(w, normal(constraints), strict=True):
        scale = max(np.abs(D - beta / M).max(), 1e-6 * np.abs(D).max())
        value = (np.sum(D * P) - beta) / M / scale
        out.append(abs(value) if sign == "==" else abs(min(value, x * scale / reg)))
    return out


def solve(a, b, C, constraints, **options):
    """Solve, and hold the answer to the conditions of optimality before any test looks at it."""
    res = ot.sinkhorn_newton(a, b, C, constraints=constraints, **options)
    assert res.success, res.message
    P = oracles.gibbs_plan(res.f, res.g, a, b, tilted(C, constraints, res.w), res.reg)
    error = oracles.marginal_error(P, a, b) / np.sum(a)
    total = error + sum(residuals(P, res.reg, constraints, res.w))
    assert total <= 1.001 * res.certificate.tol + 1e-13
    return res


def random_problem(rng, n=7, m=5, count=3, equal=1):
    """Weights, a cost, and constraints that some plan satisfies, inequalities with some slack."""
    a, b = (rng.dirichlet(np.ones(k)) * 0.99 + 0.01 / k for k in (n, m))
    C = cdist(rng.normal(size=(n, 2)), rng.normal(size=(m, 2)), "sqeuclidean")
    # The plan of another cost satisfies them, so that the free one has no reason to.
    R = ot.sinkhorn_newton(a, b, rng.random((n, m)), reg=0.1).plan
    constraints = []
    for k in range(count):
        D = rng.normal(size=(n, m)) * 10.0 ** rng.integers(-2, 3)
        value = np.sum(D * R)
        room = 0.02 * np.abs(D).max() * rng.random()
        constraints.append((D, "==", value) if k < equal else (D, ">=", value - room))
    return a, b, C, constraints


def lowest_cost(a, b, C, constraints):
    """The smallest cost of a plan under constraints, by HiGHS; infinite if there is none."""
    n, m = C.shape
    allowed = np.isfinite(C).ravel()
    marginals = np.vstack([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    rows = {"==": [], ">=": []}
    for D, sign, beta in normal(constraints):
        rows[sign].append(np.r_[np.ravel(D)[allowed], beta])
    equal = np.reshape(rows["=="], (-1, allowed.sum() + 1))
    above = np.reshape(rows[">="], (-1, allowed.sum() + 1))
    found = linprog(
        C.ravel()[allowed],
        A_eq=np.vstack([marginals[:, allowed], equal[:, :-1]]),
        b_eq=np.r_[a, b, equal[:, -1]],
        A_ub=-above[:, :-1] if len(above) else None,
        b_ub=-above[:, -1] if len(above) else None,
        method="highs",
    )
    return found.fun if found.status == 0 else np.inf


def best_dual(a, b, C, reg, constraints):
    """The entropic value, by L-BFGS-B on the textbook dual in all its variables."""
    n, m = C.shape
    D = np.array([c[0] for c in constraints])
    beta = np.array([c[2] for c in constraints])
    bounds = [(None, None)] * (n + m)
    bounds += [(0, None) if c[1] == ">=" else (None, None) for c in constraints]
    # In units in which all multipliers are about as large.
    scale = np.abs(D).max(axis=(1, 2))

    def negated(z):
        f, g, w = z[:n], z[n : n + m], z[n + m :] / scale
        E = np.minimum((f[:, None] + g - C + np.tensordot(w, D, 1)) / reg, 50.0)
        P = np.outer(a, b) * np.exp(E)
        value = a @ f + b @ g + beta @ w + reg * (1 - P.sum())
        inner = np.tensordot(D, P, 2)
        slope = np.r_[a - P.sum(1), b - P.sum(0), (beta - inner) / scale]
        return -value, -slope

    start = np.zeros(n + m + len(constraints))
    options = {"maxiter": 50_000, "maxfun": 100_000, "ftol": 0.0, "gtol": 1e-11, "maxcor": 30}
    return -minimize(
        negated, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    ).fun


# The answer is right --------------------------------------------------------------------------
@settings(max_examples=9)
@given(seeds, st.sampled_from([1.0, 0.1, 0.03]))
def test_the_value_is_that_of_a_general_optimiser_of_the_dual(seed, reg):
    a, b, C, constraints = random_problem(np.random.default_rng(seed))
    res = solve(a, b, C, constraints, reg=reg, tol=1e-10)
    truth = best_dual(a, b, C, reg, constraints)
    # The optimiser comes from below and may stop early; it must never be above.
    assert res.value >= truth - 1e-9
    assert res.value == pytest.approx(truth, abs=1e-5)


def test_a_general_optimiser_of_the_primal_finds_the_same_plan():
    rng = np.random.default_rng(3)
    a, b, C, constraints = random_problem(rng, 3, 3, count=2)
    res = solve(a, b, C, constraints, reg=0.5, tol=1e-11)

    def value(p):
        return oracles.entropic_value(np.maximum(p, 0).reshape(3, 3), a, b, C, 0.5)

    conditions = [
        {"type": "eq", "fun": lambda p: p.reshape(3, 3).sum(axis=1) - a},
        {"type": "eq", "fun": lambda p: p.reshape(3, 3).sum(axis=0)[1:] - b[1:]},
        *(
            {
                "type": "eq" if sign == "==" else "ineq",
                "fun": lambda p, D=D, beta=beta: (np.ravel(D) @ p - beta) / np.abs(D).max(),
            }
            for D, sign, beta in constraints
        ),
    ]
    found = minimize(
        value, res.plan.ravel() * 0 + np.outer(a, b).ravel(), constraints=conditions,
        bounds=[(1e-9, 1)] * 9, method="SLSQP", options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    assert found.success
    np.testing.assert_allclose(res.plan.ravel(), found.x, atol=2e-5)


@pytest.mark.parametrize("relative", [1e-2, 1e-4])
@pytest.mark.parametrize(("count", "equal"), [(1, 0), (1, 1), (5, 2), (20, 8)])
def test_the_cost_comes_as_close_to_the_linear_programme_as_the_entropy_lets_it(
    relative, count, equal
):
    for seed in range(2):
        a, b, C, constraints = random_problem(np.random.default_rng(seed), 30, 25, count, equal)
        reg = relative * C.max()
        res = solve(a, b, C, constraints, reg=reg, tol=1e-9)
        exact = lowest_cost(a, b, C, constraints)
        lower, upper = res.lp_bracket()
        noise = 1e-6 * C.max()
        assert lower <= exact + 1e-9
        assert exact - noise <= upper
        excess = res.value_linear - exact
        assert -noise <= excess <= reg * min(oracles.entropy(a), oracles.entropy(b)) + noise
        assert res.nit < 200


@pytest.mark.parametrize("sign", ["==", ">="])
def test_a_condition_on_one_entry_is_met_exactly_in_a_two_by_two_plan(sign):
    # One degree of freedom: the condition leaves nothing to choose.
    D = [[0, 0], [1, 0]]
    res = solve([0.5, 0.5], [0.25, 0.75], np.array([[0.0, 1.0], [1.0, 0.0]]), [(D, sign, 0.1)],
                reg=0.1, tol=1e-12)  # fmt: skip
    np.testing.assert_allclose(res.plan, [[0.15, 0.35], [0.1, 0.4]], atol=1e-11)
    # The odds ratio of a Gibbs plan gives the multiplier.
    odds = 0.15 * 0.4 / (0.35 * 0.1)
    np.testing.assert_allclose(res.w, [2.0 - 0.1 * np.log(odds)], rtol=1e-9)


@given(seeds, st.sampled_from([1.0, 0.01]))
def test_conditions_with_slack_leave_the_free_plan_alone(seed, reg):
    a, b, C, constraints = random_problem(np.random.default_rng(seed))
    free = ot.sinkhorn_newton(a, b, C, reg=reg, tol=1e-11)
    loose = [(D, ">=", np.sum(D * free.plan) - 0.01 * np.abs(D).max()) for D, *_ in constraints]
    res = solve(a, b, C, loose, reg=reg, tol=1e-10)
    assert not res.w.any()
    assert np.abs(res.plan - free.plan).sum() < 1e-7
    assert res.value == pytest.approx(free.value, abs=1e-9)


def test_constraints_that_say_the_same_share_one_multiplier():
    a, b, C, [(D, _, beta)] = random_problem(np.random.default_rng(1), count=1)
    once = solve(a, b, C, [(D, "==", beta)], reg=0.1, tol=1e-10)
    again = [(D, "==", beta), (3 * D, "==", 3 * beta), (-D, "==", -beta)]
    res = solve(a, b, C, again, reg=0.1, tol=1e-10)
    np.testing.assert_allclose(res.plan, once.plan, atol=1e-8)
    np.testing.assert_allclose(res.w @ [1, 3, -1], once.w[0], rtol=1e-6)


def test_conditions_that_the_weights_imply_change_nothing():
    a, b, C, _ = random_problem(np.random.default_rng(2), count=0)
    row, everything = np.zeros_like(C), np.ones_like(C)
    row[2] = 1.0
    res = solve(
        a, b, C, [(row, "==", a[2]), (everything, "==", 1), (everything, ">=", 1)], reg=0.1
    )
    free = ot.sinkhorn_newton(a, b, C, reg=0.1)
    np.testing.assert_allclose(res.plan, free.plan, atol=1e-7)


def test_an_edge_can_be_forbidden_by_a_condition():
    a, b, C, _ = random_problem(np.random.default_rng(4), count=0)
    D = np.zeros_like(C)
    D[1, 2] = -1.0
    closed = C.copy()
    closed[1, 2] = np.inf
    wanted = ot.sinkhorn_newton(a, b, closed, reg=0.3, tol=1e-10).plan
    for sign in ("==", ">="):
        # The multiplier of such a condition is infinite; a finite one is good enough.
        res = solve(a, b, C, [(D, sign)], reg=0.3, tol=1e-9)
        np.testing.assert_allclose(res.plan, wanted, atol=1e-7)


def test_forbidden_edges_stay_empty_and_do_not_set_the_scale(rng):
    a, b, C, _ = random_problem(rng, 12, 10, count=0)
    C[rng.random(C.shape) < 0.3] = np.inf
    other = np.where(np.isfinite(C), rng.random(C.shape), np.inf)
    R = ot.sinkhorn_newton(a, b, other, reg=0.1).plan
    D = rng.normal(size=C.shape)
    beta = np.sum(D * R)
    # What a matrix says about edges that nobody uses is nothing.
    loud = np.where(np.isfinite(C), D, 1e9)
    res = ot.sinkhorn_newton(a, b, C, reg=0.1, tol=1e-10, constraints=[(loud, "==", beta)])
    assert res.success
    assert (res.plan[np.isinf(C)] == 0).all()
    assert np.sum(D * res.plan) == pytest.approx(beta, abs=1e-8)
    quiet = ot.sinkhorn_newton(a, b, C, reg=0.1, tol=1e-10, constraints=[(D, "==", beta)])
    np.testing.assert_allclose(res.plan, quiet.plan, atol=1e-9)
    exact = lowest_cost(a, b, C, [(np.where(np.isfinite(C), D, 0), "==", beta)])
    assert res.lp_bracket()[0] <= exact + 1e-9


def test_points_without_weight_take_no_part():
    rng = np.random.default_rng(5)
    a, b, C, constraints = random_problem(rng)
    a0, b0 = np.insert(a, 2, 0.0), np.insert(b, [0, 4], 0.0)
    full = rng.normal(size=(8, 7))
    rows, cols = np.delete(np.arange(8), 2), np.delete(np.arange(7), [0, 5])
    C0 = full.copy()
    C0[np.ix_(rows, cols)] = C
    larger = []
    for D, sign, beta in constraints:
        D0 = full.copy()
        D0[np.ix_(rows, cols)] = D
        larger.append((D0, sign, beta))
    small = solve(a, b, C, constraints, reg=0.2, tol=1e-10)
    res = ot.sinkhorn_newton(a0, b0, C0, reg=0.2, tol=1e-10, constraints=larger)
    assert res.success
    np.testing.assert_allclose(res.plan[np.ix_(rows, cols)], small.plan, atol=1e-8)
    assert res.plan.sum() == pytest.approx(1.0)
    assert np.isfinite(res.f).all()
    assert np.isfinite(res.g).all()


@pytest.mark.parametrize(("n", "m"), [(1, 1), (1, 4), (4, 1)])
def test_one_point_leaves_nothing_to_choose(rng, n, m):
    a, b = rng.dirichlet(np.ones(n)), rng.dirichlet(np.ones(m))
    D, C = rng.normal(size=(n, m)), rng.random((n, m))
    only = np.sum(D * np.outer(a, b))
    res = solve(a, b, C, [(D, ">=", only - 0.1), (D, "==", only)], reg=0.1)
    np.testing.assert_allclose(res.plan, np.outer(a, b), atol=1e-9)


# Invariances ----------------------------------------------------------------------------------
@pytest.mark.parametrize("mass", [1e-3, 7.0])
def test_the_right_hand_side_is_in_units_of_mass(mass):
    a, b, C, constraints = random_problem(np.random.default_rng(6))
    one = solve(a, b, C, constraints, reg=0.1, tol=1e-10)
    scaled = [(D, sign, mass * beta) for D, sign, beta in constraints]
    res = solve(mass * a, mass * b, C, scaled, reg=0.1, tol=1e-10)
    np.testing.assert_allclose(res.plan, mass * one.plan, atol=1e-9 * mass)
    np.testing.assert_allclose(res.w, one.w, atol=1e-8)
    assert res.value == pytest.approx(mass * one.value, rel=1e-8)
    for (D, sign, beta), w in zip(scaled, res.w, strict=True):
        value = np.sum(D * res.plan)
        assert value == pytest.approx(beta, abs=1e-8 * mass * np.abs(D).max()) or (
            sign == ">=" and value > beta and w == 0
        )


@given(seeds)
def test_the_order_of_constraints_and_their_units_do_not_matter(seed):
    rng = np.random.default_rng(seed)
    a, b, C, constraints = random_problem(rng, count=4, equal=2)
    res = solve(a, b, C, constraints, reg=0.2, tol=1e-10)
    order, units = rng.permutation(4), 10.0 ** rng.integers(-3, 4, size=4)
    others = [
        (units[k] * constraints[k][0], constraints[k][1], units[k] * constraints[k][2])
        for k in order
    ]
    again = solve(a, b, C, others, reg=0.2, tol=1e-10)
    np.testing.assert_allclose(again.plan, res.plan, atol=1e-7)
    np.testing.assert_allclose(again.w * units[order], res.w[order], atol=1e-5 * C.max())


def test_arrays_of_any_order_and_precision_are_understood(rng):
    a, b, C, constraints = random_problem(np.random.default_rng(7))
    ref = solve(a, b, C, constraints, reg=0.2, tol=1e-10)
    turned = [(np.asfortranarray(D), sign, beta) for D, sign, beta in constraints]
    for res in (
        solve(a, b, np.asfortranarray(C), constraints, reg=0.2, tol=1e-10),
        solve(a, b, np.asfortranarray(C), turned, reg=0.2, tol=1e-10),
        solve(a, b, C, turned, reg=0.2, tol=1e-10),
    ):
        assert res.f.shape == a.shape
        np.testing.assert_allclose(res.plan, ref.plan, atol=1e-8)
        np.testing.assert_allclose(res.w, ref.w, atol=1e-7)
        np.testing.assert_allclose(res.apply(np.ones(b.size)), a, atol=1e-9)
    # A list of whole numbers.
    D = [[1] * b.size] + [[0] * b.size] * (a.size - 1)
    solve(a, b, C, ((D, ">="),), reg=0.2)


def test_a_point_cloud_may_take_the_place_of_the_cost(rng):
    x, y = rng.normal(size=(9, 2)), rng.normal(size=(7, 2))
    C = cdist(x, y, "sqeuclidean")
    D = rng.normal(size=C.shape)
    free = ot.sinkhorn_newton(None, None, C, reg=0.2)
    constraints = [(D, ">=", np.sum(D * free.plan) + 0.1)]
    ref = solve(np.full(9, 1 / 9), np.full(7, 1 / 7), C, constraints, reg=0.2, tol=1e-10)
    assert ref.w[0] > 0
    cloud = ot.PointCloud(x, y)
    res = ot.sinkhorn_newton(None, None, cloud, reg=0.2, tol=1e-10, constraints=constraints)
    assert res.success
    np.testing.assert_allclose(res.plan, ref.plan, atol=1e-8)
    cert = ot.certify(
        None, None, cloud, res.f, res.g, reg=0.2, tol=1e-9, constraints=constraints, w=res.w
    )
    assert cert.holds


def test_single_precision_in_gives_single_precision_out():
    a, b, C, constraints = random_problem(np.random.default_rng(8), 20, 15)
    ref = solve(a, b, C, constraints, reg=0.3)
    small = [(D.astype("f"), sign, beta) for D, sign, beta in constraints]
    res = ot.sinkhorn_newton(*(x.astype("f") for x in (a, b, C)), reg=0.3, constraints=small)
    assert res.success
    assert res.certificate.tol == 1e-5
    assert {x.dtype for x in (res.f, res.g, res.w, res.plan)} == {np.dtype("f")}
    np.testing.assert_allclose(res.plan, ref.plan, atol=1e-5)


def test_nothing_that_was_passed_is_modified_and_runs_repeat():
    a, b, C, constraints = random_problem(np.random.default_rng(9))
    copies = [x.copy() for x in (a, b, C, *(D for D, *_ in constraints))]
    first, second = (solve(a, b, C, constraints, reg=0.2) for _ in range(2))
    for before, after in zip(copies, (a, b, C, *(D for D, *_ in constraints)), strict=True):
        np.testing.assert_array_equal(before, after)
    for name in ("f", "g", "w"):
        np.testing.assert_array_equal(first[name], second[name])


# The result -----------------------------------------------------------------------------------
@pytest.mark.parametrize("order", ["C", "F"])
def test_everything_lazy_belongs_to_the_constrained_plan(order):
    a, b, C, constraints = random_problem(np.random.default_rng(10), 7, 5)
    mass = 7.0
    a, b = mass * a, mass * b
    C = np.asarray(C, order=order)
    constraints = [(D, sign, mass * beta) for D, sign, beta in constraints]
    res = pickle.loads(pickle.dumps(solve(a, b, C, constraints, reg=0.2, tol=1e-10)))
    P = oracles.gibbs_plan(res.f, res.g, a, b, tilted(C, constraints, res.w), 0.2)
    np.testing.assert_allclose(res.plan, P, rtol=1e-10)
    np.testing.assert_allclose(res.plan_sparse(0.0).toarray(), P, rtol=1e-10)
    V = np.arange(10.0).reshape(5, 2)
    np.testing.assert_allclose(res.apply(V), P @ V, rtol=1e-10)
    np.testing.assert_allclose(res.apply(a, axis=0), P.T @ a, rtol=1e-10)
    assert res.value_linear == pytest.approx(np.sum(C * P))
    assert res.cost_rounded == pytest.approx(np.sum(C * ot.round_plan(P, a, b)))
    np.testing.assert_array_equal(res.grad_C, res.plan)
    truth = oracles.entropic_value(P, a, b, C, 0.2)
    assert res.value == pytest.approx(truth, abs=1e-7)
    assert res.marginal_error == pytest.approx(oracles.marginal_error(P, a, b), abs=1e-12)
    details = res.certificate.details
    assert res.dual == details["dual"]
    assert details["dual"] <= truth + 1e-9 <= details["primal"] + 2e-9
    assert details["entropic_gap"] == pytest.approx(0.0, abs=1e-6)
    for k, value in enumerate(residuals(P, 0.2, constraints, res.w)):
        assert details[f"constraint_{k}"] == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("name", ["a", "C", "beta"])
def test_the_value_has_the_slopes_that_potentials_plan_and_multipliers_say(name):
    rng = np.random.default_rng(11)
    a, b, C, constraints = random_problem(rng)
    (D, sign, beta), *rest = constraints
    change = rng.normal(size=a.shape if name == "a" else C.shape)
    change = change - change.mean() if name == "a" else change
    change = 1e-4 * change / np.abs(change).max() * (a.min() if name == "a" else 1)

    def value(t):
        moved = (
            a + t * change if name == "a" else a,
            b,
            C + t * change if name == "C" else C,
            [(D, sign, beta + (1e-4 * t if name == "beta" else 0)), *rest],
        )
        return solve(*moved, reg=0.3, tol=1e-12).value

    res = solve(a, b, C, constraints, reg=0.3, tol=1e-12)
    slope = {
        "a": np.sum(res.grad_a * change) if name == "a" else None,
        "C": np.sum(res.grad_C * change) if name == "C" else None,
        "beta": 1e-4 * res.w[0],
    }[name]
    assert (value(1) - value(-1)) / 2 == pytest.approx(slope, rel=1e-4, abs=1e-12)


def test_entropy_form_differs_by_the_entropies_of_the_weights():
    a, b, C, constraints = random_problem(np.random.default_rng(12))
    kl = solve(a, b, C, constraints, reg=0.3)
    res = solve(a, b, C, constraints, reg=0.3, reg_type="entropy")
    shift = -0.3 * (oracles.entropy(a) + oracles.entropy(b) + 1)
    assert res.value - kl.value == pytest.approx(shift, rel=1e-9)


# The judge ------------------------------------------------------------------------------------
@given(seeds, st.sampled_from([0.0, 1e-6, 1e-2, 1.0]))
def test_the_judge_measures_any_multipliers_by_the_definition(seed, noise):
    rng = np.random.default_rng(seed)
    a, b, C, constraints = random_problem(rng)
    a, b = 3 * a, 3 * b
    constraints = [(D, sign, 3 * beta) for D, sign, beta in constraints]
    res = ot.sinkhorn_newton(a, b, C, reg=0.5, constraints=constraints)
    scales = np.array([np.abs(D - beta / 3).max() for D, _, beta in constraints])
    w = res.w + noise * rng.normal(size=3) / scales
    f, g = res.f + noise * rng.normal(size=7), res.g
    P = oracles.gibbs_plan(f, g, a, b, tilted(C, constraints, w), 0.5)
    cert = ot.certify(a, b, C, f, g, reg=0.5, constraints=constraints, w=w)
    # By hand, because the plan's mass may be far from that of the weights.
    total, details = oracles.marginal_error(P, a, b) / 3, cert.details
    for k, (D, sign, beta) in enumerate(constraints):
        value = np.sum((D - beta / 3) * P) / 3 / scales[k]
        part = abs(value) if sign == "==" else abs(min(value, w[k] * scales[k] / 0.5))
        assert details[f"constraint_{k}"] == pytest.approx(part, rel=1e-9, abs=1e-12)
        total += part
    assert cert.value == pytest.approx(total, rel=1e-9, abs=1e-12)
    dual = (
        a @ f
        + b @ g
        + sum(x * c[2] for x, c in zip(w, constraints, strict=True))
        + 0.5 * (3 - P.sum())
    )
    assert details["dual"] == pytest.approx(dual, rel=1e-9, abs=1e-9)
    if (w[[c[1] == ">=" for c in constraints]] >= 0).all():
        assert details["dual"] <= res.value + 1e-7
    rounded = ot.round_plan(P, a, b)
    assert details["primal"] >= oracles.entropic_value(rounded, a, b, C, 0.5) - 1e-9
    entropy = min(oracles.entropy(x / 3) for x in (a, b))
    assert details["largest_value"] == pytest.approx(3 * (C.max() + 0.5 * entropy))


def test_the_judge_rejects_multipliers_that_break_a_rule():
    a, b, C, [(D, _, _)] = random_problem(np.random.default_rng(13), count=1)
    free = ot.sinkhorn_newton(a, b, C, reg=0.5, tol=1e-10)
    value = np.sum(D * free.plan)
    top = np.abs(D).max()

    def judge(f, g, w, sign, bound):
        constraints = [(D, sign, bound)]
        return ot.certify(a, b, C, f, g, reg=0.5, tol=1e-8, constraints=constraints, w=w)

    assert judge(free.f, free.g, [0.0], ">=", value - 0.1 * top).holds
    assert judge(free.f, free.g, None, ">=", value - 0.1 * top).holds
    assert not judge(free.f, free.g, [0.0], ">=", value + 0.1 * top).holds
    assert not judge(free.f, free.g, [0.0], "==", value - 0.1 * top).holds
    # A multiplier that pushes where there is slack, or the wrong way.
    for sign in (1, -1):
        res = ot.sinkhorn_newton(a, b, C - sign * D / top, reg=0.5, tol=1e-10)
        room = np.sum(D * res.plan) - (0.2 * top if sign == 1 else 0.0)
        assert not judge(res.f, res.g, [sign / top], ">=", room).holds
    assert judge(free.f, free.g, [np.nan], "==", value).value == np.inf


# Ends -----------------------------------------------------------------------------------------
def unsolved(a, b, C, constraints, **options):
    """Solve what cannot be solved: one warning, and numbers all the same."""
    with pytest.warns(solvers.ConvergenceWarning) as seen:
        res = ot.sinkhorn_newton(a, b, C, constraints=constraints, **options)
    assert len(seen) == 1
    assert not res.success
    for x in (res.f, res.g, res.w, res.plan):
        assert np.isfinite(x).all()
    return res


@pytest.mark.parametrize("relative", [0.1, 1e-2, 1e-4])
@pytest.mark.parametrize(
    "how", ["impossible mass", "two against each other", "more than any plan"]
)
def test_contradictions_end_as_infeasible_with_a_proof(relative, how):
    a, b, C, [(D, _, beta)] = random_problem(np.random.default_rng(14), 12, 9, count=1)
    top = np.abs(D).max()
    constraints = {
        "impossible mass": [(np.ones_like(C), "==", 0.5)],
        "two against each other": [(D, ">=", beta), (-D, ">=", 0.01 * top - beta)],
        "more than any plan": [(D, ">=", -lowest_cost(a, b, -D, []) + 0.01 * top)],
    }[how]
    assert lowest_cost(a, b, C, constraints) == np.inf
    res = unsolved(a, b, C, constraints, reg=relative * C.max())
    assert res.status is solvers.Status.INFEASIBLE
    assert "dual" in res.message
    # The proof, from the definitions.
    w = np.asarray(res.w)
    assert all(x >= 0 for x, c in zip(w, constraints, strict=True) if c[1] == ">=")
    P = oracles.gibbs_plan(res.f, res.g, a, b, tilted(C, constraints, w), res.reg)
    bounds = np.array([c[2] for c in constraints])
    dual = a @ res.f + b @ res.g + w @ bounds + res.reg * (1 - P.sum())
    assert dual > C.max() + res.reg * min(oracles.entropy(a), oracles.entropy(b))


def test_what_is_barely_possible_is_solved_and_not_called_a_contradiction():
    a, b, C, [(D, _, _)] = random_problem(np.random.default_rng(15), 12, 9, count=1)
    most = -lowest_cost(a, b, -D, [])
    solve(a, b, C, [(D, ">=", most - 1e-4 * np.abs(D).max())], reg=0.01 * C.max())


def test_conditions_that_forbidden_edges_make_impossible_are_infeasible():
    a = b = np.array([0.5, 0.5])
    C = np.array([[0.0, np.inf], [0.0, 0.0]])
    # The only plan is diagonal.
    res = unsolved(a, b, C, [(np.eye(2), "==", 0.5)], reg=0.1)
    assert res.status is solvers.Status.INFEASIBLE
    blocked = np.array([[np.inf, np.inf], [0.0, 0.0]])
    res = unsolved(a, b, blocked, [(np.eye(2), "==", 0.5)], reg=0.1)
    assert res.status is solvers.Status.INFEASIBLE


@pytest.mark.parametrize("maxiter", [1, 3, 6, 9])
def test_maxiter_counts_passes(maxiter):
    a, b, C, constraints = random_problem(np.random.default_rng(16), 12, 9)
    res = unsolved(a, b, C, constraints, reg=1e-3 * C.max(), maxiter=maxiter)
    assert res.status is solvers.Status.MAXITER
    assert res.nit <= maxiter
    # The rows are exact at the temperature asked for, wherever the run ended.
    assert res.certificate.details["row_error"] < 1e-9


def test_a_time_limit_and_a_callback_end_a_run():
    a, b, C, constraints = random_problem(np.random.default_rng(17), 12, 9)
    res = unsolved(a, b, C, constraints, reg=1e-3 * C.max(), time_limit=1e-9)
    assert res.status is solvers.Status.TIME_LIMIT
    seen = []

    def stop(intermediate_result):
        seen.append(intermediate_result)
        return len(seen) == 3

    options = {"reg": 1e-3 * C.max(), "constraints": constraints, "callback": stop}
    res = ot.sinkhorn_newton(a, b, np.asfortranarray(C), **options)
    assert res.status is solvers.Status.CALLBACK
    assert len(seen) == 3
    assert seen[0].f.shape == a.shape
    assert seen[0].g.shape == b.shape
    assert seen[0].w.shape == (3,)
    # One step is many passes.
    assert res.nit == seen[-1].nit > 3
    assert len(res.history["nit"]) == 3


def test_a_solution_is_recognised_in_one_pass():
    a, b, C, constraints = random_problem(np.random.default_rng(18), 12, 9)
    options = {"reg": 0.01 * C.max(), "tol": 1e-9}
    res = solve(a, b, C, constraints, **options)
    assert solve(a, b, C, constraints, x0=res, **options).nit <= 2
    # Other starts do no harm.
    free = ot.sinkhorn_newton(a, b, C, **options)
    for start in ({"x0": free}, {"x0": (res.f, res.g)}, {"g0": res.g}, {"annealing": False}):
        again = solve(a, b, C, constraints, **start, **options)
        np.testing.assert_allclose(again.plan, res.plan, atol=1e-7)
    other = solve(a, b, C, constraints[:2], x0=res, **options)
    assert other.w.shape == (2,)


def test_no_list_or_an_empty_one_is_the_free_problem():
    a, b, C, _ = random_problem(np.random.default_rng(19), count=0)
    free = ot.sinkhorn_newton(a, b, C, reg=0.1)
    res = ot.sinkhorn_newton(a, b, C, reg=0.1, constraints=[])
    np.testing.assert_array_equal(res.plan, free.plan)
    assert "w" not in res


# Bad input ------------------------------------------------------------------------------------
D = np.arange(6.0).reshape(2, 3)
BAD = {
    "a matrix alone": (D, TypeError),
    "a pair outside a list": ((D, ">="), TypeError),
    "a name": (">=", TypeError),
    "a matrix in a list": ([D], TypeError),
    "four parts": ([(D, ">=", 0.0, 1.0)], TypeError),
    "another sign": ([(D, "<=")], ValueError),
    "a sign that is no word": ([(D, 1)], TypeError),
    "the transposed shape": ([(D.T, ">=")], ValueError),
    "a vector": ([(D[0], ">=")], ValueError),
    "NaN": ([(D, ">="), (np.full((2, 3), np.nan), ">=")], ValueError),
    "infinity": ([(np.where(D > 0, D, np.inf), ">=")], ValueError),
    "complex numbers": ([(D + 1j, ">=")], TypeError),
    "words": ([(np.full((2, 3), "x"), ">=")], TypeError),
    "nothing": ([(None, ">=")], TypeError),
    "a sparse matrix": ([(scipy.sparse.csr_array(D), ">=")], TypeError),
    "a bound that is no number": ([(D, ">=", "0")], TypeError),
    "a bound that is an array": ([(D, ">=", np.zeros(1))], TypeError),
    "a bound of NaN": ([(D, ">=", np.nan)], ValueError),
    "an infinite bound": ([(D, "==", np.inf)], ValueError),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_constraints_are_refused_by_name(name):
    constraints, kind = BAD[name]
    a, b, C = [0.5, 0.5], [0.2, 0.3, 0.5], np.ones((2, 3))
    with pytest.raises(kind, match=r"^`constraints`"):
        ot.sinkhorn_newton(a, b, C, constraints=constraints)
    with pytest.raises(kind, match=r"^`constraints`"):
        ot.certify(a, b, C, np.zeros(2), np.zeros(3), reg=0.1, constraints=constraints)


def test_bad_multipliers_and_other_methods_are_refused_by_name():
    a, b, C = [0.5, 0.5], [0.2, 0.3, 0.5], np.ones((2, 3))
    data = a, b, C, np.zeros(2), np.zeros(3)
    with pytest.raises(ValueError, match=r"^`w` came with shape"):
        ot.certify(*data, reg=0.1, constraints=[(D, ">=")], w=[1.0, 2.0])
    with pytest.raises(ValueError, match=r"^`w` came with shape"):
        ot.certify(*data, reg=0.1, w=[1.0])
    with pytest.raises(TypeError, match=r"^`w`"):
        ot.certify(*data, reg=0.1, constraints=[(D, ">=")], w=[1j])
    with pytest.raises(ValueError, match=r"^`constraints` came with method='sns-paper'"):
        ot.sinkhorn_newton(a, b, C, constraints=[(D, ">=")], method="sns-paper")


# The steps ------------------------------------------------------------------------------------
@given(seeds, st.integers(1, 6))
def test_the_small_quadratic_programme_is_solved(seed, size):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(size, size))
    H, v = A @ A.T + 0.01 * np.eye(size), rng.normal(size=size)
    lower, upper = -rng.random(size) * (rng.random(size) < 0.6), 0.1 + rng.random(size)
    x = _constrained.bounded_minimum(H, v, lower, upper)
    assert (x >= lower).all()
    assert (x <= upper).all()
    # The slope may only point out of the box.
    slope = H @ x + v
    assert np.abs(x - np.clip(x - slope, lower, upper)).max() < 1e-9


def test_single_passes_are_silent_about_what_they_overflow():
    a, b, C, constraints = random_problem(np.random.default_rng(20), 12, 9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(a, b, 1e3 * C, constraints, reg=0.1)
