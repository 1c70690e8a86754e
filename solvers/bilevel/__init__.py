r"""Bilevel problems by first derivatives, with a proof of stationarity.

.. math:: \min_{x \in X} \; \psi(x), \qquad
          \psi(x) = \min \{ f(x, y) : y \in \operatorname{argmin}_{v \in Y} g(x, v) \}.

For a small penalty :math:`\sigma` the smooth function

.. math:: \psi_\sigma(x) = \min_y \max_z \; f(x, y) + \frac{g(x, y) - g(x, z)}{\sigma} \le \psi(x)

has an exact gradient that needs no second derivatives.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
