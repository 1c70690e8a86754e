"""The independent judge: plain array code on the caller's data, shared with no solver."""

from dataclasses import replace

import numpy as np

from .._core.arrays import Ingest
from .._core.certificate import Certificate
from .._core.validation import check_array, check_nonnegative, check_positive
from ._batch_problem import is_batch
from ._certificate_linear import checked_plan, judge_linear
from ._cloud import arrays_of
from ._constraints import check_constraints
from ._problem import DUST, check_reg_m, check_transport, over_strips, row_blocks

KIND = "marginal error (L1)"
KIND_UNBALANCED = "unbalanced optimality (L1)"
KIND_BARYCENTER = "barycentre optimality (L1)"
KIND_CONSTRAINED = "marginal error (L1) plus constraint residuals"
# Missing mass below this is what rounding leaves of nothing.
_ROUNDING = 1e-14


def certify(a, b, C, f, g, *, reg, tol=1e-8, P=None, reg_m=None, constraints=(), w=None):
    r"""Judge a pair of entropic potentials, wherever they come from.

    Rebuilds the plan :math:`P_{ij} = a_i b_j \exp((f_i + g_j - C_{ij}) / \varepsilon) / M` in
    float64, block by block, and measures how far its marginals are from `a` and `b`.

    Parameters
    ----------
    a, b : array, shapes (n,) and (m,), or None
        Weights with equal sums :math:`M`; None for uniform ones.
    C : array, shape (n, m)
        Cost of moving a unit of mass; ``inf`` forbids an edge.
    f, g : array, shapes (n,) and (m,)
        Potentials in the unit of `C`; only :math:`f_i + g_j` counts.
    reg : float
        Entropic weight :math:`\varepsilon`, in the unit of `C`. Zero, together with `P`, asks
        for the linear programme.
    tol : float, default 1e-8
        Largest marginal error that passes, relative to the mass.
    P : array or sparse array, shape (n, m), optional
        Only for ``reg=0``: a plan, which need not be quite feasible.
    reg_m : float or pair of float, optional
        Judge an answer of `sinkhorn_unbalanced` for these weights
        :math:`\tau_1, \tau_2` of the marginals' divergences.
    constraints : list of tuples
        Conditions on the plan, as in `sinkhorn_newton`. The plan then has :math:`C - \sum_k w_k
        D_k` in place of `C`.
    w : array, shape (len(constraints),), optional
        Their multipliers. Default: zeros.

    Returns
    -------
    Certificate
        Its value is :math:`(\|P 1 - a\|_1 + \|P^\top 1 - b\|_1) / M`. In `details`:
        ``row_error`` and ``col_error`` (the two parts), ``mass``, ``dual`` (a lower bound of the
        optimal value), ``primal`` (an upper bound: what the plan costs after `round_plan`, or
        slightly more) and ``entropic_gap``, their difference.

        With `reg_m` the plan is :math:`P_{ij} = a_i b_j \exp((f_i + g_j - C_{ij}) /
        \varepsilon)`, and the value :math:`(\|P 1 - a e^{-f/\tau_1}\|_1 + \|P^\top 1 - b
        e^{-g/\tau_2}\|_1) / \sum_{ij} P_{ij}`, zero for the solution only; ``mass`` is the plan's.

        Under constraints the value is the marginal error plus one residual for each of them, in
        units of its largest entry :math:`s_k = \max |D_k - \beta_k / M|` (at least a millionth of
        that of :math:`D_k`), with :math:`v_k =
        (\langle D_k, P \rangle - \beta_k) / (M s_k)`: :math:`|v_k|` for an equation,
        :math:`|\min(v_k, w_k s_k / \varepsilon)|` for an inequality, whose multiplier must not
        be negative and must vanish where there is slack. They are ``constraint_0`` and so on, in
        `details`. No plan at all costs more than ``largest_value``: a larger `dual` proves that
        the constraints contradict each other. `primal` stands for a plan that may miss them by
        what the certificate shows.

        For ``reg=0`` the value is :math:`(U - L) / \max(|U|, 10^{-8} r)`, where `r` is the range
        of the cost, `U` what the plan costs after `round_plan`, and `L` what `g` proves together
        with its c-transform :math:`f_i = \min_j (C_{ij} - g_j)`, which takes the place of `f`.
        (For a cost in Fortran order `f` and `g` change roles.) In `details`: ``primal`` and
        ``dual`` (`U` and `L`, each moved outwards by what rounding can have done to it),
        ``row_error`` and ``col_error`` of the plan as it came, and ``mass``.

        For a batch (shapes as in `sinkhorn_newton`, potentials (B, n) and (B, m), `reg` a number
        or of shape (B,)) it is the certificate of the problem with the largest value, which is
        number ``problem`` in `details`.

    Raises
    ------
    TypeError, ValueError
        As in `sinkhorn_newton`.

    Notes
    -----
    One pass over the cost with one exponential per entry. Potentials that are not finite where
    there is mass give the value ``inf``.

    References
    ----------
    .. [1] J. Altschuler, J. Weed, P. Rigollet. Near-linear time approximation algorithms for
       optimal transport via Sinkhorn iteration. NeurIPS 2017. arXiv:1705.09634.

    Examples
    --------
    >>> import math, solvers
    >>> a, C = [0.5, 0.5], [[0.0, 1.0], [1.0, 0.0]]
    >>> f = -0.1 * math.log(0.5 + 0.5 * math.exp(-10.0))
    >>> solvers.ot.certify(a, a, C, [f, f], [0.0, 0.0], reg=0.1).holds
    True
    """
    if is_batch(a, b, C):
        if reg_m is not None or constraints or P is not None:
            name = "P" if P is not None else "constraints" if reg_m is None else "reg_m"
            raise ValueError(f"`{name}` came with a batch; expected a single problem with it")
        from ._batch_result import certify_batch

        return certify_batch(a, b, C, f, g, reg=reg, tol=tol)
    reg_m = (np.inf, np.inf) if reg_m is None else check_reg_m(reg_m)
    # Where both marginals are kept the problem is the balanced one.
    balanced = min(reg_m) == np.inf
    problem, _ = check_transport(a, b, C, balanced=balanced)
    reg = check_positive(reg, "reg") if P is None else check_nonnegative(reg, "reg")
    tol = check_positive(tol, "tol")
    if P is not None:
        if reg > 0:
            raise ValueError(f"`P` came with reg={reg:g}; expected reg=0")
        if not balanced or len(constraints):
            raise ValueError("`P` came with `reg_m` or `constraints`; expected neither")
    io = Ingest(f=f, g=g, **arrays_of(C))
    sizes = problem.a.size, problem.b.size
    n, m = sizes[::-1] if problem.flipped else sizes
    f = check_array(io, "f", shape=(n,), means="(a.size,)", finite=False)
    g = check_array(io, "g", shape=(m,), means="(b.size,)", finite=False)
    constraints = check_constraints(problem, C, constraints)
    if constraints is not None and not balanced:
        raise ValueError("`constraints` came with `reg_m`; expected one or the other")
    w = check_multipliers(constraints, C, w)
    if problem.flipped:
        f, g, reg_m = g, f, reg_m[::-1]
    with problem.device:
        if P is not None:
            return judge_linear(problem, g, checked_plan(problem, C, P), tol)
        if not balanced:
            return judge_unbalanced(problem, f, g, reg, reg_m, tol)
        if constraints is not None:
            return judge_constrained(problem, f, g, reg, tol, constraints, w)
        return judge(problem, f, g, reg, tol)


