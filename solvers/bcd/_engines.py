"""The solvers behind `method`: each takes (problem, watch, options) and returns an `Answer`."""

from importlib import import_module

from .. import losses


def _later(module, name):
    """Return a solver whose module is imported when it first runs."""

    def run(problem, watch, options):
        return getattr(import_module(module, __package__), name)(problem, watch, options)

    return run


def _auto(problem, watch, options):
    """Run what suits a problem."""
    return _SUITABLE[_kind(problem)](problem, watch, options)


def _kind(problem):
    """Return what kind of problem this is, a key of `_SUITABLE`."""
    if problem.quadratic:
        return "quadratic"
    if problem.groups is not None or problem.multinomial:
        return "blocks"
    elastic = problem.bound is not None and "ridge" in problem.bound._fields
    if isinstance(problem.loss, losses.Squared) and elastic:
        return "squared"
    return "other"


_SUITABLE = {
    "quadratic": _later("._quadratic", "solve_quadratic"),
    "squared": _later("._working_set", "solve_squares"),
    "blocks": _later("._block_newton", "solve"),
    "other": _later("._prox_newton", "solve_losses"),
}
_descend = _later("._minimize", "descend")
_descend_groups = _later("._block_newton", "solve_greedy")
_sweep = _later("._coordinate", "descend_coordinates")
_sweep_blocks = _later("._block_newton", "solve_cyclic")


def _bcd(problem, watch, options):
    """Move block after block; those of a group penalty are its groups."""
    return (_descend if problem.groups is None else _descend_groups)(problem, watch, options)


def _cd(problem, watch, options):
    """Sweep over coefficients, or over blocks where they belong together."""
    return (_sweep_blocks if _kind(problem) == "blocks" else _sweep)(problem, watch, options)


ENGINES = {
    "auto": _auto,
    "bcd": _bcd,
    "cd": _cd,
    "anderson": _later("._coordinate", "descend_anderson"),
    "lars": _later("._lars", "solve_lars"),
}
