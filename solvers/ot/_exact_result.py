"""What `emd` returns: a plan with few entries, and potentials that prove how good it is."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from .._core.arrays import Ingest
from .._core.validation import check_array, check_count, check_nonnegative
from ._certificate_linear import judge_linear
from ._result import TransportResult

_SIMPLEX = """\
@article{peyre2019computational,
  title = {Computational optimal transport},
  author = {Peyr{\\'e}, Gabriel and Cuturi, Marco},
  journal = {Foundations and Trends in Machine Learning},
  volume = {11},
  year = {2019},
}"""


@dataclass
class Vertex:
    """What the search hands back: potentials and plan of the checked problem of mass one."""

    f: Any
    g: Any
    entries: tuple
    levels: list[float]
    density: float
    counts: dict[str, int]

    def plan(self, problem):
        """Return the plan as a sparse matrix."""
        tail, head, mass = (problem.be.xp.asarray(v) for v in self.entries)
        mass = problem.mass * mass
        return problem.be.sparse.csr_matrix((mass, (tail, head)), shape=problem.C.shape)


class ExactResult(TransportResult):
    """Outcome of `emd`; attributes that are not listed are those of `TransportResult`.

    Attributes
    ----------
    f, g : array, shapes (n,) and (m,)
        Potentials with ``f_i + g_j <= C_ij``, up to rounding.
    reg : float
        Zero.
    fun, value : float
        Cost of the plan: an upper bound of the optimal value.
    dual : float
        A lower bound of the optimal value.
    """

    _bibtex: ClassVar = {"emd": _SIMPLEX}

    @cached_property
    def _plan(self):
        problem, io = self._checked()
        with io.device:
            P = io.xp.zeros(problem.C.shape[:: -1 if problem.flipped else 1], io.dtype)
            tail, head, mass = (io.xp.asarray(v) for v in self._entries)
            P[tail, head] = mass
            return io.out(P)

    def plan_sparse(self, threshold=0.0):
        """Return the plan, at most ``n + m - 1`` entries, as a sparse array.

        Parameters
        ----------
        threshold : float
            Smaller entries are left out, in units of mass.

        Returns
        -------
        sparse array, shape (n, m)
            In CSR format, of SciPy or CuPy.
        """
        threshold = check_nonnegative(threshold, "threshold")
        problem, io = self._checked()
        with io.device:
            return _sparse(problem, io, self._entries, threshold).astype(io.dtype)

    def apply(self, V, axis=1):
        """Multiply the plan with a vector or matrix: ``P @ V``, or ``P.T @ V`` for `axis` 0."""
        if check_count(axis, "axis") > 1:
            raise ValueError(f"`axis` came as {axis!r}; expected 0 or 1")
        problem, io = self._checked()
        door = Ingest(V=V, f=self.f)
        V = check_array(door, "V", ndim=(1, 2))
        with io.device:
            P = _sparse(problem, io, self._entries, 0.0)
            P = P if axis == 1 else P.T
            if V.shape[0] != P.shape[1]:
                raise ValueError(f"`V` came with shape {V.shape}; expected {P.shape[1]} rows")
            return io.out(P @ V.astype(np.float64))

    @property
    def potentials_counting(self):
        """The potentials themselves, for without entropy there is no reference measure."""
        return self.f, self.g

    @property
    def value_linear(self):
        """Cost of the plan."""
        return self.value

    @property
    def cost_rounded(self):
        """Cost of the plan, which needs no rounding."""
        return self.value

    def lp_bracket(self):
        """Return a lower and an upper bound of the optimal value: `dual` and `value`."""
        return self.dual, self.value

    @property
    def grad_reg(self):
        """Not available: the value has no slope at `reg` = 0."""
        raise NotImplementedError("`grad_reg` is for positive `reg`; see `sinkhorn_newton`")

    @property
    def grad_x(self):
        """Not available: an exact plan jumps as points move."""
        raise NotImplementedError("`grad_x` is for positive `reg`; see `sinkhorn_newton`")

    grad_y = grad_x

    def vjp(self, df=None, dg=None, dP=None, *, tol=None):
        """Not available: exact potentials and plans jump as the data change."""
        raise NotImplementedError("`vjp` is for positive `reg`; see `sinkhorn_newton`")


def _sparse(problem, io, entries, threshold):
    """Return the plan in the caller's orientation."""
    tail, head, mass = entries
    kept = mass >= threshold
    tail, head, mass = (io.xp.asarray(v[kept]) for v in entries)
    shape = problem.C.shape[:: -1 if problem.flipped else 1]
    return io.be.sparse.csr_matrix((mass, (tail, head)), shape=shape)


def finish_exact(problem, io, gap, answer, run, data):
    """Judge the answer and turn it into a result."""
    f, g = (io.out(v) for v in (answer.f, answer.g))
    # As the caller gets them: the certificate is about nothing else.
    certificate = judge_linear(problem, Ingest(g=g)["g"], answer.plan(problem), gap)
    details = certificate.details
    tail, head, mass = answer.entries
    entries = tail, head, problem.mass * mass
    if problem.flipped:
        f, g, entries = g, f, (head, tail, problem.mass * mass)
    return run.finish(
        ExactResult,
        certificate,
        f=f,
        g=g,
        reg=0.0,
        fun=details["primal"],
        value=details["primal"],
        dual=details["dual"],
        marginal_error=details["row_error"] + details["col_error"],
        **answer.counts,
        density=answer.density,
        levels=answer.levels,
        _data=data,
        _reg_type="kl",
        _entries=entries,
    )
