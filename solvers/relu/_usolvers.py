"""Linear steps: which blocks U minimise the augmented Lagrangian.

With ``B = I + sigma Z^T Z``, Z being the rows that cones see, and F the map from blocks to
predictions, each solves

    min  <U, B U> / 2 - <R, U> + theta / 2 |F U - target|^2

(`Sylvester` with ``Q_k = sum_i d_ki (u_i - z_i)``, one row for each sample, in place of F). Blocks
meet only through F, whose part of the matrix has rank n:

    w = (I / theta + F B^-1 F^T)^-1 (F B^-1 R - target),    U = B^-1 (R - F^T w)

with ``F B^-1 F^T = 2 K o (D D^T)`` and ``K = X B^-1 X^T``: what has to be solved has one unknown
for each sample, however many gates there are.
"""

import numpy as np

from .._core.linalg import pcg
from .._core.validation import check_memory
from ._problem import times

# Columns of the random sketch behind `Krylov`'s preconditioner.
_RANK = 100
# Entries of the work array of one product with several columns.
_WORK = 1 << 23
# Up to this size an inverse is formed: products with it are several times as fast as small
# triangular solves, on all threads and on a GPU even more so.
_INVERT = 1000


class Step:
    """What all linear steps share: the metric ``B = I + sigma Z^T Z``, in float64.

    Parameters
    ----------
    programme : Programme
    sigma : float
        Penalty of ``G U = S``, in units of rho.
    """

    def __init__(self, programme, sigma):
        xp, Z = programme.xp, programme.rows
        self.programme, self.sigma = programme, sigma
        self.metric = xp.eye(Z.shape[1]) + sigma * (Z.T @ Z).astype(np.float64)
        self.inverse = xp.linalg.inv(self.metric).astype(Z.dtype)

    def start(self, U):
        """Nothing to begin: what is solved does not depend on where one was."""


class Factor:
    """A Cholesky factor of a matrix in float64, and its inverse where that pays."""

    def __init__(self, be, matrix):
        xp, self.be = be.xp, be
        self.L, self.inverse = be.cholesky(matrix), None
        if be.name != "numpy" or len(matrix) <= _INVERT:
            half = be.linalg.solve_triangular(self.L, xp.eye(len(matrix)), lower=True)
            self.inverse = half.T @ half

    def solve(self, rows):
        """Solve for right-hand sides that are rows."""
        if self.inverse is not None:
            return rows @ self.inverse
        solve, L = self.be.linalg.solve_triangular, self.L
        x = solve(L, rows.T, lower=True, check_finite=False)
        x = solve(L, x, lower=True, trans=1, check_finite=False)
        return self.be.xp.ascontiguousarray(x.T)


class Samples(Step):
    """A step through one unknown for each sample; R is overwritten."""

    def __init__(self, programme, sigma):
        super().__init__(programme, sigma)
        self.M = programme.X @ self.inverse

    def solve(self, R, target):
        """Return the minimiser; R (c, 2, P, d), target (c, n)."""
        programme = self.programme
        f = programme.masked_sum(times(R[:, 0] - R[:, 1], self.M.T)) - target
        C = programme.transpose(self.samples(f))
        R[:, 0] -= C
        R[:, 1] += C
        return times(R, self.inverse)


