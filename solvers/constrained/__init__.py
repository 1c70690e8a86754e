r"""Constrained optimisation by exact augmented Lagrangian Newton steps, certified.

.. math:: \min_x \; f(x) \quad \text{subject to} \quad l_c \le c(x) \le u_c,
          \qquad l_x \le x \le u_x

The Lagrangian is :math:`L = f + \lambda^\top c`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
