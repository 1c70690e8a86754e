"""The register of partitions, selection rules and updates; each combination is a method.

A partition cuts the unknowns into blocks, a selection picks the block to move, an update moves it.
"""

from . import _graph  # noqa: F401  (its rules register themselves)
from ._register import (
    PARTITIONS,
    SELECTIONS,
    UPDATES,
    check_rules,
    is_default,
    register_datafit,
    register_partition,
    register_penalty,
    register_selection,
    register_update,
)

__all__ = [
    "PARTITIONS",
    "SELECTIONS",
    "UPDATES",
    "check_rules",
    "is_default",
    "register_datafit",
    "register_partition",
    "register_penalty",
    "register_selection",
    "register_update",
]
