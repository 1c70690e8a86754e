"""The independent judge of transport plans, wherever they come from."""

import numpy as np

from .._core.arrays import Ingest
from .._core.validation import check_array, check_nonnegative, check_positive
from ._batch_problem import is_batch
from ._batch_result import certify_batch
from ._certificate_entropic import check_multipliers, judge, judge_constrained
from ._certificate_linear import checked_plan, judge_linear
from ._certificate_relatives import judge_unbalanced
from ._cloud import arrays_of
from ._constraints import check_constraints
from ._problem import check_reg_m, check_transport


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
