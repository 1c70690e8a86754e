"""Variable projection: Gauss-Newton steps for one factor, the other one being the best for it.

See J. H. Hong, A. Fitzgibbon. Secrets of matrix factorization: approximations, numerics,
manifold optimization and random restarts. ICCV 2015.
"""

from ._als import half_sweep
from ._gauss_newton import Model, check_problem, descend, solve_damped
from ._start import start


def varpro(problem, rank, watch, options, *, tol=None, maxiter=None):
    """Run damped Gauss-Newton steps on B, with A the best for each B; return `Factors`."""
    check_problem(problem)
    watch.begin("varpro", tol=tol, maxiter=maxiter)
    A, B, a, b = start(problem, rank, options)
    if options.x0 is None:
        A, a = A.copy(), a.copy()
        half_sweep(problem, problem.obs.by_row, A, B, a, b, problem.row_ridge)
    return descend(Projected, problem, problem.balance(A, B, a, b), watch, options, tol)


class Projected(Model):
    """The quadratic model without A, which is eliminated from it.

    Its curvature is the Schur complement ``H_BB - H_BA H_AA^-1 H_AB``, where ``H_AA`` consists of
    one block for each row.
    """

    passes = 3

    def step(self, damping, eta, maxiter):
        """Return the damped step's `LinearSolve`, and the decrease that the model promises."""
        problem, xp, m = self.problem, self.problem.xp, self.problem.shape[0]
        tangent = self._tangent
        shift, ridge = self._damped(damping)
        if self._ridge is None:
            ridge[:m] = 0.0
        else:
            ridge[:m] = self._ridge[:m]
        blocks = self._blocks(ridge)
        out, z = xp.empty_like(self._slope), xp.empty_like(self._slope)

        def eliminated(B, gA):
            """Set `out` to the curvature times B and the A that follows it; return its half."""
            tangent.block_times(blocks[:m], gA, z[:m])
            self._curvature(-z[:m], B, out)
            return out[m:]

        def product(B):
            B = B.reshape(z[m:].shape)
            self._curvature(xp.zeros_like(z[:m]), B, out)
            return (eliminated(B, out[:m].copy()) + ridge[m:] * B).reshape(-1)

        def precond(r):
            tangent.block_times(blocks[m:], r.reshape(z[m:].shape), z[m:])
            return z[m:].reshape(-1)

        g = self._slope[m:] + eliminated(xp.zeros_like(z[m:]), self._slope[:m])
        return solve_damped(problem.be, product, g.reshape(-1), precond, shift, eta, maxiter)

    def moved(self, d):
        """Return the estimate after a step in B, with the best A."""
        problem, xp, x = self.problem, self.problem.xp, self.x
        k, d = x.s.size, d.reshape(self._slope[problem.shape[0] :].shape)
        a, b, A = x.row_bias.copy(), x.col_bias, self._A.copy()
        if problem.biased:
            b = b + d[:, k] * problem.shape[0] ** -0.5
        B = self._B + d[:, :k] if problem.lam else xp.linalg.qr(x.V * x.s + d[:, :k])[0]
        half_sweep(problem, problem.obs.by_row, A, B, a, b, problem.row_ridge)
        return problem.balance(A, B, a, b)
