"""Balancing a stored kernel: Sinkhorn sweeps where far off, Newton steps where near.

The unknown is ``log v``, the logarithms of the column factors; rows are exact at every step. The
dual is then concave in it, with gradient ``b - c`` and negated Hessian
``S = diag(c) - P^T diag(1/a) P``, the Laplacian of a weighted graph.
"""

import numpy as np

from .._core.linalg import pcg

# The mismatch max |log(b / c)| up to which Newton steps are trusted.
GATE = 1.0
# Columns lighter than this fraction of their share of the error do not decide anything.
LIGHT = 1e-3
# Log-factors may spread this far before the stored kernel must be renewed.
REACH = 40.0
# A step moves them at most this far apart.
LONGEST_STEP = 20.0
# Beyond this many columns a dense factorisation is out of the question.
MOST_COLUMNS = 6000


class NewtonSteps:
    """Balances kernels, and remembers between them how far steps could be trusted.

    Parameters
    ----------
    be : Backend
    b : array
        Weights of the columns.
    run : Monitor
        Asked whether time is up.
    precond : {"auto", "jacobi", "cholesky"}
    tol : float or None
        Relative residual of the linear solves; None tightens it with the error.
    maxiter : int or None
        Most iterations of a linear solve; None stops where a factorisation is cheaper.
    sweeps : int
        Sinkhorn sweeps in a block.
    """

    def __init__(self, be, b, run, *, precond, tol, maxiter, sweeps):
        self._be, self._b, self._run = be, b, run
        self._precond, self._tol, self._maxiter = precond, tol, maxiter
        self._sweeps = sweeps
        self._damping = 1e-2
        self._factor = None
        self.counts = {"nsinkhorn": 0, "nnewton": 0, "ncg": 0, "nfactor": 0}

    def balance(self, kernel, gap, tol, patience):
        """Scale the columns of a kernel until their sums are right.

        Parameters
        ----------
        kernel : DenseKernel, SparseKernel or CostKernel
            Made with the column weights as factors.
        gap : array
            What the sums lack, as the pass found it; what rounding and sparsification have
            changed is made up for.
        tol : float
            Largest error, in the L1 norm.
        patience : int
            Most Newton steps and blocks of sweeps.

        Returns
        -------
        array
            Logarithms of the factors, relative to `b`.
        float
            The error reached.
        """
        xp, host, b = self._be.xp, self._be.host, self._b
        self._factor = None
        rho, w = kernel.sweep(b)
        target = xp.maximum(b * w + gap, 0.5 * b)
        state, weak = (xp.zeros_like(b), b, rho, b * w), 0
        for move in range(patience + 1):
            log_v, _, _, c = state
            gap = target - c
            mismatch = xp.log(target / xp.maximum(c, 1e-300))
            error = xp.abs(gap).sum()
            heavy = target + c >= LIGHT / b.size * error
            # Not by mismatch[heavy], for whose size a GPU would have to be asked.
            error, worst, low, high = host(
                error,
                xp.abs(xp.where(heavy, mismatch, 0.0)).max(),
                xp.where(heavy, log_v, np.inf).min(),
                xp.where(heavy, log_v, -np.inf).max(),
            )
            done = error <= tol or high - low > REACH or move == patience
            if done or not np.isfinite(error) or self._run.late:
                break
            if worst > GATE or weak == 2:
                state, weak = self._sinkhorn_block(kernel, target, state, heavy), 0
            else:
                light = xp.where(heavy, 0.0, mismatch)
                state, step = self._newton_step(kernel, target, state, light, error)
                weak = weak + 1 if step < 0.3 else 0
        return log_v, error

    def refine(self, kernel, log_v, gap, reduction):
        """Return one Newton step for exactly known gaps, meant to reduce them by that much."""
        tol = self._tol or min(max(reduction, 1e-4), 0.1)
        x = self.solve(kernel, log_v, gap, 1e-11, tol)
        return x / max(1.0, self._be.host(self._be.xp.abs(x).max()))

    def solve(self, kernel, log_v, gap, shift, tol):
        """Return ``x`` with ``(S + shift diag(c)) x = gap``, up to a constant.

        `S` belongs to the plan with these column factors; a factorisation is kept for the next
        call.
        """
        v = self._b * self._be.xp.exp(log_v)
        rho, w = kernel.sweep(v)
        kernel.fix(v, rho)
        return self._direction(kernel, v * w, gap, shift, tol)

    def _sinkhorn_block(self, kernel, target, state, heavy):
        xp, b = self._be.xp, self._b
        log_v, _, _, c = state
        for _ in range(self._sweeps):
            # Columns of no weight may ask for any factor; the others stay far from the bounds.
            log_v = xp.clip(log_v + xp.log(target / xp.maximum(c, 1e-300)), -60.0, 60.0)
            v = b * xp.exp(log_v)
            rho, w = kernel.sweep(v)
            c = v * w
            self.counts["nsinkhorn"] += 1
            worst = xp.where(heavy, xp.abs(xp.log(target / xp.maximum(c, 1e-300))), 0.0).max()
            if self._be.host(worst) < 0.5 * GATE:
                break
        return log_v, v, rho, c

    def _newton_step(self, kernel, target, state, mismatch, error):
        """Make one damped Newton step; `mismatch` is 0 but for columns of no weight."""
        xp, host, b = self._be.xp, self._be.host, self._b
        log_v, v, rho, c = state
        kernel.fix(v, rho)
        # Columns of no weight whose sums are far off follow Sinkhorn instead.
        aside = xp.abs(mismatch) > GATE
        gap = xp.where(aside, 0.0, target - c)
        shift = min(max(self._damping * error, 1e-11), 0.3)
        tol = self._tol or max(0.1 * min(1.0, error / 1e-2) ** 0.5, 1e-2)
        x = self._direction(kernel, c, gap, shift, tol)
        x = xp.where(aside, xp.clip(mismatch, -LONGEST_STEP, LONGEST_STEP), x)
        spread, slope = host(xp.ptp(xp.where(aside, 0.0, x)), gap @ x)
        step = min(1.0, LONGEST_STEP / max(spread, 1e-30))
        self.counts["nnewton"] += 1
        for _ in range(10):
            new = log_v + step * x
            v = b * xp.exp(new)
            rho, w = kernel.sweep(v)
            # The slope of the concave dual, not its value: near the solution its gain drops
            # below rounding long before the error does.
            end = host(xp.where(aside, 0.0, target - v * w) @ x)
            if end >= -0.5 * slope:
                self._trust(step)
                return (new, v, rho, v * w), step
            shrink = slope / (slope - end) if np.isfinite(end) else 0.0
            step *= min(max(shrink, 0.1), 0.7)
        self._damping = min(10 * self._damping, 1e3)
        return state, 0.0

    def _trust(self, step):
        if step == 1.0:
            self._damping = max(self._damping / 4, 1e-6)
        else:
            self._damping = min(self._damping * (4 if step > 0.2 else 30), 1e3)

    def _direction(self, kernel, c, gap, shift, tol):
        """Solve ``(S + shift diag(c)) x = gap`` by conjugate gradients."""
        xp = self._be.xp
        total = c.sum()
        gap = gap - c * (gap.sum() / total)
        damping = shift * c
        jacobi = kernel.diagonal(c) + damping

        def solve(precond, tol, maxiter):
            result = pcg(
                lambda x: kernel.laplacian(x) + damping * x,
                gap,
                be=self._be,
                precond=precond,
                # Weighted by c, because then the shift keeps the subspace too.
                project=lambda z: z - (c @ z) / total,
                norm=lambda r: xp.abs(r).sum(),
                tol=tol,
                maxiter=maxiter,
            )
            self.counts["ncg"] += result.iterations
            return result

        def by_jacobi(r):
            return r / jacobi

        factorise = self._precond == "cholesky" or (
            self._precond == "auto" and c.size <= MOST_COLUMNS
        )
        most = self._maxiter or (min(max(c.size // 5, 100), 600) if factorise else 2000)
        if self._factor is not None:
            result = solve(self._factor, tol, min(15, most))
            if result.flag == "converged":
                return result.x
            self._factor = None
        if self._precond != "cholesky":
            result = solve(by_jacobi, tol, most)
            if result.flag == "converged" or not factorise:
                return result.x
        self._factor = self._factorised(kernel, c, damping)
        if self._factor is None:
            return solve(by_jacobi, tol, most).x
        return solve(self._factor, tol, most).x

    def _factorised(self, kernel, c, damping):
        """Return the solver of a Cholesky factor of the shifted Laplacian, or None."""
        xp, linalg = self._be.xp, self._be.linalg
        W = xp.tril(kernel.gram(), -1)
        # The diagonal is a sum of what is off it: c - W_jj would lose definiteness to rounding.
        degree = W.sum(axis=0) + W.sum(axis=1)
        # Rank one, to lift the constants out of the null space. Above the diagonal nothing counts.
        xp.subtract(xp.outer(c, c / c.sum()), W, out=W)
        diagonal = xp.arange(c.size)
        for more in (0.0, 1e-12, 1e-8):
            W[diagonal, diagonal] = degree + damping + (1.0 + more) * c * c / c.sum() + more * c
            try:
                L = self._be.cholesky(W)
            except np.linalg.LinAlgError:
                continue
            if np.isfinite(self._be.host(L[-1, -1])):
                break
        else:
            return None
        self.counts["nfactor"] += 1

        def solve(r):
            # A look for NaN would take as long as the solve itself.
            y = linalg.solve_triangular(L, r, lower=True, check_finite=False)
            return linalg.solve_triangular(L, y, lower=True, trans=1, check_finite=False)

        return solve
