"""`scipy_method`: what `scipy.optimize.minimize` takes as its `method`."""

import inspect

from .._core.validation import check_callable
from ._minimize import minimize


def scipy_method(
    fun,
    x0,
    args=(),
    *,
    jac=None,
    hess=None,
    hessp=None,
    bounds=None,
    constraints=(),
    callback=None,
    **options,
):
    """Solve a problem that `scipy.optimize.minimize` was called with.

    Parameters
    ----------
    fun : callable
        As in `minimize`, like all that SciPy passes on.
    x0 : array, shape (n,)
        Start.
    args : tuple, default ()
        What `fun` and its derivatives take besides.
    jac, hess, hessp : callable, optional
        Derivatives.
    bounds : Bounds or list of pairs, optional
        Bounds of x.
    constraints : object, dict or list of them, default ()
        Constraints.
    callback : callable, optional
        ``callback(intermediate_result)`` or, with any other parameter, ``callback(x)``.
    **options : object
        Further options of `minimize`: what SciPy is given as `options`, and its `tol`.

    Returns
    -------
    ConstrainedResult
        Which is an `OptimizeResult`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the expected kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy.optimize import LinearConstraint, minimize
    >>> from solvers import constrained
    >>> res = minimize(
    ...     lambda x: x @ x,
    ...     np.zeros(2),
    ...     jac=lambda x: 2 * x,
    ...     hess=lambda x: 2 * np.eye(2),
    ...     constraints=LinearConstraint(np.ones((1, 2)), 1, 1),
    ...     method=constrained.scipy_method,
    ... )
    >>> res.x.round(6)
    array([0.5, 0.5])
    """
    known = inspect.signature(minimize).parameters
    if strange := [name for name in options if name not in known]:
        raise TypeError(
            f"`options` holds {strange[0]!r}; expected options of solvers.constrained.minimize"
        )
    return minimize(
        fun,
        x0,
        args,
        jac=jac,
        hess=hess,
        hessp=hessp,
        bounds=bounds,
        constraints=constraints,
        callback=_adapted(check_callable(callback, "callback")),
        **options,
    )


def _adapted(callback):
    """Return a callback of either of SciPy's styles as one of ours, which may end the run."""
    if callback is None:
        return None
    try:
        names = set(inspect.signature(callback).parameters)
    except ValueError:  # some functions that are compiled
        names = set()
    if names == {"intermediate_result"}:
        return lambda state: callback(intermediate_result=state)
    return lambda state: callback(state.x.copy())
