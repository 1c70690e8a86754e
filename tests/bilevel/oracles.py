"""Bilevel problems with known answers, by NumPy and SciPy alone.

Each has `upper` and `lower`, callables ``(x, y) -> (value, grad_x, grad_y)``, `x0` and `y0`, and
most have `psi`, ``x -> (psi(x), its gradient)``, and `best_response`, the optimistic solution of
the lower level.
"""

import itertools

import numpy as np
from scipy.optimize import minimize

from solvers import bilevel


class Quadratic:
    """``g = y'Ay/2 - y'(Bx + c)``, ``f = (y - t)'F(y - t)/2 + h|x|^2/2``, also with A singular.

    Attributes
    ----------
    x, y, value : array, array, float
        The solution and its upper value.
    N : array
        Basis of A's kernel.
    """

    def __init__(self, seed=0, d=4, p=7, kappa=30.0, rank=None, h=0.3, dtype=float):
        rng = np.random.default_rng(seed)
        Q, _ = np.linalg.qr(rng.standard_normal((p, p)))
        w = np.geomspace(1.5, 1.5 / kappa, p)
        w[p if rank is None else rank :] = 0.0
        inverse = np.where(w > 0, 1 / np.where(w > 0, w, 1.0), 0.0)
        self.A, self.pinv, self.N = (Q * w) @ Q.T, (Q * inverse) @ Q.T, Q[:, w == 0]
        self.B = self.A @ rng.standard_normal((p, d))
        self.c = self.A @ rng.standard_normal(p)
        M = rng.standard_normal((p, p)) / np.sqrt(p)
        self.F, self.t, self.h = M @ M.T + 0.2 * np.eye(p), rng.standard_normal(p), h
        self.x0, self.y0 = np.zeros(d, dtype), np.zeros(p, dtype)
        # psi is quadratic: the upper value of y = pinv (Bx + c) + N s, minimised over x and s.
        J, base = np.c_[self.pinv @ self.B, self.N], self.pinv @ self.c
        H = J.T @ self.F @ J
        H[:d, :d] += h * np.eye(d)
        s = np.linalg.solve(H, J.T @ self.F @ (self.t - base))
        self.x, self.y = s[:d], base + J @ s
        self.value = self.psi(self.x)[0]
        self.data = {name: getattr(self, name).astype(dtype) for name in "ABFct"}

    def lower(self, x, y):
        A, B, c = self.data["A"], self.data["B"], self.data["c"]
        push = B @ x + c
        return 0.5 * y @ A @ y - y @ push, -B.T @ y, A @ y - push

    def upper(self, x, y):
        e = self.data["F"] @ (y - self.data["t"])
        return 0.5 * (y - self.data["t"]) @ e + 0.5 * self.h * x @ x, self.h * x, e

    def oracle(self):
        """Return the lower level with its second derivatives."""
        A, B = self.data["A"], self.data["B"]
        return bilevel.Oracle(
            value_and_grads=self.lower,
            hvp_yy=lambda x, y, v: A @ v,
            hvp_xy=lambda x, y, v: -B.T @ v,
        )

    def best_response(self, x):
        y = self.pinv @ (self.B @ x + self.c)
        F, N = self.F, self.N
        return y + N @ np.linalg.solve(N.T @ F @ N, N.T @ F @ (self.t - y))

    def psi(self, x):
        y = self.best_response(x)
        e = self.F @ (y - self.t)
        value = 0.5 * (y - self.t) @ e + 0.5 * self.h * x @ x
        return value, self.h * x + self.B.T @ (self.pinv @ e)

    def minimiser(self, x, sigma):
        """Return the minimiser of ``sigma f + g``; of a singular A, only for sigma > 0."""
        push = self.B @ x + self.c
        if sigma == 0:
            return self.pinv @ push
        return np.linalg.solve(self.A + sigma * self.F, push + sigma * self.F @ self.t)

    def psi_sigma(self, x, sigma):
        """Return the value and the gradient of psi_sigma."""
        y, z = self.minimiser(x, sigma), self.minimiser(x, 0)
        A, push, t = self.A, self.B @ x + self.c, self.t
        gap = 0.5 * (y - z) @ A @ (y + z) - (y - z) @ push
        value = 0.5 * (y - t) @ self.F @ (y - t) + 0.5 * self.h * x @ x + gap / sigma
        return value, self.h * x - self.B.T @ (y - z) / sigma


