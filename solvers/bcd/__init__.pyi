from ._certificate import alpha_max as alpha_max
from ._certificate import certify as certify
from ._least_squares import bvls as bvls
from ._least_squares import elastic_net as elastic_net
from ._least_squares import lasso as lasso
from ._least_squares import nnls as nnls
from ._problem import Problem as Problem
from ._result import BlockResult as BlockResult
