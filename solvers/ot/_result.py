"""What transport solvers return."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np

from .._core.arrays import Ingest
from .._core.result import Result, Status
from .._core.validation import check_array, check_count, check_memory, check_nonnegative
from ._certificate_entropic import check_multipliers, judge, judge_constrained
from ._cloud import arrays_of
from ._constraints import check_constraints
from ._derivatives import Adjoint, has_points, point_gradients, vjp
from ._problem import DUST, check_transport, gibbs_block, is_feasible, row_blocks
from ._rounding import missing, shrink

_SNS = """\
@inproceedings{tang2024accelerating,
  title = {Accelerating Sinkhorn algorithm with sparse Newton iterations},
  author = {Tang, Xun and Shavlovsky, Michael and Rahmanian, Holakou and Tardini, Elisa and
            Thekumparampil, Kiran Koshy and Xiao, Tesi and Ying, Lexing},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  eprint = {2401.12253},
  archiveprefix = {arXiv},
}"""
_SPLR = """\
@inproceedings{wang2025sparse,
  title = {The sparse-plus-low-rank quasi-{N}ewton method for entropic-regularized optimal
           transport},
  author = {Wang, Chenrui and Qiu, Yixuan},
  booktitle = {International Conference on Machine Learning},
  series = {Proceedings of Machine Learning Research},
  volume = {267},
  pages = {64202--64221},
  year = {2025},
}"""
_SINKHORN = """\
@inproceedings{cuturi2013sinkhorn,
  title = {Sinkhorn distances: lightspeed computation of optimal transport},
  author = {Cuturi, Marco},
  booktitle = {Advances in Neural Information Processing Systems},
  volume = {26},
  year = {2013},
}"""


_OVERRELAXED = """\
@article{thibault2021overrelaxed,
  title = {Overrelaxed {S}inkhorn-{K}nopp algorithm for regularized optimal transport},
  author = {Thibault, Alexis and Chizat, L\\'{e}na\\"{i}c and Dossal, Charles and
            Papadakis, Nicolas},
  journal = {Algorithms},
  volume = {14},
  number = {5},
  pages = {143},
  year = {2021},
  eprint = {1711.01851},
  archiveprefix = {arXiv},
}"""
_ANDERSON = """\
@article{walker2011anderson,
  title = {Anderson acceleration for fixed-point iterations},
  author = {Walker, Homer F. and Ni, Peng},
  journal = {SIAM Journal on Numerical Analysis},
  volume = {49},
  number = {4},
  pages = {1715--1735},
  year = {2011},
}"""


@dataclass
class Answer:
    """What a method hands back: potentials of the checked problem, and what they took."""

    f: Any
    g: Any
    levels: list[float]
    density: float = 1.0
    nsinkhorn: int = 0
    nnewton: int = 0
    ncg: int = 0
    nfactor: int = 0
    w: Any = None


class TransportResult(Result):
    r"""Outcome of a transport solver.

    Potentials are in the KL convention, :math:`P_{ij} = a_i b_j \exp((f_i + g_j - C_{ij}) /
    \varepsilon) / M`. The result keeps references to the arrays of the call and computes from
    them on demand; they must not change meanwhile.

    Attributes
    ----------
    f, g : array, shapes (n,) and (m,)
        Potentials in the unit of `C`, with :math:`\langle a, f \rangle = \langle b, g \rangle`.
    reg : float
        The entropic weight used.
    fun, value : float
        The entropic transport value (by `reg_type`), from below: the dual at `f` and `g`.
    dual : float
        The same in the KL form, whatever `reg_type` was.
    marginal_error : float
        L1 norm of both marginal residuals, in the unit of mass.
    nit : int
        Passes over the cost.
    nsinkhorn, nnewton, ncg, nfactor : int
        Sinkhorn sweeps, Newton steps, conjugate-gradient iterations, factorisations.
    density : float
        Fraction of the plan's entries that mattered in the last Newton steps.
    levels : list of float
        The entropic weights that were visited.
    w : array, shape (len(constraints),)
        Only under constraints: their multipliers, in the order of the call. The plan then has
        :math:`C - \sum_k w_k D_k` in place of `C`.
    """

    f: Any
    g: Any
    reg: float
    value: float
    dual: float
    marginal_error: float
    nsinkhorn: int
    nnewton: int
    ncg: int
    nfactor: int
    density: float
    levels: list[float]
    w: Any

    _bibtex: ClassVar = {
        "sinkhorn_newton": _SNS,
        "sinkhorn_newton (splr)": _SPLR,
        "sinkhorn": _SINKHORN,
        "sinkhorn (overrelaxed)": f"{_SINKHORN}\n\n{_OVERRELAXED}",
        "sinkhorn (anderson)": f"{_SINKHORN}\n\n{_ANDERSON}",
    }

    @property
    def x(self):
        """The potentials `f` and `g` in one array."""
        _, io = self._checked()
        with io.device:
            return io.out(io.xp.concatenate(self._potentials()))

    @property
    def plan(self):
        """The dense plan, shape (n, m); computed once."""
        return self._plan

    @cached_property
    def _plan(self):
        with _PlanBlocks(self) as blocks:
            dtype = blocks.io.dtype
            remedy = "Use `apply` or `plan_sparse`."
            check_memory(dtype.itemsize * blocks.C.size, "`plan`", remedy, be=blocks.be)
            P = blocks.xp.empty(blocks.C.shape, dtype)
            for rows, block in blocks:
                P[rows] = block
            return blocks.io.out(P.T if blocks.flipped else P)

    @property
    def potentials_counting(self):
        """Potentials relative to the counting measure: ``P = exp((phi_i + psi_j - C) / reg)``.

        This is the convention of POT, OTT-JAX and RegOT. Points without mass have ``-inf``.
        """
        problem, io = self._checked()
        a, b = (problem.b, problem.a) if problem.flipped else (problem.a, problem.b)
        with io.device, np.errstate(divide="ignore"):
            f, g = self._potentials()
            phi = f + self.reg * io.xp.log(a)
            psi = g + self.reg * io.xp.log(problem.mass * b)
            return io.out(phi), io.out(psi)

    def plan_sparse(self, threshold=1e-12):
        """Return the plan's entries of at least `threshold`, in units of mass.

        Parameters
        ----------
        threshold : float
            Smaller entries are left out.

        Returns
        -------
        sparse array, shape (n, m)
            In CSR format, of SciPy or CuPy.
        """
        threshold = check_nonnegative(threshold, "threshold")
        with _PlanBlocks(self) as blocks:
            sparse, parts = blocks.be.sparse, []
            for _, P in blocks:
                P[threshold > P] = 0.0
                parts.append(sparse.csr_matrix(P))
            plan = sparse.vstack(parts, format="csr")
            return (plan.T if blocks.flipped else plan).tocsr()

    def apply(self, V, axis=1):
        """Multiply the plan with a vector or matrix, without forming it.

        Parameters
        ----------
        V : array, shape (m,), (m, k), (n,) or (n, k)
            What to multiply.
        axis : {1, 0}
            1: ``P @ V``; 0: ``P.T @ V``.

        Returns
        -------
        array
            Of the same kind as the inputs of the call.
        """
        if check_count(axis, "axis") > 1:
            raise ValueError(f"`axis` came as {axis!r}; expected 0 or 1")
        with _PlanBlocks(self) as blocks:
            along = (axis == 1) != blocks.flipped
            size = blocks.C.shape[1] if along else blocks.C.shape[0]
            io = Ingest(V=V, **arrays_of(self._data[2]))
            V = check_array(io, "V", ndim=(1, 2))
            if V.shape[0] != size:
                raise ValueError(f"`V` came with shape {V.shape}; expected {size} rows")
            V = V.astype(np.float64)
            if along:
                return io.out(blocks.xp.concatenate([P @ V for _, P in blocks]))
            return io.out(sum(P.T @ V[rows] for rows, P in blocks))

    @cached_property
    def value_linear(self):
        """Cost of the plan, ``sum(C * P)``; not a bound, since the plan is not quite feasible."""
        with _PlanBlocks(self) as blocks:
            return sum(blocks.host(_inner(blocks.xp, blocks.C[rows], P)) for rows, P in blocks)

    @cached_property
    def cost_rounded(self):
        """Cost of the plan after `round_plan`: an upper bound of the linear programme's value."""
        with _PlanBlocks(self) as blocks:
            # Rounded with mass one, where nothing can overflow.
            mass, blocks.mass = blocks.mass, 1.0
            return mass * _rounded_cost(blocks)

    def lp_bracket(self):
        """Return a lower and an upper bound of the unregularised transport cost.

        Returns
        -------
        float, float
            The dual value of c-transformed potentials, and `cost_rounded`. Under constraints the
            lower bound is that of the problem with them, and the rounded plan may miss them by
            about what the certificate shows.
        """
        with _PlanBlocks(self) as blocks:
            return _linear_dual(blocks), self.cost_rounded

    @property
    def grad_a(self):
        """Gradient of the value in `a`: `f`, and what `reg_type` adds.

        Up to a constant that `grad_b` gains, because both masses change together; split such
        that ``grad_a @ a + grad_b @ b`` is the slope along the mass. Finite where `a` is zero,
        but for ``reg_type="entropy"``, whose slope there is ``-inf``.
        """
        return self.f if self._reg_type == "kl" else self._entropic_gradient(0)

    @property
    def grad_b(self):
        """Gradient of the value in `b`: `g`, and what `reg_type` adds; see `grad_a`."""
        return self.g if self._reg_type == "kl" else self._entropic_gradient(1)

    @property
    def grad_C(self):  # noqa: N802 (the cost's own letter)
        """Gradient of the value in `C`, for a fixed `reg`: the plan."""
        return self.plan

    @property
    def grad_x(self):
        """Gradient of the value in the source points, where the cost is a `PointCloud`.

        For a `PointCloud` without `y` the gradient in its points is ``grad_x + grad_y``. Where a
        distance has no derivative, at points that coincide, it counts as zero.
        """
        return self._point_gradients[0]

    @property
    def grad_y(self):
        """Gradient of the value in the target points, where the cost is a `PointCloud`."""
        return self._point_gradients[1]

    @cached_property
    def _point_gradients(self):
        cloud = self._data[2]
        if not has_points(cloud):
            raise TypeError(
                "`C` came without points or with a callable cost; expected a `PointCloud` whose "
                "`cost` is a word: use `grad_C` and the chain rule"
            )
        problem, io = self._checked()
        with _PlanBlocks(self) as blocks:
            return point_gradients(cloud, problem, io, blocks)

    @cached_property
    def grad_reg(self):
        """Slope of the value in `reg`: ``KL(P | a b^T / M)``, or ``sum P (log P - 1)``."""
        with _PlanBlocks(self) as blocks:
            xp, total = blocks.xp, 0.0
            for rows, P in blocks:
                exponent = xp.subtract(blocks.g, blocks.tilted[rows], dtype=np.float64)
                exponent += blocks.f[rows, None]
                total += _inner(xp, exponent / blocks.reg - 1.0, P)
            # What the plan is measured against, a b^T / M, has this mass.
            total += blocks.mass * (blocks.a.sum() * blocks.b.sum())
            return blocks.host(total) + (self.value - self.dual) / self.reg

    def vjp(self, df=None, dg=None, dP=None, *, tol=None):
        r"""Pull cotangents of the potentials and the plan back to the weights and the cost.

        The gradient of any scalar :math:`L(f, g, P)` in the data, by implicit differentiation of
        the optimality system; `reg` stays fixed.

        Parameters
        ----------
        df, dg : array, shapes (n,) and (m,), optional
            Gradient of `L` in the potentials `f` and `g` of this result; None for zero.
        dP : array, shape (n, m), optional
            Gradient of `L` in the plan; None for zero.
        tol : float, optional
            Largest residual of the linear system, relative to the cotangents, in the L1 norm.
            Default: 1e-9, in float32 1e-6.

        Returns
        -------
        da, db : array, shapes (n,) and (m,)
            Gradient of `L` in the weights. Both sums have to change alike, so a constant may be
            added to one and taken from the other; weights of zero have derivatives from above.
        dC : array, shape (n, m), or pair of arrays, shapes (n, d) and (m, d)
            Gradient of `L` in the cost; for a `PointCloud`, unless its cost is a function, in
            its points `x` and `y` instead.

        Raises
        ------
        TypeError, ValueError
            If a cotangent is no array of the shape above, or none is given.
        MemoryError
            If `dC` would not fit.

        Warns
        -----
        ConvergenceWarning
            If the residual stays above `tol`, which is recomputed from the data.

        Notes
        -----
        A few passes over the cost, a linear solve in `m` unknowns, and `dC`. The stored kernel
        (at most half the size of a float64 cost where that is large) and perhaps a Cholesky
        factor are kept with the result, so that a second call is cheaper; they are not pickled.
        How far the potentials are from the solution, ``certificate.value``, limits the accuracy
        too.

        Examples
        --------
        >>> import numpy as np, solvers
        >>> C = np.array([[0.0, 1.0], [1.0, 0.0]])
        >>> res = solvers.ot.sinkhorn_newton([0.5, 0.5], [0.25, 0.75], C, reg=0.1)
        >>> da, db, dC = res.vjp(dP=C)  # the gradient of sum(C * P), less the plan itself
        >>> dC.shape
        (2, 2)
        """
        if "_constraints" in self:
            raise NotImplementedError("`vjp` is for problems without constraints; see `grad_C`")
        return vjp(self, df, dg, dP, tol)

    @cached_property
    def _adjoint(self):
        problem, _ = self._checked()
        with problem.device:
            f, g = self._potentials()
        f, g = (g, f) if problem.flipped else (f, g)
        return Adjoint(problem, f, g, self.reg, self.density)

    def _entropic_gradient(self, side):
        problem, io = self._checked()
        weights = (problem.b, problem.a) if problem.flipped else (problem.a, problem.b)
        with io.device, np.errstate(divide="ignore"):
            entropic = io.xp.log(weights[side]) + 0.5 * np.log(problem.mass)
            return io.out(self._potentials()[side] + self.reg * entropic)

    def __getstate__(self):
        # What can be computed again, and is large, does not travel.
        return {key: value for key, value in vars(self).items() if key != "_adjoint"}

    def _checked(self):
        return check_transport(*self._data)

    def _potentials(self):
        # In float64, as the certificate has judged them.
        door = Ingest(f=self.f, g=self.g)
        return door["f"].astype(np.float64), door["g"].astype(np.float64)


