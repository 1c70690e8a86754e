"""The solvers behind `method`: each takes (problem, watch, options) and returns an `Answer`."""

from importlib import import_module

from .. import losses


def _accelerated(problem, watch, options):
    """Proximal gradient steps with momentum: stands in until the solver proper is there."""
    from ._certificate import judge
    from ._driver import Answer

    xp = problem.xp
    x, c = options.x0 or problem.zeros()
    L = float(problem.lipschitz.sum()) or 1.0
    v, vc, t = x, c, 1.0
    for _ in watch.run:
        if problem.quadratic:
            g, gc = problem.gradient(v), 0.0 * c
        else:
            g, gc = problem.gradient(problem.predict(v, vc))
        new = xp.empty_like(x)
        problem.kernels.prox_all(
            problem.bound, v - (g / L).astype(x.dtype), xp.full(x.size, 1.0 / L, x.dtype), new
        )
        new_c = c if not problem.fit_intercept else vc - gc
        momentum = 0.5 * (1.0 + (1.0 + 4.0 * t * t) ** 0.5)
        if problem.objective(new, new_c) > problem.objective(x, c):
            v, vc, t = x, c, 1.0
        else:
            v = new + (t - 1.0) / momentum * (new - x)
            vc = new_c + (t - 1.0) / momentum * (new_c - c)
            x, c, t = new, new_c, momentum
        report = judge(problem, x, c, tol=watch.tol)
        watch.npass += 2.0
        if watch.record(x, c, fun=report.details["primal"], value=report.value):
            break
    return Answer(x, c)


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
