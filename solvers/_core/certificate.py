"""The proof that comes with every answer: one number, its tolerance, and what it is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import SupportsFloat

__all__ = ["Certificate"]


@dataclass(frozen=True, repr=False)
class Certificate:
    """How good an answer is, measured on the caller's own data.

    Parameters
    ----------
    kind : str
        The quantity in words, for example ``"relative duality gap"``.
    value, tol : float
        The quantity and the largest value that passes, in the same unit.
    details : mapping of str to number
        Every component that the value was computed from, and related bounds.
    """

    kind: str
    value: float
    tol: float
    details: Mapping[str, float]

    def __post_init__(self) -> None:
        # Plain numbers pickle small, print short and hold no device memory.
        object.__setattr__(self, "value", float(self.value))
        object.__setattr__(self, "tol", float(self.tol))
        object.__setattr__(self, "details", {k: _plain(v) for k, v in self.details.items()})

    @property
    def holds(self) -> bool:
        """Whether the value is at most the tolerance; False for NaN."""
        return self.value <= self.tol

    def __str__(self) -> str:
        verdict = "within" if self.holds else "not within"
        return f"{self.kind} {self.value:.3g}, {verdict} the tolerance {self.tol:.3g}"

    def __repr__(self) -> str:
        return (
            f"Certificate(kind={self.kind!r}, value={self.value!r}, tol={self.tol!r}, "
            f"holds={self.holds}, details={self.details!r})"
        )


def _plain(number: SupportsFloat) -> float:
    """Return a Python number; whole numbers, such as the index of a coordinate, stay whole."""
    return int(number) if isinstance(number, Integral) else float(number)
