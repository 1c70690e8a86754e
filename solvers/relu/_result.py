"""What the solvers of the family return."""

from typing import Any, ClassVar

from .._core.result import Result

CITATION = """\
@article{bai2023efficient,
  title = {Efficient Global Optimization of Two-Layer {ReLU} Networks: Quadratic-Time Algorithms
           and Adversarial Training},
  author = {Bai, Yatong and Gautam, Tanmay and Sojoudi, Somayeh},
  journal = {SIAM Journal on Mathematics of Data Science},
  volume = {5},
  number = {2},
  pages = {446--474},
  year = {2023}
}"""


class ReLUResult(Result):
    """Outcome of a solver of `solvers.relu`; ground floor, to be completed."""

    V: Any
    W: Any

    _bibtex: ClassVar = {"admm": CITATION}