class _PlanBlocks:
    """Iterates over (rows, block of the plan) in the orientation of the checked problem.

    In a ``with`` statement, so that all arrays are made on the device of the problem's.
    """

    def __init__(self, result):
        problem, self.io = result._checked()
        with self.io.device:
            f, g = result._potentials()
        self.be, self.flipped, self.mass = problem.be, problem.flipped, problem.mass
        self.xp, self.host = problem.be.xp, problem.be.host
        self.a, self.b, self.C, self.reg = problem.a, problem.b, problem.C, result.reg
        self.f, self.g = (g, f) if problem.flipped else (f, g)
        # The cost that the potentials belong to, and what its plans get for the constraints.
        self.tilted, self.reward = problem.C, 0.0
        constraints = check_constraints(problem, result._data[2], result.get("_constraints"))
        if constraints is not None:
            w = check_multipliers(constraints, result._data[2], result.w)
            self.tilted, self.reward = constraints.tilt(problem.C, w), w @ constraints.beta

    def __enter__(self):
        self.io.device.__enter__()
        return self

    def __exit__(self, *error):
        self.io.device.__exit__(*error)

    def __iter__(self):
        xp = self.xp
        # Where there is no mass a potential must not overflow.
        f = xp.where(self.a > DUST, self.f, -np.inf)
        g = xp.where(self.b > DUST, self.g, -np.inf)
        for rows in row_blocks(self.be, self.C):
            with np.errstate(all="ignore"):
                P = gibbs_block(self.be, self.tilted, f, g, self.reg, rows)
                P *= (self.mass * self.a[rows])[:, None]
                P *= self.b
            yield rows, P


