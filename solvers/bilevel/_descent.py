"""Quasi-Newton steps for a smooth function over a closed convex set.

Searches are generators: they yield the points that they want to see and are sent
``(value, gradient, rounding error of the value)`` and, perhaps, a note to keep with the point. So
several can run side by side and have their points looked at in one pass over the data.
"""

import math
from collections import deque

import numpy as np

from .._core.arrays import kind_of
from .._core.backend import get_backend

# Function values closer than this, relatively, tell less than slopes do.
_ALIKE = 1e-10
_HALVINGS = 30
# Trials that look like the point itself before a search gives up.
_BLIND = 4
# What tells where a descent is.
_PLACE = ("v", "value", "grad", "noise", "note", "unit")
# Smallest cosine between a step and the change of gradient along it.
_CURVED = 1e-10


class Pairs:
    """The last steps s and changes of gradient y, as the matrix of L-BFGS that they stand for.

    Parameters
    ----------
    length : int
        Number of pairs kept.

    Notes
    -----
    The compact form of Byrd, Nocedal and Schnabel: two products with each of S and Y, and the
    rest on the host in matrices of the order of `length`.
    """

    def __init__(self, length):
        self.length, self._diagonal = length, None
        self.clear()

    def clear(self):
        """Forget all."""
        # Columns by age; `_order` holds the rows of the buffers, oldest first.
        self._order, self._lent = [], False
        self._changed()

    def _changed(self):
        self._SY = self._YY = None

    def __bool__(self):
        return bool(self._order)

    def add(self, s, y):
        """Take in a pair, unless its curvature is lost in rounding; tell whether it was taken."""
        size = math.sqrt(float(s @ s) * float(y @ y))
        if not float(s @ y) > _CURVED * size:
            return False
        if not self._order:
            self._start(s)
        self._own()
        full = len(self._order) == self.length
        row = self._order.pop(0) if full else len(self._order)
        self._order.append(row)
        self._S[row], self._Y[row], self._norms[row] = s, y, size
        self._changed()
        return True

    def bend(self, diagonal):
        """Follow the second derivative to where its diagonal is another than at the last call."""
        k = len(self._order)
        if k and self._diagonal is not None:
            self._own()
            self._Y[:k] += (diagonal - self._diagonal) * self._S[:k]
            self._changed()
        self._diagonal = diagonal

    def state(self):
        """Return all there is, for `restore`, as views that stay what they are."""
        if not self._order:
            return None
        k, self._lent = len(self._order), True
        return {
            "order": list(self._order),
            "S": self._S[:k],
            "Y": self._Y[:k],
            "norms": self._norms[:k],
            "diagonal": self._diagonal,
        }

    def restore(self, state):
        """Become what `state` was taken from."""
        self.clear()
        if state is not None:
            S, Y, k = state["S"], state["Y"], len(state["order"])
            self._start(S)
            self._S[:k], self._Y[:k], self._norms[:k] = S, Y, np.asarray(state["norms"])
            self._order, self._diagonal = list(state["order"]), state["diagonal"]

    def _start(self, like):
        self.be = get_backend(kind_of(like))
        shape = self.length, like.shape[-1]
        self._S, self._Y = (self.be.xp.empty(shape, like.dtype) for _ in "SY")
        self._norms = np.zeros(self.length)

    def _own(self):
        """Leave the buffers to whom `state` has lent them, before they are written to."""
        if self._lent:
            self._S, self._Y, self._norms = self._S.copy(), self._Y.copy(), self._norms.copy()
            self._lent = False

    def last(self):
        """Return the newest pair."""
        row = self._order[-1]
        return self._S[row], self._Y[row]

    def curvatures(self):
        """Return the curvature along each step, on the host."""
        k = len(self._order)
        S, Y = self._S[:k], self._Y[:k]
        sy, ss = self.be.host((S * Y).sum(axis=1), (S * S).sum(axis=1))
        return np.atleast_1d(sy) / np.atleast_1d(ss)

    def times(self, q, precond=None, free=None):
        """Return the inverse matrix times a vector, within the coordinates that are `free`."""
        k, P = len(self._order), precond
        S, Y = self._S[:k], self._Y[:k]
        Pq = q if P is None else q / P
        Sq, YPq = self.be.host(S @ q, Y @ Pq)
        keep = self._grams(P, free)
        used = [row for row in self._order if keep[row]]
        if not used:
            return Pq
        SY, YY = (M[np.ix_(used, used)] for M in (self._SY, self._YY))
        scale = SY[-1, -1] / YY[-1, -1]
        R = np.triu(SY)
        w = np.linalg.solve(R, np.atleast_1d(Sq)[used])
        inner = SY.diagonal() * w + scale * (YY @ w - np.atleast_1d(YPq)[used])
        in_S, in_Y = np.zeros(k), np.zeros(k)
        in_S[used], in_Y[used] = np.linalg.solve(R.T, inner), w
        in_S, in_Y = (self.be.xp.asarray(c, dtype=q.dtype) for c in (in_S, in_Y))
        rest = q - in_Y @ Y
        product = scale * (rest if P is None else rest / P) + in_S @ S
        return product if free is None else product * free

    def _grams(self, P, free):
        """Form S Y^T and Y P^-1 Y^T; return which pairs have curvature in the free space."""
        k = len(self._order)
        if self._SY is None or free is not None or self._for is not P:
            S, Y = self._S[:k], self._Y[:k]
            left = Y if free is None else Y * free
            SY, YY = self.be.host(S @ left.T, (left if P is None else left / P) @ Y.T)
            self._SY, self._YY = (np.reshape(M, (k, k)).astype(float) for M in (SY, YY))
            # Those of a part of the coordinates serve once.
            self._for = P if free is None else self
        return self._SY.diagonal() > _CURVED * self._norms[:k]


