r"""The exact augmented Lagrangian.

.. math:: M(x, \lambda) = f + \lambda^\top c + \frac{\eta_1}{2} \|c\|^2
          + \frac{\eta_2}{2} \|\nabla_x L\|^2

Slopes and differences are affine in the two weights, so that a change of weights costs nothing.
"""

from typing import NamedTuple


class Weights(NamedTuple):
    """Weights of the two squares; large, and small."""

    eta1: float
    eta2: float


class Parts(NamedTuple):
    """A slope or a difference of M, by its terms: the Lagrangian and the halved squares."""

    plain: float
    rows: float
    gradient: float

    def at(self, weights):
        """Return the sum for given weights."""
        return self.plain + weights.eta1 * self.rows + weights.eta2 * self.gradient


def slope(point, lam, dx, dl, product, *, be):
    """Return the derivative of M along (dx, dl) as `Parts`.

    Multiplies dx by the TRUE Hessian of the Lagrangian, `product`: that of the objective, or a
    model, would give a number that is not the derivative.
    """
    r, c = point.gradient(lam), point.c
    bent = r @ product(dx)
    if not len(c):
        return Parts(be.host(r @ dx), 0.0, be.host(bent))
    G = point.G
    return Parts(*be.host(r @ dx + c @ dl, c @ (G @ dx), bent + (G @ r) @ dl))


def difference(point, lam, new, new_lam, *, be):
    """Return ``M(new, new_lam) - M(point, lam)`` as `Parts`, each free of cancellation."""
    r, r1 = point.gradient(lam), new.gradient(new_lam)
    gradient = (r1 - r) @ (r1 + r)
    c, c1 = point.c, new.c
    if not len(c):
        return Parts(new.f - point.f, 0.0, 0.5 * be.host(gradient))
    dc = c1 - c
    plain, rows, gradient = be.host(new_lam @ dc + (new_lam - lam) @ c, dc @ (c1 + c), gradient)
    return Parts(new.f - point.f + plain, 0.5 * rows, 0.5 * gradient)