def finish(problem, io, reg, reg_type, tol, answer, run, data, conditions=None, warn=True):
    """Judge an answer and turn it into a result.

    `conditions` are the caller's constraints and the same in normal form; without `warn` an
    outer run warns.
    """
    own = {}
    judged = partial(_judged, problem, io, reg=reg, tol=tol)
    if conditions is not None:
        # As with the potentials, what the caller gets is what is judged.
        own = {"w": io.out(io.xp.asarray(answer.w)), "_constraints": conditions[0]}
        judged = partial(judged, constraints=conditions[1], w=own["w"])
    f, g, certificate = judged(answer.f, answer.g)
    if certificate.value == np.inf:
        # Worse than no potentials at all: then none, so that the plan is made of numbers.
        f, g, certificate = judged(0.0 * problem.a, 0.0 * problem.b)
    error = certificate.value
    if conditions is not None:
        error = certificate.details["row_error"] + certificate.details["col_error"]
    note = _diagnose(problem, reg, tol, run, certificate.holds)
    dual = certificate.details["dual"]
    value = dual + _entropy_shift(problem, reg) if reg_type == "entropy" else dual
    return run.finish(
        TransportResult,
        certificate,
        note=note,
        warn=warn,
        f=f,
        g=g,
        reg=reg,
        fun=value,
        value=value,
        dual=dual,
        marginal_error=error * problem.mass,
        nsinkhorn=answer.nsinkhorn,
        nnewton=answer.nnewton,
        ncg=answer.ncg,
        nfactor=answer.nfactor,
        density=answer.density,
        levels=answer.levels,
        **own,
        _data=data,
        _reg_type=reg_type,
    )


