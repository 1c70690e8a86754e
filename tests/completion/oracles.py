"""Independent answers for matrix completion: dense textbook formulas and a slow, sure method.

Nothing here imports the library. A problem is dense: targets T, weights W (0: not observed),
scales D and E of rows and columns in the ridge, its weight `lam`, and the biases' `lam_bias`.
"""

from dataclasses import dataclass

import numpy as np


@dataclass
class Problem:
    """``1/2 sum W (T - X - a - b)^2 + lam |D^1/2 X E^1/2|_* + lam_bias/2 (|a|^2 + |b|^2)``."""

    T: np.ndarray
    W: np.ndarray
    D: np.ndarray
    E: np.ndarray
    lam: float
    lam_bias: float | None = None

    def scaled(self, X, power=0.5):
        """``D^power X E^power``, 0 where a scale is 0 and the power negative."""
        d, e = (np.where(x > 0, np.where(x > 0, x, 1.0) ** power, 0.0) for x in (self.D, self.E))
        return d[:, None] * X * e

    def errors(self, X, a=0.0, b=0.0):
        a, b = np.reshape(a, (-1, 1)), np.asarray(b)
        return np.where(self.W > 0, self.T - X - a - b, 0.0)

    def primal(self, X, a=0.0, b=0.0):
        """The objective of a matrix of any rank."""
        G = self.errors(X, a, b)
        biases = 0.5 * (self.lam_bias or 0.0) * (np.sum(np.square(a)) + np.sum(np.square(b)))
        nuclear = np.linalg.norm(self.scaled(X), "nuc")
        return 0.5 * np.sum(self.W * G * G) + self.lam * nuclear + biases

    def dual(self, Y):
        """What any Y proves, once it is scaled down to be feasible."""
        Y = np.where(self.W > 0, Y, 0.0)
        norm = np.linalg.norm(self.scaled(Y, -0.5), 2)
        Y = Y * min(1.0, self.lam / norm) if norm > 0 else Y
        value = np.sum(Y * self.T) - 0.5 * np.sum(Y * Y / np.where(self.W > 0, self.W, 1.0))
        if self.lam_bias is not None:
            sums = np.sum(Y.sum(axis=0) ** 2) + np.sum(Y.sum(axis=1) ** 2)
            value -= sums / (2 * self.lam_bias)
        return value

    def best_dual(self, Y):
        """The same for the best multiple of Y, by brute force."""
        return max(self.dual(c * Y) for c in np.r_[np.linspace(0, 2, 301), 1e3])

    def gradient(self, X, a=0.0, b=0.0):
        """Norm of the gradient along matrices of the rank of X, by a dense projection.

        Measured, as the ridge is, in D^1/2 X E^1/2, and relative to the slope at zero.
        """
        pull = self.W * self.errors(X, a, b)
        U, s, Vt = np.linalg.svd(self.scaled(X), full_matrices=False)
        live = s > 1e-9 * s[0]
        U, Vt = U[:, live], Vt[live]
        slope = self.lam * U @ Vt - self.scaled(pull, -0.5)
        off = [np.eye(len(F)) - F @ F.T for F in (U, Vt.T)]
        square = np.linalg.norm(slope - off[0] @ slope @ off[1]) ** 2
        if self.lam_bias is not None:
            m, n = X.shape
            square += np.sum((pull.sum(axis=1) - self.lam_bias * a) ** 2) / n
            square += np.sum((pull.sum(axis=0) - self.lam_bias * b) ** 2) / m
        return np.sqrt(square) / np.linalg.norm(self.scaled(self.W * self.T, -0.5))

    def kkt(self, A, B):
        """How far a diagonal Newton step, cut off at zero, moves balanced non-negative factors."""
        sizes = [np.sqrt(s @ F**2) for s, F in ((self.D, A), (self.E, B))]
        A, B = A * np.sqrt(sizes[1] / sizes[0]), B * np.sqrt(sizes[0] / sizes[1])
        pull = self.W * self.errors(A @ B.T)
        moves = []
        for F, G, pull_at, W, scale in (
            (A, B, pull, self.W, self.D),
            (B, A, pull.T, self.W.T, self.E),
        ):
            ridge = self.lam * scale[:, None]
            step = (ridge * F - pull_at @ G) / (W @ G**2 + ridge)
            moves.append(F - np.maximum(F - step, 0.0))
        return np.linalg.norm(np.vstack(moves)) / np.linalg.norm(np.vstack([A, B]))

    def optimum(self, steps=5000):
        """X, a and b of the convex problem, by accelerated proximal gradient with restart."""
        m, n = self.T.shape
        biased = self.lam_bias is not None
        Z, a, b = np.zeros((m, n)), np.zeros(m), np.zeros(n)
        # Curvature of the smooth part in Z = D^1/2 X E^1/2 and the biases.
        L = (self.W * self.scaled(np.ones((m, n)), -1.0)).max()
        if biased:
            L += self.W.sum(axis=0).max() + self.W.sum(axis=1).max() + self.lam_bias
        x, y, t, last = (Z, a, b), (Z, a, b), 1.0, np.inf
        for _ in range(steps):
            pull = self.W * self.errors(self.scaled(y[0], -0.5), y[1], y[2])
            U, s, Vt = np.linalg.svd(y[0] + self.scaled(pull, -0.5) / L, full_matrices=False)
            new = [(U * np.maximum(s - self.lam / L, 0.0)) @ Vt, a, b]
            if biased:
                new[1] = y[1] + (pull.sum(axis=1) - self.lam_bias * y[1]) / L
                new[2] = y[2] + (pull.sum(axis=0) - self.lam_bias * y[2]) / L
            value = self.primal(self.scaled(new[0], -0.5), new[1], new[2])
            if value > last:
                y, t, last = x, 1.0, np.inf
                continue
            moved = max(np.abs(p - q).max() for p, q in zip(new, x, strict=True))
            ahead = (1 + np.sqrt(1 + 4 * t * t)) / 2
            y = [p + (t - 1) / ahead * (p - q) for p, q in zip(new, x, strict=True)]
            x, t, last = new, ahead, value
            if moved <= 1e-14:
                break
        return self.scaled(x[0], -0.5), x[1], x[2]


