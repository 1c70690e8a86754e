"""Coordinate descent, plain and with extrapolation: the baselines that everybody knows.

Each iteration is a sweep over all unknowns, in order or at random.
"""

import numpy as np

from .. import losses
from .._core.result import Status
from ._driver import Answer
from ._measure import Measure

# Sweeps between two looks at the certificate's value, each of which costs a pass.
_EVERY = 10
# Extrapolation: differences of iterates that are combined, and what keeps their system solvable.
_MEMORY, _RIDGE = 5, 1e-10


def descend_coordinates(problem, watch, options):
    """Sweep over the coefficients until the certificate holds."""
    kind = QuadraticSweeps if problem.quadratic else Sweeps
    return _sweep(kind(problem, options), watch, options, lambda sweeps: None)


def descend_anderson(problem, watch, options):
    """Sweep, and every five sweeps try the best combination of the last iterates."""
    return _sweep(Sweeps(problem, options), watch, options, _Extrapolation())


def relax(problem, watch, options, factor):
    """Successive over-relaxation: sweeps over a quadratic's unknowns with stretched steps."""
    return _sweep(QuadraticSweeps(problem, options, factor), watch, options, lambda sweeps: None)


def _sweep(sweeps, watch, options, improve):
    measure, pending = Measure(sweeps.problem), 0
    every = options.check_every or _EVERY
    value, _ = measure(sweeps)
    if value <= watch.tol:
        watch.run.end(Status.CONVERGED)
    for _ in watch.run:
        sweeps.sweep()
        improve(sweeps)
        watch.n_blocks += sweeps.x.size
        pending += 1
        if pending < min(every, options.maxiter - watch.run.nit) and not watch.run.late:
            continue
        sweeps.refresh()
        value, gap = measure(sweeps)
        watch.npass = sweeps.npass
        fun = sweeps.objective()
        over = watch.record(
            sweeps.x, sweeps.c, fun=fun, value=value, gap=gap, block=1, iterations=pending
        )
        pending = 0
        if over:
            break
        if sweeps.idle:
            watch.run.end(Status.STALLED, "No unknown moves any more.")
            break
    return Answer(sweeps.x, sweeps.c)


class _Order:
    """In which order unknowns are visited."""

    def __init__(self, problem, options):
        self._size, self._rng, self._xp = problem.size, options.rng, problem.xp
        self._word = options.selection if options.selection in ("random", "perm") else "cyclic"
        self._cyclic = problem.xp.arange(problem.size)

    def __call__(self):
        if self._word == "cyclic":
            return self._cyclic
        if self._word == "perm":
            return self._xp.asarray(self._rng.permutation(self._size))
        return self._xp.asarray(self._rng.integers(self._size, size=self._size))


class Sweeps:
    """A point of a `GLM` with one prediction per sample, and sweeps over its coefficients."""

    def __init__(self, problem, options):
        xp = problem.xp
        self.problem, self.xp, self.penalty = problem, xp, problem.bound
        x, c = options.x0 or problem.zeros()
        self.x, self.c, self.npass, self.idle = x.copy(), c.copy(), 0.0, False
        self._kernels = problem.be.kernels("solvers.bcd", "sweeps")
        self._loss, self._order = losses.bind(problem.loss), _Order(problem, options)
        self._lipschitz = problem.lipschitz
        # With a quadratic loss the intercept follows each step at once.
        self._follows = problem.fit_intercept and isinstance(problem.loss, losses.Squared)
        mean = problem.moments[1] / problem.s.sum(dtype=np.float64)
        self._mean = mean if self._follows else xp.zeros(problem.size)
        X = problem.design.X
        # A copy where rows are contiguous: every sweep would cross all of memory for each column.
        self._columns = None if problem.design.sparse else xp.ascontiguousarray(X.T)
        self.refresh()

    def refresh(self):
        """Compute the predictions anew, and the best intercept."""
        self.z = self.problem.predict(self.x, self.c)
        self.npass += 1.0
        self._settle()

    def _settle(self):
        from ._intercept import fit_intercept

        self._r, self._g = self.problem.slopes(self.z), None
        if self.problem.fit_intercept:
            shift = fit_intercept(self.problem, self.z, self._r)
            if shift is not None:
                self.z, self.c = self.z + shift, self.c + shift
                self._r = self.problem.slopes(self.z)

    def sweep(self):
        """Minimise over each coefficient once."""
        problem, before = self.problem, self.x.copy()
        c = self.xp.zeros(1)
        z, r = self.z, self._r
        if self._follows:
            c[0] = self.c
            z = z - self.c
            r = problem.slopes(z)
        arrays = problem.y, problem.s, self._mean, self._lipschitz, self._order()
        if self._columns is None:
            X = problem.design.X
            matrix, kernel = (X.indptr, X.indices, X.data), self._kernels.sweep_entries
        else:
            matrix, kernel = (self._columns,), self._kernels.sweep_columns
        kernel(self._loss, self.penalty, *matrix, *arrays, self.x, c, z, r)
        self.npass += 2.0
        if self._follows:
            self.c = c.astype(self.x.dtype).reshape(())
            z = z + self.c
        self.z = z if self._follows else z.copy()
        self._settle()
        self.idle = bool(problem.be.host((self.x == before).all()))

    def gradient(self):
        """Return the gradient of the loss: a pass."""
        if self._g is None:
            self._g = self.problem.design.rdot(self._r)
            self.npass += 1.0
        return self._g

    def objective(self):
        """Return the objective."""
        return float(self.problem.loss_sum(self.z) + self.problem.penalty_sum(self.x))

    def move(self, x, c, z):
        """Go to coefficients whose predictions are known."""
        self.x, self.c, self.z = x, c, z
        self._settle()


