"""Random generators, as SPEC 7 of the Scientific Python project asks for."""

import numbers

import numpy as np

from .validation import describe

_LEGAL = (np.random.Generator, np.random.BitGenerator, np.random.SeedSequence)


def check_rng(rng):
    """Return a `numpy.random.Generator`; a Generator is used as it is and advances.

    Parameters
    ----------
    rng : None, int, SeedSequence, BitGenerator or Generator
        None takes fresh entropy from the system. Global random state is never used.
    """
    expected = "None, an int, a SeedSequence, a BitGenerator or a Generator"
    if isinstance(rng, np.random.RandomState):
        raise TypeError(
            f"`rng` came as the legacy numpy.RandomState; expected {expected}: "
            "pass np.random.default_rng(seed)"
        )
    if isinstance(rng, numbers.Integral) and not isinstance(rng, bool):
        if rng < 0:
            raise ValueError(f"`rng` came as {rng}; expected a seed >= 0")
    elif not (rng is None or isinstance(rng, _LEGAL)):
        raise TypeError(f"`rng` came as {describe(rng)}; expected {expected}")
    return np.random.default_rng(rng)
