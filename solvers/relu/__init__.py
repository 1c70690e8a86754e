r"""Two-layer ReLU networks trained to a certified optimum.

.. math:: \min_{u, \alpha} \; L\left(\sum_j (X u_j)_+ \alpha_j, \, y\right)
          + \tfrac{\beta}{2} \sum_j \left(\|u_j\|^2 + \alpha_j^2\right)

is, over a set of gates :math:`D_i = \operatorname{diag}(1[X g_i \ge 0])`, the convex programme

.. math:: \min_{v, w} \; L\left(\sum_i D_i X (v_i - w_i), \, y\right)
          + \beta \sum_i \left(\|v_i\| + \|w_i\|\right)
          \quad \text{with} \quad (2 D_i - 1) X v_i \ge 0, \; (2 D_i - 1) X w_i \ge 0.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
