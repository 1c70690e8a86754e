"""Sketch and project: a table of the kinds of random steps, which names them everywhere.

A step moves x to the nearest point that solves ``S^T A x = S^T b`` for a random matrix S of few
columns, so that the distance to the solution never grows.
"""

import math
from importlib import import_module
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of sketch.

    Attributes
    ----------
    module, stepper : str
        Where its class is.
    blocks : bool
        Whether a step takes a block of equations, or a single one.
    growth : float
        Equations in a block, as a multiple of the square root of all.
    entries : bool
        Whether it needs the matrix's entries, not just products.
    says : str
        What it does, for the documentation.
    """

    module: str
    stepper: str
    blocks: bool
    growth: float
    entries: bool
    says: str

    def open(self, rows, size, rng):
        """Return what takes the steps."""
        module = import_module(self.module, __package__)
        return getattr(module, self.stepper)(rows, size, rng)

    def size(self, count, wanted=None):
        """Return how many of so many equations a step takes."""
        if not self.blocks:
            return 1
        own = min(max(math.ceil(self.growth * math.sqrt(count)), 8), 256)
        return min(wanted or own, count)


SKETCHES = {
    "kaczmarz++": Kind(
        "._blocks", "Accelerated", True, 2.0, True,
        "random blocks of rows, used again and again, with momentum",
    ),
    "block-kaczmarz": Kind(
        "._blocks", "Blocks", True, 1.0, True,
        "blocks of rows from random partitions",
    ),
    "hadamard": Kind(
        "._blocks", "Mixed", True, 1.0, True,
        "the same, on rows that a Hadamard transform has mixed",
    ),
    "kaczmarz": Kind(
        "._rows", "Uniform", False, 0.0, True,
        "single rows, all equally likely",
    ),
    "kaczmarz-weighted": Kind(
        "._rows", "Weighted", False, 0.0, True,
        "single rows, likely by their squared lengths",
    ),
    "kaczmarz-shuffled": Kind(
        "._rows", "Shuffled", False, 0.0, True,
        "single rows, in a new random order in each sweep",
    ),
    "gaussian": Kind(
        "._fresh", "Normal", False, 0.0, False,
        "single combinations of all rows, normal factors",
    ),
    "block-gaussian": Kind(
        "._fresh", "BlockNormal", True, 1.0, False,
        "blocks of combinations of all rows, normal factors",
    ),
    "sparse-sign": Kind(
        "._fresh", "Signs", True, 1.0, False,
        "blocks of signed sums, each row in eight of them",
    ),
    "countsketch": Kind(
        "._fresh", "Count", True, 1.0, False,
        "blocks of signed sums, each row in one of them",
    ),
}  # fmt: skip
