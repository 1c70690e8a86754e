"""What a batch returns, and its certificate: plain array code, shared with no solver."""

from dataclasses import replace
from functools import cached_property

import numpy as np

from .._core.arrays import Ingest
from .._core.certificate import Certificate
from .._core.result import Status
from .._core.validation import (
    check_array,
    check_count,
    check_memory,
    check_nonnegative,
    check_positive,
)
from ._batch_problem import check_batch, check_regs
from ._certificate_entropic import KIND, ROUNDING, judge
from ._cloud import arrays_of
from ._problem import DUST
from ._result import TransportResult, _diagnose
from ._rounding import missing, shrink

NUMBERS = "value", "row_error", "col_error", "dual", "primal"


def certify_batch(a, b, C, f, g, *, reg, tol):
    """As `certify`, for a batch: the certificate of the worst problem."""
    problem, _ = check_batch(a, b, C)
    reg, tol = check_regs(problem, reg, None), check_positive(tol, "tol")
    io = Ingest(f=f, g=g, **arrays_of(C))
    f = check_array(io, "f", shape=problem.a.shape, means="the shape of `a`", finite=False)
    g = check_array(io, "g", shape=problem.b.shape, means="the shape of `b`", finite=False)
    with problem.device:
        return worst(problem, judge_batch(problem, f, g, reg), tol)


def judge_batch(problem, f, g, reg):
    """Return what `judge` finds for each problem of mass one, as NumPy arrays by name."""
    be, found = problem.be, []
    f, g = f.astype(np.float64), g.astype(np.float64)
    with np.errstate(all="ignore"):
        if not problem.large:
            for these in problem.blocks():
                found.append(be.host(*_judge(problem, f[these], g[these], reg[these], these)))
        else:
            # In blocks of rows.
            for k, temperature in enumerate(be.host(reg)):
                verdict = judge(replace(problem.one(k), mass=1.0), f[k], g[k], temperature, 1.0)
                numbers = {"value": verdict.value, **verdict.details}
                found.append([np.array([numbers[name]]) for name in NUMBERS])
    columns = map(np.concatenate, zip(*found, strict=True))
    numbers = dict(zip(NUMBERS, columns, strict=True))
    for name, bound in (("value", np.inf), ("dual", -np.inf), ("primal", np.inf)):
        # Where a value is not a number, what bounds it all the same.
        numbers[name] = np.where(np.isnan(numbers[name]), bound, numbers[name])
    return numbers


def worst(problem, numbers, tol):
    """Return the certificate of the problem with the largest error."""
    k = int(np.argmax(numbers["value"]))
    mass = problem.be.host(problem.mass[k])
    details = {
        "row_error": numbers["row_error"][k],
        "col_error": numbers["col_error"][k],
        "mass": mass,
        "dual": mass * numbers["dual"][k],
        "primal": mass * numbers["primal"][k],
        "entropic_gap": mass * (numbers["primal"][k] - numbers["dual"][k]),
        "problem": k,
    }
    return Certificate(KIND, numbers["value"][k], tol, details)


def _judge(problem, f, g, reg, these):
    """Judge a slice of problems, whose potentials and entropic weights are given."""
    xp, a, b, C = problem.be.xp, problem.a[these], problem.b[these], problem.costs(these)
    known = (xp.isfinite(f) | (a == 0)).all(axis=1) & (xp.isfinite(g) | (b == 0)).all(axis=1)
    # Where there is no mass a potential is free, and must not overflow.
    f, g = xp.where(a > DUST, f, -np.inf), xp.where(b > DUST, g, -np.inf)
    # In this order, because near the support the difference is exact and small.
    E = xp.subtract(g[:, None, :], C, dtype=np.float64)
    E += f[:, :, None]
    E *= (1.0 / reg)[:, None, None]
    xp.exp(E, out=E)
    row_sums = a * (E @ b[:, :, None])[:, :, 0]
    shrunk = xp.where(row_sums > a, a / row_sums, 1.0)
    cols = (xp.stack([a, a * shrunk], axis=1) @ E) * b[:, None, :]
    row_error = xp.abs(row_sums - a).sum(axis=1)
    col_error = xp.abs(cols[:, 0] - b).sum(axis=1)
    linear = (xp.where(a > DUST, f, 0.0) * a).sum(axis=1)
    linear += (xp.where(b > DUST, g, 0.0) * b).sum(axis=1)
    dual = linear + reg * (1.0 - row_sums.sum(axis=1))
    primal = _rounded_value(problem.be, (a, b, C), f, g, reg, row_sums, cols[:, 1])
    return xp.where(known, row_error + col_error, np.inf), row_error, col_error, dual, primal


