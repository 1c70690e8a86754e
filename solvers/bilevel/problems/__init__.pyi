from ._multi_block import MultiBlockLogistic as MultiBlockLogistic
from ._penalised import LogisticHPO as LogisticHPO
from ._penalised import RidgeHPO as RidgeHPO
from ._penalised import SoftmaxHPO as SoftmaxHPO
from ._quadratic import Quadratic as Quadratic
from ._weighted import HyperCleaning as HyperCleaning
from ._weighted import SvmHPO as SvmHPO
from ._weighted import WeightedTraining as WeightedTraining
