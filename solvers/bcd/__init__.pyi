from ._certificate import alpha_max as alpha_max
from ._certificate import certify as certify
from ._models import lasso as lasso
from ._problem import Problem as Problem
from ._result import BlockResult as BlockResult
from ._graph import label_propagation as label_propagation
from ._clustering import transductive_clustering as transductive_clustering
from ._nmf import nmf as nmf