def _judged(problem, io, f, g, *, reg, tol, constraints=None, w=None):
    """Return potentials as the caller gets them, and the certificate of exactly these."""
    f, g = (io.out(v) for v in ((g, f) if problem.flipped else (f, g)))
    door = Ingest(f=f, g=g)
    own = (door["g"], door["f"]) if problem.flipped else (door["f"], door["g"])
    if constraints is None:
        return f, g, judge(problem, *own, reg, tol)
    w = check_multipliers(constraints, f, w)
    return f, g, judge_constrained(problem, *own, reg, tol, constraints, w)


def _diagnose(problem, reg, tol, run, holds):
    """Say what limits a run, where that can be shown; ends it as infeasible if it is."""
    infeasible = not holds and run.status not in (Status.CALLBACK, Status.TIME_LIMIT)
    if infeasible and problem.extent.forbidden and not is_feasible(problem):
        run.end(Status.INFEASIBLE)
        return "No plan exists that avoids the forbidden (infinite) costs."
    floor = np.finfo(np.float64).eps * problem.range / reg
    if floor > (1e-4 if holds else 0.1 * tol):
        return (
            f"Rounding limits the marginal error to about {min(floor, 2.0):.1e} where the costs "
            f"that matter range over {problem.range / reg:.1e} times `reg`."
        )
    return None


