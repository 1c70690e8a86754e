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
}

_PAPER = _later("._paper", "solve_paper")


def engine(options):
    """Return the solver for the caller's options."""
    name = options.method
    if name == "eal-newton" and options.accuracy == "paper":
        return _PAPER
    if name == "eal-newton" and options.globalization == "filter":
        name = "sqp-direct"
    return ENGINES[name]
