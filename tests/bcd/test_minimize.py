"""The loop of block coordinate descent: what is counted, recorded, decided and refused."""

import numpy as np
import pytest
import scipy.sparse as sp

import solvers.bcd._minimize as loop
from solvers import ConvergenceWarning, Status, bcd, penalties

rng0 = np.random.default_rng(11)
X = rng0.standard_normal((40, 12))
X[:, 1:] += 0.5 * X[:, :-1]
Y = X[:, :3] @ np.array([1.0, -1.0, 0.5]) + 0.3 * rng0.standard_normal(40)
LABELS = np.sign(Y)
LASSO = bcd.Problem(X, Y, penalty=penalties.L1(0.05))
SLOW = {"partition": "order", "block_size": 3, "selection": "cyclic", "update": "gradient"}
DATAFITS = {
    "quadratic": Y,
    "logistic": LABELS,
    "huber": Y,
    "squared_hinge": LABELS,
    "multinomial": np.digitize(Y, [-0.5, 0.5]),
    "poisson": np.round(np.abs(Y)),
}


def lasso_gap(w, c=None, a=0.05):
    """Duality gap by hand; with an intercept the residual is centred."""
    r = Y - X @ w - (0.0 if c is None else c)
    primal = r @ r / 80 + a * np.abs(w).sum()
    r = r if c is None else r - r.mean()
    limit = 40 * a / np.abs(X.T @ r).max()
    k = np.clip(r @ Y / (r @ r), -limit, limit)
    return primal - (k * (r @ Y) - 0.5 * k * k * (r @ r)) / 40


def test_the_history_is_the_run():
    res = bcd.minimize(LASSO, **SLOW)
    h = res.history
    assert set(h) == {"nit", "seconds", "value", "fun", "gap", "nnz", "block"}
    assert (np.diff(h["nit"]) == 4).all()
    assert h["nit"][-1] == res.nit == res.n_blocks
    assert (h["block"] == 3).all()
    assert h["fun"][-1] == pytest.approx(res.fun, rel=1e-12)
    assert h["nnz"][-1] == np.count_nonzero(res.x)
    assert h["gap"][-1] == pytest.approx(lasso_gap(res.x), rel=1e-6)
    assert res.used == {"partition": "order", "selection": "cyclic", "update": "gradient"}


def test_updates_between_two_looks_are_what_was_asked_for():
    for every in (1, 5, 7):
        res = bcd.minimize(LASSO, **SLOW, check_every=every)
        assert (np.diff(res.history["nit"]) == every).all()
    greedy = bcd.minimize(LASSO, block_size=3, selection="gs", update="gradient")
    assert (np.diff(greedy.history["nit"]) == 1).all()


@pytest.mark.parametrize("size", [1, 3])
def test_the_last_update_is_the_one_that_was_asked_for(size):
    rules = {**SLOW, "block_size": size}
    for maxiter in (0, 1, 6):
        with pytest.warns(ConvergenceWarning):
            res = bcd.minimize(LASSO, **rules, maxiter=maxiter, tol=1e-15)
        assert res.status is Status.MAXITER
        assert res.nit == maxiter
        moved = np.flatnonzero(res.x)
        assert moved.size <= size * maxiter


def test_an_optimal_start_is_left_alone():
    first = bcd.minimize(LASSO, **SLOW)
    for start in (first, first.x):
        again = bcd.minimize(LASSO, **SLOW, x0=start)
        assert again.nit == 0
        np.testing.assert_array_equal(again.x, first.x)
    zero = bcd.Problem(X, Y, penalty=penalties.L1(10.0))
    assert bcd.minimize(zero, **SLOW).nit == 0


@pytest.mark.parametrize("datafit", DATAFITS)
@pytest.mark.parametrize("intercept", [False, True])
def test_every_loss_is_solved_with_rules(datafit, intercept):
    problem = bcd.Problem(
        X,
        DATAFITS[datafit],
        datafit=datafit,
        penalty=penalties.ElasticNet(0.1, 0.5),
        fit_intercept=intercept,
    )
    free = {"partition": "order", "block_size": 4}
    res = bcd.minimize(problem, **free, selection="gs", tol=1e-9)
    other = bcd.minimize(problem, **free, selection="cyclic", update="lipschitz_ls", tol=1e-9)
    assert res.success
    assert other.success
    np.testing.assert_allclose(res.x, other.x, atol=2e-4)
    assert bcd.certify(problem, res.x, intercept=res.intercept, tol=1e-9).holds