def factors(X, tol=1e-7):
    """U, s and V of a matrix, less what is zero but for rounding."""
    U, s, Vt = np.linalg.svd(X, full_matrices=False)
    k = max(int((s > tol * s[0]).sum()), 1)
    return U[:, :k], s[:k], Vt[:k].T


def ridge_als(problem, k, rng, sweeps=3000):
    """Factors of a stationary point for this rank, by plain alternating least squares."""
    m, n = problem.T.shape
    A, B = rng.normal(size=(m, k)), rng.normal(size=(n, k))
    for _ in range(sweeps):
        before = A @ B.T
        for i in range(m):
            gram = (B.T * problem.W[i]) @ B + problem.lam * problem.D[i] * np.eye(k)
            A[i] = np.linalg.lstsq(gram, B.T @ (problem.W[i] * problem.T[i]), rcond=None)[0]
        for j in range(n):
            gram = (A.T * problem.W[:, j]) @ A + problem.lam * problem.E[j] * np.eye(k)
            B[j] = np.linalg.lstsq(gram, A.T @ (problem.W[:, j] * problem.T[:, j]), rcond=None)[0]
        if np.abs(A @ B.T - before).max() <= 1e-14 * np.abs(before).max():
            break
    return A, B


def influence(r, loss, delta):
    """The derivative of a loss, by central differences of its value."""
    value = {
        "huber": lambda r: np.where(
            abs(r) <= delta, r * r / 2, delta * abs(r) - delta * delta / 2
        ),
        "l1": lambda r: np.sqrt(r * r + delta * delta),
        "welsch": lambda r: delta**2 / 2 * (1 - np.exp(-((r / delta) ** 2))),
        "tukey": lambda r: delta**2 / 6 * (1 - np.maximum(1 - (r / delta) ** 2, 0.0) ** 3),
    }[loss]
    h = 1e-6 * delta
    return (value(r + h) - value(r - h)) / (2 * h)


def nonnegative_als(problem, k, rng, sweeps=2000):
    """Non-negative factors of a stationary point, by SciPy's non-negative least squares."""
    from scipy.optimize import nnls

    m, n = problem.T.shape
    A, B = rng.random((m, k)), rng.random((n, k))
    for _ in range(sweeps):
        before = A @ B.T
        for F, G, W, T, scale in (
            (A, B, problem.W, problem.T, problem.D),
            (B, A, problem.W.T, problem.T.T, problem.E),
        ):
            for i in range(F.shape[0]):
                rows = np.sqrt(W[i])[:, None] * G, np.sqrt(problem.lam * scale[i]) * np.eye(k)
                F[i] = nnls(np.vstack(rows), np.r_[np.sqrt(W[i]) * T[i], np.zeros(k)])[0]
        if np.abs(A @ B.T - before).max() <= 1e-13 * np.abs(before).max():
            break
    return A, B
