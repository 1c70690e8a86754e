r"""The method of Hong, Na, Mahoney and Kolar as it was published: `adasketch_newton`.

Newton systems are solved until ``||K||_F Psi ||K d + F|| <= theta delta ||F||``, where Psi bounds
what an error does to the descent and delta follows the weights of the merit function.
"""

import math
from typing import NamedTuple

from .._core.result import Status
from .._core.validation import check_memory
from ._convexify import Shifts, factored
from ._eal import Step
from ._matrices import add_diagonal, to_dense
from ._merit import Weights, difference, slope
from .inner import open_inner

_DELTA, _DELTA_MIN, _XI_B, _ARMIJO, _NU = 0.1, 1e-6, 0.1, 0.1, 1.5
# Weights at which a direction is taken whatever the merit function says.
_ETA1_MAX, _ETA2_MIN = 1e8, 1e-8
# Least curvature on the kernel of G, and least squared singular value of G that counts.
_CURVED, _XI_G_MIN = 1e-6, 1e-8
_HALVINGS = 40


def solve_paper(problem, watch, options, start):
    """Run AdaSketch-Newton; arguments as those of `solve_eal`."""
    be, xp = problem.be, problem.xp
    inner = open_inner(options.inner, options)
    watch.inner, watch.globalization = inner.name, "eal"
    point, lam = problem.point(start.z), start.lam
    weights, delta, tol = Weights(*options.eta), _DELTA, watch.tol
    if watch.begin(problem, point, start):
        return start
    if not problem.bounded:
        watch.tol = 0.0  # the paper stops by the Euclidean norm, below
    for _ in watch.run:
        F = xp.concatenate([point.gradient(lam), point.c])
        curvature = problem.curvature(point, lam)
        B, bounds = _convex(curvature.B, point.G, be)
        if factored(B, point.G, inner, Shifts(), be=be) is None:
            watch.run.end(Status.STALLED, "No shift makes the Hessian convex.")
            break
        step = _direction(point, lam, F, curvature, inner, weights, delta, bounds, options, be)
        weights, delta = step.weights, step.delta
        watch.eta = weights
        found = _search(problem, point, lam, step)
        if found is None:
            watch.run.end(Status.STALLED, "The line search found no descent.")
            break
        new, new_lam, alpha = found
        problem.moved(point, lam, new, new_lam, alpha)
        point, lam = new, new_lam
        over = watch.record(
            problem,
            point,
            problem.answer(point, lam),
            alpha=alpha,
            inner_its=step.iterations,
            inner_residual=step.residual,
            eta1=weights.eta1,
            eta2=weights.eta2,
            delta=delta,
        )
        if over or _solved(problem, point, lam, tol):
            break
    return problem.answer(point, lam)


def _direction(point, lam, F, curvature, inner, weights, delta, bounds, options, be):
    """Solve ever more accurately, under ever other weights, until M descends enough."""
    n, size = len(point.z), be.host(be.xp.linalg.norm(F))
    theta = min(1.0, size) if options.theta == "superlinear" else options.theta
    delta = bounds.delta(delta, weights)
    d, its = None, 0
    while True:
        solved = inner.solve(-F, d0=d, tol=theta * delta * bounds.accuracy)
        d, its = solved.d, its + solved.iterations
        D = slope(point, lam, d[:n], d[n:], curvature.product, be=be).at(weights)
        if -0.5 * weights.eta2 * size**2 >= D or _at_the_end(weights):
            break
        weights = Weights(weights.eta1 * _NU**2, weights.eta2 / _NU)
        delta = bounds.delta(delta / _NU**4, weights)
    residual = be.host(be.xp.linalg.norm(solved.residual)) / size
    return Step(d[:n], d[n:], D, weights, its, residual, delta)


def _search(problem, point, lam, step):
    """Halve the step until M has fallen enough; return point, multipliers and alpha, or None."""
    be = problem.be
    alpha = problem.longest(point.z, step.dx)
    for _ in range(_HALVINGS):
        new, new_lam = problem.point(point.z + alpha * step.dx), lam + alpha * step.dl
        change = difference(point, lam, new, new_lam, be=be).at(step.weights)
        # At rounding level M cannot tell.
        if change <= alpha * _ARMIJO * step.slope or abs(change) <= 1e-13 * (1 + abs(point.f)):
            return new, new_lam, alpha
        alpha /= 2
    return None


def _at_the_end(weights):
    return weights.eta1 > _ETA1_MAX or weights.eta2 < _ETA2_MIN


def _solved(problem, point, lam, tol):
    """Tell whether an equality-constrained problem is solved as the paper has it."""
    F = problem.xp.concatenate([point.gradient(lam), point.c])
    return not problem.bounded and problem.be.host(problem.xp.linalg.norm(F)) <= tol


class _Bounds(NamedTuple):
    """What the accuracy rule knows of the matrices: Upsilon, Psi and the norm of K."""

    upsilon: float
    psi: float
    norm: float

    @property
    def accuracy(self):
        """The residual for ``theta delta = 1``, relative to F."""
        return 1.0 / (self.norm * self.psi)

    def delta(self, last, weights):
        """Return the largest delta for which M descends by the theory, within its limits."""
        total = 1.0 + weights.eta1 + weights.eta2
        trial = (0.5 - _ARMIJO) * weights.eta2 / (total * self.upsilon**2 * self.psi**2)
        return max(min(last, trial), _DELTA_MIN)


def _convex(H, G, be):
    """Return H, or ``H + t I`` with a large t where it bends down on the kernel of G; bounds."""
    xp, n = be.xp, G.shape[1]
    check_memory(32 * n * n, "The paper's method", "Use accuracy='adaptive'", be=be)
    dense, J = to_dense(H, be=be), to_dense(G, be=be)
    _, s, V = xp.linalg.svd(J, full_matrices=True)
    s = be.host(s)
    rank = int((s > 1e-10 * s[0]).sum()) if len(s) and s[0] > 0 else 0
    Z = V[rank:].T
    size = be.host(xp.linalg.norm(dense))
    t = 0.0
    if rank < n and be.host(xp.linalg.eigvalsh(Z.T @ dense @ Z)[0]) < _CURVED:
        t = _XI_B + size
        H = add_diagonal(H, t * xp.ones(n), be=be)
        dense = add_diagonal(dense, t * xp.ones(n), be=be)
    length, rows = be.host(xp.linalg.norm(dense), xp.linalg.norm(J))
    xi_G = max(float(s[-1]) ** 2, _XI_G_MIN) if len(s) else 1.0
    psi = 20 * max(length**2, 1.0) / (min(xi_G, 1.0) * min(_XI_B, 1.0))
    return H, _Bounds(max(rows, size, 1.0), psi, math.hypot(length, math.sqrt(2) * rows))
