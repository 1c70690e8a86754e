"""Group penalties: which coefficients belong together, and what their norms cost."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import penalties
from .._core.validation import check_choice, describe  # noqa: F401


@dataclass(frozen=True)
class Groups:
    """Disjoint groups of coefficients; those outside of any group are a group of their own.

    Attributes
    ----------
    be : Backend
    ptr : array of int64, shape (groups + 1,)
        Where each group's members start in `idx`.
    idx : array of int64, shape (N,)
        Coefficients, group by group.
    l1 : array, shape (N,)
        Weight of each coefficient's absolute value, in the order of `idx`.
    l2 : array, shape (groups,)
        Weight of each group's norm.
    """

    be: Any
    ptr: Any
    idx: Any
    l1: Any
    l2: Any

    @property
    def number(self):
        """How many groups there are."""
        return self.l2.size

    def value(self, w):
        """Return the penalty of coefficients w (N,) or (p, C)."""
        xp = self.be.xp
        members = w.reshape(-1)[self.idx]
        squares = xp.add.reduceat(members.astype(np.float64) ** 2, self.ptr[:-1])
        total = (self.l2 * xp.sqrt(squares)).sum() + (self.l1 * abs(members)).sum()
        return float(self.be.host(total))


def read_groups(io, penalty, shape):
    """Return a penalty and its `Groups`, None where it is a sum over coefficients."""
    if isinstance(penalty, penalties.RowL2):
        raise NotImplementedError
    if isinstance(penalty, penalties.GroupL2):
        raise NotImplementedError
    return penalty, None
