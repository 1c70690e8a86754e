"""`penalty` against closed forms: optima, bounds, options, ends."""

import warnings

import numpy as np
import pytest
from scipy.ndimage import zoom
from sklearn.datasets import load_digits

import solvers
from solvers import bilevel
from solvers._core.monitor import Monitor
from solvers._core.result import Status
from solvers.bilevel._envelope import Envelope
from solvers.bilevel._penalty import Continuation
from solvers.bilevel._problem import pose
from tests.bilevel.oracles import Quadratic, Ridge


def quietly(*args, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solvers.ConvergenceWarning)
        return bilevel.penalty(*args, **options)


def solve(q, **options):
    return bilevel.penalty(q.upper, q.lower, q.x0, q.y0, **options)


def two_valleys():
    """Lower minima near -1 and 1 in each entry; that near 1 is the lower one for x < 0."""

    def lower(x, y):
        return ((y * y - 1) ** 2).sum() / 4 + 0.3 * x @ y, 0.3 * y, y * (y * y - 1) + 0.3 * x

    def upper(x, y):
        value = 0.5 * ((y - 1) ** 2).sum() + 0.5 * ((x + 1) ** 2).sum()
        return value, x + 1, y - 1

    return upper, lower


@pytest.mark.parametrize("kappa", [3.0, 100.0])
@pytest.mark.parametrize("rank", [None, 5])
def test_the_optimum_of_quadratics_is_found(kappa, rank):
    q = Quadratic(seed=4, kappa=kappa, rank=rank)
    res = solve(q)
    assert res.success
    assert np.allclose(res.x, q.x, atol=1e-5)
    assert np.allclose(res.y, q.y, atol=1e-4)
    assert res.psi_lower <= q.value + 1e-9
    assert res.fun >= q.value - 1e-9
    assert res.lower_residual[0] <= 1e-5


@pytest.mark.parametrize("order", [1, 2, "central"])
def test_every_order_reaches_the_tolerance(order):
    q = Quadratic(seed=5, d=3, p=5, kappa=4.0)
    res = solve(q, order=order, tol=1e-5)
    assert res.success
    assert np.linalg.norm(res.jac - q.psi(res.x)[1]) <= 10 * res.jac_err
    assert np.allclose(res.x, q.x, atol=1e-4)


def test_central_differences_retreat_from_penalties_beyond_the_modulus():
    q = Quadratic(seed=6, d=3, p=5, kappa=200.0)
    res = solve(q, order="central", tol=1e-4)
    assert res.success
    assert res.sigma < 1.5 / 200


@pytest.mark.parametrize("method", ["lbfgs", "spg", "auto"])
def test_methods_agree_within_a_box(method):
    r = Ridge(seed=3, p=5)
    best = r.best(-4.0, 1.0)
    res = bilevel.penalty(
        r.upper, r.lower, r.x0, r.y0, X=bilevel.box(-4.0, 1.0), method=method, maxiter=2000
    )
    assert res.success
    assert res.fun == pytest.approx(best.fun, abs=1e-8)
    assert np.allclose(res.x, best.x, atol=1e-3)


@pytest.mark.parametrize("scale", [1e-4, 1e4])
def test_the_unit_of_the_lower_level_does_not_matter(scale):
    q = Quadratic(seed=7)
    res = bilevel.penalty(
        q.upper, lambda x, y: tuple(scale * part for part in q.lower(x, y)), q.x0, q.y0
    )
    assert res.success
    assert np.allclose(res.x, q.x, atol=1e-5)


def test_a_given_penalty_is_the_only_one():
    q = Quadratic(seed=8, kappa=5.0)
    res = quietly(q.upper, q.lower, q.x0, q.y0, sigma=1e-3, order=1)
    assert set(res.history["sigma"]) == {1e-3}
    assert res.status == Status.STALLED
    # It is the minimiser of psi_sigma, as far as the stage goes.
    assert abs(q.psi_sigma(res.x, 1e-3)[1]).max() <= abs(q.psi(res.x)[1]).max()


def test_sigma_min_ends_the_run():
    q = Quadratic(seed=8, kappa=50.0)
    res = quietly(q.upper, q.lower, q.x0, q.y0, sigma_min=1e-2, order=1)
    assert res.status == Status.STALLED
    assert res.sigma >= 1e-2
    assert "error is" in res.message


