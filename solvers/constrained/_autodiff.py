"""Derivatives of functions that are written in PyTorch or JAX."""

from typing import Any, NamedTuple

from .._core.arrays import framework
from .._core.autodiff import for_any_kind
from .._core.validation import check_choice, describe

BACKENDS = ("jax", "torch")


class Derivatives(NamedTuple):
    """A function and its derivatives, which take and return arrays of one kind.

    Attributes
    ----------
    fun : callable
        ``fun(x)``, the function itself.
    jac : callable
        ``jac(x)``, the gradient (n,), or the Jacobian (m, n) of a function of m values.
    hess : callable
        ``hess(x)``, the Hessian (n, n); ``hess(x, v)`` that of ``v @ fun``.
    hessp : callable
        ``hessp(x, p)``, its product with a vector; ``hessp(x, p, v)`` for ``v @ fun``.
    vjp : callable
        ``vjp(x, v)``, the product of the Jacobian's transpose with a vector.
    """

    fun: Any
    jac: Any
    hess: Any
    hessp: Any
    vjp: Any


def autodiff(fun, backend):
    """Differentiate a function by PyTorch or JAX.

    Parameters
    ----------
    fun : callable
        A function of x (n,), written in PyTorch or `jax.numpy`, that returns a number or a vector.
        JAX compiles it.
    backend : {"jax", "torch"}
        Which of the two.

    Returns
    -------
    Derivatives
        `fun`, `jac`, `hess`, `hessp` and `vjp`. Arrays of any kind go in and the same kind comes
        out: NumPy arrays in double precision are differentiated in double precision, JAX arrays
        in the precision that ``jax_enable_x64`` leaves them.

    Raises
    ------
    ImportError
        If the backend is not installed.
    TypeError, ValueError
        If an argument is not of the expected kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import constrained
    >>> sphere = constrained.autodiff(lambda x: (x * x).sum(), "torch")  # doctest: +SKIP
    >>> sphere.jac(np.array([1.0, 2.0]))  # doctest: +SKIP
    array([2., 4.])
    """
    if not callable(fun):
        raise TypeError(f"`fun` came as {describe(fun)}; expected a callable")
    check_choice(backend, "backend", BACKENDS)
    derive = _by_jax if backend == "jax" else _by_torch
    return Derivatives(*(for_any_kind(function, backend) for function in derive(fun)))


def _by_jax(fun):
    jax = framework("jax")

    def weighted(x, v=None):
        return fun(x) if v is None else (v * fun(x)).sum()

    def hessp(x, p, v=None):
        return jax.jvp(lambda y: jax.grad(weighted)(y, v), (x,), (p,))[1]

    def vjp(x, v):
        return jax.grad(weighted)(x, v)

    return map(jax.jit, (fun, jax.jacrev(fun), jax.hessian(weighted), hessp, vjp))


def _by_torch(fun):
    torch = framework("torch")
    derived = torch.autograd.functional

    def weighted(x, v=None):
        return fun(x) if v is None else (v * fun(x)).sum()

    def value(x):
        with torch.no_grad():
            return fun(x)

    def hess(x, v=None):
        return derived.hessian(lambda y: weighted(y, v), x)

    def hessp(x, p, v=None):
        return derived.hvp(lambda y: weighted(y, v), x, p)[1]

    def vjp(x, v):
        return derived.vjp(lambda y: weighted(y, v), x)[1]

    return value, lambda x: derived.jacobian(fun, x), hess, hessp, vjp