class _Extrapolation:
    """Anderson's: the combination of the last iterates whose steps nearly cancel."""

    def __init__(self):
        self._iterates = []

    def __call__(self, sweeps):
        self._iterates.append((sweeps.x.copy(), sweeps.c, sweeps.z))
        if len(self._iterates) <= _MEMORY:
            return
        xp = sweeps.xp
        points = [xp.stack(part) for part in zip(*self._iterates, strict=True)]
        self._iterates = []
        share = _shares(xp.diff(points[0], axis=0), sweeps.problem.be)
        if share is None:
            return
        share = xp.asarray(share, points[0].dtype)
        known, before = (sweeps.x, sweeps.c, sweeps.z), sweeps.objective()
        sweeps.move(*(share @ part[1:] for part in points))
        if not sweeps.objective() < before:
            sweeps.move(*known)


def _shares(steps, be):
    """Return the numbers of sum 1 that combine steps to the shortest one; None if all are 0."""
    steps = steps.astype(np.float64)
    K = be.host(steps @ steps.T)
    size = np.trace(K)
    if not size > 0.0:
        return None
    share = np.linalg.solve(K + _RIDGE * size * np.eye(_MEMORY), np.ones(_MEMORY))
    return share / share.sum()


class QuadraticSweeps:
    """A point of a `Quadratic`, and sweeps over its unknowns."""

    def __init__(self, problem, options, factor=1.0):
        self.problem, self.xp, self.penalty = problem, problem.xp, problem.bound
        x, self.c = options.x0 or problem.zeros()
        self.x, self.npass, self.idle, self._factor = x.copy(), 0.0, False, float(factor)
        self._kernels = problem.be.kernels("solvers.bcd", "sweeps")
        self._order = _Order(problem, options)
        self.refresh()

    def refresh(self):
        """Compute the gradient anew."""
        self._g = self.problem.gradient(self.x)
        self.npass += 1.0

    def sweep(self):
        """Minimise over each unknown once."""
        problem, before, order = self.problem, self.x.copy(), self._order()
        point = self._factor, order, self.x, self._g
        if problem.sparse:
            A = problem.A
            matrix = A.indptr, A.indices, A.data, problem.lipschitz
            self._kernels.sweep_rows(self.penalty, *matrix, *point)
        else:
            self._kernels.sweep_gram(self.penalty, problem.A, *point)
        self.npass += 1.0
        self.idle = bool(problem.be.host((self.x == before).all()))

    def gradient(self):
        """Return the gradient of the smooth part."""
        return self._g

    def objective(self):
        """Return the objective."""
        smooth = 0.5 * (self.x @ (self._g - self.problem.b))
        return float(self.problem.be.host(smooth) + self.problem.penalty_sum(self.x))