def check_multipliers(constraints, C, w):
    """Return multipliers as an array of the host, zeros for None."""
    count = 0 if constraints is None else len(constraints)
    if w is None:
        return np.zeros(count)
    io = Ingest(w=w, **arrays_of(C))
    means = "(len(constraints),)"
    w = check_array(io, "w", shape=(count,), means=means, finite=False, nonempty=False)
    return np.reshape(io.be.host(w.astype(np.float64)), count)


def judge(problem, f, g, reg, tol):
    """As `certify`, for a checked problem and potentials in its orientation."""
    be, a, b, C = problem.be, problem.a, problem.b, problem.C
    xp = be.xp
    known = be.host(xp.isfinite(f[a > 0]).all() & xp.isfinite(g[b > 0]).all())
    # Where there is no mass a potential is free, and must not overflow.
    f = xp.where(a > DUST, f.astype(np.float64), -np.inf)
    g = xp.where(b > DUST, g.astype(np.float64), -np.inf)
    row_sums = xp.empty_like(a)

    def column_sums(first, last):
        """Set the row sums of a strip; return its column sums, and those with rows shrunk."""
        sums = xp.zeros((2, b.size))
        for rows in row_blocks(be, C, first, last):
            # In this order, because near the support the difference is exact and small.
            E = xp.subtract(g, C[rows], dtype=np.float64)
            E += f[rows, None]
            E *= 1.0 / reg
            xp.exp(E, out=E)
            row_sums[rows] = a[rows] * (E @ b)
            shrink = xp.where(row_sums[rows] > a[rows], a[rows] / row_sums[rows], 1.0)
            sums += xp.stack([a[rows], a[rows] * shrink]) @ E
        return sums

    with np.errstate(all="ignore"):
        col_sums, rounded_cols = b * over_strips(be, C, column_sums)
        row_error, col_error = be.host(xp.abs(row_sums - a).sum(), xp.abs(col_sums - b).sum())
        heavy_a, heavy_b = a > DUST, b > DUST
        linear = a[heavy_a] @ f[heavy_a] + b[heavy_b] @ g[heavy_b]
        dual = _or(be.host(linear + reg * (1.0 - row_sums.sum())), -np.inf)
        primal = _or(_rounded_value(problem, f, g, reg, row_sums, rounded_cols), np.inf)
    error = row_error + col_error if known else np.inf
    mass = problem.mass
    details = {
        "row_error": col_error if problem.flipped else row_error,
        "col_error": row_error if problem.flipped else col_error,
        "mass": mass,
        "dual": mass * dual,
        "primal": mass * primal,
        "entropic_gap": mass * (primal - dual),
    }
    return Certificate(KIND, _or(error, np.inf), tol, details)


