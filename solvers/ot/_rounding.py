"""Turning an almost feasible plan into a feasible one."""

import numpy as np

from .._core.arrays import Ingest
from .._core.validation import check_array
from ._problem import MASS_SLACK, common_mass


def round_plan(P, a, b):
    r"""Return a plan with exactly the marginals `a` and `b`, close to `P`.

    Rows and columns with too much mass are scaled down, and a rank-one plan brings what is
    missing: the distance to `P` is at most twice its marginal error, in the L1 norm.

    Parameters
    ----------
    P : array, shape (n, m)
        Non-negative matrix.
    a, b : array, shapes (n,) and (m,)
        Non-negative weights with equal sums.

    Returns
    -------
    array, shape (n, m)
        The rounded plan, of the same kind as the input; `P` is not modified.

    Raises
    ------
    TypeError, ValueError
        If an argument is no array of real numbers of the shape given above, or negative, or if
        the weights have different sums.

    Notes
    -----
    Costs a few passes over `P`.

    References
    ----------
    .. [1] J. Altschuler, J. Weed, P. Rigollet. Near-linear time approximation algorithms for
       optimal transport via Sinkhorn iteration. NeurIPS 2017. arXiv:1705.09634.

    Examples
    --------
    >>> import solvers
    >>> solvers.ot.round_plan([[0.5, 0.0], [0.0, 0.25]], [0.5, 0.5], [0.5, 0.5])
    array([[0.5, 0. ],
           [0. , 0.5]])
    """
    io = Ingest(P=P, a=a, b=b)
    P = check_array(io, "P", ndim=2, minimum=0.0)
    n, m = P.shape
    a = check_array(io, "a", shape=(n,), means="(P.shape[0],)", minimum=0.0)
    b = check_array(io, "b", shape=(m,), means="(P.shape[1],)", minimum=0.0)
    with io.device:
        common_mass([io.be.host(a.sum()), io.be.host(b.sum())], MASS_SLACK[io.dtype])
        a, b = a.astype(np.float64), b.astype(np.float64)
        P = P * shrink(io.xp, a, P.sum(axis=1, dtype=np.float64))[:, None]
        P *= shrink(io.xp, b, P.sum(axis=0))
        left, right = missing(io.xp, a, P.sum(axis=1)), missing(io.xp, b, P.sum(axis=0))
        total = io.be.host(left.sum())
        if total > 0.0:
            P += left[:, None] * (right / total)
        return io.out(P)


def shrink(xp, wanted, sums):
    """Return the factors, at most 1, that bring sums down to what is wanted."""
    return xp.where(sums > wanted, wanted / xp.where(sums > 0, sums, 1.0), 1.0)


def missing(xp, wanted, sums):
    """Return what the sums lack; rounding must not make it negative."""
    return xp.maximum(wanted - sums, 0.0)
