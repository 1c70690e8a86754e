from ._certificate import certify as certify
from ._minimize import minimize as minimize
from ._result import ConstrainedResult as ConstrainedResult
