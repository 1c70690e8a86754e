"""What `barycenter` returns."""

from typing import Any, ClassVar

from .._core.result import Result

_BARYCENTER = """\
@article{benamou2015iterative,
  title = {Iterative Bregman projections for regularized transportation problems},
  author = {Benamou, Jean-David and Carlier, Guillaume and Cuturi, Marco and Nenna, Luca and
            Peyr{\\'e}, Gabriel},
  journal = {SIAM Journal on Scientific Computing},
  volume = {37},
  year = {2015},
}"""


class BarycenterResult(Result):
    r"""Outcome of `barycenter`.

    Attributes
    ----------
    x : array, shape (n,)
        The barycentre; it has the mass of the measures.
    f, g : array, shapes (K, n) and (K, m)
        Potentials relative to the counting measure: the k-th plan is :math:`P_{ij} = \exp((f_{ki}
        + g_{kj} - C_{ij}) / \varepsilon)`. ``-inf`` in `g` where a measure has no mass.
    weights : array, shape (K,)
        The weights used, with sum one.
    reg : float
        The entropic weight used.
    fun : float
        The weighted sum of the entropic transport values, from below: the dual value.
    nit : int
        Passes over the costs of all measures, or over a stored kernel that they share.
    nsinkhorn, nnewton, ncg : int
        Iterated projections, Newton steps, conjugate-gradient iterations.
    levels : list of float
        The entropic weights that were visited.
    """

    x: Any
    f: Any
    g: Any
    weights: Any
    reg: float
    nsinkhorn: int
    nnewton: int
    ncg: int
    levels: list[float]

    _bibtex: ClassVar = {"barycenter": _BARYCENTER}
