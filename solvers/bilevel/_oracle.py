"""What the caller knows of one level: values, gradients and, perhaps, more."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.validation import check_callable, check_count, describe


@dataclass(frozen=True)
class Oracle:
    """One level of a bilevel problem, by functions of ``(x, y)``.

    With `n_samples` it is a mean over samples, and every function takes the indices of those to
    use as its last argument: ``(x, y, idx)``. Arrays arrive and return in the shapes, and in the
    nesting, of `x0` and `y0`.

    Parameters
    ----------
    value, grad_x, grad_y : callable, optional
        The function and its gradients, one by one; `grad_x` may be left out if it is 0.
    value_and_grads : callable, optional
        All three at once: ``(x, y) -> (value, grad_x, grad_y)``; `grad_x` may come as None.
    hvp_yy : callable, optional
        ``(x, y, v) -> g_yy v``, shaped like y.
    hvp_xy : callable, optional
        ``(x, y, v) -> g_xy v``, shaped like x for v shaped like y.
    precond_y : callable, optional
        ``x -> P``, a positive diagonal close to that of ``g_yy``, shaped like y.
    prox_y : callable, optional
        ``(v, t) -> argmin_y t phi(y) + |y - v|^2 / 2`` for a term phi of the lower level that the
        other functions leave out.
    pair : callable, optional
        ``(x, y, z) -> (g(x, y) - g(x, z), g_x(x, y), g_x(x, z), g_y(x, y), g_y(x, z))``, in one
        pass over the data.
    n_samples : int, optional
        Number of samples; for `bsvrb` perhaps an array, with a number for each block.
    """

    value: Any = None
    grad_x: Any = None
    grad_y: Any = None
    value_and_grads: Any = None
    hvp_yy: Any = None
    hvp_xy: Any = None
    precond_y: Any = None
    prox_y: Any = None
    pair: Any = None
    n_samples: Any = None

    def __post_init__(self):
        for name in Oracle.__dataclass_fields__:
            if name != "n_samples":
                check_callable(getattr(self, name), name)
        sizes = self.n_samples if np.ndim(self.n_samples) else [self.n_samples]
        for size in sizes:
            check_count(size, "n_samples", minimum=1, allow_none=True)
        if self.value_and_grads is None and (self.value is None or self.grad_y is None):
            raise TypeError("`value_and_grads` is missing; expected it, or `value` and `grad_y`")

    def __call__(self, x, y, *idx):
        """Return the value and both gradients."""
        if self.value_and_grads is not None:
            return self.value_and_grads(x, y, *idx)
        grad_x = None if self.grad_x is None else self.grad_x(x, y, *idx)
        return self.value(x, y, *idx), grad_x, self.grad_y(x, y, *idx)

    def over_blocks(self, n_blocks):
        """Return the mean over all blocks and samples, a function of ``(x, y)``.

        For oracles that tell of single blocks, see `bsvrb`; what it returns suits `certify` and
        the solvers that take all data at once.

        Parameters
        ----------
        n_blocks : int
            Number of blocks.

        Returns
        -------
        Oracle
            The mean.
        """
        from ._blocks import whole

        return whole(self, "oracle", check_count(n_blocks, "n_blocks", minimum=1))


def as_oracle(oracle, name):
    """Return what came as `upper` or `lower` as an `Oracle`."""
    if isinstance(oracle, Oracle):
        return oracle
    if not callable(oracle):
        raise TypeError(f"`{name}` came as {describe(oracle)}; expected a callable or an Oracle")
    return Oracle(value_and_grads=oracle)
