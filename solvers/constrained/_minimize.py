"""`minimize`: the public front."""

from ._driver import solve
from ._program import pose


def minimize(
    fun,
    x0,
    args=(),
    *,
    jac=None,
    hess=None,
    hessp=None,
    constraints=(),
    bounds=None,
    method="eal-newton",
    inner="auto",
    sketch=None,
    block_size=None,
    globalization="auto",
    accuracy="adaptive",
    theta="superlinear",
    tol=1e-8,
    maxiter=500,
    tol_inner=None,
    maxiter_inner=None,
    time_limit=None,
    lam0=None,
    eta=(10.0, 1e-5),
    inequalities="barrier",
    least_squares=False,
    lagrangian_hess=None,
    scaling="gradient",
    preconditioner=None,
    rng=None,
    callback=None,
    progress=False,
    history=True,
    n_threads=None,
):
    r"""Minimise a smooth function under equations, inequalities and bounds.

    .. math:: \min_x \; f(x) \quad \text{subject to} \quad l_c \le c(x) \le u_c,
              \qquad l_x \le x \le u_x

    Newton steps on the optimality conditions, with an exact augmented Lagrangian as merit;
    inequalities and bounds by a primal-dual barrier.

    Parameters
    ----------
    fun : callable
        ``fun(x, *args)`` returns the objective, a number.
    x0 : array, shape (n,), or ConstrainedResult
        Start. Of a result, its multipliers are taken as well.
    args : tuple, default ()
        What `fun`, `jac`, `hess` and `hessp` take besides.
    jac : callable, True or str, optional
        ``jac(x, *args)`` returns the gradient (n,); True if `fun` returns value and gradient;
        "2-point", "3-point" or "cs" for differences, the last by complex steps; "jax" or "torch"
        if `fun` is written in one of these. By default "3-point".
    hess : callable, str or HessianUpdateStrategy, optional
        ``hess(x, *args)`` returns the Hessian (n, n) of the objective: dense, sparse or a
        `LinearOperator`. Or "2-point", "3-point" or "cs" for differences of gradients; "jax" or
        "torch"; ``BFGS()``, ``SR1()`` or "lbfgs" for a model of the Lagrangian's Hessian;
        "lagrangian" for `lagrangian_hess`. By default `hessp`, or what `jac` has to offer, or
        differences for few unknowns and "lbfgs" for many.
    hessp : callable, optional
        ``hessp(x, p, *args)`` returns the Hessian's product with p; without effect where `hess`
        is given.
    constraints : object, dict or list of them, default ()
        SciPy's `LinearConstraint` and `NonlinearConstraint`, with dense or sparse Jacobians or a
        `LinearOperator`, or dictionaries with type, fun, jac and args. What is missing of their
        derivatives is differenced. Rows with equal sides are equations.
    bounds : Bounds or list of pairs, optional
        Bounds of x. Unknowns with equal bounds are fixed.
    method : str, default "eal-newton"
        "eal-newton", or a baseline: "sqp-direct", "gmres-l1", "gmres-l1-tests", "auglag".
    inner : str, default "auto"
        How Newton systems are solved: "direct", "condensed", "pcg", "minres", "gmres", "sketch" or
        the name of a sketch.
    sketch : str, optional
        The kind of sketch for ``inner="sketch"``; "kaczmarz++" by default.
    block_size : int, optional
        Rows in a block of a sketch.
    globalization : {"auto", "eal", "filter"}, default "auto"
        What decides on steps: the merit function, a filter, or the first and, where it fails, the
        second.
    accuracy : {"adaptive", "paper"}, default "adaptive"
        How exactly Newton systems are solved: as far as it helps, or as the theory asks.
    theta : "superlinear" or float, default "superlinear"
        Whether that accuracy grows with the iterations, or a factor for a constant one.
    tol : float, default 1e-8
        The largest KKT residual that passes.
    maxiter : int, default 500
        Largest number of iterations.
    tol_inner : float, optional
        Relative residual of Newton systems, in place of `accuracy`.
    maxiter_inner : int, optional
        Largest number of steps for one system. Default: 100,000 of a sketch, or ten times as many
        as it has unknowns.
    time_limit : float, optional
        Seconds.
    lam0 : array, shape (m,), optional
        Multipliers to start from; least-squares ones by default.
    eta : (float, float), default (10.0, 1e-5)
        Largest weights of the exact augmented Lagrangian at the start, for steep objectives with
        little curvature; others get smaller ones.
    inequalities : {"barrier", "squared-slack", "error"}, default "barrier"
        How inequalities and bounds are dealt with; "error" refuses them.
    least_squares : bool, default False
        Whether to minimise ``||c(x)||^2 / 2`` where there are more equations than unknowns, in
        place of an error.
    lagrangian_hess : callable, optional
        ``lagrangian_hess(x, lam, weight, *args)`` returns the Hessian of ``weight f + lam @ c``;
        goes with ``hess="lagrangian"``.
    scaling : {"gradient", None}, default "gradient"
        Whether objective and rows with long gradients at the start are scaled down. Results are
        in the caller's unit all the same.
    preconditioner : callable, optional
        For "pcg", "minres" and "gmres". ``preconditioner(B, G)`` is called for every matrix
        ``K = [[B, G^T], [G, 0]]``, whose blocks, scaled and in NumPy or CuPy, are dense, sparse
        or have ``@`` and ``T`` alone. It returns a callable that takes an array r of shape
        (n + m,) and returns an approximation of ``K^-1 r``, of the same shape: a fixed linear
        map, symmetric positive definite unless for "gmres". "pcg" passes zeros for the last m
        entries and uses the first n of what it gets.
    rng : int or Generator, optional
        For sketches.
    callback : callable, optional
        Called with the state after each iteration; a true return or StopIteration ends the run.
    progress : bool, default False
        Whether to show a bar.
    history : bool or int, default True
        Whether, or every how many iterations, to keep a row.
    n_threads : int, optional
        Threads of kernels.

    Returns
    -------
    ConstrainedResult
        With x in the caller's kind of array and precision. `history` has `kkt`, `fun`,
        `violation`, `alpha`, `inner_its`, `eta1`, `eta2` and `seconds`.

    Raises
    ------
    TypeError, ValueError
        If an argument, or what a function returns, is not of the expected kind or value.

    Notes
    -----
    The Lagrangian is ``fun + lam @ c``. Functions are called with copies of x in its own kind of
    array, once for a point; NumPy and CuPy arrays come in double precision. Differences stay
    within the bounds, and what they leave of accuracy shows in `kkt_floor`.

    References
    ----------
    .. [1] I. Hong, S. Na, M. W. Mahoney and M. Kolar. Constrained optimization via exact augmented
       Lagrangian and randomized iterative sketching. International Conference on Machine Learning,
       2023.

    Examples
    --------
    The point of the unit circle that is nearest to (1, 2):

    >>> import numpy as np
    >>> from scipy.optimize import NonlinearConstraint
    >>> from solvers import constrained
    >>> circle = NonlinearConstraint(
    ...     lambda x: x @ x - 1, 0, 0, jac=lambda x: 2 * x, hess=lambda x, v: 2 * v[0] * np.eye(2)
    ... )
    >>> a = np.array([1.0, 2.0])
    >>> res = constrained.minimize(
    ...     lambda x: (x - a) @ (x - a),
    ...     np.ones(2),
    ...     jac=lambda x: 2 * (x - a),
    ...     hess=lambda x: 2 * np.eye(2),
    ...     constraints=circle,
    ... )
    >>> res.x.round(6)
    array([0.447214, 0.894427])
    >>> res.certificate.holds
    True
    """
    program, x = pose(
        fun,
        x0,
        args,
        jac=jac,
        hess=hess,
        hessp=hessp,
        constraints=constraints,
        bounds=bounds,
        lam0=lam0,
        lagrangian_hess=lagrangian_hess,
    )
    return solve(
        "minimize",
        program,
        x,
        method=method,
        inner=inner,
        sketch=sketch,
        block_size=block_size,
        globalization=globalization,
        accuracy=accuracy,
        theta=theta,
        tol=tol,
        maxiter=maxiter,
        tol_inner=tol_inner,
        maxiter_inner=maxiter_inner,
        time_limit=time_limit,
        eta=eta,
        inequalities=inequalities,
        least_squares=least_squares,
        scaling=scaling,
        preconditioner=preconditioner,
        rng=rng,
        callback=callback,
        progress=progress,
        history=history,
        n_threads=n_threads,
    )