class Woodbury(Samples):
    """By a Cholesky factor of one row for each sample, in float64.

    Parameters
    ----------
    once : bool
        Whether theta is set only once; if so, the matrix gives its place to the factor.
    """

    def __init__(self, programme, sigma, *, once=True):
        be, X, n = programme.be, programme.X, programme.X.shape[0]
        copies = 2 if once else 3
        what = f"The factor of {n} x {n} numbers"
        check_memory(8 * copies * n * n, what, "Use usolver='sylvester' or 'cg'", be=be)
        super().__init__(programme, sigma)
        xp, self.once = programme.xp, once
        X = X.astype(np.float64)
        self.A = (X @ xp.linalg.inv(self.metric)) @ X.T
        # Counts of gates are exact in float32, and the product is twice as fast.
        mask = programme.mask.astype(np.float32)
        self.A *= mask.T @ mask
        self.A *= 2.0

    def weigh(self, theta):
        """Set theta: a new factor, but no new matrix."""
        xp = self.programme.xp
        S = self.A if self.once else self.A.copy()
        S[xp.arange(len(S)), xp.arange(len(S))] += 1.0 / theta
        self.factor = Factor(self.programme.be, S)
        if self.once:
            self.A = None

    def samples(self, f):
        """Return ``(I / theta + 2 K o D D^T)^-1 f``."""
        return self.factor.solve(f.astype(np.float64)).astype(f.dtype)


