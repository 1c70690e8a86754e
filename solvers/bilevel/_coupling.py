"""Constraints of the lower level that tie its variable to the upper one."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.arrays import Ingest, to_numpy
from .._core.validation import check_array, describe


@dataclass(frozen=True, eq=False)
class Affine:
    """Rows ``Ax x + Ay y <= b``, or ``= b`` where they are given as equations.

    Parameters
    ----------
    Ax : array, shape (l, d)
        Coefficients of all entries of x, in C order.
    Ay : array, shape (l, p)
        Coefficients of all entries of y.
    b : array, shape (l,)
        Right-hand side.
    """

    Ax: Any
    Ay: Any
    b: Any

    def __post_init__(self):
        io = Ingest(Ax=self.Ax, Ay=self.Ay, b=self.b, dtype=np.float64)
        for name in ("Ax", "Ay", "b"):
            ndim = 1 if name == "b" else 2
            # On the host, for arrays of any kind.
            object.__setattr__(self, name, to_numpy(check_array(io, name, ndim=ndim)))
        for name in ("Ax", "Ay"):
            rows = getattr(self, name)
            if len(rows) != len(self.b):
                raise ValueError(
                    f"`{name}` came with shape {rows.shape}; expected {len(self.b)} rows, "
                    "as many as `b`"
                )


class Rows:
    """Constraints of one kind, on vectors: ``look(x, y)`` gives their values.

    They are ``c(x, y) <= 0``, or ``= 0`` if `equal`.

    Attributes
    ----------
    affine : bool
        Whether the derivatives are the same everywhere.
    """

    def __init__(self, given, name, problem):
        self.px, self.py, self.io = problem.px, problem.py, problem.io
        self.name, self.affine, self._seen = name, isinstance(given, Affine), None
        if self.affine:
            self._take(given)
        elif not callable(given):
            raise TypeError(
                f"`{name}` came as {describe(given)}; expected a callable (x, y) -> (c, jvpT) "
                "or an Affine"
            )
        self._fun = given

    def _take(self, given):
        for matrix, packer, what in ((given.Ax, self.px, "Ax"), (given.Ay, self.py, "Ay")):
            if matrix.shape[1] != packer.size:
                raise ValueError(
                    f"`{self.name}.{what}` came with shape {matrix.shape}; expected "
                    f"{packer.size} columns, the entries of `{packer.name}`"
                )
        xp, dtype = self.io.xp, self.io.dtype
        self._Ax, self._Ay, self._b = (xp.asarray(v, dtype) for v in (given.Ax, given.Ay, given.b))

    def look(self, x, y):
        """Return the values at a point, shape (l,)."""
        return self._Ax @ x + self._Ay @ y - self._b if self.affine else self._ask(x, y)[0]

    def pulled(self, x, y, w):
        """Return ``c_x^T w`` and ``c_y^T w``."""
        if self.affine:
            return w @ self._Ax, w @ self._Ay
        answer = self._ask(x, y)[1](self.io.out(w.copy()))
        if not isinstance(answer, tuple | list) or len(answer) != 2:
            raise TypeError(f"`{self.name}`'s jvpT returned {answer!r:.60}; expected (x's, y's)")
        return (
            self.px.pack(answer[0], f"`{self.name}`'s jvpT returned the part of x"),
            self.py.pack(answer[1], f"`{self.name}`'s jvpT returned the part of y"),
        )

    def jacobian(self, x, y):
        """Return the derivatives, shapes (l, d) and (l, p)."""
        if self.affine:
            return self._Ax, self._Ay
        xp = self.io.xp
        units = xp.eye(len(self.look(x, y)), dtype=self.io.dtype)
        pairs = [self.pulled(x, y, unit) for unit in units]
        empty = (
            xp.zeros((0, self.px.size), self.io.dtype),
            xp.zeros((0, self.py.size), self.io.dtype),
        )
        return tuple(xp.stack([pair[k] for pair in pairs]) if pairs else empty[k] for k in (0, 1))

    def _ask(self, x, y):
        if self._seen is None or self._seen[0] is not x or self._seen[1] is not y:
            answer = self._fun(self.px.unpack(x), self.py.unpack(y))
            if not isinstance(answer, tuple | list) or len(answer) != 2 or not callable(answer[1]):
                raise TypeError(f"`{self.name}` returned {answer!r:.60}; expected (c, jvpT)")
            io = Ingest(**{f"{self.name} returned c": answer[0]})
            c = io.raw(f"{self.name} returned c")
            if c.ndim != 1:
                raise ValueError(f"`{self.name}` returned c of shape {c.shape}; expected (l,)")
            self._seen = x, y, (self.io.xp.array(c, dtype=self.io.dtype), answer[1])
        return self._seen[2]


class Coupling:
    """All constraints of the lower level: inequalities first, then equations.

    Attributes
    ----------
    equal : array of bool, shape (l,)
        Which rows are equations.
    affine : bool
        Whether all derivatives are the same everywhere.
    """

    def __init__(self, parts, problem):
        self._parts = parts
        xp, x, y = problem.io.xp, problem.x0, problem.y0
        lengths = [len(part.look(x, y)) for part, _ in parts]
        self.equal = xp.concatenate(
            [xp.full(n, equal) for n, (_, equal) in zip(lengths, parts, strict=True)]
        )
        self.affine = all(part.affine for part, _ in parts)
        self._ends = np.cumsum([0, *lengths]).tolist()
        self._xp = xp
        for part, _ in parts:
            if not bool(xp.isfinite(part.look(x, y)).all()):
                raise ValueError(
                    f"`{part.name}` is not finite at (x0, y0); expected finite values"
                )

    def look(self, x, y):
        """Return the values at a point, shape (l,)."""
        return self._xp.concatenate([part.look(x, y) for part, _ in self._parts])

    def pulled(self, x, y, w):
        """Return ``c_x^T w`` and ``c_y^T w``."""
        pairs = [
            part.pulled(x, y, w[a:b])
            for (part, _), a, b in zip(self._parts, self._ends, self._ends[1:], strict=False)
        ]
        return tuple(sum(pair[k] for pair in pairs) for k in (0, 1))

    def jacobian(self, x, y):
        """Return the derivatives, shapes (l, d) and (l, p)."""
        pairs = [part.jacobian(x, y) for part, _ in self._parts]
        return tuple(self._xp.concatenate([pair[k] for pair in pairs]) for k in (0, 1))


def couple(constraints, eq, problem):
    """Return inequalities and equations as one `Coupling`, or None if there are none."""
    if isinstance(constraints, tuple | list):
        if len(constraints) != 2 or eq is not None:
            raise TypeError(
                f"`constraints` came as {describe(constraints)} of length {len(constraints)}; "
                "expected a callable, an Affine or a pair (inequalities, equations)"
            )
        constraints, eq = constraints
    given = ((constraints, "constraints", False), (eq, "eq", True))
    parts = [(Rows(c, name, problem), equal) for c, name, equal in given if c is not None]
    return Coupling(parts, problem) if parts else None
