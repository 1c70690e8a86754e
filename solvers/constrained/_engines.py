"""The solvers behind `method`: ``engine(problem, watch, options, start)`` returns an `Answer`."""

from importlib import import_module


def _later(module, name):
    """Return a solver whose module is imported when it first runs."""

    def run(problem, watch, options, start):
        return getattr(import_module(module, __package__), name)(problem, watch, options, start)

    return run


ENGINES = {
    "eal-newton": _later("._eal", "solve_eal"),
}

# Accuracy -> what takes the place of "eal-newton".
BY_ACCURACY = {"paper": _later("._paper", "solve_paper")}
