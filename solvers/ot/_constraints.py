"""Linear conditions on a transport plan: the caller's list, checked, and the cost they make."""

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from .._core.arrays import Ingest
from .._core.validation import check_array, describe
from ._cloud import arrays_of
from ._problem import row_blocks

SIGNS = ">=", "=="
# Cancellation between `D` and `beta`, relative to them, that leaves enough digits.
ROUNDING = 1e-6
_EXPECTED = "a list of (D, '>=') or (D, '==') or (D, '>=', beta)"


@dataclass(frozen=True)
class Constraints:
    """Conditions ``<D_k, P> >= beta_k`` or ``== beta_k`` on plans of mass one.

    Attributes
    ----------
    matrices : tuple of array
        `D_k`, in the orientation of the problem's cost; never written to.
    equal : numpy.ndarray of bool
        Which of them are equations.
    beta : numpy.ndarray
        Right-hand sides, for mass one.
    """

    matrices: tuple[Any, ...]
    equal: Any
    beta: Any

    def __len__(self):
        return len(self.matrices)

    def tilt(self, C, w):
        """Return the cost of which the plan with multipliers `w` is a free one."""
        return TiltedCost(C, self.matrices, tuple(float(x) for x in w))

    def scales(self, problem):
        """Return the largest ``abs(D_k - beta_k)`` over the edges of finite cost.

        Where that is `ROUNDING` times the largest of both terms or less, what a plan gives is
        known no better: then this fraction of it, or 1 for a condition that says nothing.
        """
        be, C = problem.be, problem.C
        xp, tops = be.xp, []
        for rows in row_blocks(be, C):
            forbidden = ~xp.isfinite(C[rows]) if problem.extent.forbidden else False
            for D, beta in zip(self.matrices, self.beta, strict=True):
                block = xp.where(forbidden, beta, D[rows])
                tops.append(xp.stack([xp.abs(block - beta).max(), xp.abs(block).max()]))
        tops = np.reshape(be.host(xp.stack(tops)), (-1, len(self), 2)).max(axis=0)
        scales = np.maximum(tops[:, 0], ROUNDING * np.maximum(tops[:, 1], np.abs(self.beta)))
        return np.where(scales > 0, scales, 1.0)


class TiltedCost:
    """The matrix ``C - sum_k w_k D_k``, computed in float64 by blocks of rows when asked for."""

    def __init__(self, C, matrices, w):
        self._C, self._terms = C, [(D, x) for D, x in zip(matrices, w, strict=True) if x != 0.0]
        self.shape, self.size, self.ndim = C.shape, C.size, 2
        self.dtype = np.dtype(np.float64)

    def __getitem__(self, rows):
        block = self._C[rows].astype(np.float64)
        for D, x in self._terms:
            block -= x * D[rows]
        return block


def check_constraints(problem, C, constraints):
    """Check the conditions that came with a problem.

    Parameters
    ----------
    problem : Transport
    C : array
        The caller's cost, whose kind the matrices must have.
    constraints : sequence or None

    Returns
    -------
    Constraints or None
        None where there are none.
    """
    if constraints is None:
        return None
    if not isinstance(constraints, list | tuple):
        raise TypeError(f"`constraints` came as {describe(constraints)}; expected {_EXPECTED}")
    triples = [_triple(k, entry) for k, entry in enumerate(constraints)]
    if not triples:
        return None
    n, m = problem.C.shape[::-1] if problem.flipped else problem.C.shape
    matrices = []
    for k, (D, _, _) in enumerate(triples):
        io = Ingest(constraints=D, **arrays_of(C))
        means = f"(a.size, b.size) for the matrix of entry {k}"
        matrices.append(
            check_array(io, "constraints", shape=(n, m), means=means, transposed=problem.flipped)
        )
    return Constraints(
        tuple(matrices),
        np.array([sign == "==" for _, sign, _ in triples]),
        np.array([beta / problem.mass for _, _, beta in triples]),
    )


def _triple(k, entry):
    """Return matrix, sign and right-hand side of one entry."""
    if not isinstance(entry, tuple | list) or len(entry) not in (2, 3):
        raise TypeError(f"`constraints` has {describe(entry)} as entry {k}; expected {_EXPECTED}")
    D, sign, beta = entry if len(entry) == 3 else (*entry, 0.0)
    if D is None or isinstance(D, str):
        raise TypeError(f"`constraints` has {describe(D)} as the matrix of entry {k}")
    if not isinstance(sign, str):
        raise TypeError(
            f"`constraints` has {describe(sign)} as the sign of entry {k}; expected '>=' or '=='"
        )
    if sign not in SIGNS:
        raise ValueError(
            f"`constraints` has the sign {sign!r} in entry {k}; expected '>=' or '==' (for '<=' "
            "change the signs of matrix and right-hand side)"
        )
    if not isinstance(beta, Real) or isinstance(beta, bool):
        raise TypeError(
            f"`constraints` has {describe(beta)} as the right-hand side of entry {k}; expected a "
            "number"
        )
    if not math.isfinite(beta):
        raise ValueError(
            f"`constraints` has the right-hand side {beta} in entry {k}; expected a finite number"
        )
    return D, sign, float(beta)