def test_a_start_at_the_solution_needs_no_step():
    q = Quadratic(seed=9)
    first = solve(q)
    again = bilevel.penalty(q.upper, q.lower, first)
    assert again.success
    assert again.nit == 0
    assert sum(again.counts[key] for key in ("n_f", "n_g")) <= 0.5 * sum(
        first.counts[key] for key in ("n_f", "n_g")
    )
    bare = bilevel.penalty(q.upper, q.lower, first.x, first.y, tol=1e-5)
    assert bare.success
    assert bare.nit <= 3


def test_a_run_goes_on_bit_for_bit():
    r = Ridge(seed=10)
    data, box = (r.upper, r.lower, r.x0, r.y0), bilevel.box(-6, 1)
    options = {"X": box, "tol": 1e-9}
    half = quietly(*data, maxiter=5, **options)
    whole = quietly(*data, maxiter=14, **options)
    rest = quietly(*data, maxiter=14, resume=half.state, **options)
    assert half.nit == 5
    assert rest.nit == whole.nit
    assert np.array_equal(rest.x, whole.x)
    assert np.array_equal(rest.y, whole.y)


def test_several_starts_find_the_lower_minimum():
    upper, lower = two_valleys()
    x0, y0 = np.array([-0.5, -0.8]), np.array([-1.0, -1.0])
    stuck = quietly(upper, lower, x0, y0, tol=1e-5)
    res = quietly(upper, lower, x0, y0, tol=1e-5, multistart=8, rng=0)
    assert (stuck.y < 0).any()
    assert (res.y > 0).all()
    assert res.success
    same = quietly(upper, lower, x0, y0, tol=1e-5, multistart=8, rng=0)
    assert np.array_equal(same.x, res.x)


def test_z0_decides_which_valley_the_lower_level_alone_falls_into():
    upper, lower = two_valleys()
    x0, y0 = np.array([-0.5, -0.8]), np.array([1.0, 1.0])
    res = quietly(upper, lower, x0, y0, z0=-y0, maxiter=3)
    assert (res.z < 0).all()
    assert (bilevel.penalty(upper, lower, x0, y0, tol=1e-5).z > 0).all()


def test_a_term_without_derivatives_comes_by_its_proximal_map():
    # y = soft(x, 1/2) in closed form, and psi = |soft(x, 1/2) - t|^2 / 2 + 0.05 |x|^2.
    t = np.array([1.0, -2.0, 0.7])

    def soft(v, s):
        return np.sign(v) * np.maximum(abs(v) - s, 0)

    lower = bilevel.Oracle(
        value_and_grads=lambda x, y: (0.5 * (y - x) @ (y - x), x - y, y - x),
        prox_y=lambda v, s: soft(v, 0.5 * s),
    )

    def upper(x, y):
        return (0.5 * (y - t) @ (y - t) + 0.05 * x @ x, 0.1 * x, y - t)

    res = bilevel.penalty(upper, lower, 2 * t, t, tol=1e-5)
    assert res.success
    assert np.allclose(res.y, soft(res.x, 0.5), atol=1e-6)
    # Where y is not 0: y - t + 0.1 x = 0 with x = y + sign / 2.
    assert np.allclose(res.x, (t + 0.5 * np.sign(t)) / 1.1, atol=1e-4)


def test_lower_levels_in_sets_are_solved_there():
    t, a = np.array([0.2, 0.5, -0.5]), np.array([0.0, 0.0, -1.0])

    def upper(x, y):
        return (
            0.5 * (y - t) @ (y - t) + 0.05 * (x - a) @ (x - a),
            0.1 * (x - a),
            y - t,
        )

    def lower(x, y):
        return (0.5 * (y - x) @ (y - x), x - y, y - x)

    for Y in (bilevel.box(0.0, 0.6), lambda v: np.clip(v, 0.0, 0.6)):
        res = quietly(upper, lower, np.array([0.1, 0.3, -0.2]), np.zeros(3), Y=Y, tol=1e-5)
        assert res.success
        assert np.allclose(res.x, [0.2 / 1.1, 0.5 / 1.1, -1.0], atol=1e-4)
        assert np.allclose(res.y, np.clip(res.x, 0, 0.6), atol=1e-5)