def test_an_intercept_is_found_with_every_update():
    problem = bcd.Problem(X, Y + 7.0, penalty=penalties.L1(0.05), fit_intercept=True)
    for update in ("gradient", "exact", "two_metric", "lipschitz_ls"):
        res = bcd.minimize(problem, block_size=4, update=update, tol=1e-10)
        c = res.intercept - 7.0
        assert lasso_gap(res.x, c) <= 1e-9 * problem.model.loss_sum(0.0 * Y)


@pytest.mark.parametrize("update", ["gradient", "exact", "newton", "two_metric"])
@pytest.mark.parametrize("datafit", ["quadratic", "logistic"])
def test_single_precision_meets_its_default_tolerance(update, datafit):
    y = DATAFITS[datafit].astype(np.float32)
    problem = bcd.Problem(
        X.astype(np.float32), y, datafit=datafit, penalty=penalties.L1(0.05), fit_intercept=True
    )
    res = bcd.minimize(problem, block_size=4, update=update)
    assert res.success
    assert res.certificate.tol == 1e-6
    assert res.x.dtype == np.float32


@pytest.mark.parametrize("data", [np.asfortranarray(X), sp.csc_array(X), X[:, ::-1][:, ::-1]])
def test_layouts_agree(data):
    want = bcd.minimize(LASSO, block_size=4, update="exact", tol=1e-12)
    problem = bcd.Problem(data, Y, penalty=penalties.L1(0.05))
    res = bcd.minimize(problem, block_size=4, update="exact", tol=1e-12)
    np.testing.assert_allclose(res.x, want.x, atol=1e-7)


SINGLE = [
    ("order", "cyclic"),
    ("sort", "perm"),
    ("order", "random"),
    ("order", "lipschitz"),
    ("variable", "gs"),
    ("variable", "gsl"),
    ("variable", "gs-r"),
    ("variable", "gsq"),
    ("order", "gsd"),
]


@pytest.mark.parametrize(("partition", "selection"), SINGLE)
@pytest.mark.parametrize("kind", ["dense", "sparse", "intercept", "quadratic"])
def test_kernels_of_single_unknowns_take_the_steps_of_the_loop(
    partition, selection, kind, monkeypatch
):
    problem = {
        "dense": LASSO,
        "sparse": bcd.Problem(sp.csc_array(X), Y, penalty=penalties.L1(0.05)),
        "intercept": bcd.Problem(X, Y + 1.0, penalty=penalties.L1(0.05), fit_intercept=True),
        "quadratic": bcd.Problem.quadratic(X.T @ X, X.T @ Y, bounds=(-0.5, 1.0), l1=2.0),
    }[kind]
    rules = {"partition": partition, "selection": selection, "block_size": 1, "rng": 3}
    options = {**rules, "update": "gradient", "maxiter": 30, "check_every": 10, "tol": 1e-15}

    def run():
        with pytest.warns(ConvergenceWarning):
            return bcd.minimize(problem, **options)

    fast = run()
    monkeypatch.setattr(loop, "moves_singly", lambda *args: False)
    slow = run()
    np.testing.assert_allclose(fast.x, slow.x, atol=1e-13)
    np.testing.assert_allclose(fast.history["fun"], slow.history["fun"], rtol=1e-12)
    assert fast.nit == slow.nit == 30


def test_single_unknowns_of_a_logistic_loss_are_swept():
    problem = bcd.Problem(X, LABELS, datafit="logistic", penalty=penalties.L1(0.02))
    for selection in ("cyclic", "perm", "random", "lipschitz"):
        rules = {"partition": "order", "block_size": 1, "selection": selection}
        res = bcd.minimize(problem, **rules, update="gradient", rng=0, maxiter=10**5)
        assert res.success
        assert np.diff(res.history["fun"]).max() <= 1e-14


@pytest.mark.parametrize("method", ["cd", "anderson"])
@pytest.mark.parametrize("sparse", [False, True])
def test_coordinate_descent_agrees_with_the_default(method, sparse):
    data = sp.csc_array(X) if sparse else X
    cases = {
        "lasso": lambda **kw: bcd.lasso(data, Y + 1, 0.05, fit_intercept=True, **kw),
        "elastic_net": lambda **kw: bcd.elastic_net(data, Y, 0.05, **kw),
        "huber": lambda **kw: bcd.huber(data, Y, 0.05, delta=0.5, **kw),
        "logistic": lambda **kw: bcd.logistic(data, LABELS, 0.02, fit_intercept=True, **kw),
    }
    for name, fit in cases.items():
        res, want = fit(method=method, tol=1e-9), fit(tol=1e-9)
        assert res.success, name
        assert res.fun == pytest.approx(want.fun, abs=3e-9), name
        assert np.diff(res.history["fun"]).max(initial=0.0) <= 1e-13, name


