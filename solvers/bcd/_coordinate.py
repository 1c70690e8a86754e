"""Coordinate descent, plain and with extrapolation: the baselines that everybody knows.

Blocks of one unknown are moved by kernels that take many steps at a call.
"""

import numpy as np

from .. import losses
from .._core.result import Status
from ._driver import Answer
from ._intercept import fit_intercept
from ._measure import Measure
from ._state import fits_gram, open_state
from .rules import has_lipschitz

# Sweeps between two looks at the certificate's value, each of which costs a pass.
_EVERY = 10
# Looks between two replacements of increments, which drift.
_REFRESH = 10
# Sweeps without a move, and without a smaller value, after which there is nothing to hope for.
_IDLE, _HOPELESS = 20, 500
# Extrapolation: differences of iterates that are combined, and what keeps their system solvable.
_MEMORY, _RIDGE = 5, 1e-10
# Greedy rules as `greedy_steps` knows them.
_RULES = {"gs": 0, "gs-s": 0, "gsl": 1, "gs-r": 2, "gsq": 3, "gsd": 3, "mi": 3, "gs-q": 3}


def descend_coordinates(problem, watch, options, *, factor=1.0, improve=None):
    """Sweep over the unknowns, in order or as selection="random" or "perm" draws them."""
    if problem.groups is not None or problem.multinomial or not has_lipschitz(problem):
        raise ValueError(
            f"`method` came as {options.method!r}, which is for penalties of single coefficients, "
            "one prediction per sample and losses of bounded curvature; expected 'auto'"
        )
    kind = QuadraticSweeps if problem.quadratic else Sweeps
    sweeps, order = kind(problem, options, factor), _Order(problem, options)

    def advance(count):
        for done in range(count):
            sweeps.sweep(order())
            if improve is not None:
                improve(sweeps)
            if watch.run.late:
                return done + 1
        return count

    every = options.check_every or _EVERY
    return _descend(sweeps, advance, watch, options, every=every, updates=problem.size)


def descend_anderson(problem, watch, options):
    """Sweep, and every five sweeps try the best combination of the last iterates."""
    return descend_coordinates(problem, watch, options, improve=_Extrapolation())


def over_relax(problem, watch, options, factor):
    """Successive over-relaxation: sweeps over a quadratic's unknowns with stretched steps."""
    return descend_coordinates(problem, watch, options, factor=factor)


def moves_singly(problem, options, blocks, update):
    """Tell whether a choice of rules is one that `descend_singly` runs."""
    plain = problem.groups is None and not problem.multinomial
    single = options.block_size == 1 or (blocks is not None and blocks.number == problem.size)
    if not (plain and single):
        return False
    quadratic = problem.quadratic or isinstance(problem.loss, losses.Squared)
    if update not in (("gradient", "matrix", "exact") if quadratic else ("gradient", "matrix")):
        return False
    if options.selection in _RULES:
        if problem.quadratic:
            return not problem.sparse or problem.be.name == "numpy"
        return quadratic and fits_gram(problem)
    return blocks is not None


