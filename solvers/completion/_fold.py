"""Factors of new rows, by one row step of the model that the other rows were fitted with."""

from ._als import half_sweep
from ._problem import pose


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
        ridge = problem.row_ridge
        half_sweep(problem, problem.obs.by_row, A, io["V"] @ T, *biases, ridge)
    return xp.where(s > 0, A @ T.T / xp.where(s > 0, s, 1.0), 0.0).astype(io.dtype), a
