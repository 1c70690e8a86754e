from ._adasketch import adasketch_newton as adasketch_newton
from ._certificate import certify as certify
from ._minimize import minimize as minimize
from ._result import ConstrainedResult as ConstrainedResult
from ._result import LinearResult as LinearResult
from ._sketch_project import sketch_project as sketch_project