class Ridge:
    """One penalty ``exp(x_j)`` per feature; the upper level is the error on other samples."""

    def __init__(self, seed=0, n=60, m=45, p=7):
        rng = np.random.default_rng(seed)
        w = rng.standard_normal(p) * (np.arange(p) % 2)
        self.X, self.V = rng.standard_normal((n, p)), rng.standard_normal((m, p))
        self.X[:, 1:] += 0.5 * self.X[:, :-1]
        self.V[:, 1:] += 0.5 * self.V[:, :-1]
        self.t = self.X @ w + 1.5 * rng.standard_normal(n)
        self.tv = self.V @ w + 1.5 * rng.standard_normal(m)
        self.n, self.m, self.p = n, m, p
        self.x0, self.y0 = np.full(p, -1.0), np.zeros(p)

    def lower(self, x, y, idx=slice(None)):
        X, t, e = self.X[idx], self.t[idx], np.exp(x)
        r = X @ y - t
        value = 0.5 * r @ r / len(t) + 0.5 * (e * y * y).sum()
        return value, 0.5 * e * y * y, X.T @ r / len(t) + e * y

    def upper(self, x, y, idx=slice(None)):
        V, t = self.V[idx], self.tv[idx]
        r = V @ y - t
        return 0.5 * r @ r / len(t), np.zeros_like(x), V.T @ r / len(t)

    def oracle(self, **options):
        """Return the lower level with its second derivatives."""
        return bilevel.Oracle(
            value_and_grads=self.lower,
            hvp_yy=lambda x, y, v, *idx: self.X.T @ (self.X @ v) / self.n + np.exp(x) * v,
            hvp_xy=lambda x, y, v, *idx: np.exp(x) * y * v,
            precond_y=lambda x, *idx: (self.X**2).mean(0) + np.exp(x),
            **options,
        )

    def hessian(self, x):
        return self.X.T @ self.X / self.n + np.diag(np.exp(x))

    def best_response(self, x):
        return np.linalg.solve(self.hessian(x), self.X.T @ self.t / self.n)

    def psi(self, x):
        y = self.best_response(x)
        r = self.V @ y - self.tv
        q = np.linalg.solve(self.hessian(x), self.V.T @ r / self.m)
        return 0.5 * r @ r / self.m, -np.exp(x) * y * q

    def best(self, lo, hi, start=None):
        """Return a local solution on a box, by SciPy on the closed form."""
        start = self.x0 if start is None else start
        options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 2000, "maxfun": 9999}
        return minimize(
            self.psi, start, jac=True, method="L-BFGS-B", bounds=[(lo, hi)] * self.p,
            options=options,
        )  # fmt: skip


def ridge_by_folds(X, t, x, folds):
    """Return the mean error on each fold of a ridge fit to the rest, per-feature weights.

    The lower objective is the mean over the samples kept. ``folds=len(t)`` leaves one out.
    """
    errors = []
    for held in np.array_split(np.arange(len(t)), folds):
        kept = np.setdiff1d(np.arange(len(t)), held)
        A = X[kept].T @ X[kept] / len(kept) + np.diag(np.exp(x))
        y = np.linalg.solve(A, X[kept].T @ t[kept] / len(kept))
        errors.append(0.5 * np.mean((X[held] @ y - t[held]) ** 2))
    return float(np.mean(errors))


class LLC:
    """The equality toy of LV-HBA: x = -0.3, y1 = 0.7, y2 = -0.4, f = 0.05 n, multiplier -1."""

    def __init__(self, n=12):
        self.n, self.x0, self.y0 = n, np.full(n, 2.0), np.full(2 * n, 2.0)
        self.Ax, self.Ay, self.b = np.ones((1, n)), np.ones((1, 2 * n)), np.zeros(1)
        self.x, self.y = np.full(n, -0.3), np.r_[np.full(n, 0.7), np.full(n, -0.4)]
        self.value, self.multiplier = 0.05 * n, -1.0

    def lower(self, x, y):
        u, v = y[: self.n], y[self.n :]
        return 0.5 * u @ u - x @ u + v.sum(), -u, np.r_[u - x, np.ones(self.n)]

    def upper(self, x, y):
        u, v = y[: self.n] - 1, y[self.n :] - x
        return 0.5 * v @ v + 0.5 * u @ u, -v, np.r_[u, v]


