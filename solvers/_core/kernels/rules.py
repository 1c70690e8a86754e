"""How kernels call the rules of losses and penalties: chosen by class, when they are compiled.

No branch is left in a kernel. Each function below stands for the rule of that name of its first
argument; see `solvers.losses` and `solvers.penalties` for what the rules compute.
"""

from numba.core.errors import TypingError
from numba.extending import overload

from ..rules import function_of


def loss_value(loss, y, z):
    """Loss of the prediction z."""
    return function_of(type(loss), "value")(loss, y, z)


def loss_derivative(loss, y, z):
    """First derivative by z."""
    return function_of(type(loss), "derivative")(loss, y, z)


def loss_curvature(loss, y, z):
    """Second derivative by z."""
    return function_of(type(loss), "curvature")(loss, y, z)


def penalty_value(penalty, w, j):
    """Penalty of coefficient j."""
    return function_of(type(penalty), "value")(penalty, w, j)


def prox(penalty, v, step, j):
    """Minimiser of ``penalty(w) + (w - v)^2 / (2 step)``."""
    return function_of(type(penalty), "prox")(penalty, v, step, j)


def distance(penalty, w, g, j):
    """Distance of ``-g`` from the subdifferential at w."""
    return function_of(type(penalty), "distance")(penalty, w, g, j)


def slope(penalty, w, j):
    """Return the derivative where the penalty has one."""
    return function_of(type(penalty), "slope")(penalty, w, j)


def bend(penalty, w, j):
    """Second derivative where the penalty has one."""
    return function_of(type(penalty), "bend")(penalty, w, j)


def _rule(first, name):
    found = function_of(getattr(first, "instance_class", None), name)
    if found is None:
        raise TypingError(f"no rule `{name}` is registered for {first}")
    return found


@overload(loss_value)
def _loss_value(loss, y, z):
    return _rule(loss, "value")


@overload(loss_derivative)
def _loss_derivative(loss, y, z):
    return _rule(loss, "derivative")


@overload(loss_curvature)
def _loss_curvature(loss, y, z):
    return _rule(loss, "curvature")


@overload(penalty_value)
def _penalty_value(penalty, w, j):
    return _rule(penalty, "value")


@overload(prox)
def _prox(penalty, v, step, j):
    return _rule(penalty, "prox")


@overload(distance)
def _distance(penalty, w, g, j):
    return _rule(penalty, "distance")


@overload(slope)
def _slope(penalty, w, j):
    return _rule(penalty, "slope")


@overload(bend)
def _bend(penalty, w, j):
    return _rule(penalty, "bend")