def test_an_upper_level_without_y_is_minimised_at_once():
    q = Quadratic(d=3, p=3)
    res = bilevel.penalty(lambda x, y: (0.5 * x @ x, x, 0 * y), q.lower, np.ones(3), q.y0)
    assert res.success
    assert np.allclose(res.x, 0, atol=1e-6)
    assert len(set(res.history["sigma"])) == 1


def test_lower_levels_without_end_are_told():
    def falling(x, y):
        return float(x @ y), y, x

    q = Quadratic(d=3, p=3)
    res = quietly(q.upper, falling, np.ones(3), q.y0)
    assert res.status == Status.UNBOUNDED
    assert not res.success
    assert np.isfinite(res.x).all()


def test_a_run_that_ends_on_the_way_leaves_a_solution_of_the_lower_level():
    q = Quadratic(seed=11, kappa=300.0)

    def stop(intermediate_result):
        return intermediate_result.nit == 4

    for options in ({"maxiter": 4}, {"callback": stop}):
        res = quietly(q.upper, q.lower, q.x0, q.y0, tol=1e-9, **options)
        assert res.nit == 4
        assert np.allclose(res.y, q.best_response(res.x), atol=1e-3)
        assert res.psi_lower <= q.psi(res.x)[0] + 1e-8
        assert res.fun >= q.psi(res.x)[0] - 1e-6


def test_psi_sigma_in_the_history_is_a_lower_bound():
    q = Quadratic(seed=12)
    points = []
    res = solve(q, callback=lambda intermediate_result: points.append(intermediate_result.x))
    values = [q.psi(x)[0] for x in points]
    assert (res.history["psi_lower"] <= np.array(values) * (1 + 1e-3)).all()


def test_no_accuracy_is_bought_where_x_is_far_from_stationary(monkeypatch):
    # Enlarged digits, of which half have a wrong label: the lower level is ill-conditioned.
    images, t = load_digits(return_X_y=True)
    X = zoom(images[:700].reshape(-1, 8, 8) / 16, (1, 2, 2), order=1).reshape(700, -1)
    wrong = np.random.default_rng(3).random(600) < 0.5
    labels = np.where(wrong, (t[:600] + 1) % 10, t[:600])
    X = np.c_[X, np.ones(700)]
    problem = bilevel.problems.HyperCleaning(X[:600], labels, X[600:], t[600:700])
    measured, measure = [], Continuation._measure

    def counted(self, *args):
        measured.append(self.sigma)
        return measure(self, *args)

    def leave(intermediate_result):
        raise InterruptedError

    monkeypatch.setattr(Continuation, "_measure", counted)
    with pytest.raises(InterruptedError):
        bilevel.penalty(problem, tol=1e-8, callback=leave)
    # Once with the penalty that decides.
    assert len(set(measured)) > 1
    assert measured.count(measured[-1]) == 1


@pytest.mark.parametrize("seed", range(4))
def test_calls_are_counted_and_few(seed):
    q = Quadratic(seed=seed, kappa=100.0, d=8, p=12)
    calls = {"f": 0, "g": 0}

    def counted(fun, key):
        def call(x, y):
            calls[key] += 1
            return fun(x, y)

        return call

    res = bilevel.penalty(
        counted(q.upper, "f"), counted(q.lower, "g"), q.x0, q.y0, callback=lambda _: None
    )
    assert res.success
    # The certificate's calls are not among those of the run.
    assert res.counts["n_f"] <= calls["f"]
    assert res.counts["n_g"] <= calls["g"]
    # Twice as many as measured, and a fifth of what plain L-BFGS took for every lower solve.
    assert res.counts["n_f"] + res.counts["n_g"] <= 1600


def test_single_precision_is_kept():
    q = Quadratic(seed=2, d=3, p=5, kappa=4.0, dtype=np.float32)
    res = bilevel.penalty(q.upper, q.lower, q.x0, q.y0)
    assert res.success
    assert res.certificate.tol == pytest.approx(3e-3)
    assert {getattr(res, key).dtype for key in ("x", "y", "z", "jac")} == {np.dtype(np.float32)}
    assert np.allclose(res.x, q.x, atol=3e-2)