class WeightedSvm:
    """An L2 support vector machine with one cost ``exp(c_i)`` per sample, in both of its forms.

    Lower level: ``|w|^2/2 + sum exp(c_i) xi_i^2/2`` with ``1 - xi_i - t_i w.a_i <= 0``, over
    ``y = (w, xi)``; without slacks it is a smooth function of w alone.
    """

    def __init__(self, seed=0, n=20, p=3):
        rng = np.random.default_rng(seed)
        self.a = np.c_[rng.standard_normal((n, p - 1)), np.ones(n)]
        self.t = np.sign(self.a[:, 0] + 0.7 * rng.standard_normal(n))
        self.M, self.n, self.p = self.t[:, None] * self.a, n, p
        # Rows of  Ax c + Ay (w, xi) - b <= 0.
        self.Ax, self.Ay, self.b = np.zeros((n, n)), np.c_[-self.M, -np.eye(n)], -np.ones(n)

    def lower(self, c, y):
        w, xi, e = y[: self.p], y[self.p :], np.exp(c)
        return 0.5 * w @ w + 0.5 * e @ xi**2, 0.5 * e * xi**2, np.r_[w, e * xi]

    def slackless(self, c, w):
        xi, e = np.maximum(0.0, 1 - self.M @ w), np.exp(c)
        return 0.5 * w @ w + 0.5 * e @ xi**2, 0.5 * e * xi**2, w - self.M.T @ (e * xi)

    def best_response(self, c):
        """Return (w, xi): Newton's method on the form without slacks."""
        w, e = np.zeros(self.p), np.exp(c)
        for _ in range(100):
            active = 1 - self.M @ w > 0
            K = self.M[active]
            new = np.linalg.solve(np.eye(self.p) + K.T @ (e[active, None] * K), K.T @ e[active])
            if np.abs(new - w).max() < 1e-13:
                break
            t = 1.0
            while self.slackless(c, w + t * (new - w))[0] > self.slackless(c, w)[0]:
                t /= 2
            w = w + t * (new - w)
        return np.r_[w, np.maximum(0.0, 1 - self.M @ w)]


class CoupledQP:
    """``g = y'Ay/2 - y'(Bx + c)`` with ``Ax x + Ay y <= b``; f is a convex quadratic of (x, y).

    Its global solution is found by trying every part of the rows as active: `enumerated`.
    """

    def __init__(self, seed=0, d=2, p=3, rows=3):
        rng = np.random.default_rng(seed)
        M = rng.standard_normal((p, p))
        self.A, self.B = M @ M.T / p + 0.5 * np.eye(p), rng.standard_normal((p, d))
        self.c = rng.standard_normal(p)
        self.Ax, self.Ay = 0.5 * rng.standard_normal((rows, d)), rng.standard_normal((rows, p))
        self.b = 0.3 * rng.random(rows)
        K = rng.standard_normal((d + p, d + p)) / np.sqrt(d + p)
        self.K, self.k = K @ K.T + 0.3 * np.eye(d + p), rng.standard_normal(d + p)
        self.x0, self.y0 = np.zeros(d), np.zeros(p)
        self.d, self.p, self.rows = d, p, rows

    def lower(self, x, y):
        push = self.B @ x + self.c
        return 0.5 * y @ self.A @ y - y @ push, -self.B.T @ y, self.A @ y - push

    def upper(self, x, y):
        v = np.r_[x, y] - self.k
        grad = self.K @ v
        return 0.5 * v @ grad, grad[: self.d], grad[self.d :]

    def best_response(self, x):
        """Return y and its multipliers: the only active set that fits."""
        room, push = self.b - self.Ax @ x, self.B @ x + self.c
        for active in _subsets(self.rows):
            J = self.Ay[active]
            k = len(active)
            system = np.block([[self.A, J.T], [J, np.zeros((k, k))]])
            v = np.linalg.lstsq(system, np.r_[push, room[active]], rcond=None)[0]
            y, w = v[: self.p], np.zeros(self.rows)
            w[active] = v[self.p :]
            solved = np.abs(system @ v - np.r_[push, room[active]]).max(initial=0) < 1e-9
            if solved and (w >= -1e-9).all() and (self.Ay @ y <= room + 1e-9).all():
                return y, w
        return None

    def enumerated(self):
        """Return (f, x, y, w) at the global solution.

        Each row is either inactive (w = 0), active, or both; on each of these faces the lower
        level's conditions are linear equations, and the upper level a quadratic.
        """
        d, p, rows = self.d, self.p, self.rows
        n = d + p + rows
        H, q = np.zeros((n, n)), np.zeros(n)
        H[: d + p, : d + p], q[: d + p] = self.K, self.K @ self.k
        stationary = np.c_[-self.B, self.A, self.Ay.T]
        tight, zero = np.c_[self.Ax, self.Ay, np.zeros((rows, rows))], np.eye(n)[d + p :]
        best = (np.inf, None, None, None)
        for kinds in map(np.array, itertools.product((0, 1, 2), repeat=rows)):
            E = np.r_[stationary, tight[kinds > 0], zero[kinds != 1]]
            e = np.r_[self.c, self.b[kinds > 0], np.zeros((kinds != 1).sum())]
            k = len(e)
            system = np.block([[H, E.T], [E, np.zeros((k, k))]])
            v = np.linalg.lstsq(system, np.r_[q, e], rcond=None)[0][:n]
            x, y, w = v[:d], v[d : d + p], v[d + p :]
            fits = np.abs(E @ v - e).max() < 1e-8 and (w >= -1e-8).all()
            if fits and (self.Ax @ x + self.Ay @ y <= self.b + 1e-8).all():
                best = min(best, (self.upper(x, y)[0], x, y, w), key=lambda found: found[0])
        return best


