"""What the solvers of the family return."""

from typing import Any, ClassVar

from .._core.result import Result
from ._citations import CITATIONS


class BilevelResult(Result):
    """Outcome of a solver of `solvers.bilevel`.

    Attributes
    ----------
    x, y : array or nested arrays
        The upper variable, and the lower level's solution there: of several the one that is best
        for the upper level. Shaped like `x0` and `y0`.
    y_sigma, z : array or nested arrays
        Minimisers of ``sigma f + g`` and of g.
    fun : float
        ``f(x, y)``, an upper bound of psi(x).
    psi_lower : float
        A lower bound of psi(x).
    gap : float
        ``fun - psi_lower``.
    lower_gap : float
        ``g(x, y) - g(x, z)``.
    jac : array or nested arrays
        The hyper-gradient.
    jac_err : float
        Estimate of its error's length.
    optimality : float
        Largest entry of the projected hyper-gradient, relative to the hyper-gradient's.
    lower_residual : tuple of float
        Largest entries of the projected gradients of g at y and at z.
    sigma : float
        The last penalty.
    multipliers : array, shape (l,), or None
        Of the constraints that couple x and y.
    counts : dict
        Calls of the caller's functions by kind, without those of `certify`.
    state : object
        What ``resume=`` takes.
    """

    x: Any
    y: Any
    y_sigma: Any
    z: Any
    psi_lower: float
    gap: float
    lower_gap: float
    jac: Any
    jac_err: float
    optimality: float
    lower_residual: tuple[float, float]
    sigma: float
    multipliers: Any
    counts: dict[str, int]
    state: Any

    _bibtex: ClassVar = CITATIONS
