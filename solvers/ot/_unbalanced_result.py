"""What `sinkhorn_unbalanced` returns."""

from typing import ClassVar

import numpy as np

from ._problem import check_transport
from ._result import TransportResult

_UNBALANCED = """\
@article{chizat2018scaling,
  title = {Scaling algorithms for unbalanced optimal transport problems},
  author = {Chizat, Lenaic and Peyr{\\'e}, Gabriel and Schmitzer, Bernhard and
            Vialard, Fran{\\c{c}}ois-Xavier},
  journal = {Mathematics of Computation},
  volume = {87},
  year = {2018},
}"""


class UnbalancedResult(TransportResult):
    r"""Outcome of `sinkhorn_unbalanced`.

    Potentials belong to :math:`P_{ij} = a_i b_j \exp((f_i + g_j - C_{ij}) / \varepsilon)`, without
    any normalisation, and are unique. Attributes that are not listed are those of
    `TransportResult`.

    Attributes
    ----------
    reg_m : pair of float
        Prices of the marginals' divergences.
    fun, value, dual : float
        The optimal value, from below: the dual at `f` and `g`.
    mass : float
        Sum of the plan.
    marginal_error : float
        L1 distance of the plan's marginals from those that the potentials ask for, in the unit
        of mass.
    """

    reg_m: tuple[float, float]
    mass: float

    _bibtex: ClassVar = {"sinkhorn_unbalanced": _UNBALANCED}

    @property
    def grad_a(self):
        """Gradient of the value in `a`; only for infinite `reg_m` it is `f` plus a constant."""
        return self._gradient(0)

    @property
    def grad_b(self):
        """Gradient of the value in `b`."""
        return self._gradient(1)

    @property
    def cost_rounded(self):
        """Not available: an unbalanced plan has no marginals to be rounded to."""
        raise NotImplementedError("`cost_rounded` is for balanced problems; see `value_linear`")

    def lp_bracket(self):
        """Not available: the bounds are those of the balanced linear programme."""
        raise NotImplementedError("`lp_bracket` is for balanced problems; see `value_linear`")

    def vjp(self, df=None, dg=None, dP=None, *, tol=None):
        """Not available: implicit differentiation is for balanced problems.

        Parameters
        ----------
        df, dg, dP, tol : object
            As of `TransportResult.vjp`.
        """
        raise NotImplementedError("`vjp` is for balanced problems; see `grad_a` and `grad_C`")

    def _gradient(self, side):
        problem, io = self._checked()
        with io.device:
            potential, tau = self._potentials()[side], self.reg_m[side]
            # The mass of the other side.
            other = (problem.b if side == int(problem.flipped) else problem.a).sum()
            if tau == np.inf:
                return io.out(potential + self.reg * (other - 1.0))
            left = io.xp.exp(-potential / tau)
            return io.out(tau * (1.0 - left) + self.reg * (other - left))

    def _checked(self):
        return check_transport(*self._data, balanced=False)
