r"""Entropic optimal transport, certified.

Every function solves or judges

.. math:: \min_{P \ge 0} \; \langle C, P \rangle + \varepsilon \, \mathrm{KL}(P \,|\, a b^\top)
          \quad \text{with} \quad P 1 = a, \; P^\top 1 = b

and reports potentials with :math:`P_{ij} = a_i b_j \exp((f_i + g_j - C_{ij}) / \varepsilon)`.

===================== ======================================================================
function              what it does
===================== ======================================================================
`sinkhorn_newton`     annealed Newton steps on a sparse Hessian; the one to use
`sinkhorn`            alternating scaling, plain and accelerated
`sinkhorn_unbalanced` the same with marginals that may differ from the weights, at a price
`sinkhorn_divergence` compares clouds of points, without the entropy's bias
`barycenter`          the measure closest to several others
`TransportMap`        moves points as a scikit-learn transformer
`emd`                 exact plans, with proven bounds
`wasserstein`         distances between two proven bounds
`round_plan`          the nearest feasible plan, in one formula
`certify`             judges potentials, wherever they come from
`PointCloud`          stands for a cost matrix that is never stored
===================== ======================================================================
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
