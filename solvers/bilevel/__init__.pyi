from ._certificate import certify as certify
from ._hypergradient import HyperGradient as HyperGradient
from ._hypergradient import hypergradient as hypergradient
from ._oracle import Oracle as Oracle
from ._penalty import penalty as penalty
from ._result import BilevelResult as BilevelResult
from ._sets import box as box
from ._sets import nonneg as nonneg
