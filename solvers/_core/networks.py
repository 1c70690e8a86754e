"""Data with a network behind them, for `solvers.datasets`."""

from typing import NamedTuple

import numpy as np

from .random import check_rng
from .validation import check_count, check_nonnegative


class NetworkProblem(NamedTuple):
    """Data, targets, and the two-layer ReLU network behind them.

    Parameters
    ----------
    X : ndarray, shape (n, d)
        Rows are samples.
    y : ndarray, shape (n,)
        Targets: outputs of the network and noise.
    hidden, out : ndarray, shapes (d, m) and (m,)
        The network ``(X @ hidden)_+ @ out``.
    """

    X: np.ndarray
    y: np.ndarray
    hidden: np.ndarray
    out: np.ndarray


def planted_network(n=200, d=10, neurons=5, *, rank=None, noise=0.1, rng=None):
    """Draw data whose targets come from a small network.

    Parameters
    ----------
    n, d : int, default 200, 10
        Numbers of samples and features.
    neurons : int, default 5
        Number of neurons.
    rank : int, optional
        Dimension of the space that the samples lie in; by default `d`. In two or three, all
        activation patterns can be listed.
    noise : float, default 0.1
        Standard deviation of the noise, in that of the network's outputs.
    rng : int, Generator or None, default None
        Where to draw from.

    Returns
    -------
    NetworkProblem
        Samples have mean square length 1.

    Examples
    --------
    >>> from solvers import datasets
    >>> X, y, hidden, out = datasets.planted_network(50, 4, rank=2, rng=0)
    >>> X.shape, hidden.shape, int(np.linalg.matrix_rank(X))
    ((50, 4), (4, 5), 2)
    """
    n, d = check_count(n, "n", minimum=1), check_count(d, "d", minimum=1)
    neurons = check_count(neurons, "neurons", minimum=1)
    rank = d if rank is None else check_count(rank, "rank", minimum=1)
    if rank > d:
        raise ValueError(f"`rank` came as {rank}; expected at most `d` = {d}")
    noise, rng = check_nonnegative(noise, "noise"), check_rng(rng)
    basis = np.linalg.qr(rng.standard_normal((d, rank)))[0]
    X = rng.standard_normal((n, rank)) @ basis.T / np.sqrt(rank)
    hidden = basis @ rng.standard_normal((rank, neurons))
    out = rng.choice([-1.0, 1.0], neurons)
    y = np.maximum(X @ hidden, 0.0) @ out
    return NetworkProblem(X, y + noise * y.std() * rng.standard_normal(n), hidden, out)


def scaled_rows(X):
    """Return centred and scaled features and a column of ones, rows of mean square length 1."""
    deviation = X.std(axis=0)
    Z = (X - X.mean(axis=0)) / np.where(deviation < 1e-3, 1.0, deviation)
    return np.column_stack([Z, np.ones(len(X))]) / np.sqrt(X.shape[1] + 1)
