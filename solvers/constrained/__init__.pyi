from ._adasketch import adasketch_newton as adasketch_newton
from ._autodiff import autodiff as autodiff
from ._certificate import certify as certify
from ._minimize import minimize as minimize
from ._result import ConstrainedResult as ConstrainedResult
from ._result import LinearResult as LinearResult
from ._scipy_method import scipy_method as scipy_method
from ._sketch_project import sketch_project as sketch_project
