import numpy as np
import pytest
from scipy.optimize import minimize

from solvers import ConvergenceWarning, relu
from tests.relu.oracles import cells, clarabel


def line(n=16, seed=0, *, labels=False):
    """Samples of one feature with a bias, and targets of a small network."""
    rng = np.random.default_rng(seed)
    X = np.c_[rng.uniform(-2, 2, n), np.ones(n)]
    y = np.maximum(X @ rng.standard_normal((2, 4)), 0) @ [1.0, -1.0, 1.5, -0.5]
    y += 0.05 * rng.standard_normal(n)
    return X, np.where(y > np.median(y), 1.0, -1.0) if labels else y


@pytest.mark.parametrize("loss", ["squared", "logistic", "hinge", "squared_hinge", "huber"])
def test_it_finds_and_proves_the_optimum_over_all_gates(loss):
    X, y = line(labels="hinge" in loss or loss == "logistic")
    optimum, _, _ = clarabel(X, y, cells(X), 0.1, loss)
    res = relu.exact(X, y, beta=0.1, loss=loss, rng=0)
    assert res.success
    assert res.fun <= optimum * (1 + 2e-6)
    assert optimum * (1 - 3e-6) <= res.dual_global <= optimum * (1 + 1e-7)
    assert res.gap_global <= 3e-6
    assert relu.network_objective(X, y, res.net, 0.1, loss) == pytest.approx(res.fun, rel=1e-9)


def test_rank_three_is_proved_by_a_few_of_its_gates():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((24, 3))
    y = np.maximum(X @ rng.standard_normal((3, 3)), 0) @ [1.0, -1.0, 1.0]
    res = relu.exact(X, y, beta=0.2, rng=0)
    assert len(res.gates) >= 2 * (1 + 23 + 23 * 11) - 1
    assert res.success
    assert res.gap_global <= 2e-6
    D = np.ascontiguousarray(res.gates.D)
    everything = relu.certify(X, y, beta=0.2, loss="squared", V=res.V, W=res.W, gates=D, tol=1e-5)
    assert everything.holds


def test_descent_never_goes_below_the_bound():
    X, y = line(12, 3)
    beta, m = 0.2, 12
    res = relu.exact(X, y, beta=beta)

    def value_and_gradient(theta):
        A, a = theta[: 2 * m].reshape(2, m), theta[2 * m :]
        H = X @ A
        e = np.maximum(H, 0) @ a - y
        gradient = X.T @ ((e[:, None] * a) * (H > 0)) + beta * A, np.maximum(H, 0).T @ e + beta * a
        return 0.5 * e @ e + 0.5 * beta * theta @ theta, np.concatenate(
            [g.ravel() for g in gradient]
        )

    starts = np.random.default_rng(0).standard_normal((10, 3 * m))
    ends = [minimize(value_and_gradient, s, jac=True, method="L-BFGS-B").fun for s in starts]
    assert res.dual_global <= min(ends) + 1e-9
    assert min(ends) <= res.fun * (1 + 1e-2)


def test_rank_and_not_the_number_of_columns_decides():
    X, y = line()
    Q = np.linalg.qr(np.random.default_rng(4).standard_normal((6, 6)))[0][:2]
    res, wide = relu.exact(X, y, beta=0.1), relu.exact(X @ Q, y, beta=0.1)
    assert len(wide.gates) == len(res.gates)
    assert wide.success
    assert wide.fun == pytest.approx(res.fun, rel=3e-6)


def test_a_bias_is_a_column_of_ones():
    X, y = line()
    res = relu.exact(X[:, :1], y, beta=0.1, bias=True)
    assert res.net.bias
    assert res.fun == pytest.approx(relu.exact(X, y, beta=0.1).fun, rel=3e-6)
    assert res.net.predict(X[:3, :1]).shape == (3,)


def test_outputs_are_trained_apart():
    X, y = line()
    Y = np.c_[y, y**2]
    res = relu.exact(X, Y, beta=0.1)
    apart = [relu.exact(X, Y[:, k], beta=0.1).fun for k in range(2)]
    assert res.success
    assert res.fun == pytest.approx(sum(apart), rel=3e-6)
    assert res.V.shape == (2, 2, len(res.gates))


def test_a_start_saves_steps():
    X, y = line(30, 7)
    cold = relu.exact(X, y, beta=0.05)
    warm = relu.exact(X, y, beta=0.05, x0=cold)
    assert warm.success
    assert warm.nit < cold.nit


def test_single_precision_is_proved_in_double():
    X, y = line()
    res = relu.exact(X.astype(np.float32), y.astype(np.float32), beta=0.1, tol=1e-4)
    assert res.success
    assert res.V.dtype == np.float32
    assert res.fun == pytest.approx(relu.exact(X, y, beta=0.1).fun, rel=2e-4)


def test_a_penalty_beyond_the_largest_gives_the_zero_network():
    X, y = line()
    res = relu.exact(X, y, beta=1e4)
    assert res.success
    assert res.net.hidden.shape[1] == 0
    assert res.fun == pytest.approx(0.5 * y @ y)


def test_too_few_steps_end_honestly():
    X, y = line(40, 2)
    optimum = relu.exact(X, y, beta=0.05).fun
    with pytest.warns(ConvergenceWarning, match="exact"):
        res = relu.exact(X, y, beta=0.05, maxiter=3)
    assert not res.success
    assert res.nit == 3
    assert res.dual_global <= optimum * (1 + 1e-6)
    assert res.fun >= optimum * (1 - 1e-6)


def test_more_cells_than_allowed_are_refused():
    X, y = line()
    with pytest.raises(ValueError, match="max_cells = 10"):
        relu.exact(X, y, beta=0.1, max_cells=10)
    with pytest.raises(ValueError, match=r"^`max_cells`"):
        relu.exact(X, y, beta=0.1, max_cells=0)
    with pytest.raises(ValueError, match=r"^`beta`"):
        relu.exact(X, y, beta=0.0)