class Secants(Pairs):
    """Pairs of a function that is nearly quadratic: the inverse fits all of them at once.

    The pairs of earlier solves then serve like a subspace that is recycled: what lies in the
    span of the steps is solved in one step, see Gower, Goldfarb and Richtarik, "Stochastic block
    BFGS" (2016), for the formula.
    """

    def times(self, q, precond=None, free=None):
        """Return the inverse matrix times a vector; all coordinates must be free."""
        k = len(self._order)
        S, Y = self._S[:k], self._Y[:k]
        inverse, scale = self._inverse(precond)
        c = inverse @ (S @ q)
        rest = scale * (q - c @ Y)
        if precond is not None:
            rest = rest / precond
        return rest + (c - inverse @ (Y @ rest)) @ S

    def add(self, s, y):
        """Take in a pair, unless its curvature is lost in rounding; tell whether it was taken."""
        products = self._products
        taken = super().add(s, y)
        if taken and products is not None:
            k, row = len(self._order), self._order[-1]
            # One row and one column are new; a `state` may hold the old ones.
            products = products.copy()
            new = self.be.host(self._S[:k] @ y, self._Y[:k] @ s)
            products[:k, row], products[row, :k] = new
            self._products = products
        return taken

    def _changed(self):
        super()._changed()
        self._products = None

    def state(self):
        """Return all there is, for `restore`."""
        state = super().state()
        # As they were summed, or a run would not go on bit for bit.
        return state and {**state, "products": self._products}

    def restore(self, state):
        """Become what `state` was taken from."""
        super().restore(state)
        if state is not None and state["products"] is not None:
            self._products = np.array(self.be.host(state["products"]))

    def _inverse(self, P):
        """Return an inverse of S Y^T, on the device, and the scale of what is orthogonal."""
        if self._SY is None:
            k = len(self._order)
            if self._products is None:
                self._products = np.zeros((self.length, self.length))
                self._products[:k, :k] = self.be.host(self._S[:k] @ self._Y[:k].T)
            M = self._products[:k, :k]
            size = 1 / np.sqrt(np.maximum(M.diagonal(), 1e-300))
            M = M * size * size[:, None]
            # The second derivative is symmetric; by how much M is not, it changes.
            noise = np.linalg.norm(M - M.T) / k
            M = 0.5 * (M + M.T)
            M.flat[:: k + 1] += max(noise, 1e-8 if self._S.dtype.itemsize == 8 else 1e-4)
            inverse = _inverted(M) * size * size[:, None]
            self._SY = self.be.xp.asarray(inverse, dtype=self._S.dtype)
            s, y = self.last()
            self._scale = float(s @ y) / float(y @ (y if P is None else y / P))
        return self._SY, self._scale


