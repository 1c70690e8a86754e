"""Levels that are written in PyTorch or JAX."""

import functools

from .._core.arrays import framework
from .._core.autodiff import for_any_kind
from .._core.trees import leaves, refilled
from .._core.validation import check_count, check_flag, describe
from ._oracle import Oracle


def from_torch(fun, *, n_samples=None, device=None):
    """Make an `Oracle`, second derivatives included, of a function written in PyTorch.

    Parameters
    ----------
    fun : callable
        ``fun(x, y)``, or ``fun(x, y, idx)`` with `n_samples`, that returns one number as a
        tensor. It gets tensors in the shapes and the nesting of `x0` and `y0`; `idx` is a tensor
        of whole numbers.
    n_samples : int, optional
        Number of samples that `fun` is a mean over.
    device : str or torch.device, optional
        Where to compute; by default where the arrays are.

    Returns
    -------
    Oracle
        Arrays of any kind go in and the same kind comes out. NumPy arrays in double precision
        are differentiated in double precision, so the tensors that `fun` holds should have it.

    Raises
    ------
    ImportError
        If PyTorch is not installed.
    TypeError, ValueError
        If an argument is not of the expected kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> lower = bilevel.from_torch(lambda x, y: ((y - x) ** 2).sum())  # doctest: +SKIP
    >>> lower.hvp_yy(np.zeros(2), np.zeros(2), np.array([1.0, 2.0]))  # doctest: +SKIP
    array([2., 4.])
    """
    _check(fun, n_samples)
    torch = framework("torch")
    if device is not None:
        device = _device(torch, device)
    functions = _by_torch(torch, fun)
    return _oracle([for_any_kind(f, "torch", device) for f in functions], n_samples)


def from_jax(fun, *, n_samples=None, jit=True):
    """Make an `Oracle`, second derivatives included, of a function written in JAX.

    Parameters
    ----------
    fun : callable
        ``fun(x, y)``, or ``fun(x, y, idx)`` with `n_samples`, that returns one number. It gets
        JAX arrays in the shapes and the nesting of `x0` and `y0`; `idx` is an array of whole
        numbers.
    n_samples : int, optional
        Number of samples that `fun` is a mean over.
    jit : bool
        Whether JAX compiles it, once for every shape of the arguments. Compiled functions are
        also evaluated at two points at a time, by `jax.vmap`.

    Returns
    -------
    Oracle
        Arrays of any kind go in and the same kind comes out. NumPy arrays in double precision
        are differentiated in double precision, JAX arrays in the precision that
        ``jax_enable_x64`` leaves them; that switch is not touched.

    Raises
    ------
    ImportError
        If JAX is not installed.
    TypeError, ValueError
        If an argument is not of the expected kind or value.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import bilevel
    >>> lower = bilevel.from_jax(lambda x, y: ((y - x) ** 2).sum())  # doctest: +SKIP
    >>> lower.hvp_yy(np.zeros(2), np.zeros(2), np.array([1.0, 2.0]))  # doctest: +SKIP
    array([2., 4.])
    """
    _check(fun, n_samples)
    check_flag(jit, "jit")
    jax = framework("jax")
    *functions, pair = _by_jax(jax, fun)
    if jit:
        functions = [jax.jit(f) for f in (*functions, pair)]
    return _oracle([for_any_kind(f, "jax") for f in functions], n_samples)


def _check(fun, n_samples):
    if not callable(fun):
        raise TypeError(f"`fun` came as {describe(fun)}; expected a callable")
    check_count(n_samples, "n_samples", minimum=1, allow_none=True)


def _device(torch, device):
    if not isinstance(device, str | torch.device):
        raise TypeError(f"`device` came as {describe(device)}; expected a name or torch.device")
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"`device` came as {str(device)!r}; expected one that PyTorch can use ({error})"
        ) from error


def _oracle(functions, n_samples):
    if n_samples is not None:
        functions = [_indexed(function) for function in functions]
    names = "value_and_grads", "hvp_yy", "hvp_xy", "pair"
    return Oracle(**dict(zip(names, functions, strict=False)), n_samples=n_samples)


def _indexed(function):
    """Take the indices last, as the functions of an `Oracle` do."""

    def call(*given):
        return function(*given[:-1], idx=given[-1])

    return call


def _one_number(value):
    if getattr(value, "shape", None) != ():
        raise TypeError(f"`fun` returned {describe(value)}; expected one number, of shape ()")
    return value


def _by_jax(jax, fun):
    def scalar(x, y, *idx):
        return _one_number(fun(x, y, *idx))

    def looks(x, y, *idx):
        value, grads = jax.value_and_grad(scalar, argnums=(0, 1))(x, y, *idx)
        return value, *grads

    def along(k, x, y, v, *idx):
        """Differentiate the gradient in argument k, x or y, along v in y."""

        def grad(w):
            return jax.grad(scalar, argnums=k)(x, w, *idx)

        return jax.jvp(grad, (y,), (v,))[1]

    def pair(x, y, z, *idx):
        both = jax.tree.map(lambda a, b: jax.numpy.stack([a, b]), y, z)
        values, gx, gy = jax.vmap(lambda w: looks(x, w, *idx))(both)
        parts = [jax.tree.map(lambda a, k=k: a[k], g) for g in (gx, gy) for k in (0, 1)]
        return values[0] - values[1], *parts

    return looks, functools.partial(along, 1), functools.partial(along, 0), pair


def _by_torch(torch, fun):
    def tracked(tree):
        return refilled(tree, (leaf.detach().requires_grad_() for leaf in leaves(tree)))

    def slopes(value, tree, **options):
        """Differentiate a number; what it does not depend on gets zeros."""
        wrt = list(leaves(tree))
        if not value.requires_grad:
            return [torch.zeros_like(leaf) for leaf in wrt]
        return torch.autograd.grad(
            value, wrt, allow_unused=True, materialize_grads=True, **options
        )

    def looks(x, y, *idx):
        x, y = tracked(x), tracked(y)
        with torch.enable_grad():
            value = _one_number(fun(x, y, *idx))
        grads = iter(slopes(value, (x, y)))
        return value.detach(), refilled(x, grads), refilled(y, grads)

    def along(k, x, y, v, *idx):
        """Differentiate the gradient in argument k, x or y, along v in y."""
        x, y = tracked(x), tracked(y)
        with torch.enable_grad():
            grad = slopes(_one_number(fun(x, y, *idx)), y, create_graph=True)
            change = sum((a * b).sum() for a, b in zip(grad, leaves(v), strict=True))
        tree = (x, y)[k]
        return refilled(tree, iter(slopes(change, tree)))

    return looks, functools.partial(along, 1), functools.partial(along, 0)