def _rounded_value(be, data, f, g, reg, row_sums, rounded_cols):
    """Bound the entropic cost of each rounded plan from above; the why is in `_certificate`."""
    xp, (a, b, C) = be.xp, data
    heavy_a, heavy_b, one_reg = a > DUST, b > DUST, reg[:, None]
    log_x = xp.where(row_sums > a, xp.log(a / row_sums), 0.0)
    log_y = xp.where(rounded_cols > b, xp.log(b / rounded_cols), 0.0)
    row_part, col_part = f + one_reg * log_x, xp.where(heavy_b, g + one_reg * log_y, 0.0)
    left = xp.where(heavy_b, b - xp.minimum(rounded_cols, b), 0.0)
    lost = left.sum(axis=1)
    lowest = xp.where(heavy_a, row_part, np.inf).min(axis=1)
    total = (a * xp.where(heavy_a, row_part, 0.0)).sum(axis=1)
    col_value = ((b - left) * col_part).sum(axis=1)
    spread = (left * xp.log(xp.where(left > 0, left / b, 1.0))).sum(axis=1)
    dearest = C.max(axis=(1, 2)) + xp.zeros(a.shape[0])
    if not be.host(xp.isfinite(dearest).all()):
        edges = heavy_a[:, :, None] & heavy_b[:, None, :]
        dearest = xp.where(edges, C, -np.inf).max(axis=(1, 2))
    kept = xp.maximum(1.0 - lost, 0.0)
    mixing = -lost * xp.log(lost) - kept * xp.log(xp.where(kept > 0, kept, 1.0))
    bound = total - lost * lowest + col_value + lost * dearest + reg * (spread + mixing)
    return xp.where(lost < ROUNDING, total + col_value, bound)


def finish(problem, io, reg, reg_type, tol, answer, ends, run, data):
    """Judge the answers of a batch and turn them into a result."""
    f, g, numbers = _judged(problem, io, answer.f, answer.g, reg)
    lost = numbers["value"] == np.inf
    if lost.any():
        # Worse than no potentials at all: then none, so that plans are made of numbers.
        xp = problem.be.xp
        unknown = xp.asarray(lost)[:, None]
        f, g = (xp.where(unknown, 0.0, v) for v in (answer.f, answer.g))
        f, g, numbers = _judged(problem, io, f, g, reg)
    certificate = worst(problem, numbers, tol)
    k, converged = certificate.details["problem"], numbers["value"] <= tol
    if run.status not in (Status.CALLBACK, Status.TIME_LIMIT):
        run.end(ends[k])
    mass, regs = problem.be.host(problem.mass, reg)
    note = f"This is the largest of {converged.size}, that of problem {k}."
    if not certificate.holds:
        note = f"This is problem {k}; {np.sum(~converged)} of {converged.size} have not converged."
        reason = _diagnose(problem.one(k), regs[k], tol, run, holds=False)
        note = f"{note} {reason}" if reason else note
    value = dual = mass * numbers["dual"]
    if reg_type == "entropy":
        value = dual + problem.be.host(_entropy_shift(problem, reg))
    return run.finish(
        BatchResult,
        certificate,
        note=note,
        f=f,
        g=g,
        reg=regs,
        fun=value,
        value=value,
        dual=dual,
        marginal_error=mass * numbers["value"],
        converged=converged,
        nsinkhorn=answer.nsinkhorn,
        nnewton=answer.nnewton,
        ncg=answer.ncg,
        nfactor=answer.nfactor,
        density=answer.density,
        levels=answer.levels,
        _data=data,
        _reg_type=reg_type,
    )


