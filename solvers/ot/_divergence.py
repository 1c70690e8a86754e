"""The Sinkhorn divergence: entropic transport cost without its entropic bias."""

from functools import cached_property, partial
from typing import Any, ClassVar

import numpy as np

from .._core import threads
from .._core.certificate import Certificate
from .._core.monitor import Monitor
from .._core.result import Result, Status
from .._core.validation import check_positive, check_threads, describe
from ._cloud import PointCloud
from ._newton import NewtonSteps
from ._problem import check_limits, check_potentials, check_reg, check_transport
from ._result import Answer, finish
from ._sinkhorn_newton import STALL, Descent
from ._unbalanced import solve_unbalanced

_DIVERGENCE = """\
@inproceedings{feydy2019interpolating,
  title = {Interpolating between optimal transport and {MMD} using {S}inkhorn divergences},
  author = {Feydy, Jean and S{\\'e}journ{\\'e}, Thibault and Vialard, Fran{\\c{c}}ois-Xavier and
            Amari, Shun-ichi and Trouv{\\'e}, Alain and Peyr{\\'e}, Gabriel},
  booktitle = {International Conference on Artificial Intelligence and Statistics},
  year = {2019},
}"""


class DivergenceResult(Result):
    r"""Outcome of `sinkhorn_divergence`.

    Attributes
    ----------
    fun, value : float
        The divergence.
    f, g : array, shapes (n,) and (m,)
        Gradient of the value in `a` and in `b`; for equal masses up to a constant.
    reg : float
        The entropic weight used.
    reg_m : float or None
        Price of the marginals' divergences, if unbalanced.
    xy, xx, yy : TransportResult
        The three problems that the value is made of.
    nit : int
        Passes over all costs.
    """

    value: float
    f: Any
    g: Any
    reg: float
    reg_m: float | None
    xy: Any
    xx: Any
    yy: Any

    _bibtex: ClassVar = {"sinkhorn_divergence": _DIVERGENCE}

    @property
    def grad_a(self):
        """Gradient of the value in `a`: `f`."""
        return self.f

    @property
    def grad_b(self):
        """Gradient of the value in `b`: `g`."""
        return self.g

    @cached_property
    def grad_x(self):
        """Gradient of the value in the points `x`, shape (n, d); computed once.

        Where a distance has no derivative, at points that coincide, it counts as zero.
        """
        # The points stand on both sides of their own problem.
        return self.xy.grad_x - 0.5 * (self.xx.grad_x + self.xx.grad_y)

    @cached_property
    def grad_y(self):
        """Gradient of the value in the points `y`, shape (m, d); computed once."""
        return self.xy.grad_y - 0.5 * (self.yy.grad_x + self.yy.grad_y)


