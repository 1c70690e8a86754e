"""`adasketch_newton`: the paper's method under the paper's name."""

from ._driver import solve
from ._program import pose


def adasketch_newton(
    fun,
    x0,
    args=(),
    *,
    jac=None,
    hess=None,
    constraints=(),
    inner="kaczmarz",
    block_size=None,
    theta=1.0,
    tol=1e-4,
    maxiter=10_000,
    maxiter_inner=None,
    time_limit=None,
    lam0=None,
    eta=(1.0, 0.1),
    lagrangian_hess=None,
    rng=None,
    callback=None,
    progress=False,
    history=True,
    n_threads=None,
):
    r"""Minimise under equality constraints by sketched Newton steps, as published.

    .. math:: \min_x \; f(x) \quad \text{subject to} \quad c(x) = 0

    A Newton step on the optimality conditions is computed by random projections, to an accuracy
    that the descent of the exact augmented Lagrangian asks for:

    .. math:: M = f + \lambda^\top c + \frac{\eta_1}{2} \|c\|^2
              + \frac{\eta_2}{2} \|\nabla_x L\|^2

    This is the reference; `minimize` has accuracies, starts and safeguards that work better.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args)`` returns the objective.
    x0 : array, shape (n,)
        Start.
    args : tuple, optional
        Further arguments of `fun`, `jac` and `hess`.
    jac, hess : callable, optional
        Gradient (n,) and Hessian (n, n) of `fun`; as in `minimize`.
    constraints : object or list
        As in `minimize`, but equalities only.
    inner : str, default "kaczmarz"
        What solves the Newton systems: a kind of `sketch_project`, such as "gaussian", or any
        other inner solver of `minimize`.
    block_size : int, optional
        Equations in a block, for kinds with blocks.
    theta : float or "superlinear", default 1.0
        Factor of the accuracy of Newton steps; "superlinear" takes the norm of the residual,
        where that is smaller than 1.
    tol : float, default 1e-4
        The run ends when the Euclidean norm of the Lagrangian's gradient and the constraints is
        at most this, and so is then the certificate's value.
    maxiter : int, default 10000
        Largest number of Newton steps.
    maxiter_inner : int, optional
        Largest number of sketching steps in one solve. Default: 100000.
    time_limit : float, optional
        Seconds.
    lam0 : array, shape (m,), optional
        Multipliers to start from; those of least squares by default.
    eta : (float, float), default (1.0, 0.1)
        Weights :math:`\eta_1, \eta_2` to start from.
    lagrangian_hess : callable, optional
        With ``hess="lagrangian"``, as in `minimize`.
    rng : int or Generator, optional
        Where the randomness comes from.
    callback : callable, optional
        Called with the state after each Newton step; a true return or StopIteration ends the run.
    progress : bool, default False
        Whether to show a bar.
    history : bool or int, default True
        Whether, or every how many iterations, to keep a row.
    n_threads : int, optional
        Threads of kernels.

    Returns
    -------
    ConstrainedResult
        With the columns ``eta1``, ``eta2``, ``delta`` and ``inner_residual`` in `history`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the expected kind, shape or value.

    Notes
    -----
    Where the published rule asks for more accuracy than rounding leaves, rounding level counts.
    Jacobians that are nearly singular are no reason to stop.

    References
    ----------
    .. [1] I. Hong, S. Na, M. W. Mahoney and M. Kolar. Constrained optimization via exact
       augmented Lagrangian and randomized iterative sketching. ICML 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.optimize import LinearConstraint
    >>> from solvers.constrained import adasketch_newton
    >>> plane = LinearConstraint([[1.0, 1.0]], 2.0, 2.0)
    >>> res = adasketch_newton(lambda x: x @ x, np.zeros(2), jac=lambda x: 2 * x,
    ...                        hess=lambda x: 2 * np.eye(2), constraints=plane, rng=0)
    >>> res.x.round(3)
    array([1., 1.])
    """
    program, x = pose(
        fun, x0, args, jac=jac, hess=hess, constraints=constraints, lam0=lam0,
        lagrangian_hess=lagrangian_hess,
    )  # fmt: skip
    return solve(
        "adasketch_newton",
        program,
        x,
        inner=inner,
        block_size=block_size,
        globalization="eal",
        accuracy="paper",
        theta=theta,
        tol=tol,
        maxiter=maxiter,
        maxiter_inner=maxiter_inner,
        time_limit=time_limit,
        eta=eta,
        inequalities="error",
        scaling=None,
        rng=rng,
        callback=callback,
        progress=progress,
        history=history,
        n_threads=n_threads,
    )