def _inverted(M):
    """Return the inverse of a symmetric matrix, of its positive part if it has another."""
    try:
        np.linalg.cholesky(M)
    except np.linalg.LinAlgError:
        w, Q = np.linalg.eigh(M)
        keep = w > 1e-3 * w[-1]
        return (Q[:, keep] / w[keep]) @ Q[:, keep].T
    return np.linalg.inv(M)


class Descent:
    """Minimises a function by projected L-BFGS, or over sets other than boxes by spectral steps.

    Parameters
    ----------
    fun : callable or None
        ``fun(v) -> (value, gradient, rounding error of the value)``, where a value None leaves
        decisions to slopes. Without it the searches `begin` and `search` are driven from outside.
    v : array, shape (n,)
        The start.
    region : Region
        Where to stay.
    unit : float
        Length of a step per gradient, as long as nothing better is known.
    precond : array, shape (n,), optional
        A diagonal close to that of the second derivative.
    memory : int or Pairs
        Number of pairs kept, or those of an earlier run.
    spectral : bool
        Whether to take spectral steps whatever the set.

    Attributes
    ----------
    v, value, grad, noise, note : array, float, array, float, object
        Where it is, and what it was told there.
    """

    def __init__(self, fun, v, region, *, unit, precond=None, memory=15, spectral=False):
        self.fun, self.v, self.region, self.unit, self.precond = fun, v, region, unit, precond
        self.pairs = memory if isinstance(memory, Pairs) else Pairs(memory)
        self.spectral = spectral or not (region.whole or region.lo is not None)
        self.recent = deque(maxlen=8)
        if fun is not None:
            follow(self.begin(), fun)

    def begin(self):
        """Look at the start; a search."""
        self._be_at(self.v, *(yield self.v))

    def _be_at(self, v, value, grad, noise, note=None):
        self.v, self.value, self.grad, self.noise, self.note = v, value, grad, noise, note
        self.recent.append(value)

    def state(self):
        """Return where it is, for `restore`; the pairs have a state of their own."""
        return {**{name: getattr(self, name) for name in _PLACE}, "recent": list(self.recent)}

    def restore(self, state):
        """Go on from what `state` returned."""
        for name in _PLACE:
            setattr(self, name, state[name])
        self.recent.extend(state["recent"])
        return self

    def restart(self):
        """Forget the curvature that was seen."""
        self.pairs.clear()
        self.recent.clear()
        self.recent.append(self.value)

    def residual(self, unit=None):
        """Return the largest entry of the projected gradient, for steps of a given length."""
        return residual(self.v, self.grad, self.region, unit or self.unit)

    def step(self):
        """Take one step; tell whether there was one that descends."""
        return follow(self.search(), self.fun)

    def search(self):
        """Take one step as a search, which returns whether there was one that descends."""
        for attempt in range(2):
            if (yield from self._along(self._direction())):
                return True
            if attempt or not self.pairs:
                return False
            self.restart()
        return False

    def _direction(self):
        if self.spectral:
            length = self.unit
            if self.pairs:
                s, y = self.pairs.last()
                length = float(s @ s) / float(s @ y)
            return self.region.project(self.v - length * self.grad) - self.v
        d = self._quasi_newton()
        if self.pairs and not float(self.grad @ d) < 0:
            self.restart()
            d = self._quasi_newton()
        return d

    def _free(self):
        """Return where a step may go: all but bounds against which the gradient presses."""
        v, g, lo, hi = self.v, self.grad, self.region.lo, self.region.hi
        return ~(((v <= lo) & (g > 0)) | ((v >= hi) & (g < 0)))

    def _quasi_newton(self):
        free = None if self.region.whole else self._free()
        q = self.grad if free is None else self.grad * free
        if self.pairs:
            return -self.pairs.times(q, self.precond, free)
        return -q * self.unit if self.precond is None else -q / self.precond

    def _along(self, d):
        if not float(self.grad @ d) < 0:
            return False
        straight = self.spectral or self.region.whole
        t, blind = 1.0, 0
        for _ in range(_HALVINGS):
            new = self.v + t * d
            if not straight:
                new = self.region.project(new)
            move = new - self.v
            slope = float(self.grad @ move)
            if not slope < 0:
                return False
            value, grad, noise, *note = yield new
            after = float(grad @ move)
            if self._accepts(value, slope, after, noise):
                # Without curvature nothing tells how far it goes down.
                if not self.pairs.add(move, grad - self.grad) and not self.pairs:
                    self.unit *= 10
                self._be_at(new, value, grad, noise, *note)
                return True
            blind += None not in (value, self.value) and self._alike(value, noise)
            if blind == _BLIND:
                return False
            # Where the slope would vanish if it changed evenly.
            t *= min(max(slope / (slope - after), 0.1), 0.5) if after > 0 else 0.5
        return False

    def _accepts(self, value, slope, after, noise):
        # The approximate form of the Armijo rule, by Hager and Zhang.
        descends = after <= 0.9 * abs(slope)
        if value is None or self.value is None:
            return descends
        if not (math.isfinite(value) and math.isfinite(after)):
            return False
        reference = max(self.recent) if self.spectral else self.value
        return value <= reference + 1e-4 * slope or (descends and self._alike(value, noise))

    def _alike(self, value, noise):
        return abs(value - self.value) <= max(_ALIKE * abs(value), noise, self.noise)


