"""Bilevel problems that come up often, with fused oracles.

Each has ``upper, lower, x0, y0, X`` and goes to a solver in place of these:
``bilevel.penalty(problem)``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
