r"""Block coordinate descent and sparse models, certified.

.. math:: \min_{w, c} \; \sum_i s_i \, \phi(y_i, x_i^\top w + c) + \sum_j G_j(w_j)
          \qquad \text{and} \qquad
          \min_x \; \tfrac{1}{2} x^\top A x - b^\top x + \sum_i G_i(x_i)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