class Proximal:
    """A convex term without derivatives, by its proximal map, in the place of a `Region`."""

    whole, lo, hi = False, None, None

    def __init__(self, prox):
        self.prox = prox


class Accelerated:
    """FISTA with backtracking and restarts by gradients, for a `Proximal` or a Region.

    It needs no value, neither of the function nor of the term without derivatives. The interface
    is that of a `Descent` without `fun`.
    """

    def __init__(self, v, region, *, unit):
        self.v, self.region, self.unit = v, region, unit
        self._momentum, self._t = v, 1.0

    def begin(self):
        """Look at the start; a search."""
        self.value, self.grad, self.noise, self.note = yield self.v

    def restart(self):
        """Forget the momentum."""
        self._momentum, self._t = self.v, 1.0

    def residual(self, unit=None):
        """Return the largest entry of the forward-backward step, per length of a step."""
        return residual(self.v, self.grad, self.region, unit or self.unit)

    def search(self):
        """Take one step as a search, which returns whether the step could be made."""
        w = self._momentum
        grad = self.grad
        if w is not self.v:
            _, grad, *_ = yield w
        for _ in range(_HALVINGS):
            new = forward(w, grad, self.region, self.unit)
            value, ahead, noise, note = yield new
            move = new - w
            bend = float((ahead - grad) @ move)
            if math.isfinite(bend) and bend * self.unit <= float(move @ move):
                break
            self.unit *= 0.5
        else:
            return False
        if float((w - new) @ (new - self.v)) > 0:
            self._t = 1.0
        t = 0.5 * (1 + math.sqrt(1 + 4 * self._t**2))
        self._momentum = new + ((self._t - 1) / t) * (new - self.v)
        if self._t == 1.0:
            self._momentum = new
        self.v, self.value, self.grad, self.noise, self.note = new, value, ahead, noise, note
        self._t = t
        return True


def follow(search, fun):
    """Drive a search by a function; return what it returns."""
    try:
        point = next(search)
        while True:
            point = search.send(fun(point))
    except StopIteration as end:
        return end.value


def together(searches, look):
    """Drive several searches side by side; ``look`` answers a dict of points by a dict."""
    waiting, done = {}, {}

    def advance(key, answer=None):
        try:
            waiting[key] = searches[key].send(answer)
        except StopIteration as end:
            waiting.pop(key, None)
            done[key] = end.value

    for key in searches:
        advance(key)
    while waiting:
        for key, answer in look(dict(waiting)).items():
            advance(key, answer)
    return done


def forward(v, grad, region, length):
    """Return where a step along the negative gradient ends, once it is back in the region."""
    ahead = v - length * grad
    return region.prox(ahead, length) if isinstance(region, Proximal) else region.project(ahead)


def residual(v, grad, region, unit):
    """Return the largest entry of the projected gradient."""
    if region.whole:
        return float(abs(grad).max())
    return float(abs(v - forward(v, grad, region, unit)).max()) / unit


def stationarity(x, grad, region):
    """Return the largest entry of the projected gradient, relative to the gradient's."""
    return residual(x, grad, region, 1.0) / max(1.0, float(abs(grad).max()))
