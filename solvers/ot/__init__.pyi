from ._certificate import certify as certify
from ._cloud import PointCloud as PointCloud
from ._result import TransportResult as TransportResult
from ._rounding import round_plan as round_plan
from ._sinkhorn import sinkhorn as sinkhorn
from ._sinkhorn_newton import sinkhorn_newton as sinkhorn_newton
from ._unbalanced import sinkhorn_unbalanced as sinkhorn_unbalanced