def descend_singly(problem, watch, options, blocks, select):
    """Move one unknown after the other by the rule: cyclic, at random or greedy."""
    if options.selection in _RULES:
        sparse = problem.quadratic and problem.sparse
        # A look at everything costs as much as many steps that look at next to nothing.
        steps = max(100, problem.size // 20) if sparse else 100
        every = options.check_every or min(problem.size, steps)
        walk = (_SparseGreedy if sparse else _Greedy)(problem, options)
        return _descend(walk, walk.advance, watch, options, every=every, updates=1)
    sweeps = (QuadraticSweeps if problem.quadratic else Sweeps)(problem, options)

    def advance(count):
        sweeps.sweep(blocks.idx[problem.xp.asarray(blocks.ptr[select.many(count)])])
        return count

    every = options.check_every or problem.size
    return _descend(sweeps, advance, watch, options, every=every, updates=1)


def _descend(point, advance, watch, options, *, every, updates):
    """Advance and look, until the certificate holds.

    `updates` is how many unknowns an iteration visits.
    """
    problem, measure = point.problem, Measure(point.problem)
    value, _ = measure(point)
    if value <= watch.tol:
        watch.run.end(Status.CONVERGED)
    best, idle, hopeless = np.inf, 0, 0
    for look in watch.run:
        before = point.x.copy()
        done = advance(min(every, options.maxiter - watch.run.nit))
        if look % _REFRESH == _REFRESH - 1:
            point.refresh()
        watch.n_blocks += done * updates
        value, gap = measure(point)
        watch.npass, fun = point.npass, point.objective()
        if watch.record(point.x, point.c, fun=fun, value=value, gap=gap, block=1, iterations=done):
            break
        moved = bool(problem.be.host((point.x != before).any()))
        idle = 0 if moved else idle + done * updates
        hopeless = 0 if value < best else hopeless + done * updates
        best = min(best, value)
        if idle >= _IDLE * problem.size or hopeless >= _HOPELESS * problem.size:
            watch.run.end(Status.STALLED, "What is left is rounding.")
            break
    return Answer(point.x, point.c)


class _Order:
    """In which order unknowns are visited in a sweep."""

    def __init__(self, problem, options):
        self._size, self._rng, self._xp = problem.size, options.rng, problem.xp
        self._word, self._cyclic = options.selection, problem.xp.arange(problem.size)

    def __call__(self):
        if self._word == "perm":
            return self._xp.asarray(self._rng.permutation(self._size))
        if self._word == "random":
            return self._xp.asarray(self._rng.integers(self._size, size=self._size))
        return self._cyclic


class Sweeps:
    """A point of a `GLM` with one prediction per sample, and sweeps over its coefficients."""

    def __init__(self, problem, options, factor=1.0):
        xp = problem.xp
        self.problem, self.xp, self.penalty = problem, xp, problem.bound
        x, c = options.x0 or problem.zeros()
        self.x, self.c, self.npass = x.copy(), c.copy(), 0.0
        self._kernels = problem.be.kernels("solvers.bcd", "sweeps")
        self._loss, self._lipschitz = losses.bind(problem.loss), problem.lipschitz
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

    def sweep(self, order):
        """Minimise over the coefficients of an order, one after the other."""
        problem, c, z, r = self.problem, self.xp.zeros(1), self.z.copy(), self._r
        if self._follows:
            c[0] = self.c
            z = z - self.c
            r = problem.slopes(z)
        point = self._mean, self._lipschitz, order, self.x, c, z, r
        if self._columns is None:
            X = problem.design.X
            matrix, kernel = (X.indptr, X.indices, X.data), self._kernels.sweep_entries
        else:
            matrix, kernel = (self._columns,), self._kernels.sweep_columns
        kernel(self._loss, self.penalty, *matrix, problem.y, problem.s, *point)
        self.npass += 2.0 * order.size / problem.size
        if self._follows:
            self.c = c.astype(self.x.dtype).reshape(())
            z = z + self.c
        self.z = z
        self._settle()

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

    def _settle(self):
        self._r, self._g = self.problem.slopes(self.z), None
        if self.problem.fit_intercept:
            shift = fit_intercept(self.problem, self.z, self._r)
            if shift is not None:
                self.z, self.c = self.z + shift, self.c + shift
                self._r = self.problem.slopes(self.z)


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
    """A point of a `Quadratic`, and sweeps over its unknowns; `factor` stretches the steps."""

    def __init__(self, problem, options, factor=1.0):
        self.problem, self.xp, self.penalty = problem, problem.xp, problem.bound
        x, self.c = options.x0 or problem.zeros()
        self.x, self.npass, self._factor = x.copy(), 0.0, float(factor)
        self._kernels = problem.be.kernels("solvers.bcd", "sweeps")
        self.refresh()

    def refresh(self):
        """Compute the gradient anew."""
        self._g = self.problem.gradient(self.x)
        self.npass += 1.0

    def sweep(self, order):
        """Minimise over the unknowns of an order, one after the other."""
        problem, point = self.problem, (self._factor, order, self.x, self._g)
        if problem.sparse:
            A = problem.A
            matrix = A.indptr, A.indices, A.data, problem.lipschitz
            self._kernels.sweep_rows(self.penalty, *matrix, *point)
        else:
            self._kernels.sweep_gram(self.penalty, problem.A, *point)
        self.npass += order.size / problem.size

    def gradient(self):
        """Return the gradient of the smooth part."""
        return self._g

    def objective(self):
        """Return the objective."""
        smooth = 0.5 * (self.x @ (self._g - self.problem.b))
        return float(self.problem.be.host(smooth) + self.problem.penalty_sum(self.x))


class _Greedy:
    """A point of a quadratic, or of a quadratic loss, and greedy steps by rows of its Hessian."""

    def __init__(self, problem, options):
        self.problem, self._rule = problem, _RULES[options.selection]
        self._state = open_state(problem, *(options.x0 or problem.zeros()), greedy=True)
        self._kernels = problem.be.kernels("solvers.bcd", "sweeps")

    def __getattr__(self, name):
        return getattr(self._state, name)

    def advance(self, count):
        """Take `count` steps; where none is left, count those that were wished for."""
        state, problem, left = self._state, self.problem, count
        before, g = state.x.copy(), state.gradient().copy()
        while left:
            rows, slot = state.known_rows()
            L = state.lipschitz
            done, missing = self._kernels.greedy_steps(
                state.penalty, rows, slot, L, self._rule, left, state.x, g
            )
            left -= int(done)
            if int(missing) < 0:
                break
            state.learn_rows(problem.xp.asarray([int(missing)]))
        state.follow(before, g)
        return count


class _SparseGreedy(_Greedy):
    """The same for a sparse quadratic: a heap of scores, of which a step changes a few."""

    def __init__(self, problem, options):
        super().__init__(problem, options)
        self._kernels = problem.be.kernels("solvers.bcd", "heap")
        self._scores = np.empty(problem.size)
        self._heap, self._place = np.empty((2, problem.size), np.int64)
        self._build()

    def refresh(self):
        """Compute gradient and scores anew."""
        self._state.refresh()
        self._build()

    def advance(self, count):
        """Take `count` steps, or as many as there are."""
        state, A = self._state, self.problem.A
        rows = A.indptr, A.indices, A.data
        place = self._scores, self._heap, self._place
        self._kernels.heap_steps(
            state.penalty, *rows, state.lipschitz, self._rule, count, state.x, state.gradient(),
            *place,
        )  # fmt: skip
        return count

    def _build(self):
        state = self._state
        self._kernels.heap_scores(
            state.penalty, state.lipschitz, self._rule, state.x, state.gradient(), self._scores
        )
        self._kernels.heap_build(self._scores, self._heap, self._place)
