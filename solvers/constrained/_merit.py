r"""The exact augmented Lagrangian.

.. math:: M(x, \lambda) = f + \lambda^\top c + \frac{\eta_1}{2} \|c\|^2
          + \frac{\eta_2}{2} \|\nabla_x L\|^2
"""

from typing import NamedTuple


class Weights(NamedTuple):
    """Weights of the two squares; large, and small."""

    eta1: float
    eta2: float


def difference(point, lam, new, new_lam, weights, *, be):
    """Return ``M(new, new_lam) - M(point, lam)``, term by term against cancellation."""
    c, c1 = point.c, new.c
    r, r1 = point.gradient(lam), new.gradient(new_lam)
    squares = weights.eta1 * ((c1 - c) @ (c1 + c)) + weights.eta2 * ((r1 - r) @ (r1 + r))
    return (new.f - point.f) + be.host(new_lam @ c1 - lam @ c + 0.5 * squares)


def slope(point, lam, dx, dl, product, weights, *, be):
    """Return the derivative of M along (dx, dl); `product` multiplies by the true Hessian."""
    c, G, r = point.c, point.G, point.gradient(lam)
    along_x = (r + weights.eta2 * product(r) + weights.eta1 * (G.T @ c)) @ dx
    return be.host(along_x + (c + weights.eta2 * (G @ r)) @ dl)
