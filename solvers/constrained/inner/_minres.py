"""The minimal residual method, for symmetric matrices that are known by products alone."""

import math

from ._restarts import Restarted

# Of ||K r|| beside ||K|| ||r||: below the first, K may be singular. Rounding then lets it grow
# again, by more than the second factor, while ||r|| stays.
_SINGULAR, _GROWTH, _STAYS = 1e-6, 30.0, 0.99


class Minres(Restarted):
    """MINRES of Paige and Saunders, preconditioned; shortest answers where K is singular.

    If the system has no solution, the residual ends as a null vector of K. What the answer has
    along it is removed, which leaves the least-squares solution of the smallest norm, as in
    MINRES-QLP (the lifting of [1]_). A preconditioner P changes norms: ``||x||^2 = x P x``.

    References
    ----------
    .. [1] Y. Liu, A. Milzarek, F. Roosta. Obtaining pseudo-inverse solutions with MINRES. 2023.
       arXiv:2309.17096.
    """

    name = "minres"
    _progress = 0.5

    def _cycle(self, r, goal, limit):
        K, precondition, be = self._saddle, self._precondition, self._saddle.be
        xp, host, norm = be.xp, be.host, be.xp.linalg.norm
        x, w, w_old = xp.zeros_like(r), xp.zeros_like(r), xp.zeros_like(r)
        v, v_old, z = r.copy(), xp.zeros_like(r), precondition(r)
        beta, beta_old = math.sqrt(max(host(v @ z), 0.0)), 1.0
        # phi is the residual's norm as the preconditioner sees it; r itself is updated too.
        phi, r = beta, r.copy()
        c, s, c_old, s_old = 1.0, 0.0, 1.0, 0.0
        largest, best, kept = 0.0, _SINGULAR, None
        for steps in range(1, limit + 1):
            z = z / beta
            Kz = K @ z
            alpha = host(z @ Kz)
            v_old, v = v, Kz - (alpha / beta) * v - (beta / beta_old) * v_old
            z_new = precondition(v)
            beta_new = math.sqrt(max(host(v @ z_new), 0.0))
            # The new column of the tridiagonal matrix, turned by the last two rotations.
            epsilon, delta = s_old * beta, s * alpha + c_old * c * beta
            gamma_bar, delta_bar = c * alpha - c_old * s * beta, c * beta_new
            gamma = math.hypot(gamma_bar, beta_new)
            largest = max(largest, math.hypot(alpha, beta, beta_new))
            # ||K r|| of the residual before this step, as the preconditioner sees it.
            ratio = math.hypot(gamma_bar, delta_bar) / largest
            if ratio <= best / 2:
                best, kept = ratio, (x.copy(), r, abs(phi))
            elif kept and ratio > _GROWTH * best and abs(phi) >= _STAYS * kept[2]:
                return self._shortest(*kept[:2]), steps, True
            if gamma == 0.0:
                return self._shortest(x, r), steps, True
            c_old, s_old, c, s = c, s, gamma_bar / gamma, beta_new / gamma
            w_old, w = w, (z - epsilon * w_old - delta * w) / gamma
            x += (c * phi) * w
            if beta_new > 0.0:
                r = s * s * r - (c * s * phi / beta_new) * v
            phi = -s * phi
            z, beta_old, beta = z_new, beta, beta_new
            if beta == 0.0 or host(norm(r)) <= goal or self._options.deadline():
                break
        return x, steps, False

    def _shortest(self, x, r):
        z = self._precondition(r)
        return x - ((r @ x) / (r @ z)) * z
