r"""Robust losses: what a residual costs, and the weighted square that majorises this cost.

==========  =========================================  ==================================
Name        Loss                                       Weight
==========  =========================================  ==================================
"huber"     r^2 / 2, beyond delta: delta |r| - delta^2 / 2    1, beyond: delta / |r|
"l1"        (r^2 + delta^2)^(1/2)                      (r^2 + delta^2)^(-1/2)
"welsch"    delta^2 / 2 (1 - exp(-r^2 / delta^2))      exp(-r^2 / delta^2)
"tukey"     delta^2 / 6 (1 - (1 - r^2 / delta^2)^3)    (1 - r^2 / delta^2)^2, beyond: 0
==========  =========================================  ==================================

All are concave in the square of r, so for the weight at r every s has
``loss(s) <= loss(r) + weight (s^2 - r^2) / 2``: where the sum of weighted squares falls, the loss
falls at least as much.
"""

# Beyond some residual, larger ones cost no more, so that outliers lose all influence.
REDESCENDING = ("welsch", "tukey")
# Scales of 95 % efficiency, for noise of unit deviation that is normal.
EFFICIENT = {"huber": 1.345, "welsch": 2.985, "tukey": 4.685}


def value(xp, loss, r, delta):
    """Return the loss of each residual."""
    if loss == "huber":
        r = xp.abs(r)
        inside = xp.minimum(r, delta)
        return inside * (r - 0.5 * inside)
    if loss == "l1":
        return xp.sqrt(r * r + delta**2)
    square = xp.square(r / delta)
    if loss == "welsch":
        return -0.5 * delta**2 * xp.expm1(-square)
    return delta**2 / 6.0 * (1.0 - (1.0 - xp.minimum(square, 1.0)) ** 3)


def weight(xp, loss, r, delta):
    """Return the derivative of each loss, over its residual."""
    if loss == "huber":
        return delta / xp.maximum(xp.abs(r), delta)
    if loss == "l1":
        return 1.0 / xp.sqrt(r * r + delta**2)
    square = xp.square(r / delta)
    if loss == "welsch":
        return xp.exp(-square)
    return (1.0 - xp.minimum(square, 1.0)) ** 2


def inlier_share(xp, loss, r, delta):
    """Return the weight of each residual relative to that of a residual of 0."""
    share = weight(xp, loss, r, delta)
    return share * delta if loss == "l1" else share
