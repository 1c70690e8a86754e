"""Restarted GMRES, preconditioned from the right: the paper's baseline."""

import numpy as np

from ._restarts import Restarted

_RESTART = 50


class Gmres(Restarted):
    """GMRES(50), with a basis that is made orthogonal twice."""

    name = "gmres"
    _progress = 0.9999

    def _cycle(self, r, goal, limit):
        K, precondition, be = self._saddle, self._precondition, self._saddle.be
        xp, host = be.xp, be.host
        size = host(xp.linalg.norm(r))
        width = min(_RESTART, limit, len(r))
        V, H = xp.empty((width + 1, len(r))), np.zeros((width + 1, width))
        V[0] = r / size
        # The last row of Q^T e_1 holds the residual's norm.
        rest, right = np.zeros(width + 1), None
        rest[0] = size
        for k in range(width):
            w = K @ precondition(V[k])
            basis = V[: k + 1]
            h = basis @ w
            w = w - h @ basis
            again = basis @ w
            w = w - again @ basis
            H[: k + 1, k], H[k + 1, k] = host(h + again, xp.linalg.norm(w))
            right, left, *_ = np.linalg.lstsq(H[: k + 2, : k + 1], rest[: k + 2], rcond=None)
            error = np.sqrt(left[0]) if len(left) else 0.0
            if error <= goal or not H[k + 1, k] > 0 or self._options.deadline():
                break
            V[k + 1] = w / H[k + 1, k]
        step = precondition(xp.asarray(right) @ V[: k + 1])
        return step, k + 1, False
