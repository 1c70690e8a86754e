from . import bcd as bcd
from . import bilevel as bilevel
from . import completion as completion
from . import constrained as constrained
from . import datasets as datasets
from . import linalg as linalg
from . import losses as losses
from . import newton as newton
from . import ot as ot
from . import penalties as penalties
from . import relu as relu
from ._core.certificate import Certificate as Certificate
from ._core.config import show_config as show_config
from ._core.config import warmup as warmup
from ._core.plotting import plot_convergence as plot_convergence
from ._core.result import ConvergenceWarning as ConvergenceWarning
from ._core.result import Result as Result
from ._core.result import Status as Status

__version__: str
