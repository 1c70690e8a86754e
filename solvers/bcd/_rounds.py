"""The loop that all solvers with working sets share."""

from typing import NamedTuple

# Fewest coefficients that are looked for at a time.
LEAST = 10
# What a round costs besides passes over the data, in operations.
_ROUND = 1e6


class Report(NamedTuple):
    """How good a point is, as far as the solver knows."""

    fun: float
    value: float
    gap: float


def first_number(p):
    """Return how many of p coefficients a first working set takes in at most."""
    return max(LEAST, int((2 * p) ** 0.5))


def steps_are_dear(nonzero, entries, design):
    """Tell whether Newton steps on coefficients in play cost more than a look at all of them.

    Parameters
    ----------
    nonzero : int
        How many coefficients are not zero: the size of Newton systems.
    entries : int
        What a sweep or a product goes through.
    design : Design
        All of the data.
    """
    return 50 * nonzero**2 + 6 * entries > _ROUND + design.size


def work_in_rounds(point, work, report, watch):
    """Solve on a growing set of coefficients until the whole problem is solved; return the best.

    Parameters
    ----------
    point : object
        Where the whole problem stands: ``move(x, work)`` goes to coefficients and returns a
        `Report`, ``intercept()`` returns the intercept that belongs to them.
    work : object
        The coefficients in play, `where` and `size`: ``grow()`` takes in those that promise most,
        ``solve(tol)`` returns the coefficients (p,) that are best and the number of Newton steps,
        `passes` is what that cost, and ``dead_end(idle)`` returns (status, reason) once further
        rounds are useless; `idle` rounds brought neither a coefficient nor half the error.
    report : Report
        How good the start is.
    watch : Watch

    Returns
    -------
    Answer
    """
    from ._driver import Answer

    watch.used = {"partition": "variable", "selection": "gsq", "update": "prox_newton"}
    best, answer, idle = report.value, Answer(point.x, point.intercept()), 0
    if best <= watch.tol:
        watch.record(*answer, iterations=0, **report._asdict())
    for _ in watch.run:
        size = work.size
        work.grow()
        x, newton = work.solve(watch.tol)
        report = point.move(x, work)
        now = Answer(point.x, point.intercept())
        idle = idle + 1 if work.size == size and report.value > 0.5 * best else 0
        if not report.value >= best:
            best, answer = report.value, now
        watch.n_newton += newton
        watch.n_blocks += 1
        watch.npass += 1.0 + work.passes
        watch.active_set = work.where
        if watch.record(*now, block=work.size, **report._asdict()):
            break
        end = work.dead_end(idle)
        if end:
            watch.run.end(*end)
    return answer
