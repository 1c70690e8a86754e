"""Factors of new rows, by one row step of the model that the other rows were fitted with."""

from . import _losses
from ._als import half_sweep
from ._problem import pose

# Reweighted steps of robust rows, and the relative change at which they have settled.
_STEPS, _SETTLED = 200, 1e-8


def fold_in(entered, io, model, T, mu):
    """Return rows of U, and biases, for new rows.

    Parameters
    ----------
    entered : Entries
        Entries of the new rows.
    io : Ingest
        Holds `s`, `V` and `col_bias` of the fitted matrix.
    model : dict
        Options of the fit, as `pose` takes them.
    T : array, shape (k, k)
        The ridge is that of factors of which ``V T`` are the columns'.
    mu : float
        Mean that was taken off.
    """
    xp, s, q = io.xp, io["s"], entered.shape[0]
    A, a = xp.zeros((q, s.size), io.dtype), xp.zeros(q, io.dtype)
    # Without events there is no feedback, and zeros are none.
    if entered.vals.size and (not model["implicit"] or io.be.host(entered.vals.any())):
        problem = pose(entered, **model, unit=(mu, 1.0))
        # Where there are biases, the columns' are part of what is known.
        biases = (a, io["col_bias"]) if problem.biased else (a[:0], a[:0])
        solve = _nonnegative_rows if problem.nonnegative else half_sweep
        state = A, io["V"] @ T, *biases
        solve(problem, problem.obs.by_row, *state, problem.row_ridge)
        if problem.loss != "squared":
            _reweight(problem, *state)
    return xp.where(s > 0, A @ T.T / xp.where(s > 0, s, 1.0), 0.0).astype(io.dtype), a


def _nonnegative_rows(problem, side, A, B, a, b, ridge):
    kernels = problem.be.kernels("solvers.completion", "nonnegative")
    shared = B.T @ B if problem.implicit else problem.xp.empty((0, 0), B.dtype)
    kernels.solve_nonnegative(*side[:4], B, ridge, shared, A)


def _reweight(problem, A, B, a, b):
    """Minimise a robust loss over A and a, in place, by weighted squares that majorise it."""
    xp, side, loss = problem.xp, problem.obs.by_row, problem.loss
    # Losses that forget outliers need a start that knows them.
    for stage in ("huber", loss) if loss in _losses.REDESCENDING else (loss,):
        for _ in range(_STEPS):
            r = problem.residual(A, B, a, b)
            weight = _losses.weight(xp, stage, r, problem.delta).astype(r.dtype)
            weight = weight * side.weight if side.weight.size else weight
            before = A.copy()
            half_sweep(problem, side._replace(weight=weight), A, B, a, b, problem.row_ridge)
            change, size = problem.be.host(xp.abs(A - before).max(), xp.abs(A).max())
            if change <= _SETTLED * size:
                break