class Krylov(Samples):
    """By conjugate gradients, preconditioned by a sketch of the matrix and warmly started.

    Each solve leaves at most a tenth of what has changed since the last one, and errors are
    summable: without both, the iteration around it can drift away from the solution.
    """

    def __init__(self, programme, sigma, rng):
        super().__init__(programme, sigma)
        n, be = programme.X.shape[0], programme.be
        rank = min(n, _RANK)
        check_memory(24 * n * rank, "The preconditioner", "Use usolver='sylvester'", be=be)
        self.count, self.w, self.f = 0, None, None
        normal = rng.standard_normal((n, rank))
        self.Q, self.values = sketched(be, self._product, normal, programme.X.dtype)

    def weigh(self, theta):
        """Set theta: the sketch does not depend on it."""
        self.shift = 1.0 / theta
        scale = (self.values[-1] + self.shift) / (self.values + self.shift)
        self.gains = (scale - 1.0)[:, None].astype(self.Q.dtype)

    def samples(self, f):
        """Return ``(I / theta + 2 K o D D^T)^-1 f``, as exactly as the iteration needs."""
        be, xp = self.programme.be, self.programme.xp
        self.count += 1
        before = 0.0 if self.f is None else self.f
        moved, size = be.host(xp.square(f - before).sum(), xp.square(f).sum())
        moved = min(1e-2, 0.1 * (moved / size) ** 0.5) if size > 0 else 1e-2
        solved = pcg(
            lambda w: self._product(w) + self.shift * w,
            xp.ascontiguousarray(f.T),
            be=be,
            x0=self.w,
            precond=lambda r: r + self.Q @ (self.gains * (self.Q.T @ r)),
            tol=max(moved / self.count**1.1, 10 * float(np.finfo(f.dtype).eps)),
        )
        self.f, self.w = f, solved.x
        return xp.ascontiguousarray(solved.x.T)

    def _product(self, W):
        """Return ``2 K o (D D^T) W`` for columns W (n, k), a few of them at a time."""
        programme = self.programme
        n, k = W.shape
        out = programme.xp.empty_like(W)
        width = max(_WORK // (n * len(programme.mask)), 1)
        for first in range(0, k, width):
            some = slice(first, first + width)
            C = programme.transpose(programme.xp.ascontiguousarray(W[:, some].T))
            out[:, some] = 2.0 * programme.masked_sum(C @ self.M.T).T
        return out


def sketched(be, product, normal, dtype):
    """Return Q (n, k) and eigenvalues, falling, of nearly a semi-definite matrix.

    The randomised Nystrom approximation from the products with `normal` (n, k).
    """
    xp = be.xp
    Omega = xp.linalg.qr(xp.asarray(normal))[0]
    Y = product(Omega.astype(dtype)).astype(np.float64)
    # Without the shift, rounding would make the small matrix indefinite.
    shift = 10 * float(np.finfo(dtype).eps) * be.host(xp.linalg.norm(Y))
    Y += shift * Omega
    core = Omega.T @ Y
    L = be.cholesky(0.5 * (core + core.T))
    half = be.linalg.solve_triangular(L, Y.T, lower=True).T
    Q, roots, _ = xp.linalg.svd(half, full_matrices=False)
    return Q.astype(dtype), xp.maximum(roots * roots - shift, 0.0)


class Dense(Step):
    """The paper's: a Cholesky factor of one row for each weight, in float64."""

    def __init__(self, programme, sigma):
        xp, mask, X = programme.xp, programme.mask, programme.X
        size = 2 * len(mask) * X.shape[1]
        what = f"The factor of {size} x {size} numbers"
        check_memory(24 * size**2, what, "Use usolver='woodbury' or 'cg'", be=programme.be)
        super().__init__(programme, sigma)
        side = (mask[:, :, None] * X.astype(np.float64)).swapaxes(0, 1).reshape(len(X), -1)
        self.F = xp.concatenate([side, -side], axis=1)

    def weigh(self, theta):
        """Set theta: a new matrix and a new factor."""
        xp, F = self.programme.xp, self.F
        blocks = F.shape[1] // len(self.metric)
        self.theta = theta
        matrix = xp.kron(xp.eye(blocks), self.metric) + theta * (F.T @ F)
        self.factor = Factor(self.programme.be, matrix)

    def solve(self, R, target):
        """Return the minimiser; R (c, 2, P, d), target (c, n)."""
        right = R.reshape(len(R), -1) + self.theta * (target.astype(np.float64) @ self.F)
        return self.factor.solve(right).reshape(R.shape).astype(R.dtype)


class Sylvester(Step):
    """By eigenvectors of ``X^T X`` and of ``D D^T``: for the copies Q, nothing of size n x n.

    Sums of the two sides of a gate meet the metric alone; differences meet ``D^T D`` as well,
    whose eigenvectors decouple the gates.

    Parameters
    ----------
    tau : float
        Weight of the copies Q, in units of rho.
    extra : float
        Added to the metric's unit matrix, for further copies of U.
    """

    def __init__(self, programme, sigma, tau, *, extra=0.0):
        super().__init__(programme, sigma)
        xp, X, tau = programme.xp, programme.X, float(tau)
        self.tau, self.mask = tau, programme.mask.astype(X.dtype)
        metric = self.metric + extra * xp.eye(len(self.metric))
        self.inverse = xp.linalg.inv(metric).astype(X.dtype)
        values, left = xp.linalg.eigh(metric)
        weights, right = self._gates()
        # What the loss takes off the inverse metric, without cancellation.
        less = 2.0 * tau * weights[:, None]
        less = less / (values * (values + less))
        self.less, self.left, self.right = (a.astype(X.dtype) for a in (less, left, right))

    def _gates(self):
        """Return the eigenvalues of ``D^T D`` above rounding, and eigenvectors as columns."""
        xp, mask = self.programme.xp, self.mask.astype(np.float64)
        P, n = mask.shape
        what = f"The eigenvectors of {min(P, n)} x {min(P, n)} numbers"
        check_memory(24 * min(P, n) ** 2, what, "Use usolver='cg'", be=self.programme.be)
        if n >= P:
            weights, right = xp.linalg.eigh(mask @ mask.T)
            return xp.maximum(weights, 0.0), right
        weights, small = xp.linalg.eigh(mask.T @ mask)
        kept = weights > 1e-12 * weights[-1]
        weights = weights[kept]
        return weights, (mask @ small[:, kept]) / xp.sqrt(weights)

    def solve(self, R, target):
        """Return the minimiser; R (c, 2, P, d), overwritten, and target (c, n, d)."""
        pulled = self.tau * (self.mask @ target)
        R[:, 0] += pulled
        R[:, 1] -= pulled
        U = R @ self.inverse
        coupled = self.right.T @ ((R[:, 0] - R[:, 1]) @ self.left)
        back = 0.5 * (self.right @ (self.less * coupled)) @ self.left.T
        U[:, 0] -= back
        U[:, 1] += back
        return U

    def rows(self, U):
        """Return ``Q = D (U_u - U_z)^T``, shape (c, n, d)."""
        return self.mask.T @ (U[:, 0] - U[:, 1])
