"""Constraints and bounds as callers write them: SciPy's objects, dictionaries, lists of them."""

from types import SimpleNamespace

import numpy as np

from .._core.arrays import is_sparse, to_numpy
from .._core.validation import describe
from ._smooth import Rows

_KEYS = ("type", "fun", "jac", "args")
_UPPER = {"eq": 0.0, "ineq": np.inf}


class LinearRows:
    """A constraint ``lb <= A x <= ub``, in the words of `Rows`."""

    model = scheme = None
    exact, noise, curved = True, 0.0, False
    nfev = njev = nhev = 0

    def __init__(self, name, A, x, caller, eps):
        if is_sparse(A):
            if A.dtype.kind not in "fiub":
                raise TypeError(f"`{name}.A` came with dtype {A.dtype}; expected real numbers")
            # SciPy's objects hold host matrices, wherever the other arrays are.
            A = caller.be.sparse.csr_matrix(A, dtype=np.float64, copy=True)
            A.sum_duplicates()
            entries = A.data
        else:
            A = entries = caller.xp.array(A, dtype=np.float64, ndmin=2)
        if len(A.shape) != 2 or A.shape[1] != len(x):
            raise ValueError(f"`{name}.A` came with shape {A.shape}; expected (any, {len(x)})")
        if not caller.be.host(caller.xp.isfinite(entries).all()):
            raise ValueError(f"`{name}.A` contains entries that are not finite numbers")
        self.name, self.m, self._A, self.error = name, A.shape[0], A, 100 * eps

    def value(self, x):
        """Return ``A x``."""
        return self._A @ x

    def jacobian(self, x):
        """Return A, always the same matrix."""
        return self._A

    def hessian(self, x, v):
        """Return None for zero."""
        return


def read_constraints(constraints, x, caller, *, room, eps):
    """Return a list of rows with sides: objects with `m`, `value`, `jacobian`, `hessian`, `lb`."""
    if constraints is None:
        constraints = ()
    if not isinstance(constraints, list | tuple):
        constraints = [constraints]
    return [
        _rows(f"constraints[{k}]", con, x, caller, room=room, eps=eps)
        for k, con in enumerate(constraints)
    ]


def _rows(name, con, x, caller, *, room, eps):
    if isinstance(con, dict):
        con = _from_dictionary(name, con)
    if hasattr(con, "A") and hasattr(con, "lb"):
        rows = LinearRows(name, con.A, x, caller, eps)
    elif hasattr(con, "fun") and hasattr(con, "lb"):
        jac, hess = getattr(con, "jac", None), getattr(con, "hess", None)
        options = {
            "rel_step": _step(getattr(con, "finite_diff_rel_step", None), caller.xp),
            "sparsity": getattr(con, "finite_diff_jac_sparsity", None),
        }
        rows = Rows(caller, name, con.fun, jac, hess, x, room=room, eps=eps, **options)
    else:
        raise TypeError(
            f"`{name}` came as {describe(con)}; expected a LinearConstraint, a "
            "NonlinearConstraint or a dictionary with type, fun and jac"
        )
    rows.lb, rows.ub = (
        _side(side, rows.m, f"{name}.{word}", caller.xp)
        for word, side in (("lb", con.lb), ("ub", con.ub))
    )
    _check_order(rows.lb, rows.ub, name, "row ", caller.be)
    return rows


def _step(step, xp):
    return step if step is None else xp.asarray(step, dtype=np.float64)


def _from_dictionary(name, con):
    if strange := sorted(map(str, con.keys() - set(_KEYS))):
        raise ValueError(f"`{name}` has the keys {strange}; expected {', '.join(_KEYS)}")
    kind = str(con.get("type", "")).lower()
    if kind not in _UPPER:
        raise ValueError(f"`{name}['type']` came as {con.get('type')!r}; expected 'eq' or 'ineq'")
    args = con.get("args", ())
    fun, jac = bind(con.get("fun"), args), bind(con.get("jac"), args)
    return SimpleNamespace(fun=fun, jac=jac, lb=0.0, ub=_UPPER[kind])


def bind(function, args):
    """Return a function of x with what else it takes; anything else as it is."""
    if not args or not callable(function):
        return function
    args = args if isinstance(args, tuple) else (args,)
    return lambda x, *more: function(x, *more, *args)


def read_bounds(bounds, n, caller):
    """Return lower and upper bounds, each (n,)."""
    xp = caller.xp
    if bounds is None:
        return xp.full(n, -np.inf), xp.full(n, np.inf)
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        sides = bounds.lb, bounds.ub
    else:
        try:
            pairs = [(low, high) for low, high in bounds]
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"`bounds` came as {describe(bounds)}; expected Bounds or a list of pairs "
                "(low, high)"
            ) from error
        if len(pairs) != n:
            raise ValueError(f"`bounds` came with {len(pairs)} pairs; expected {n}")
        sides = (
            [-np.inf if low is None else low for low, _ in pairs],
            [np.inf if high is None else high for _, high in pairs],
        )
    lo, up = (_side(side, n, "bounds", xp) for side in sides)
    _check_order(lo, up, "bounds", "x", caller.be)
    return lo, up


def _side(side, length, name, xp):
    """Return one side of constraints or bounds, which may be one number for all."""
    try:
        side = np.asarray(to_numpy(side), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(f"`{name}` came as {describe(side)}; expected numbers") from error
    if side.shape not in ((), (1,), (length,)):
        raise ValueError(f"`{name}` came with shape {side.shape}; expected ({length},)")
    if np.isnan(side).any():
        raise ValueError(f"`{name}` contains NaN; expected numbers or infinities")
    return xp.full(length, float(side.item())) if side.size == 1 else xp.array(side)


def _check_order(lb, ub, name, where, be):
    low, high = (np.asarray(be.host(side)) for side in (lb, ub))
    crossed = np.flatnonzero((low > high) | (low == np.inf) | (high == -np.inf))
    if len(crossed):
        k = int(crossed[0])
        at = f"{where}{k}" if where.endswith(" ") else f"{where}[{k}]"
        raise ValueError(f"`{name}`: lb > ub at {at}, {low[k]:g} > {high[k]:g}; expected lb <= ub")
