"""The independent judge of non-negative factors: optimality of each, the other fixed."""

import math

import numpy as np

from .._core.arrays import is_sparse
from .._core.certificate import Certificate

KKT = "relative KKT violation"
_ROWS = 1 << 22


def judge_factors(be, V, W, H, l1, *, tol):
    """Return the certificate of factors W (n, k) and H (k, p) of V, computed in float64.

    Its value is the largest violation of either factor's optimality conditions, relative to the
    largest entry of ``V H^T`` and ``W^T V``.
    """
    xp, eps = be.xp, np.finfo(np.float64).eps
    W, H = W.astype(np.float64), H.astype(np.float64)
    if is_sparse(V):
        V = V.astype(np.float64)
        VH, WV, error = V @ H.T, (V.T @ W).T, None
        square = (V.data * V.data).sum()
        error = 0.5 * (square - 2 * (WV * H).sum() + ((W.T @ W) * (H @ H.T)).sum())
        error = xp.maximum(error, 0.0)
        gW, gH = W @ (H @ H.T) - VH, (W.T @ W) @ H - WV
    else:
        VH, WV = xp.empty_like(W), xp.zeros_like(H)
        gW, gH, error = xp.empty_like(W), xp.zeros_like(H), 0.0
        step = max(_ROWS // V.shape[1], 1)
        for first in range(0, V.shape[0], step):
            rows = slice(first, first + step)
            part = V[rows].astype(np.float64)
            off = W[rows] @ H - part
            error = error + 0.5 * (off * off).sum()
            VH[rows], gW[rows] = part @ H.T, off @ H.T
            WV += W[rows].T @ part
            gH += W[rows].T @ off
    worst = [
        xp.where(x > 0, abs(g + l1), xp.maximum(-(g + l1), 0.0)) for x, g in ((W, gW), (H, gH))
    ]
    negative = xp.minimum(W.min(), H.min())
    found = be.host(
        error + l1 * (W.sum() + H.sum()), worst[0].max(), worst[1].max(), abs(VH).max(),
        abs(WV).max(), worst[0].argmax(), worst[1].argmax(), negative,
    )  # fmt: skip
    fun, in_w, in_h, top_w, top_h, at_w, at_h, negative = found
    scale = float(max(top_w, top_h)) or 1.0
    value = max(in_w, in_h) if negative >= 0 else math.inf
    details = {
        "primal": fun,
        "kkt": value,
        "kkt_W": in_w,
        "kkt_H": in_h,
        "scale": scale,
        "worst": int(at_w) if in_w >= in_h else W.size + int(at_h),
    }
    return Certificate(KKT, value / scale + 4 * eps, tol, details)
