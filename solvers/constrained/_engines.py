"""The solvers behind `method`: ``engine(problem, watch, options, start)`` returns an `Answer`."""

from importlib import import_module


def _later(module, name):
    """Return a solver whose module is imported when it first runs."""

    def run(problem, watch, options, start):
        return getattr(import_module(module, __package__), name)(problem, watch, options, start)

    return run


ENGINES = {
    "eal-newton": _later("._eal", "solve_eal"),
    "sqp-direct": _later("._filter", "solve_filter"),
    "gmres-l1": _later("._l1", "solve_l1"),
    "gmres-l1-tests": _later("._l1", "solve_l1"),
    "auglag": _later("._auglag", "solve_auglag"),
}

_PAPER = _later("._paper", "solve_paper")


_EQUATIONS = _later("._equations", "solve_equations")
_LEAST_SQUARES = _later("._equations", "solve_least_squares")


def engine(options, problem):
    """Return the solver for the caller's options and for the problem that it shall solve."""
    name = options.method
    if problem.m > problem.n and not problem.bounded:
        return _LEAST_SQUARES
    if name == "eal-newton" and options.accuracy == "paper":
        return _PAPER
    # Next to bounds the merit function's squared gradient is all curvature of the barrier.
    filters = ("filter", "auto") if problem.bounded else ("filter",)
    if name == "eal-newton" and options.globalization in filters:
        name = "sqp-direct"
    if name == "eal-newton" and _square(problem) and _at_liberty(options):
        return _EQUATIONS
    return ENGINES[name]


def _square(problem):
    return problem.m == problem.n and not problem.bounded


def _at_liberty(options):
    """Tell whether the caller asks for no particular way to solve equations."""
    return options.globalization == "auto" and options.inner in ("auto", "direct")
