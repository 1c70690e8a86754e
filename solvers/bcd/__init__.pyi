from ._block_models import group_lasso as group_lasso
from ._block_models import multinomial as multinomial
from ._certificate import alpha_max as alpha_max
from ._certificate import certify as certify
from ._models import lasso as lasso
from ._problem import Problem as Problem
from ._result import BlockResult as BlockResult
