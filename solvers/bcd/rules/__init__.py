"""The register of partitions, selection rules and updates; each combination is a method.

A partition cuts the unknowns into blocks, a selection picks the block to move, an update moves it.
"""

from ...losses import register as register_datafit
from ...penalties import register as register_penalty
from . import _partitions, _selections, _updates  # noqa: F401  (they fill the tables)

# isort: split
from . import _graph  # noqa: F401  (its rules come last)
from ._check import check_rules, has_forests, has_lipschitz, is_default, is_fixed, is_smooth
from ._partitions import cut
from ._register import (
    PARTITIONS,
    SELECTIONS,
    UPDATES,
    Blocks,
    register_partition,
    register_selection,
    register_update,
)

__all__ = [
    "PARTITIONS",
    "SELECTIONS",
    "UPDATES",
    "Blocks",
    "check_rules",
    "cut",
    "has_forests",
    "has_lipschitz",
    "is_default",
    "is_fixed",
    "is_smooth",
    "register_datafit",
    "register_partition",
    "register_penalty",
    "register_selection",
    "register_update",
]
