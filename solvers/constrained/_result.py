"""What the solvers of the family return."""

from typing import Any, ClassVar

from .._core.result import Result

CITATION = """\
@inproceedings{hong2023constrained,
  title = {Constrained Optimization via Exact Augmented {L}agrangian and Randomized Iterative
           Sketching},
  author = {Hong, Ilgee and Na, Sen and Mahoney, Michael W. and Kolar, Mladen},
  booktitle = {International Conference on Machine Learning},
  pages = {13174--13198},
  year = {2023}
}"""


SKETCHING = """\
@misc{derezinski2025kaczmarz,
  title = {Randomized {K}aczmarz Methods with Beyond-{K}rylov Convergence},
  author = {Derezi{\\'n}ski, Micha{\\l} and Needell, Deanna and Rebrova, Elizaveta
            and Yang, Jiaming},
  year = {2025},
  eprint = {2501.11673},
  archiveprefix = {arXiv}
}"""

FILTER = """\
@article{waechter2006implementation,
  title = {On the implementation of an interior-point filter line-search algorithm for large-scale
           nonlinear programming},
  author = {W{\\"a}chter, Andreas and Biegler, Lorenz T.},
  journal = {Mathematical Programming},
  volume = {106},
  pages = {25--57},
  year = {2006}
}"""
# By the words of `globalization_used`.
_ORIGINS = {"eal": CITATION, "l1": CITATION, "filter": FILTER}


class ConstrainedResult(Result):
    """Outcome of a solver of `solvers.constrained`.

    Attributes
    ----------
    x : array, shape (n,)
        The point.
    fun : float
        The objective.
    jac : array, shape (n,)
        Its gradient.
    lam : array, shape (m,)
        Multipliers of the rows of all constraints, in their order, with the Lagrangian
        ``fun + lam @ c``: at most 0 at a lower side, at least 0 at an upper one.
    v : list of array
        The same, one array for each constraint.
    bound_lam : array, shape (n,)
        Multipliers of the bounds, with the same signs.
    kkt : float
        The certificate's value: the largest of the next three.
    stationarity, constr_violation, complementarity : float
        Largest entry of the Lagrangian's gradient, of what the constraints are violated by, and
        of multiplier times distance.
    kkt_floor : float
        What rounding leaves of `kkt` at this point.
    nfev, njev, nhev, nhvp : int
        Values, gradients, Hessians and products with Hessians that were asked for.
    ncev, ncjev : int
        Values and Jacobians of the constraints.
    callback_seconds : float
        Time spent in the caller's functions.
    ninner : int
        Steps of inner solvers.
    inner : str
        The inner solver that ran.
    globalization_used : str
        "eal" or "filter", or both with the iteration of the change: "eal, filter from 12"; of
        square systems "newton", then "levenberg-marquardt"; of the baselines "l1" and "trust
        region".
    eta : (float, float)
        Weights of the exact augmented Lagrangian at the end.
    infeasibility_certificate : float
        Where the run ended as INFEASIBLE: the gradient of the length of the violated parts of the
        scaled rows, ``||G^T c|| / ||c||``; NaN elsewhere.
    second_order : bool or None
        Whether the reduced Hessian is positive semi-definite; None where it was not looked at.
    """

    x: Any
    jac: Any
    lam: Any
    v: list[Any]
    bound_lam: Any
    kkt: float
    stationarity: float
    constr_violation: float
    complementarity: float
    kkt_floor: float
    nfev: int
    njev: int
    nhev: int
    nhvp: int
    ncev: int
    ncjev: int
    callback_seconds: float
    ninner: int
    inner: str
    globalization_used: str
    eta: tuple[float, float]
    infeasibility_certificate: float
    second_order: bool | None

    def cite(self) -> str:
        """Return BibTeX for the methods that ran, followed by the library's own entry.

        Returns
        -------
        str
            For a bibliography file.
        """
        used = {text: None for word, text in _ORIGINS.items() if word in self.globalization_used}
        return "\n\n".join([*used, super().cite()])

    def summary(self) -> str:
        """Return a few lines: why the run ended, what ran, how good the answer is.

        Returns
        -------
        str
            For printing.
        """
        inner, judge = self.inner or "none", self.globalization_used or "none"
        return "\n".join(
            [
                super().summary(),
                f"  systems by {inner}, steps judged by {judge}",
                f"  evaluations: {self.nfev} fun, {self.njev} jac, {self.nhev} hess, "
                f"{self.nhvp} products; of constraints {self.ncev} fun, {self.ncjev} jac; "
                f"{self.callback_seconds:.3f} s",
            ]
        )


class LinearResult(Result):
    """Outcome of a linear solve.

    Attributes
    ----------
    x : array, shape (p,)
        The solution.
    fun : float
        Norm of the residual relative to that of the right-hand side.
    """

    x: Any

    _bibtex: ClassVar = {"sketch_project": SKETCHING}


class SaddleResult(LinearResult):
    """Outcome of `solve_kkt`.

    Attributes
    ----------
    x : array, shape (n + m,)
        The solution.
    inner : str
        The solver that ran.
    work : int
        Entries of matrices that its steps touched: those of K in each step of an iterative
        solver, those of the sparse or dense K once for a factorisation.
    """

    inner: str
    work: int

    _bibtex: ClassVar = {"solve_kkt": CITATION}
