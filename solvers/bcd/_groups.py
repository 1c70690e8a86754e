"""Group penalties: which coefficients belong together, and what their norms cost."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import penalties
from .._core.arrays import Ingest
from .._core.validation import check_array, check_nonnegative, describe

# Stands for an infinite weight, which would make NaN of a coefficient that is zero.
HUGE = 1e300


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
    l1 : array of float64, shape (N,)
        Weight of each coefficient's absolute value, in the order of `idx`.
    l2 : array of float64, shape (groups,)
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

    @property
    def owner(self):
        """The group of each entry of `idx`."""
        return owners(self.be, self.ptr)

    def norms(self, w):
        """Return the norm of each group of coefficients w (N,) or (p, C)."""
        members = w.reshape(-1)[self.idx].astype(np.float64)
        return norms(self.be, self.owner, self.number, members)

    def value(self, w):
        """Return the penalty of coefficients w (N,) or (p, C)."""
        members = w.reshape(-1)[self.idx].astype(np.float64)
        total = (self.l2 * self.norms(w)).sum() + (self.l1 * abs(members)).sum()
        return float(self.be.host(total))


def owners(be, ptr):
    """Return the group of each member."""
    members = be.xp.arange(int(be.host(ptr[-1])))
    return be.xp.searchsorted(ptr[1:], members, side="right")


def norms(be, owner, number, members):
    """Return the Euclidean norm of each group's members."""
    # Scaled, lest squares overflow or vanish.
    largest = be.host(abs(members).max()) if members.size else 0.0
    unit = largest if 0.0 < largest < np.inf else 1.0
    squares = be.xp.bincount(owner, (members / unit) ** 2, minlength=number)
    return unit * be.xp.sqrt(squares)


def read_groups(io, penalty, shape, weights=None):
    """Return a penalty and its `Groups`, None where it is a sum over coefficients.

    A group's weight is the root mean square of its features' weights. In a problem with several
    columns of coefficients, groups are of rows.
    """
    if not isinstance(penalty, penalties.GroupL2 | penalties.RowL2):
        return penalty, None
    p, C = shape[0], shape[1] if len(shape) > 1 else 1
    alpha = check_nonnegative(penalty.alpha, "alpha", allow_inf=True)
    if isinstance(penalty, penalties.RowL2):
        share, rows, ptr = 0.0, np.arange(p), np.arange(p + 1)
        roots = np.ones(p)
    else:
        share = check_share(penalty.l1_ratio)
        rows, ptr = _members(io, penalty.groups, p)
        roots = np.sqrt(C * np.diff(ptr))
    xp = io.xp
    idx = xp.asarray((rows[:, None] * C + np.arange(C)).reshape(-1).astype(np.int64))
    ptr = xp.asarray((ptr * C).astype(np.int64))
    factor = xp.ones(idx.size) if weights is None else weights.reshape(-1)[idx].astype(np.float64)
    number = ptr.size - 1
    sizes = xp.diff(ptr)
    means = norms(io.be, owners(io.be, ptr), number, factor) / xp.sqrt(sizes)
    l1 = _times(alpha * share if share else 0.0, factor)
    l2 = _times(alpha * (1.0 - share) if share < 1.0 else 0.0, xp.asarray(roots) * means)
    return penalty, Groups(io.be, ptr, idx, l1, l2)


def check_share(l1_ratio):
    """Return `l1_ratio`, a number from 0 to 1."""
    share = check_nonnegative(l1_ratio, "l1_ratio")
    if share > 1.0:
        raise ValueError(f"`l1_ratio` came as {share:.6g}; expected a number from 0 to 1")
    return share


def _times(alpha, factor):
    return min(alpha, HUGE) * factor


def _members(io, groups, p):
    """Return the features group by group, and where each group starts."""
    if isinstance(groups, list | tuple) and any(np.ndim(part) > 0 for part in groups):
        return _from_lists(groups, p)
    if getattr(groups, "ndim", 1) == 2:
        return _from_lists(list(io.be.host(groups)), p)
    return _from_labels(groups, p)


def _from_labels(groups, p):
    if groups is None or isinstance(groups, str):
        raise TypeError(
            f"`groups` came as {describe(groups)}; expected a label for each feature, or lists of "
            "features"
        )
    given = Ingest(groups=groups)
    labels = check_array(given, "groups", shape=(p,), means="(n_features,)")
    _, owner = np.unique(given.be.host(labels), return_inverse=True)
    owner = owner.reshape(-1)
    counts = np.bincount(owner)
    return np.argsort(owner, kind="stable"), np.concatenate([[0], np.cumsum(counts)])


def _from_lists(groups, p):
    parts = []
    for part in map(np.asarray, groups):
        if part.size == 0:
            raise ValueError("`groups` contains an empty group; expected features in each")
        if part.dtype.kind not in "iu" or part.ndim != 1:
            raise TypeError(
                f"`groups` contains {describe(part)} of {part.dtype}; expected lists of whole "
                "numbers"
            )
        parts.append(part.astype(np.int64))
    rows = np.concatenate(parts)
    if rows.min() < 0 or rows.max() >= p:
        wrong = rows[(rows < 0) | (rows >= p)][0]
        raise ValueError(f"`groups` contains {wrong}; expected features from 0 to {p - 1}")
    counts = np.bincount(rows, minlength=p)
    if counts.max() > 1:
        raise ValueError(
            f"`groups` overlap: feature {counts.argmax()} is in {counts.max()} places; expected "
            "each feature in at most one group"
        )
    alone = np.flatnonzero(counts == 0)
    sizes = [part.size for part in parts] + [1] * alone.size
    return np.concatenate([rows, alone]), np.concatenate([[0], np.cumsum(sizes)])
