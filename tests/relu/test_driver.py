"""What all solvers of the family share: what comes in, how a run can end, what comes out."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp

import solvers
from solvers import relu

BETA = 0.3


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((30, 3))
    return X, np.maximum(X @ [1.0, -1.0, 0.5], 0) - 0.5 * np.maximum(-X[:, 0], 0)


@pytest.fixture(scope="module")
def gates(data):
    return relu.sample_gates(data[0], 10, rng=0)


@pytest.fixture(scope="module")
def solution(data, gates):
    return relu.admm(*data, beta=BETA, gates=gates, tol=1e-3)


def network_objective(net, X, y, beta):
    """Half the squared residuals plus the penalty, written out."""
    p = np.maximum(X @ net.hidden, 0) @ net.out
    weights = np.square(net.hidden).sum() + np.square(net.out).sum()
    return 0.5 * np.square(p - y).sum() + 0.5 * beta * weights


def convex_objective(D, V, W, X, y, beta):
    p = (D * (X @ (V - W))).sum(axis=1)
    norms = np.linalg.norm(V, axis=0).sum() + np.linalg.norm(W, axis=0).sum()
    return 0.5 * np.square(p - y).sum() + beta * norms


# ------------------------------------------------------------------------------------ bad input

SIGNS = np.where(np.arange(30) % 2, 1.0, -1.0)
BAD_DATA = {
    "NaN in X": (lambda X, y: (np.where(X > 2, np.nan, X), y), ValueError, "`X` contains NaN"),
    "X of one dimension": (lambda X, y: (X[:, 0], y), ValueError, "`X` came 1-D"),
    "X of three dimensions": (lambda X, y: (X[None], y), ValueError, "`X` came 3-D"),
    "no samples": (lambda X, y: (X[:0], y[:0]), ValueError, "`X` came empty"),
    "no features": (lambda X, y: (X[:, :0], y), ValueError, "`X` came empty"),
    "sparse X": (lambda X, y: (sp.csr_array(X), y), TypeError, r"`X` .* use X.toarray\(\)"),
    "complex X": (lambda X, y: (X + 0j, y), TypeError, "`X` .* complex128"),
    "object X": (lambda X, y: (X.astype(object), y), TypeError, "`X` .* object"),
    "text for X": (lambda X, y: (X.astype(str), y), TypeError, "`X` .* dtype str"),
    "X whose squares overflow": (lambda X, y: (X * 1e200, y), ValueError, "`X` holds .* rescale"),
    "y whose squares overflow": (lambda X, y: (X, y * 1e200), ValueError, "`y` holds .* rescale"),
    "too few targets": (lambda X, y: (X, y[:-1]), ValueError, "`y` has 29 samples, `X` has 30"),
    "infinite target": (lambda X, y: (X, y + np.inf), ValueError, "`y` contains inf"),
    "no y": (lambda X, y: (X, object()), TypeError, "`y`"),
}
BAD_OPTIONS = {
    "beta of zero": ({"beta": 0.0}, ValueError, "`beta` came as 0.0; expected a positive"),
    "negative beta": ({"beta": -1.0}, ValueError, "`beta`"),
    "beta that is no number": ({"beta": np.nan}, ValueError, "`beta`"),
    "beta of the wrong kind": ({"beta": "1"}, TypeError, "`beta`"),
    "unknown loss": ({"loss": "hinged"}, ValueError, "`loss` .* 'squared', 'logistic', 'hinge'"),
    "labels that are no signs": ({"loss": "hinge"}, ValueError, r"`y` .* needs y in \{-1, \+1\}"),
    "no gates": ({"n_gates": 0}, ValueError, "`n_gates`"),
    "part of a gate": ({"n_gates": 2.5}, TypeError, "`n_gates`"),
    "gates of other samples": (
        {"gates": np.ones((29, 3), bool)}, ValueError, r"`gates` came with shape \(29, 3\)",
    ),
    "gates of one dimension": ({"gates": np.ones(30, bool)}, ValueError, "`gates`"),
    "an empty set of gates": ({"gates": np.ones((30, 0), bool)}, ValueError, "`gates`"),
    "gates that are numbers": ({"gates": np.ones((30, 3))}, TypeError, "`gates` .* booleans"),
    "gates in words": ({"gates": "all"}, TypeError, "`gates`"),
    "unknown scheme": ({"scheme": "gauss"}, ValueError, "`scheme`"),
    "unknown scale of the loss": ({"loss_scale": "median"}, ValueError, "`loss_scale`"),
    "bias that is no flag": ({"bias": 1}, TypeError, "`bias`"),
    "delta of zero": ({"loss": "huber", "delta": 0.0}, ValueError, "`delta`"),
    "negative scale of logits": ({"logit_scale": -1.0}, ValueError, "`logit_scale`"),
    "no tolerance": ({"tol": 0.0}, ValueError, "`tol`"),
    "no check": ({"check_every": 0}, ValueError, "`check_every`"),
    "keep_best that is no flag": ({"keep_best": None}, TypeError, "`keep_best`"),
    "a number as start": ({"x0": 3}, TypeError, "`x0`"),
    "a start of another shape": (
        {"x0": (np.zeros((3, 4)), np.zeros((3, 4)))}, ValueError, r"`x0`: `V` .* \(3, 10\)",
    ),
    "a start that is not finite": (
        {"x0": (np.full((3, 10), np.nan), np.zeros((3, 10)))}, ValueError, "`x0`: `V`",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_DATA)
def test_bad_data_are_refused_by_name(data, fault):
    spoil, error, message = BAD_DATA[fault]
    with pytest.raises(error, match=message):
        relu.admm(*spoil(*data), beta=BETA)


@pytest.mark.parametrize("fault", BAD_OPTIONS)
def test_bad_options_are_refused_by_name(data, gates, fault):
    options, error, message = BAD_OPTIONS[fault]
    with pytest.raises(error, match=message):
        relu.admm(*data, **{"beta": BETA, "gates": gates, **options})


# ------------------------------------------------------------------------- odd but legal input

ODD = {
    "one sample": lambda X, y: (X[:1], y[:1]),
    "one feature": lambda X, y: (X[:, :1], y),
    "one number": lambda X, y: (X[:1, :1], y[:1]),
    "the same row": lambda X, y: (np.ones_like(X), y),
    "zeros": lambda X, y: (np.zeros_like(X), y),
    "a zero row": lambda X, y: (X * (np.arange(30) > 0)[:, None], y),
    "every row twice": lambda X, y: (np.r_[X, X], np.r_[y, y]),
    "a constant target": lambda X, y: (X, np.ones(30)),
    "no target": lambda X, y: (X, np.zeros(30)),
    "tiny numbers": lambda X, y: (X * 1e-200, y),
    "whole numbers": lambda X, y: (np.rint(X).astype(int), np.rint(y).astype(int)),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_data_give_finite_networks_and_true_objectives(data, kind):
    X, y = ODD[kind](*data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", solvers.ConvergenceWarning)
        res = relu.admm(X, y, beta=BETA, rng=0, maxiter=100)
    assert np.isfinite(res.net.hidden).all()
    assert network_objective(res.net, X, y, BETA) == pytest.approx(res.fun, rel=1e-9)
    assert res.dual <= res.fun_convex * (1 + 1e-12)
    assert res.dual_global <= res.fun * (1 + 1e-12)


def test_a_default_number_of_gates_is_never_too_many_to_be_found(data):
    X, y = data
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        res = relu.admm(np.outer(X[:, 0], [1.0, 2.0]), y, beta=5.0, rng=0)
    assert 1 <= len(res.gates) <= 2


def test_a_huge_penalty_leaves_nothing_and_a_tiny_one_ends_honestly(data, gates):
    res = relu.admm(*data, beta=1e12, gates=gates)
    assert res.success
    assert res.nit == 0
    assert res.n_active == 0
    assert res.fun == 0.5 * np.square(data[1]).sum()
    with pytest.warns(solvers.ConvergenceWarning, match="maxiter = 50"):
        res = relu.admm(*data, beta=1e-12, gates=gates, maxiter=50)
    assert not res.success
    assert 0 <= res.dual <= res.fun_convex


# --------------------------------------------------------------------------- what options mean


def test_a_mean_loss_is_a_sum_with_a_larger_penalty(data, gates):
    X, y = data
    total = relu.admm(X, y, beta=BETA, gates=gates, tol=1e-3)
    mean = relu.admm(X, y, beta=BETA / 30, gates=gates, tol=1e-3, loss_scale="mean")
    assert np.array_equal(total.V, mean.V)
    for name in ("fun", "fun_convex", "dual", "dual_global"):
        assert mean[name] == pytest.approx(total[name] / 30)
        assert mean.certificate.details[name] == pytest.approx(mean[name])
    for name in ("fun", "fun_convex", "dual"):
        assert mean.history[name] == pytest.approx(total.history[name] / 30)
    assert mean.certificate.value == total.certificate.value


def test_a_bias_is_a_column_of_ones(data):
    X, y = data
    ones = np.c_[X, np.ones(30)]
    gates = relu.sample_gates(ones, 10, rng=0)
    with_bias = relu.admm(X, y, beta=BETA, gates=gates, bias=True, tol=1e-3)
    with_ones = relu.admm(ones, y, beta=BETA, gates=gates, tol=1e-3)
    assert np.array_equal(with_bias.V, with_ones.V)
    assert with_bias.net.bias
    assert with_bias.net.predict(X) == pytest.approx(with_ones.net.predict(ones))


def test_the_best_network_is_kept_unless_told_otherwise(data, gates):
    X, y = data
    short = {"beta": BETA, "gates": gates, "maxiter": 3, "tol": 1e-12, "check_every": 1}
    with pytest.warns(solvers.ConvergenceWarning):
        best = relu.admm(X, y, **short)
    with pytest.warns(solvers.ConvergenceWarning):
        own = relu.admm(X, y, **short, keep_best=False)
    assert best.fun <= own.fun
    recovered = relu.recover(own.V, own.W)
    assert own.net.predict(X) == pytest.approx(recovered.predict(X))
    assert own.fun == pytest.approx(own.fun_convex)
    assert best.fun == pytest.approx(best.history["fun"][-1])


# -------------------------------------------------------------------------------- warm starts


def test_a_result_with_its_gates_is_recognised_at_once(data, solution):
    again = relu.admm(*data, beta=BETA, tol=1e-3, x0=solution)
    assert again.success
    assert again.nit == 0
    assert np.array_equal(again.V, solution.V)


def test_weights_in_another_order_of_gates_start_a_run_as_well(data, gates, solution):
    order = np.random.default_rng(1).permutation(len(gates))
    again = relu.admm(*data, beta=BETA, tol=1e-3, gates=gates.D[:, order], x0=solution)
    assert again.nit == 0
    assert np.array_equal(again.V, solution.V[:, order])


def test_weights_alone_start_a_run(data, gates, solution):
    again = relu.admm(*data, beta=BETA, tol=2e-2, gates=gates, x0=(solution.V, solution.W))
    assert again.success
    assert again.nit == 0


def test_a_start_over_other_gates_is_refused(data, gates, solution):
    X, y = data
    other = np.zeros((30, 1), bool)
    other[4] = True
    with pytest.raises(ValueError, match="`x0` came with weights of other gates"):
        relu.admm(X, y, beta=BETA, gates=other, x0=solution)
    with pytest.raises(ValueError, match=r"`x0` came with gates of 30 samples.*20"):
        relu.admm(X[:20], y[:20], beta=BETA, gates=gates.D[:20], x0=solution)


# ------------------------------------------------------------------------------ what comes out


def test_the_numbers_of_a_result_are_those_of_its_weights(data, gates, solution):
    X, y = data
    value = convex_objective(gates.D, solution.V, solution.W, X, y, BETA)
    assert value == pytest.approx(solution.fun_convex, rel=1e-12)
    assert network_objective(solution.net, X, y, BETA) == pytest.approx(solution.fun, rel=1e-12)
    gap = (solution.fun_convex - solution.dual) / solution.fun_convex
    assert solution.gap == pytest.approx(gap) == solution.certificate.value
    gap = (solution.fun - solution.dual_global) / solution.fun
    assert solution.gap_global == pytest.approx(gap)
    active = np.linalg.norm(np.hstack([solution.V, solution.W]), axis=0) > 0
    assert solution.n_active == active.sum()


def test_a_callback_sees_weights_that_it_cannot_change_and_stops_the_run(data, gates):
    seen = []

    def stop(intermediate_result):
        seen.append(intermediate_result)
        return True

    res = relu.admm(*data, beta=BETA, gates=gates, tol=1e-12, callback=stop)
    assert res.status is solvers.Status.CALLBACK
    assert len(seen) == 1
    assert seen[0].V.shape == res.V.shape
    assert seen[0].fun_convex == pytest.approx(res.fun_convex)
    with pytest.raises(ValueError, match="read-only"):
        seen[0].W[:] = 0


def test_a_result_copies_prints_and_cites_the_paper(data, solution):
    for back in (pickle.loads(pickle.dumps(solution)), copy.deepcopy(solution)):
        assert np.array_equal(back.net.predict(data[0]), solution.net.predict(data[0]))
        assert np.array_equal(back.gates.D, solution.gates.D)
    assert "relative duality gap" in solution.summary()
    assert "@article{bai2023efficient" in solution.cite()
    fields = set(relu.ReLUResult.__annotations__) - {"_bibtex"}
    assert fields <= set(solution)
    documented = relu.ReLUResult.__doc__
    assert all(name in documented for name in fields)


def test_time_is_up_before_the_first_iteration(data, gates):
    with pytest.warns(solvers.ConvergenceWarning, match="time limit"):
        res = relu.admm(*data, beta=BETA, gates=gates, tol=1e-12, time_limit=1e-9)
    assert res.status is solvers.Status.TIME_LIMIT
    assert np.isfinite(res.V).all()


# --------------------------------------------------------------------------- kinds of arrays


@pytest.mark.parametrize("number", [np.float32, np.float64])
def test_the_precision_of_the_data_is_kept_and_judged_in_double(data, gates, number):
    X, y = (a.astype(number) for a in data)
    res = relu.admm(X, y, beta=BETA, gates=gates, tol=1e-3)
    assert {a.dtype for a in (res.V, res.W, res.z, res.net.hidden, res.net.out)} == {
        np.dtype(number)
    }
    X, y, V, W = (a.astype(np.float64) for a in (X, y, res.V, res.W))
    value = convex_objective(gates.D, V, W, X, y, BETA)
    # The judge projects float32 weights on their cones, which moves them by rounding.
    assert value == pytest.approx(res.fun_convex, rel=1e-6)


@pytest.mark.parametrize("kind", ["torch", "jax"])
def test_results_are_of_the_callers_kind_with_gates_of_either_form(data, gates, kind):
    library = pytest.importorskip(kind)
    make = library.as_tensor if kind == "torch" else library.numpy.asarray
    X, y = (a.astype(np.float32) for a in data)
    plain = relu.admm(X, y, beta=BETA, gates=gates, tol=1e-3)
    for given in (gates, make(gates.D)):
        res = relu.admm(make(X), make(y), beta=BETA, gates=given, tol=1e-3)
        for name in ("V", "W", "z"):
            assert type(res[name]) is type(make(X))
        assert np.array_equal(np.asarray(res.V), plain.V)
        assert type(res.net.predict(make(X))) is type(make(X))
    start = relu.admm(make(X), make(y), beta=BETA, tol=1e-3, x0=res)
    assert start.nit == 0


def test_layouts_change_nothing_and_nothing_is_changed(data, gates):
    X, y = data
    # Without vectors: these would be used.
    plain = relu.admm(X, y, beta=BETA, gates=gates.D, tol=1e-3)
    wide = np.zeros((60, 6))
    wide[::2, ::2] = X
    frozen = X.copy()
    frozen.setflags(write=False)
    for other in (np.asfortranarray(X), wide[::2, ::2], frozen, X.astype(">f8"), X.tolist()):
        res = relu.admm(other, y, beta=BETA, gates=np.asfortranarray(gates.D), tol=1e-3)
        assert np.array_equal(res.V, plain.V)
        assert np.array_equal(np.asarray(other), X)
