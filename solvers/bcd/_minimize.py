"""Block coordinate descent as the paper writes it: select a block, update it, repeat."""

import math
from dataclasses import replace

from .._core.result import Status
from .._core.validation import describe
from ._coordinate import descend_singly, moves_singly
from ._driver import Answer, solve
from ._engines import ENGINES
from ._measure import Measure
from ._problem import Problem
from ._state import open_state
from .rules import SELECTIONS, UPDATES, cut, has_forests, has_lipschitz, is_smooth
from .rules._block import BreakdownError
from .rules._graph import UnboundedError

# Rounds of all unknowns without a smaller value, after which there is nothing to hope for.
_HOPELESS = 500


def minimize(
    problem,
    *,
    partition="variable",
    block_size=None,
    selection="gsq",
    update="auto",
    norm=2,
    working_set=True,
    tol=None,
    maxiter=10000,
    x0=None,
    check_every=None,
    callback=None,
    rng=None,
    history=True,
    time_limit=None,
    progress=False,
    n_threads=None,
):
    r"""Minimise by block coordinate descent, with the partition, rule and update of your choice.

    In each iteration a block of unknowns is selected and updated while the others stay:

    .. math:: b_k = \mathrm{select}(x^k), \qquad x^{k+1} = x^k + U_{b_k} d^k.

    Parameters
    ----------
    problem : Problem
        Data, loss, penalty, bounds.
    partition : str, array of labels or list of index lists, default "variable"
        How unknowns are cut into blocks: "order", "random", "sort", "avg", "hsort" or "havg",
        and for quadratics with a sparse matrix "redblack" or "tree"; "variable" and
        "forest_variable" make up each block anew. Or the blocks themselves.
    block_size : int, optional
        Unknowns in a block; 50 by default, or all if there are fewer.
    selection : str, default "gsq"
        Which block moves. Greedy rules look at the whole gradient: "gs", "gsl", "gsd", "gsq",
        "gsq-iht", "mi", "gs-s", "gs-r", "gs-q", "nn"; "cyclic", "perm", "random" and "lipschitz"
        do not.
    update : str, default "auto"
        How it moves: "gradient", "lipschitz_ls", "matrix", "newton", "cubic", "exact", "tree",
        "prox_newton" or "two_metric". "auto" solves forests and quadratics exactly, takes
        Newton steps for other losses, and steps along the gradient for penalties that are not
        convex.
    norm : {2, 1}, default 2
        The norm of a block's gradient in the scores of fixed blocks.
    working_set : bool, default True
        Whether the default rules may give way to the solver that suits the problem best, such as
        a growing set of unknowns; False runs them as they are.
    tol : float, optional
        The certificate's value that is wanted. Default: 1e-8, or 1e-6 for float32 data.
    maxiter : int, default 10000
        Largest number of block updates.
    x0 : array or BlockResult, optional
        Start.
    check_every : int, optional
        Block updates between two looks at the certificate's value, which are also the rows of
        the history. Default: 1 for greedy rules, one round of all blocks for the others; for
        single unknowns that kernels move as many as there are, for greedy rules at most 100, or
        of a sparse quadratic a twentieth of all.
    callback : callable, optional
        Called with the state after each look; a true return or StopIteration ends the run.
    rng : int or Generator, optional
        For random partitions and rules.
    history : bool or int, default True
        Whether, or every how many updates, to keep a row.
    time_limit : float, optional
        Seconds.
    progress : bool, default False
        Whether to show a bar.
    n_threads : int, optional
        Threads of kernels.

    Returns
    -------
    BlockResult
        With `used`, the rules that ran, and `history`: `fun`, `value` (of the certificate), `gap`,
        `nnz`, `block` and `seconds`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not of the expected kind or value, or rules do not fit together.

    References
    ----------
    .. [1] J. Nutini, I. Laradji and M. Schmidt. Let's make block coordinate descent converge
       faster. Journal of Machine Learning Research 23(131), 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bcd, penalties
    >>> X, y = np.eye(3), np.array([3.0, 2.0, 0.5])
    >>> problem = bcd.Problem(X, y, penalty=penalties.L1(1 / 3))
    >>> bcd.minimize(problem, partition="order", block_size=1, selection="cyclic").x.round(6)
    array([2., 1., 0.])
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"`problem` came as {describe(problem)}; expected a solvers.bcd.Problem")
    return solve(
        "minimize",
        problem.model,
        partition=partition,
        block_size=block_size,
        selection=selection,
        update=update,
        norm=norm,
        working_set=working_set,
        tol=tol,
        maxiter=maxiter,
        x0=x0,
        check_every=check_every,
        callback=callback,
        rng=rng,
        history=history,
        time_limit=time_limit,
        progress=progress,
        n_threads=n_threads,
    )


def descend(problem, watch, options):
    """Select a block, update it, and look now and then whether that was enough."""
    if problem.groups is not None:
        # The groups are the blocks, and their solver knows what to do with them.
        return ENGINES["auto"](problem, watch, options)
    if SELECTIONS[options.selection].lipschitz and not has_lipschitz(problem):
        options = replace(options, selection="gs")
    selection = SELECTIONS[options.selection]
    x, c = options.x0 or problem.zeros()
    blocks = cut(problem, options)
    state = open_state(problem, x, c, greedy=selection.greedy)
    select = selection.make(state, blocks, options.block_size, options.rng, options)
    update = choose_update(problem, options)
    watch.used = {**_names(options), "update": update}
    if moves_singly(problem, options, blocks, update):
        return descend_singly(problem, watch, options, blocks, select)
    step = UPDATES[update].make(state, options)
    books = _Books(state, watch, options, sweep=_sweep(problem, blocks, selection, options))
    if hasattr(select, "used"):
        watch.used["selection"] = select.used

    if books.optimal():
        return Answer(state.x, state.c)
    for _ in watch.run:
        number, block = select()
        try:
            decrease = step(number, block)
        except BreakdownError as reason:
            watch.run.end(Status.NUMERICAL, str(reason))
            break
        except UnboundedError as reason:
            watch.run.end(Status.UNBOUNDED, str(reason))
            break
        if books.over(block, decrease):
            break
    return Answer(state.x, state.c)


class _Books:
    """Counts block updates, and looks at the certificate's value every few of them."""

    def __init__(self, state, watch, options, *, sweep):
        self._state, self._watch, self._sweep = state, watch, sweep
        self._every = sweep if options.check_every is None else options.check_every
        self._measure, self._maxiter = Measure(state.problem), options.maxiter
        self._pending, self._idle, self._passes = 0, 0, 0.0
        self._best, self._hopeless = math.inf, 0

    def optimal(self):
        """End the run if the start is good enough."""
        value, _ = self._measure(self._state)
        if value <= self._watch.tol:
            self._watch.run.end(Status.CONVERGED)
        return value <= self._watch.tol

    def over(self, block, decrease):
        """Count an update; tell whether the run must end."""
        state, watch = self._state, self._watch
        self._pending += 1
        watch.n_blocks += 1
        self._idle = 0 if decrease > 0.0 else self._idle + 1
        due = self._pending >= min(self._every, self._maxiter - watch.run.nit)
        if not (due or watch.run.late):
            return False
        if self._idle >= self._sweep:
            # What looks like the end may be drift.
            state.refresh()
        (value, gap), fun = self._measure(state), state.objective()
        watch.npass += state.npass - self._passes
        self._passes = state.npass
        over = watch.record(
            state.x,
            state.c,
            fun=fun,
            value=value,
            gap=gap,
            block=block.size,
            iterations=self._pending,
        )
        self._hopeless = 0 if value < self._best else self._hopeless + self._pending
        self._best, self._pending = min(value, self._best), 0
        rounds = self._hopeless * block.size / state.x.size
        # Rules that draw blocks at random miss one in ten rounds with a chance of 1 in 20000.
        if not over and (self._idle > max(10 * self._sweep, 30) or rounds > _HOPELESS):
            watch.run.end(Status.STALLED, "No block lowers the objective beyond rounding.")
        return over or watch.run.status is not None


def choose_update(problem, options):
    """Return the update, or for "auto" the strongest that fits the problem.

    Forests are solved exactly by their own update, quadratics exactly. Other losses take Newton
    steps; steps along the gradient are left for groups and for penalties that are not convex.
    """
    if options.update != "auto":
        return options.update
    if problem.groups is not None or not problem.convex:
        return "gradient"
    if has_forests(options.partition) and is_smooth(problem):
        return "tree"
    if problem.quadratic or type(problem.loss).__name__ == "Squared":
        return "exact"
    return "newton" if is_smooth(problem) else "prox_newton"


def _sweep(problem, blocks, selection, options):
    """Return how many updates make a round of all unknowns: one, if the gradient is known."""
    if selection.greedy:
        return 1
    if blocks is None:
        # A block that grows has no size to tell.
        return -(-problem.size // (options.block_size or problem.size))
    return blocks.number


def _names(options):
    partition = options.partition if isinstance(options.partition, str) else "given"
    return {"partition": partition, "selection": options.selection}
