"""Numerical solvers whose results carry certificates.

Names load on first use, so that importing the package costs next to nothing; the list of public
names is in `__init__.pyi`.
"""

import lazy_loader

__version__ = "0.1.0.dev0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
