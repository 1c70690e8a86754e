from ._altmin import alternating_minimization as alternating_minimization
from ._certificate import certify as certify
from ._estimators import ImplicitALS as ImplicitALS
from ._estimators import MatrixCompletion as MatrixCompletion
from ._planted import make_planted as make_planted
from ._result import CompletionResult as CompletionResult
from ._scaled_gd import scaled_gd as scaled_gd
from ._soft_impute import soft_impute as soft_impute
