"""Names for the annotations of public functions."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

Array: TypeAlias = Any
"""An array of the caller's kind: NumPy, CuPy, PyTorch, JAX or another of the array API."""

ArrayLike: TypeAlias = Any
"""An `Array`, a pandas object, or a (nested) list of numbers."""

RNGLike: TypeAlias = (
    "int | np.integer | np.random.SeedSequence | np.random.BitGenerator | np.random.Generator"
)
"""What `rng` may be besides None."""

Callback: TypeAlias = Callable[[Any], Any]
"""`callback(intermediate_result)`; StopIteration or a true return ends the run."""