def sinkhorn_divergence(
    a,
    b,
    x,
    y,
    *,
    cost="sqeuclidean",
    reg=None,
    reg_scale=None,
    reg_m=None,
    tol=None,
    maxiter=1500,
    time_limit=None,
    x0=None,
    callback=None,
    progress=False,
    history=True,
    n_threads=None,
):
    r"""Compute the Sinkhorn divergence of two weighted clouds of points, and its gradients.

    :math:`S(a, b) = \mathrm{OT}_\varepsilon(a, b) - \frac12 \mathrm{OT}_\varepsilon(a, a) -
    \frac12 \mathrm{OT}_\varepsilon(b, b)`, where :math:`\mathrm{OT}_\varepsilon` is the entropic
    transport value with the divergence :math:`\mathrm{KL}(P | a b^\top)`. It is zero for equal
    clouds and, for "sqeuclidean", "euclidean" and "cityblock", positive for all others.

    Parameters
    ----------
    a, b : array, shapes (n,) and (m,), or None
        Non-negative weights; None for uniform ones. Their sums are equal unless `reg_m` is given.
    x, y : array, shapes (n, d) and (m, d)
        Points.
    cost : {"sqeuclidean", "euclidean", "cityblock", "cosine"} or callable
        Cost between two points, as in `PointCloud`; a callable must be symmetric.
    reg : float, optional
        Entropic weight :math:`\varepsilon`, in the unit of the cost. Default: 0.05 times the
        standard deviation of the costs between `x` and `y`.
    reg_scale : {None, "std", "mean", "max", "median"}
        Multiply `reg` by this statistic of the costs between `x` and `y`.
    reg_m : float, optional
        Price :math:`\tau` of the marginals' divergences, as in `sinkhorn_unbalanced`, for weights
        whose masses :math:`m_a, m_b` may differ; :math:`\frac\varepsilon2 (m_a - m_b)^2` is added
        then. Default: marginals are kept.
    tol : float, optional
        Largest value of the certificate of each of the three problems. Default: 1e-8, in float32
        1e-5.
    maxiter : int, default 1500
        Largest number of passes over the costs, of all three problems together.
    time_limit : float, optional
        Seconds after which the best iterates are used.
    x0 : DivergenceResult, optional
        Result for nearby points and weights to start from.
    callback : callable, optional
        Called after each pass as ``callback(intermediate_result)`` with fields ``nit``,
        ``residual`` and ``problem`` (0: between both clouds, 1: `x` with itself, 2: `y` with
        itself); StopIteration or a true return value ends the run.
    progress : bool, default False
        Show a progress bar.
    history : bool or int, default True
        Whether, or every how many passes, to record the history.
    n_threads : int, optional
        Number of threads. Default: Numba's setting.

    Returns
    -------
    DivergenceResult
        With the ``value``, its gradients in the weights (`f`, `g`) and in the points (``grad_x``,
        ``grad_y``), and the three transport problems ``xy``, ``xx`` and ``yy``.

    Raises
    ------
    TypeError
        If an argument is of the wrong kind: complex or sparse data, arrays of different kinds.
    ValueError
        If shapes disagree, a weight is negative, totals differ, or an option has no such value.

    Warns
    -----
    ConvergenceWarning
        If the certificate does not hold; once per call.

    Notes
    -----
    The certificate is the worst of the three problems'; in its `details`, ``lower`` and ``upper``
    bound the value. Costs are evaluated as needed and never stored, but plans are while they fit
    into memory. All three problems are solved by Newton steps, as by `sinkhorn_newton` and
    `sinkhorn_unbalanced`.

    References
    ----------
    .. [1] J. Feydy, T. Séjourné, F.-X. Vialard, S. Amari, A. Trouvé, G. Peyré. Interpolating
       between optimal transport and MMD using Sinkhorn divergences. AISTATS 2019.
       arXiv:1810.08278.
    .. [2] T. Séjourné, J. Feydy, F.-X. Vialard, A. Trouvé, G. Peyré. Sinkhorn divergences for
       unbalanced optimal transport. 2019. arXiv:1910.12958.

    Examples
    --------
    >>> import numpy as np, solvers
    >>> x = np.array([[0.0], [1.0], [2.0]])
    >>> res = solvers.ot.sinkhorn_divergence(None, None, x, x + 3.0, reg=0.5)
    >>> res.success
    True
    >>> round(res.value, 4)  # a shift by 3: entropy does not count
    9.0
    >>> res.grad_x.round(4).ravel()
    array([-2., -2., -2.])
    """
    reg_m = check_positive(reg_m, "reg_m", allow_none=True, allow_inf=True)
    balanced = reg_m is None or reg_m == np.inf
    clouds = [PointCloud(*points, cost=cost) for points in ((x, y), (x,), (y,))]
    data = [(*w, cloud) for w, cloud in zip(((a, b), (a, a), (b, b)), clouds, strict=True)]
    checked = [check_transport(*own, balanced=balanced) for own in data]
    problem, io = checked[0]
    reg = check_reg(problem, reg, reg_scale)
    tol, limits = check_limits(io, tol, maxiter, time_limit, callback, progress, history)
    n_threads = check_threads(n_threads)
    starts = _starts(x0, checked, clouds)
    run = Monitor("sinkhorn_divergence", "residual", be=io.be, tol=tol, **limits)
    parts = []
    with io.device, threads.limit(n_threads), np.errstate(all="ignore"):
        for k, name in enumerate(("x with y", "x with x", "y with y")):
            run.stage(name)
            inner = _watched(run, k, io.be, tol, limits["time_limit"])
            if balanced:
                part = _solve_balanced(*checked[k], reg, tol, starts[k], inner, data[k])
            else:
                part = solve_unbalanced(
                    *checked[k], reg, (reg_m, reg_m), tol, starts[k], inner, data[k]
                )
            parts.append(part)
            if run.status is None and not part.success:
                run.end(part.status)
        if run.status is None:
            run.end(Status.CONVERGED)
        return _finish(run, parts, reg, reg_m, tol, *(p for p, _ in checked[1:]), io)


