"""What the solvers of the family return."""

from typing import Any, ClassVar

from .._core.result import Result

CITATION = """\
@article{nutini2022block,
  title = {Let's Make Block Coordinate Descent Converge Faster: Faster Greedy Rules,
           Message-Passing, Active-Set Complexity, and Superlinear Convergence},
  author = {Nutini, Julie and Laradji, Issam and Schmidt, Mark},
  journal = {Journal of Machine Learning Research},
  volume = {23},
  number = {131},
  pages = {1--74},
  year = {2022}
}"""


class BlockResult(Result):
    """Outcome of a solver of `solvers.bcd`.

    Attributes
    ----------
    x : array, shape (p,), (p, C) or (N,)
        The unknowns; `coef` is another name for them.
    intercept : float or array of shape (C,)
        The intercept; 0 where none was fitted.
    fun : float
        The objective.
    dual_fun : float or None
        A lower bound of the optimum, where the certificate has one.
    gap : float or None
        ``fun - dual_fun``.
    kkt : float
        Largest violation of the optimality conditions.
    scale : float
        What the certificate's value is relative to.
    npass : float
        Passes over the data.
    n_blocks, n_newton : int
        Block updates and Newton steps.
    active_set : array of int
        The working set at the end.
    support : array of int
        Indices of nonzero unknowns; rows, if there are several columns.
    classes : numpy.ndarray or None
        Labels, in the order of the columns of `x`; the second of two is the positive one.
    identified_at : int
        The iteration from which the support was the final one.
    used : dict of str to str
        The rules that ran.
    """

    x: Any
    intercept: Any
    dual_fun: float | None
    gap: float | None
    kkt: float
    scale: float
    npass: float
    n_blocks: int
    n_newton: int
    active_set: Any
    support: Any
    classes: Any
    identified_at: int
    used: dict[str, str]

    _bibtex: ClassVar = {}

    @property
    def coef(self):
        """The unknowns: another name for `x`."""
        return self.x

    def cite(self):
        """Return BibTeX for the method that ran, followed by the library's own entry.

        Returns
        -------
        str
            For a bibliography file.
        """
        return f"{CITATION}\n\n{super().cite()}"