def test_extrapolation_saves_sweeps():
    rng = np.random.default_rng(2)
    D = np.cumsum(rng.standard_normal((60, 30)), axis=1)
    y = rng.standard_normal(60)
    a = 1e-3 * bcd.alpha_max("quadratic", D, y)
    plain = bcd.lasso(D, y, a, method="cd", check_every=1, maxiter=10**5)
    fast = bcd.lasso(D, y, a, method="anderson", check_every=1, maxiter=10**5)
    assert fast.success
    assert fast.nit < 0.5 * plain.nit


def test_the_order_of_sweeps_follows_the_selection():
    orders = {}
    for selection in ("cyclic", "random", "perm"):
        rules = {"method": "cd", "partition": "order", "selection": selection, "maxiter": 2}
        with pytest.warns(ConvergenceWarning):
            orders[selection] = [bcd.lasso(X, Y, 0.05, **rules, rng=seed).x for seed in (0, 0, 1)]
    for selection, (one, same, other) in orders.items():
        np.testing.assert_array_equal(one, same)
        assert (selection == "cyclic") == np.array_equal(one, other)
    assert not np.array_equal(orders["random"][0], orders["perm"][0])


def test_a_loss_without_a_largest_curvature_is_selected_by_its_gradient():
    counts = DATAFITS["poisson"]
    problem = bcd.Problem(X, counts, datafit="poisson", penalty=penalties.L1(0.1))
    res = bcd.minimize(problem, working_set=False)
    assert res.success
    assert res.used["selection"] == "gs"


def test_the_working_set_is_what_the_default_has_and_false_takes_away():
    rules = bcd.minimize(LASSO, working_set=False)
    assert rules.used == {"partition": "variable", "selection": "gsq", "update": "exact"}
    default = bcd.minimize(LASSO)
    assert default.used != rules.used
    assert default.fun == pytest.approx(rules.fun, rel=1e-7)


def test_the_norm_of_scores_matters_and_is_checked():
    # Blocks of one large and of many small slopes: the norms disagree.
    A, b = np.eye(4), np.array([2.0, 0.0, 1.4, 1.4])
    problem = bcd.Problem.quadratic(A, b)
    firsts = []
    for norm in (1, 2):
        rules = {"partition": "order", "block_size": 2, "selection": "gs", "update": "exact"}
        with pytest.warns(ConvergenceWarning):
            res = bcd.minimize(problem, **rules, norm=norm, maxiter=1)
        firsts.append(np.flatnonzero(res.x).tolist())
    assert firsts == [[2, 3], [0]]
    for norm in (0, 3, "2", None):
        with pytest.raises((TypeError, ValueError), match="`norm`"):
            bcd.minimize(problem, norm=norm)


def test_what_is_no_problem_is_refused():
    for wrong in (None, X, LASSO.model):
        with pytest.raises(TypeError, match="`problem`"):
            bcd.minimize(wrong)


def test_groups_are_their_own_blocks():
    problem = bcd.Problem(X, Y, penalty=penalties.GroupL2(0.05, np.arange(12) // 3))
    assert bcd.minimize(problem, working_set=False).success
    with pytest.raises(ValueError, match=r"`partition`|partition="):
        bcd.minimize(problem, update="gradient")


@pytest.mark.parametrize("rules", [SLOW, {**SLOW, "block_size": 1}, {"update": "exact"}])
def test_callbacks_see_each_look_and_end_the_run(rules):
    seen = []

    def watch(intermediate_result):
        seen.append(intermediate_result)
        return len(seen) == 2

    res = bcd.minimize(LASSO, **rules, callback=watch, tol=1e-14)
    assert res.status is Status.CALLBACK
    assert len(seen) == 2
    assert seen[1].nit == res.nit
    np.testing.assert_array_equal(seen[1].x, res.x)
    assert seen[1].fun == pytest.approx(res.fun, rel=1e-12)


def test_what_cannot_be_reached_ends_as_stalled():
    for rules in (SLOW, {**SLOW, "block_size": 1}, {"block_size": 4, "update": "exact"}):
        with pytest.warns(ConvergenceWarning):
            res = bcd.minimize(LASSO, **rules, tol=1e-300, maxiter=10**6)
        assert res.status is Status.STALLED
        assert res.certificate.value <= 1e-13


@pytest.mark.parametrize("scale", [1e-120, 1e-30, 1e30, 1e140])
def test_the_unit_of_the_data_does_not_matter(scale):
    want = bcd.minimize(LASSO, block_size=3, update="exact")
    problem = bcd.Problem(X, scale * Y, penalty=penalties.L1(0.05 * scale))
    res = bcd.minimize(problem, block_size=3, update="exact")
    assert res.success
    np.testing.assert_allclose(res.x / scale, want.x, rtol=1e-6, atol=1e-9)
