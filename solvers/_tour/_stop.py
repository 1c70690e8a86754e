"""What the guide gives to a stop, and what a stop gives back."""

import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from .._core.backend import Backend
from .._core.certificate import Certificate
from .._core.result import Result


@dataclass(frozen=True)
class Trip:
    """How to travel.

    Attributes
    ----------
    be : Backend
        Where to compute.
    quick : bool
        Whether a small problem will do.
    steps : dict of str to float
        Seconds spent in each `step` so far.
    """

    be: Backend
    quick: bool
    steps: dict[str, float] = field(default_factory=dict, init=False)

    @contextmanager
    def step(self, name):
        """Say what takes a while and has no progress bar, and time it."""
        print(f"  {name} ... ", end="", flush=True)
        started = time.perf_counter()
        yield
        self.steps[name] = time.perf_counter() - started
        print(f"{self.steps[name]:.1f} s", flush=True)


@dataclass(frozen=True)
class Peer:
    """What another method made of the same problem, judged in the same way."""

    name: str
    seconds: float
    certificate: Certificate


@dataclass(frozen=True)
class Outcome:
    """What a stop brings home.

    Attributes
    ----------
    result : Result
        The answer; the tour fails if its certificate does not hold.
    peers : sequence of Peer
        For comparison.
    numbers : mapping of str to number
        What else is worth keeping, in units that the name tells.
    figure : matplotlib.figure.Figure
        The picture.
    """

    result: Result
    peers: Sequence[Peer]
    numbers: Mapping[str, float]
    figure: Any