def _subsets(rows):
    for k in range(rows + 1):
        for active in itertools.combinations(range(rows), k):
            yield list(active)


def differences(fun, x, step=1e-5):
    """Return the gradient of a function of an array by central differences."""
    x = np.asarray(x, float)
    grad = np.empty(x.size)
    for k in range(x.size):
        e = np.zeros(x.size)
        e[k] = step
        e = e.reshape(x.shape)
        grad[k] = (fun(x + e) - fun(x - e)) / (2 * step)
    return grad.reshape(x.shape)


class Waves:
    """Levels with many stationary points, of which a Newton method from anywhere finds some.

    The lower level is ``sum cos(Wy + b) + a |y - Mx|^2 / 2``, or with `flat` a smooth function of
    ``Uy - sin(Mx)`` for fewer rows than entries of y, where the cosines go to the upper level.
    """

    def __init__(self, seed, flat=False):
        rng = np.random.default_rng(seed)
        self.p = int(rng.integers(2, 7))
        self.r = int(rng.integers(1, self.p)) if flat else self.p
        Q, _ = np.linalg.qr(rng.standard_normal((self.p, self.p)))
        self.U, self.N, self.flat = Q[:, : self.r].T, Q[:, self.r :], flat
        self.W, self.b = rng.standard_normal((2 * self.p, self.p)), rng.standard_normal(2 * self.p)
        self.M, self.a = 0.5 * rng.standard_normal((self.r, 2)), rng.uniform(0.1, 2.0)
        self.x, self.start = rng.standard_normal(2), 3 * rng.standard_normal(self.p)
        self.t = rng.standard_normal(self.p)

    def _waves(self, y, curvature):
        u = self.W @ y + self.b
        value = np.cos(u).sum() + 0.5 * curvature * y @ y
        H = -(self.W.T * np.cos(u)) @ self.W + curvature * np.eye(self.p)
        return value, -self.W.T @ np.sin(u) + curvature * y, H

    def lower(self, x, y):
        if self.flat:
            e = self.U @ y - np.sin(self.M @ x)
            s = np.tanh(e)
            return np.log(np.cosh(e)).sum(), -(s * np.cos(self.M @ x)) @ self.M, self.U.T @ s
        value, grad, _ = self._waves(y, 0.0)
        e = y - self.M @ x
        return value + 0.5 * self.a * e @ e, -self.a * self.M.T @ e, grad + self.a * e

    def stationary(self):
        """Return y, stationary at `self.x` as an optimistic answer, the slope of psi that f_y
        alone causes, and whether y is a minimum; None if Newton's method found nothing.
        """
        x = self.x
        base = self.U.T @ np.sin(self.M @ x) if self.flat else np.zeros(self.p)
        basis = self.N if self.flat else np.eye(self.p)
        curvature = 0.3 if self.flat else self.a
        y = base + basis @ (basis.T @ self.start)
        for _ in range(60):
            _, grad, H = self._waves(y, curvature)
            grad = grad if self.flat else self.lower(x, y)[2]
            step = np.linalg.solve(basis.T @ H @ basis, basis.T @ grad)
            y = y - basis @ (step / max(1.0, np.linalg.norm(step)))
        if np.linalg.norm(step) > 1e-10:
            return None
        _, grad, H = self._waves(y, curvature)
        minimum = np.linalg.eigvalsh(basis.T @ H @ basis)[0] > 0
        if self.flat:
            return y, (self.U.T @ (np.cos(self.M @ x)[:, None] * self.M)).T @ grad, minimum
        return y, self.a * self.M.T @ np.linalg.solve(H, y - self.t), minimum

    def upper_with(self, slope):
        """Return an upper level whose psi has gradient 0 at `self.x` if f_y causes `-slope`."""

        def upper(x, y):
            e = x - self.x
            if self.flat:
                value, grad, _ = self._waves(y, 0.3)
            else:
                value, grad = 0.5 * (y - self.t) @ (y - self.t), y - self.t
            return value + slope @ x + 0.5 * e @ e, slope + e, grad

        return upper