def judge_constrained(problem, f, g, reg, tol, constraints, w):
    """As `judge`, for the plan with multipliers `w` of constraints."""
    known = bool(np.isfinite(w).all())
    w = np.where(np.isfinite(w), w, 0.0)
    tilted = replace(problem, C=constraints.tilt(problem.C, w))
    free = judge(tilted, f, g, reg, tol)
    with np.errstate(all="ignore"):
        values = _constraint_values(tilted, f, g, reg, constraints)
        scales = constraints.scales(problem)
        slack = values / scales
        held = np.minimum(slack, w * scales / reg)
        residuals = np.abs(np.where(constraints.equal, slack, held))
        residuals = np.where(np.isfinite(residuals), residuals, np.inf)
        # What the tilt adds to the cost of the rounded plan: rounding moves a mass of at most
        # twice the marginal error.
        extra = w @ values + w @ constraints.beta + 2.0 * free.value * (np.abs(w) @ scales)
    mass, details = problem.mass, dict(free.details)
    details["dual"] = _or(details["dual"] + mass * (w @ constraints.beta), -np.inf)
    details["primal"] = _or(details["primal"] + mass * extra, np.inf)
    details["entropic_gap"] = details["primal"] - details["dual"]
    details["largest_value"] = mass * largest_value(problem, reg)
    details.update((f"constraint_{k}", residual) for k, residual in enumerate(residuals))
    error = free.value + residuals.sum() if known else np.inf
    return Certificate(KIND_CONSTRAINED, error, tol, details)


def largest_value(problem, reg):
    """Return a bound of what any plan costs, for mass one: its entropy relative to the product.

    That is the mutual information of its ends, so it exceeds the entropy of neither.
    """
    xp = problem.be.xp
    entropies = [-(v[v > 0] * xp.log(v[v > 0])).sum() for v in (problem.a, problem.b)]
    return problem.extent.high + reg * min(problem.be.host(*entropies))


def _constraint_values(problem, f, g, reg, constraints):
    """Return ``<D_k - beta_k, P>`` of the plan with these potentials."""
    be, a, b, C = problem.be, problem.a, problem.b, problem.C
    xp = be.xp
    f = xp.where(a > DUST, f.astype(np.float64), -np.inf)
    g = xp.where(b > DUST, g.astype(np.float64), -np.inf)

    def values(first, last):
        sums = xp.zeros(len(constraints))
        for rows in row_blocks(be, C, first, last):
            P = a[rows, None] * xp.exp((f[rows, None] + (g - C[rows])) / reg) * b
            parts = zip(constraints.matrices, constraints.beta, strict=True)
            sums += xp.stack([((D[rows] - beta) * P).sum() for D, beta in parts])
        return sums

    return np.reshape(be.host(over_strips(be, C, values)), len(constraints))


