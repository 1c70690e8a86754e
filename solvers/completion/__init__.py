r"""Matrix completion, certified.

.. math:: \min_{U, V} \; \tfrac{1}{2} \sum_{(i,j) \in \Omega} (u_i \cdot v_j - M_{ij})^2
          + \tfrac{\lambda}{2} (|U|_F^2 + |V|_F^2)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
