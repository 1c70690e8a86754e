r"""Both bounds of the convex programme over a set of gates.

Any z gives a lower bound: with :math:`h = \max_i \min_{\alpha \ge 0} \|X^T (\pm D_i z + E_i
\alpha)\|` every multiple k z with :math:`k h \le \beta` that the loss's conjugate allows is
feasible for the dual, and any :math:`\alpha \ge 0` bounds h from above.
"""

import math

import numpy as np

_EPS = np.finfo(np.float64).eps
# Gates solved to the end before the others, which then need only be no longer.
_FIRST = 8


def feasible(data, U):
    """Return blocks inside their cones near U: projected, or moved along a point inside."""
    out = U.copy()
    where = data.blocks(U)
    if not len(where[0]):
        return out
    V, gates = U[where], where[2]
    scale = np.linalg.norm(V, axis=1)
    outside = data.short(V, gates) < -1e-14 * scale
    if outside.any():
        V[outside] = _inside(data, V[outside], gates[outside])
        out[where] = V
    return out


def _inside(data, V, gates):
    size = np.linalg.norm(V, axis=1)
    U, _ = data.cones.project(V, gates)
    # What is left is rounding: the vector points out of its cone.
    U[np.linalg.norm(U, axis=1) <= 1e-12 * size] = 0.0
    bad = data.short(U, gates) < -1e-12 * size
    if bad.any():
        U[bad] = _moved(data, U[bad], gates[bad])
    return U


def _moved(data, U, gates):
    """Return points moved along the gates' own until they are inside, zero if that fails."""
    vectors = data.gates.vectors
    if vectors is None:
        return np.zeros_like(U)
    G = vectors.T[gates].astype(np.float64)
    room, slack = data.cones.slack(G, gates), data.cones.slack(U, gates)
    steps = np.where(slack < 0, -slack / np.maximum(room, 0.0), 0.0).max(axis=1)
    U = U + np.where(np.isfinite(steps), steps, 0.0)[:, None] * G
    size = np.linalg.norm(U, axis=1)
    return np.where((data.short(U, gates) >= -1e-12 * size)[:, None], U, 0.0)


def dual_bound(data, z, alpha=None):
    """Return a lower bound of the optimum over the gates, from any dual point.

    Parameters
    ----------
    data : Data
    z : array, shape (c, n), or RobustDual
    alpha : array, shape (c, 2, P, n), optional
        Multipliers of the cones, if they are known; negative ones count as zero.
    """
    if data.eps is not None:
        return robust_bound(data, z, alpha)
    z = data.loss.clip(z)
    return scaled_dual(data, z, dual_norm(data, z, alpha))


def robust_bound(data, point, alpha=None):
    """Return a lower bound of the optimum of robust training, from any `RobustDual`."""
    loss = data.loss
    if loss.margin:
        # The weight may be no larger than the loss's largest slope.
        z = loss.clip(loss.y * np.maximum(point.w, 0.0))
        w = abs(z)
    else:
        w = np.maximum(point.w, 0.0)
        z = np.clip(point.z, -w, w)
    far = w[..., None] * data.eps
    eta = np.clip(point.eta, -far, far)
    norm = dual_norm(data, z, alpha, eta)
    if loss.margin:
        return scaled_dual(data, z, norm)
    along, square = float((z * loss.y).sum()), float(np.square(w).sum())
    k = min(max(along / square, 0.0), largest_multiple(data, z, norm)) if square > 0 else 0.0
    return _above_zero(k * along - 0.5 * k * k * square)


def dual_norm(data, z, alpha=None, eta=None):
    """Return a bound of what z (c, n) gives along any neuron of length 1 in any of the cones.

    `eta` (c, n, d) is added to the products ``z_k x_k``.
    """
    return longest(data, *gate_norms(data, z, alpha, eta))


def rough_bound(data, z, alpha=None):
    """Return a lower bound as `dual_bound` does, from the multipliers as they are: a quick one."""
    z = data.loss.clip(z)
    return scaled_dual(data, z, float(gate_norms(data, z, alpha)[1].max()))


def gate_norms(data, z, alpha=None, eta=None):
    """Return what z gives to blocks, bounds of its lengths along cones, and rounding errors."""
    F, lengths = data.transpose(z), data.lengths(z)
    if eta is not None:
        F += data.gather(eta)
        lengths += np.linalg.norm(eta, axis=-1) @ data.mask.T
    noise = rounding(data) * np.repeat(lengths[:, None], 2, axis=1)
    norms = np.linalg.norm(F, axis=-1) + noise
    if alpha is not None:
        alpha = np.maximum(alpha, 0.0)
        G = F + data.pull(alpha)
        if data.eps is not None:
            far = alpha.sum(axis=-1, keepdims=True) * data.eps
            G = np.sign(G) * np.maximum(abs(G) - far, 0.0)
        shorter = np.linalg.norm(G, axis=-1) + noise
        norms = np.fmin(norms, shorter + rounding(data) * (alpha @ data.reach))
    return F, norms, noise


def longest(data, F, norms, noise):
    """Return a bound of the lengths of F (c, 2, P, d) along the cones.

    Each of `norms` bounds one of them already; `noise` is the rounding error in F.
    """
    P, d = F.shape[-2:]
    F, norms, noise = F.reshape(-1, d), norms.reshape(-1), noise.reshape(-1)
    if not np.isfinite(norms).all():
        return math.inf
    order, known = np.argsort(-norms, kind="stable"), 0.0
    for several in (order[:_FIRST], order[_FIRST:]):
        part = several[norms[several] > known]
        U, added = data.cones.project(F[part], part % P, np.maximum(known - noise[part], 0.0))
        found = np.linalg.norm(U, axis=1) + noise[part] + rounding(data) * added
        norms[part] = np.fmin(norms[part], found)
        known = float(norms[order[:_FIRST]].max())
    return float(norms.max())


def rounding(data):
    """Return what share of its terms a sum over samples may be wrong by."""
    return (len(data.X) + 8) * _EPS


def scaled_dual(data, z, norm):
    """Return the dual value of the best multiple of z, `norm` bounding its gate norms."""
    k = data.loss.best(z, largest_multiple(data, z, norm))
    return _above_zero(data.loss.dual(k * z))


def largest_multiple(data, z, norm):
    """Return how much z may be multiplied by."""
    norm = float(norm) * (1 + 10 * z.shape[-1] * _EPS)
    # No norm, no bound: what is not a number must not pass for a small one.
    return data.beta / norm if norm > 0 else math.inf if norm == 0 else 0.0


def _above_zero(value):
    # Losses are never negative.
    return max(value, 0.0) if math.isfinite(value) else 0.0
