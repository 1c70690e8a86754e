"""Slow, literal versions of published algorithms, to hold the fast ones against."""

import mpmath
import numpy as np


def _log_sum_exp(z, axis):
    top = z.max(axis=axis, keepdims=True)
    return np.log(np.exp(z - top).sum(axis=axis)) + top.squeeze(axis)


def sinkhorn_steps(a, b, C, reg, steps, g=None):
    """Yield the potentials (KL convention, mass one) after each step of log-domain Sinkhorn.

    A step makes the rows exact, then the columns.
    """
    g = np.zeros(len(b)) if g is None else g
    for _ in range(steps):
        f = -reg * _log_sum_exp((g - C) / reg + np.log(b), axis=1)
        g = -reg * _log_sum_exp((f[:, None] - C) / reg + np.log(a)[:, None], axis=0)
        yield f, g


def sinkhorn(a, b, C, reg, steps=20_000):
    """The fixed point of the iteration above, nearly to rounding level."""
    before = np.inf
    for pair in sinkhorn_steps(a, b, C, reg, steps):
        g = pair[1]
        if np.abs(g - before).max() <= 1e-14 * max(1.0, np.abs(g).max()):
            break
        before = g
    return pair


def overrelaxed_sinkhorn(a, b, C, reg, omega, tol, steps=20_000):
    """Over-relaxation of both halves, arXiv:1711.01851: how many steps it takes to an error."""
    phi, psi = np.zeros(len(a)), np.zeros(len(b))
    for step in range(1, steps + 1):
        psi_new = reg * (np.log(b) - _log_sum_exp((phi[:, None] - C) / reg, axis=0))
        psi = psi + (omega if step > 1 else 1.0) * (psi_new - psi)
        phi_new = reg * (np.log(a) - _log_sum_exp((psi - C) / reg, axis=1))
        exact = np.exp((phi_new[:, None] + psi - C) / reg)
        if np.abs(exact.sum(axis=0) - b).sum() <= tol:
            return step
        phi = phi + (omega if step > 1 else 1.0) * (phi_new - phi)
    return np.inf


def value(a, b, C, reg):
    """The entropic transport value (KL form): at the fixed point the dual has no other terms."""
    f, g = sinkhorn(a, b, C, reg)
    return a @ f + b @ g


def sinkhorn_newton_sparse(a, b, C, eta, n_sinkhorn, n_newton, sparsity):
    """Algorithm 3.1 of arXiv:2401.12253: yield its plans, first those of the Sinkhorn stage.

    Variables are the paper's: ``P = exp(eta (x + y - C) - 1)``, and ``f`` is to be maximised.
    The sparse Newton systems are solved directly, where the paper stops conjugate gradients.
    """
    n, m = C.shape

    def plan(x, y):
        with np.errstate(over="ignore"):  # a trial step may go too far
            return np.exp(eta * (x[:, None] + y - C) - 1.0)

    def objective(x, y):
        return a @ x + b @ y - plan(x, y).sum() / eta

    x, y = np.zeros(n), np.zeros(m)
    for _ in range(n_sinkhorn):
        x = x + (np.log(a) - np.log(plan(x, y).sum(axis=1))) / eta
        y = y + (np.log(b) - np.log(plan(x, y).sum(axis=0))) / eta
        yield plan(x, y)
    for _ in range(n_newton):
        P = plan(x, y)
        gradient = np.r_[a - P.sum(axis=1), b - P.sum(axis=0)]
        # Each entry of the plan stands twice in the Hessian; the diagonal keeps its true value.
        keep = min(int(np.ceil(sparsity * (n + m) ** 2 / 2)), n * m)
        smallest = np.sort(P.ravel())[-keep]
        kept = np.where(smallest <= P, P, 0.0)
        hessian = -eta * np.block(
            [[np.diag(P.sum(axis=1)), kept], [kept.T, np.diag(P.sum(axis=0))]]
        )
        # With all entries kept the matrix is singular along (1, -1); the shortest solution it is.
        step = np.linalg.lstsq(hessian, -gradient, rcond=1e-14)[0]
        alpha, slope = 1.0, gradient @ step
        while (
            objective(x + alpha * step[:n], y + alpha * step[n:])
            < objective(x, y) + 1e-4 * alpha * slope
        ):
            alpha /= 2
        x, y = x + alpha * step[:n], y + alpha * step[n:]
        yield plan(x, y)


def potentials_in_50_digits(a, b, C, reg):
    """Newton's method on the optimality system in 50 digits, from the double-precision answer.

    Returns the potentials with ``<a, f> = <b, g>``, the value, and the marginal error.
    """
    f, g = sinkhorn(a, b, C, reg)
    n, m = C.shape
    with mpmath.workdps(50):
        a, b, f, g = (mpmath.matrix(v.tolist()) for v in (a, b, f, g))
        b *= mpmath.fsum(a) / mpmath.fsum(b)
        cost, reg = mpmath.matrix(C.tolist()), mpmath.mpf(reg)
        for _ in range(4):
            P = mpmath.matrix(n, m)
            for i in range(n):
                for j in range(m):
                    P[i, j] = a[i] * b[j] * mpmath.exp((f[i] + g[j] - cost[i, j]) / reg)
            rows = [mpmath.fsum(P[i, :]) for i in range(n)]
            cols = [mpmath.fsum(P[:, j]) for j in range(m)]
            error = mpmath.fsum(abs(x - y) for x, y in zip([*rows, *cols], [*a, *b], strict=True))
            # The last potential stays where it is, which removes the null space.
            system = mpmath.matrix(n + m - 1, n + m - 1)
            for i in range(n):
                system[i, i] = rows[i]
                for j in range(m - 1):
                    system[i, n + j] = system[n + j, i] = P[i, j]
            for j in range(m - 1):
                system[n + j, n + j] = cols[j]
            residual = mpmath.matrix(
                [a[i] - rows[i] for i in range(n)] + [b[j] - cols[j] for j in range(m - 1)]
            )
            step = mpmath.lu_solve(system, residual)
            for i in range(n):
                f[i] += reg * step[i]
            for j in range(m - 1):
                g[j] += reg * step[n + j]
        mass_f = mpmath.fsum(x * y for x, y in zip(a, f, strict=True))
        mass_g = mpmath.fsum(x * y for x, y in zip(b, g, strict=True))
        shift = (mass_f - mass_g) / (2 * mpmath.fsum(a))
        f = np.array([float(x - shift) for x in f])
        g = np.array([float(x + shift) for x in g])
        return f, g, float(mass_f + mass_g), float(error)
