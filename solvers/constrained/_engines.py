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


def engine(options):
    """Return the solver for the caller's options."""
    newton = options.method == "eal-newton"
    return ENGINES[
        "sqp-direct" if newton and options.globalization == "filter" else options.method
    ]
