"""What the solvers of the family return."""

from typing import Any, ClassVar

from .._core.result import Result

CITATION = """\
@article{bai2023efficient,
  title = {Efficient Global Optimization of Two-Layer {ReLU} Networks: Quadratic-Time Algorithms
           and Adversarial Training},
  author = {Bai, Yatong and Gautam, Tanmay and Sojoudi, Somayeh},
  journal = {SIAM Journal on Mathematics of Data Science},
  volume = {5},
  number = {2},
  pages = {446--474},
  year = {2023}
}"""


class ReLUResult(Result):
    """Outcome of a solver of `solvers.relu`.

    Objectives and bounds are in the unit of the loss that was asked for: a sum over samples, or
    with ``loss_scale="mean"`` their mean. Arrays are of the caller's kind.

    Attributes
    ----------
    V, W : array, shape (d, P) or (c, d, P)
        Weights of the convex programme, inside their cones: gate i adds ``V[:, i]`` and
        subtracts ``W[:, i]``. With `bias` the last of the d features is the column of ones.
    gates : Gates
        The gates.
    net : Net
        The network with the lowest objective that was seen; with ``keep_best=False`` the one
        that `V` and `W` stand for.
    fun : float
        Objective of `net`.
    fun_convex : float
        Objective of the convex programme at `V` and `W`.
    dual : float
        Lower bound of the convex programme's optimum over these gates.
    gap : float
        ``(fun_convex - dual) / fun_convex``: the certificate.
    dual_global : float
        Lower bound of the objective of every network, whatever its gates.
    gap_global : float
        ``(fun - dual_global) / fun``.
    robust_fun : float or None
        With `robust_eps`: a bound of the objective under every attack; else None.
    n_active : int
        Blocks of `V` and `W` that are not zero.
    z : array, shape (n,) or (c, n)
        The dual point behind `dual`, for the loss as a sum over samples.
    rho, sigma : float or None
        Penalties at the end, of methods that have them.
    U : array, shape (d, P) or (c, d, P)
        Of `gated`: weights of the gated network. `fun_convex` and `dual` are those of its
        programme, which has no cones.
    fun_relu : float
        Of `gated`: objective of the convex programme at `V` and `W`.
    alpha : array, shape (N,) or (c, N)
        Of `sampled_convex`: output weights of neurons of length 1.
    """

    V: Any
    W: Any
    gates: Any
    net: Any
    fun_convex: float
    dual: float
    gap: float
    dual_global: float
    gap_global: float
    robust_fun: float | None
    n_active: int
    z: Any
    rho: float | None
    sigma: float | None

    _bibtex: ClassVar = {}

    def cite(self):
        """Return BibTeX for the method that ran, followed by the library's own entry.

        Returns
        -------
        str
            For a bibliography file.
        """
        return f"{CITATION}\n\n{super().cite()}"