def test_trial_points_that_are_not_finite_are_passed_over():
    def upper(x, y):
        with np.errstate(invalid="ignore"):
            return float(x[0] - 2 * np.log(x[0]) + 0.5 * y @ y), 1 - 2 / x, y

    def lower(x, y):
        return (0.5 * y @ y - 0.1 * x @ y, -0.1 * y, y - 0.1 * x)

    res = bilevel.penalty(upper, lower, np.array([0.05]), np.zeros(1))
    assert res.success
    # 1 - 2/x + 0.01 x = 0.
    assert res.x[0] == pytest.approx((-1 + np.sqrt(1.08)) / 0.02, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"order": 3}, ValueError, "order"),
        ({"order": True}, ValueError, "order"),
        ({"method": "magic"}, ValueError, "method"),
        ({"sigma": -1.0}, ValueError, "sigma"),
        ({"sigma_min": 0.0}, ValueError, "sigma_min"),
        ({"multistart": -1}, ValueError, "multistart"),
        ({"multistart": 1.5}, TypeError, "multistart"),
        ({"z0": np.zeros(2)}, ValueError, "z0"),
        ({"z0": np.full(7, np.nan)}, ValueError, "z0"),
    ],
)
def test_wrong_options_are_named(options, error, name):
    with pytest.raises(error, match=f"^`{name}`"):
        solve(Quadratic(), **options)


def test_a_set_beside_a_proximal_map_is_refused():
    q = Quadratic()
    lower = bilevel.Oracle(value_and_grads=q.lower, prox_y=lambda v, t: v)
    with pytest.raises(ValueError, match=r"^`Y`"):
        bilevel.penalty(q.upper, lower, q.x0, q.y0, Y=bilevel.nonneg())


@pytest.mark.parametrize("looks", [3, 40, 90, 150, 400])
def test_an_answer_that_was_cut_short_does_not_flatter(monkeypatch, looks):
    rng = np.random.default_rng(7)
    X, w = rng.standard_normal((300, 40)), rng.standard_normal(40)
    t = np.sign(X @ w + rng.standard_normal(300))
    problem = bilevel.problems.LogisticHPO(X[:150], t[:150], X[150:], t[150:])
    start = bilevel.certify(problem, None, problem.x0).details["psi"]
    left = iter(range(looks))
    monkeypatch.setattr(Monitor, "late", property(lambda self: next(left, None) is None))
    with pytest.warns(solvers.ConvergenceWarning, match="time limit"):
        res = bilevel.penalty(problem, time_limit=1000)
    psi = res.certificate.details["psi"]
    assert res.fun == pytest.approx(psi, rel=2e-3 if res.nit else 0.05)
    assert psi <= start + 1e-6
    assert res.lower_gap == pytest.approx(0.0, abs=1e-3)


def test_a_solution_of_a_flat_lower_level_keeps_the_sandwich():
    # Classes that a plane separates, and penalties that nearly vanish.
    rng = np.random.default_rng(1000)
    n, m, p = (int(rng.integers(*ends)) for ends in ((20, 120), (20, 100), (3, 40)))
    X, Xv = rng.standard_normal((n, p)), rng.standard_normal((m, p))
    w = rng.standard_normal(p) * (rng.random(p) < 0.5)
    X, Xv = (A * np.exp(rng.uniform(-1, 1, p)) for A in (X, Xv))
    t, tv = (np.sign(A @ w + rng.standard_normal(len(A))) for A in (X, Xv))
    problem = bilevel.problems.LogisticHPO(X, t, Xv, tv)
    res = quietly(problem, tol=1e-4, maxiter=32)
    assert res.status is Status.MAXITER
    assert res.psi_lower <= res.fun + 1e-6
    assert res.nit == 32


@pytest.mark.parametrize("rank", [None, 5])
def test_z_is_the_answer_where_the_lower_level_has_no_other(rank):
    q = Quadratic(seed=4, kappa=3.0, rank=rank)
    problem = pose(q.upper, q.lower, q.x0, q.y0)
    env = Envelope(problem)
    env.accuracy = 1e-6
    sigma = 1e-3 * env.scales.sigma
    point = env.at(problem.x0, (sigma, sigma / 2, sigma / 4))
    y = env.settle(point)
    assert (y is point.z) == (rank is None)
    tol = env.tolerance(sigma)
    assert env.residual(y, problem.lower.look(problem.x0, y).gy) <= tol
    if rank is not None:
        f = [problem.upper.look(problem.x0, v).value for v in (y, point.z)]
        assert f[0] < f[1]