def _watched(run, number, be, tol, time_limit):
    """Return a monitor for one of the problems, which reports to that of the whole run."""

    def watch(intermediate):
        run.record(intermediate.residual, judge=False, problem=number)
        return run.status is not None

    inner = Monitor(
        "sinkhorn_divergence",
        "residual",
        be=be,
        tol=0.8 * tol,
        maxiter=None,
        time_limit=time_limit,
        callback=watch,
        stall=STALL,
    )
    if run.status is not None:
        inner.end(run.status)
    return inner


def _solve_balanced(problem, io, reg, tol, start, run, data):
    """Solve a balanced problem for an outer run, which warns; `run` may have ended already."""
    newton = partial(NewtonSteps, precond="auto", tol=None, maxiter=None, sweeps=8)
    answer = Answer(0.0 * problem.a, 0.0 * problem.b, [])
    if run.status is None:
        answer = Descent(problem, reg, tol, run, newton, "auto", io.out).solve(start[1], True)
    return finish(problem, io, reg, "kl", tol, answer, run, data, warn=False)


def _starts(x0, checked, clouds):
    """Return potentials to start from, for each problem; None where there are none."""
    if x0 is None:
        return [(None, None)] * 3
    if not isinstance(x0, DivergenceResult):
        raise TypeError(f"`x0` came as {describe(x0)}; expected a result of this function")
    results = x0.xy, x0.xx, x0.yy
    return [
        check_potentials(problem, cloud, result, None, None)
        for (problem, _), cloud, result in zip(checked, clouds, results, strict=True)
    ]


def _finish(run, parts, reg, reg_m, tol, own_x, own_y, io):
    """Combine three results into one."""
    xy, xx, yy = parts
    masses = io.be.host(own_x.a.sum(), own_y.a.sum())
    extra = 0.0 if reg_m in (None, np.inf) else reg * (masses[0] - masses[1])
    excess = 0.5 * extra * (masses[0] - masses[1])
    bounds = [(p.certificate.details["dual"], p.certificate.details["primal"]) for p in parts]
    value, lower, upper = (
        bounds[0][i] - 0.5 * (bounds[1][j] + bounds[2][j]) + excess
        for i, j in ((0, 0), (0, 1), (1, 0))
    )
    details = {
        name: p.certificate.value for name, p in zip(("xy", "xx", "yy"), parts, strict=True)
    }
    details |= {"lower": lower, "upper": upper}
    worst = max(p.certificate.value for p in parts)
    certificate = Certificate(xy.certificate.kind, worst, tol, details)
    return run.finish(
        DivergenceResult,
        certificate,
        fun=value,
        value=value,
        f=xy.grad_a - 0.5 * (xx.grad_a + xx.grad_b) + extra,
        g=xy.grad_b - 0.5 * (yy.grad_a + yy.grad_b) - extra,
        reg=reg,
        reg_m=reg_m,
        xy=xy,
        xx=xx,
        yy=yy,
    )
