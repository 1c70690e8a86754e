"""Arrays of every kind, for tests of what comes in and what goes back."""

import numpy as np
import pytest

KINDS = ("numpy", "torch", "jax", "array_api_strict")
FOREIGN = KINDS[1:]


def as_kind(x, kind):
    """Return a NumPy array as another kind, with its dtype; skip where the package is missing.

    JAX holds float64 only with ``jax_enable_x64``, so give it float32.
    """
    if kind == "numpy":
        return np.array(x)
    package = pytest.importorskip("jax.numpy" if kind == "jax" else kind)
    return package.from_numpy(np.array(x)) if kind == "torch" else package.asarray(np.array(x))


def assert_same_kind(result, like):
    """A result has the class, precision and device of what the caller passed."""
    assert type(result) is type(like)
    assert result.dtype == like.dtype
    assert getattr(result, "device", None) == getattr(like, "device", None)  # NumPy: from 2.0