def _or(value, otherwise):
    """Return a value that is a number, or what bounds it all the same."""
    return otherwise if np.isnan(value) else value


def _rounded_value(problem, f, g, reg, row_sums, rounded_cols):
    """Bound the entropic cost of the rounded plan from above, without a second pass.

    Rounding scales rows by x and columns by y, both at most 1, and adds a rank-one plan of mass
    ``missing``. What depends on where exactly that mass sits is replaced by its worst case.
    """
    be, a, b = problem.be, problem.a, problem.b
    xp = be.xp
    heavy_a, heavy_b = a > DUST, b > DUST
    log_x = xp.where(row_sums > a, xp.log(a / row_sums), 0.0)
    log_y = xp.where(rounded_cols > b, xp.log(b / rounded_cols), 0.0)
    row_part, col_part = (f + reg * log_x)[heavy_a], (g + reg * log_y)[heavy_b]
    left = (b - xp.minimum(rounded_cols, b))[heavy_b]
    missing, lowest, total, col_value, spread = be.host(
        left.sum(),
        row_part.min(),
        a[heavy_a] @ row_part,
        (b[heavy_b] - left) @ col_part,
        (left * xp.log(xp.where(left > 0, left / b[heavy_b], 1.0))).sum(),
    )
    if missing < _ROUNDING:
        return total + col_value
    dearest = problem.extent.high
    if problem.extent.forbidden:
        dearest = _dearest(problem, heavy_a, heavy_b)
    # A row of weight w that lacks a share s gains at most w times the entropy of (s, 1 - s) by
    # mixing both parts, and of the added part's own w s log(s) that leaves -w (1 - s) log(1 - s);
    # this is concave in s, so the mean share bounds the sum.
    kept = max(1.0 - missing, 0.0)
    mixing = -missing * np.log(missing) - (kept * np.log(kept) if kept else 0.0)
    return total - missing * lowest + col_value + missing * dearest + reg * (spread + mixing)


def _dearest(problem, heavy_a, heavy_b):
    """Return the largest cost between points with mass; infinite if an edge is forbidden."""
    be, C = problem.be, problem.C
    tops = [
        be.xp.where(heavy_a[rows, None] & heavy_b, C[rows], -np.inf).max()
        for rows in row_blocks(be, C)
    ]
    return be.host(be.xp.stack(tops).max())


def judge_unbalanced(problem, f, g, reg, reg_m, tol):
    """As `certify` with `reg_m`, for a checked problem and potentials in its orientation."""
    if reg_m[1] == np.inf:
        # A marginal that is kept is made feasible by scaling rows, so it has to be theirs.
        turned = replace(problem, a=problem.b, b=problem.a, C=problem.C.T)
        turned = replace(turned, flipped=not problem.flipped)
        return judge_unbalanced(turned, g, f, reg, reg_m[::-1], tol)
    be, a, b, C = problem.be, problem.a, problem.b, problem.C
    xp = be.xp
    known = be.host(xp.isfinite(f[a > 0]).all() & xp.isfinite(g[b > 0]).all())
    f = xp.where(a > DUST, f.astype(np.float64), -np.inf)
    g = xp.where(b > DUST, g.astype(np.float64), -np.inf)
    row_sums, kept = xp.empty_like(a), reg_m[0] == np.inf

    def column_sums(first, last):
        """Set the row sums of a strip; return its column sums, and those of a feasible plan."""
        sums = xp.zeros((2, b.size))
        for rows in row_blocks(be, C, first, last):
            E = xp.subtract(g, C[rows], dtype=np.float64)
            E += f[rows, None]
            E *= 1.0 / reg
            xp.exp(E, out=E)
            row_sums[rows] = a[rows] * (E @ b)
            feasible = xp.where(a[rows] > 0, a[rows] / row_sums[rows], 0.0) if kept else 1.0
            sums += xp.stack([a[rows], a[rows] * feasible]) @ E
        return sums

    with np.errstate(all="ignore"):
        col_sums, feasible_cols = b * over_strips(be, C, column_sums)
        wanted_rows, wanted_cols = (
            xp.where(w > DUST, w * xp.exp(-v / tau), 0.0)
            for w, v, tau in ((a, f, reg_m[0]), (b, g, reg_m[1]))
        )
        row_error, col_error, mass = be.host(
            xp.abs(row_sums - wanted_rows).sum(),
            xp.abs(col_sums - wanted_cols).sum(),
            row_sums.sum(),
        )
        free = reg * (be.host(a.sum() * b.sum()) - mass)
        dual = be.host(_conjugate(xp, a, f, reg_m[0]) + _conjugate(xp, b, g, reg_m[1])) + free
        rows = a if kept else row_sums
        log_scale = xp.log(rows / row_sums)
        primal = be.host(
            (rows * (f + reg * log_scale))[rows > 0].sum()
            + (feasible_cols * g)[feasible_cols > 0].sum()
            + (0.0 if kept else reg_m[0] * _divergence(xp, rows, a))
            + reg_m[1] * _divergence(xp, feasible_cols, b)
            + reg * (a.sum() * b.sum() - rows.sum())
        )
        error = (row_error + col_error) / mass if known and mass > 0.0 else np.inf
    details = {
        "row_error": col_error if problem.flipped else row_error,
        "col_error": row_error if problem.flipped else col_error,
        "mass": mass,
        "dual": _or(dual, -np.inf),
        "primal": _or(primal, np.inf),
        "entropic_gap": _or(primal - dual, np.inf),
    }
    return Certificate(KIND_UNBALANCED, _or(error, np.inf), tol, details)