def _judged(problem, io, f, g, reg):
    """Return potentials as the caller gets them, and what the judge finds of exactly these."""
    f, g = io.out(f), io.out(g)
    own = Ingest(f=f, g=g)
    return f, g, judge_batch(problem, own["f"], own["g"], reg)


def _entropy_shift(problem, reg):
    """Return by how much values with ``sum P (log P - 1)`` exceed those with KL(P | ab)."""
    xp, mass = problem.be.xp, problem.mass
    entropies = sum(
        (w * xp.log(xp.where(w > 0, w, 1.0))).sum(axis=1) for w in (problem.a, problem.b)
    )
    return reg * mass * (entropies + xp.log(mass) - 1.0)


class BatchResult(TransportResult):
    r"""Outcome of a transport solver for a batch of problems.

    As `TransportResult`, with a leading axis for the problems. What the result computes on
    demand has that axis too.

    Attributes
    ----------
    f, g : array, shapes (B, n) and (B, m)
        Potentials in the unit of `C`, with :math:`\langle a, f \rangle = \langle b, g \rangle`.
    reg, fun, value, dual, marginal_error : numpy.ndarray, shape (B,)
        As for a single problem, in float64.
    converged : numpy.ndarray of bool, shape (B,)
        Which problems are within the tolerance.
    success, status, certificate
        Those of the worst problem, which is ``certificate.details["problem"]``.
    nit : int
        Most passes over the cost of a problem.
    nsinkhorn, nnewton, ncg, nfactor : int
        Over all problems.
    levels : list of array, shape (B,)
        The entropic weight of each problem in each common pass; NaN where it had ended.
    """

    converged: np.ndarray

    @property
    def x(self):
        """The potentials `f` and `g` of each problem in one row, shape (B, n + m)."""
        _, io = self._checked()
        with io.device:
            return io.out(io.xp.concatenate(self._potentials(), axis=1))

    @cached_property
    def _plan(self):
        plans = _Plans(self)
        be, io, xp = plans.problem.be, plans.io, plans.problem.be.xp
        shape = plans.problem.count, *plans.problem.C.shape[1:]
        nbytes = io.dtype.itemsize * shape[0] * plans.problem.size
        check_memory(nbytes, "`plan`", "Use `apply` or `plan_sparse`.", be=be)
        with io.device:
            P = xp.empty(shape, io.dtype)
            for these, block in plans:
                P[these] = block
            return io.out(P)

    @property
    def potentials_counting(self):
        """Potentials relative to the counting measure, as for a single problem."""
        problem, io = check_batch(*self._data)
        with io.device, np.errstate(divide="ignore"):
            f, g = self._potentials()
            xp, reg = io.xp, io.xp.asarray(self.reg)[:, None]
            psi = g + reg * xp.log(problem.mass[:, None] * problem.b)
            return io.out(f + reg * xp.log(problem.a)), io.out(psi)

    def plan_sparse(self, threshold=1e-12):
        """Return each plan's entries of at least `threshold`, in units of mass.

        Parameters
        ----------
        threshold : float
            Smaller entries are left out.

        Returns
        -------
        list of sparse array, shape (n, m)
            In CSR format, of SciPy or CuPy.
        """
        threshold = check_nonnegative(threshold, "threshold")
        plans, found = _Plans(self), []
        with plans.io.device:
            for _, P in plans:
                P[threshold > P] = 0.0
                found += [plans.problem.be.sparse.csr_matrix(one) for one in P]
        return found

    def apply(self, V, axis=1):
        """Multiply each plan with a vector or matrix of its own, without forming all plans.

        Parameters
        ----------
        V : array, shape (B, m), (B, m, k), (B, n) or (B, n, k)
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
        plans = _Plans(self)
        problem, io = plans.problem, Ingest(**arrays_of(self._data[2]), V=V)
        V = check_array(io, "V", ndim=(2, 3))
        size = (problem.b if axis == 1 else problem.a).shape
        if V.shape[:2] != size:
            raise ValueError(f"`V` came with shape {V.shape}; expected {size} or {(*size, 'k')}")
        with io.device:
            columns = V.astype(np.float64)[:, :, None] if V.ndim == 2 else V.astype(np.float64)
            parts = [(P if axis == 1 else P.swapaxes(1, 2)) @ columns[these] for these, P in plans]
            product = problem.be.xp.concatenate(parts)
            return io.out(product[:, :, 0] if V.ndim == 2 else product)

    @cached_property
    def value_linear(self):
        """Cost of each plan, ``sum(C * P)``; no bounds, since plans are not quite feasible."""
        return self._each(lambda xp, C, a, b, f, g, P: (xp.where(P > 0, C, 0.0) * P).sum((1, 2)))

    @cached_property
    def cost_rounded(self):
        """Costs of the plans after `round_plan`: upper bounds of the linear programmes' values."""
        return self._each(_rounded_cost)

    def lp_bracket(self):
        """Return lower and upper bounds of the unregularised transport costs.

        Returns
        -------
        numpy.ndarray, numpy.ndarray, shape (B,)
            The dual values of c-transformed potentials, and `cost_rounded`.
        """
        return self._each(_linear_dual), self.cost_rounded

    @cached_property
    def grad_reg(self):
        """Slopes of the values in `reg`: ``KL(P | a b^T / M)``, or ``sum P (log P - 1)``."""
        xp, reg = self._checked()[0].be.xp, self.reg
        bilinear = self._each(lambda _, C, a, b, f, g, P: _paid(xp, C, f, g, P))
        masses = self._each(lambda _, C, a, b, f, g, P: 1.0 - P.sum(axis=(1, 2)))
        return bilinear / reg + masses + (self.value - self.dual) / reg

    def vjp(self, df=None, dg=None, dP=None, *, tol=None):
        """Pull cotangents back to the weights and the costs, one problem after another.

        Parameters
        ----------
        df, dg, dP : array, shapes (B, n), (B, m) and (B, n, m), optional
            As for a single problem, with a leading axis.
        tol : float, optional
            As for a single problem.

        Returns
        -------
        array, array, array
            Shapes (B, n), (B, m) and (B, n, m); for a cost that all problems share, its gradient
            is the sum of the last over the first axis.

        Raises
        ------
        TypeError, ValueError
            If a cotangent is no array of the shape above, or none is given.

        Warns
        -----
        ConvergenceWarning
            If the linear system of a problem cannot be solved to `tol`.
        """
        problem, io = self._checked()
        given = {"df": df, "dg": dg, "dP": dP}
        door = Ingest(**arrays_of(self._data[2]), **given)
        count, (n, m) = problem.count, problem.C.shape[1:]
        shapes = {"df": (count, n), "dg": (count, m), "dP": (count, n, m)}
        for name, shape in shapes.items():
            check_array(door, name, shape=shape)
        parts = []
        for k in range(count):
            own = {name: v if v is None else io.out(door[name][k]) for name, v in given.items()}
            parts.append(self._single(k, problem, io).vjp(**own, tol=tol))
        with io.device:
            columns = [[Ingest(x=x)["x"] for x in column] for column in zip(*parts, strict=True)]
            return tuple(io.out(problem.be.xp.stack(column)) for column in columns)

    def _single(self, k, problem, io):
        """Return what a problem's result has on its own."""
        fields = "f", "g", "reg", "value", "dual"
        names = [name for name in "ab" if name in io]
        data = {name: io.out(io.raw(name)[k]) for name in names}
        # Of a cloud, too, the gradient in the costs is asked for.
        C = io.raw("C") if "C" in io else problem.C[0]
        own = {name: getattr(self, name)[k] for name in fields}
        return TransportResult(
            **own,
            density=self.density,
            _data=(data.get("a"), data.get("b"), io.out(C if C.ndim == 2 else C[k])),
            _reg_type=self._reg_type,
        )

    @property
    def _point_gradients(self):
        raise NotImplementedError("`grad_x` and `grad_y` are for single problems; see `grad_C`")

    def _checked(self):
        return check_batch(*self._data)

    def _entropic_gradient(self, side):
        problem, io = self._checked()
        with io.device, np.errstate(divide="ignore"):
            log_mass = io.xp.log(problem.mass)[:, None]
            entropic = io.xp.log((problem.a, problem.b)[side]) + 0.5 * log_mass
            return io.out(self._potentials()[side] + io.xp.asarray(self.reg)[:, None] * entropic)

    def _each(self, function):
        """Return numbers for all problems, from a function of blocks of mass one."""
        plans, found = _Plans(self), []
        problem, host = plans.problem, plans.problem.be.host
        f, g = plans.f, plans.g
        with plans.io.device, np.errstate(invalid="ignore"):
            mass = host(problem.mass)
            for these, plan in plans:
                P = plan / problem.mass[these, None, None]
                data = problem.costs(these), problem.a[these], problem.b[these]
                found.append(host(function(problem.be.xp, *data, f[these], g[these], P)))
        return mass * np.concatenate(found)