def _entropy_shift(problem, reg):
    """Return by how much the value with ``sum P (log P - 1)`` exceeds that with KL(P | ab)."""
    xp, mass = problem.be.xp, problem.mass
    entropies = [(w[w > 0] * xp.log(w[w > 0])).sum() for w in (problem.a, problem.b)]
    return reg * mass * (problem.be.host(sum(entropies)) + np.log(mass) - 1.0)


def _inner(xp, C, P):
    """Return ``sum(C * P)``, where edges without mass may have any cost."""
    return (xp.where(P > 0, C, 0.0) * P).sum()


def _rounded_cost(blocks):
    """Return the cost of the rounded plan, in two passes and without forming it."""
    xp, C, a, b = blocks.xp, blocks.C, blocks.a, blocks.b
    x, sums = xp.empty_like(a), xp.zeros_like(b)
    for rows, P in blocks:
        x[rows] = shrink(xp, a[rows], P.sum(axis=1))
        sums += x[rows] @ P
    y = shrink(xp, b, sums)
    right = missing(xp, b, sums * y)
    left, cost, bare = xp.empty_like(a), 0.0, xp.empty_like(a)
    for rows, block in blocks:
        P = block * x[rows, None] * y
        left[rows] = missing(xp, a[rows], P.sum(axis=1))
        cost = cost + _inner(xp, C[rows], P)
        # Infinite where the missing mass would have to use a forbidden edge.
        bare[rows] = xp.where(right > 0, C[rows], 0.0) @ right
    total = left.sum()
    extra = xp.where(left > 0, bare, 0.0) @ left / xp.where(total > 0, total, 1.0)
    return float(blocks.host(cost + extra))


def _linear_dual(blocks):
    """Return a lower bound of the linear programme: both potentials c-transformed."""
    xp, C, heavy_a, heavy_b = blocks.xp, blocks.tilted, blocks.a > 0, blocks.b > 0
    # Points without mass must not bind the others.
    f, g = xp.empty_like(blocks.a), xp.where(heavy_b, blocks.g, -np.inf)
    for rows in row_blocks(blocks.be, C):
        f[rows] = (C[rows] - g).min(axis=1)
    f, g = xp.where(heavy_a, f, -np.inf), xp.full_like(blocks.b, np.inf)
    for rows in row_blocks(blocks.be, C):
        g = xp.minimum(g, (C[rows] - f[rows, None]).min(axis=0))
    value = blocks.a[heavy_a] @ f[heavy_a] + blocks.b[heavy_b] @ g[heavy_b]
    return blocks.mass * float(blocks.host(value) + blocks.reward)