def _conjugate(xp, weights, potential, tau):
    """Return one marginal's part of the dual value."""
    heavy = weights > DUST
    v = potential[heavy]
    return weights[heavy] @ (v if tau == np.inf else -tau * xp.expm1(-v / tau))


def _divergence(xp, sums, weights):
    """Return ``KL(sums | weights)`` of two non-negative vectors."""
    used = sums > 0
    return (sums[used] * xp.log(sums[used] / weights[used])).sum() - sums.sum() + weights.sum()


def judge_barycenter(be, B, costs, weights, x, f, g, reg, tol):
    """Judge a barycentre `x` of the measures in B by the potentials of their plans.

    Rebuilds the plans ``exp((f_ki + g_kj - C_ij) / reg)``. They prove optimality when their
    marginals are `x` and the measures, and the weighted sum of row potentials vanishes.
    """
    xp, host = be.xp, be.host
    x, f, g = (v.astype(np.float64) for v in (x, f, g))
    row_error = col_error = dual = 0.0
    mean_f = sum(t * v for t, v in zip(weights, f, strict=True))
    known = host(xp.isfinite(f).all() & xp.isfinite(g[B > 0]).all() & xp.isfinite(x).all())
    with np.errstate(all="ignore"):
        for t, b, C, f_k, g_k in zip(weights, B, costs, f, g, strict=True):
            row_sums, col_sums = _gibbs_sums(be, C, f_k, xp.where(b > 0, g_k, -np.inf), reg)
            linear = b[b > 0] @ g_k[b > 0]
            parts = host(
                xp.abs(row_sums - x).sum(),
                xp.abs(col_sums - b).sum(),
                # Row potentials that add up to zero make this a lower bound.
                linear - reg * (row_sums * xp.exp(-mean_f / reg)).sum(),
            )
            row_error, col_error, dual = (
                old + t * new for old, new in zip((row_error, col_error, dual), parts, strict=True)
            )
        mass, potentials = host(B[0].sum(), (x * xp.abs(mean_f)).sum() / reg)
    error = (row_error + col_error + potentials) / mass if known else np.inf
    details = {
        "row_error": row_error,
        "col_error": col_error,
        "potential_error": potentials,
        "mass": mass,
        "dual": _or(dual, -np.inf),
    }
    return Certificate(KIND_BARYCENTER, _or(error, np.inf), tol, details)


def _gibbs_sums(be, C, f, g, reg):
    """Return row and column sums of ``exp((f_i + g_j - C_ij) / reg)``."""
    xp = be.xp
    row_sums = xp.empty_like(f)

    def column_sums(first, last):
        sums = xp.zeros_like(g)
        for rows in row_blocks(be, C, first, last):
            E = xp.subtract(g, C[rows], dtype=np.float64)
            E += f[rows, None]
            E *= 1.0 / reg
            xp.exp(E, out=E)
            row_sums[rows] = E.sum(axis=1)
            sums += E.sum(axis=0)
        return sums

    col_sums = over_strips(be, C, column_sums)
    return row_sums, col_sums