class _Plans:
    """Iterates over (slice of problems, their plans)."""

    def __init__(self, result):
        self.problem, self.io = check_batch(*result._data)
        with self.io.device:
            self.f, self.g = result._potentials()
            self._reg = self.problem.be.xp.asarray(result.reg)

    def __iter__(self):
        problem, xp = self.problem, self.problem.be.xp
        # Where there is no mass a potential must not overflow.
        f = xp.where(problem.a > DUST, self.f, -np.inf)
        g = xp.where(problem.b > DUST, self.g, -np.inf)
        for these in problem.blocks():
            E = xp.subtract(g[these, None, :], problem.costs(these), dtype=np.float64)
            E += f[these, :, None]
            E /= self._reg[these, None, None]
            with np.errstate(all="ignore"):
                xp.exp(E, out=E)
                E *= (problem.mass[these, None] * problem.a[these])[:, :, None]
                E *= problem.b[these, None, :]
            yield these, E


def _rounded_cost(xp, C, a, b, f, g, P):
    P = P * shrink(xp, a, P.sum(axis=2))[:, :, None]
    P *= shrink(xp, b, P.sum(axis=1))[:, None, :]
    left, right = missing(xp, a, P.sum(axis=2)), missing(xp, b, P.sum(axis=1))
    total = left.sum(axis=1)
    P += left[:, :, None] * (right / xp.where(total > 0, total, 1.0)[:, None])[:, None, :]
    # Infinite where the missing mass would have to use a forbidden edge.
    return (xp.where(P > 0, C, 0.0) * P).sum(axis=(1, 2))


def _paid(xp, C, f, g, P):
    """Return ``sum P (f + g - C)``, where edges without mass may have any cost."""
    return (xp.where(P > 0, f[:, :, None] + g[:, None, :] - C, 0.0) * P).sum(axis=(1, 2))


def _linear_dual(xp, C, a, b, f, g, P):
    # Points without mass must not bind the others.
    g = xp.where(b > 0, g, -np.inf)
    f = xp.where(a > 0, (C - g[:, None, :]).min(axis=2), -np.inf)
    g = (C - f[:, :, None]).min(axis=1)
    return (a * xp.where(a > 0, f, 0.0)).sum(axis=1) + (b * xp.where(b > 0, g, 0.0)).sum(axis=1)
