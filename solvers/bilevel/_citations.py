"""BibTeX of the papers behind the methods."""

_KWON_2024 = """\
@inproceedings{kwon2024penalty,
  title = {On Penalty Methods for Nonconvex Bilevel Optimization and First-Order Stochastic
           Approximation},
  author = {Kwon, Jeongyeol and Kwon, Dohyun and Wright, Stephen and Nowak, Robert},
  booktitle = {International Conference on Learning Representations},
  year = {2024}
}"""

_YAO = """\
@inproceedings{yao2024constrained,
  title = {Constrained Bi-Level Optimization: Proximal {L}agrangian Value Function Approach and
           {H}essian-free Algorithm},
  author = {Yao, Wei and Yu, Chengming and Zeng, Shangzhi and Zhang, Jin},
  booktitle = {International Conference on Learning Representations},
  year = {2024}
}"""

_HU = """\
@inproceedings{hu2023blockwise,
  title = {Blockwise Stochastic Variance-Reduced Methods with Parallel Speedup for Multi-Block
           Bilevel Optimization},
  author = {Hu, Quanqi and Qiu, Zi-Hao and Guo, Zhishuai and Zhang, Lijun and Yang, Tianbao},
  booktitle = {International Conference on Machine Learning},
  year = {2023}
}"""

_HAO = """\
@inproceedings{hao2024unbounded,
  title = {Bilevel Optimization under Unbounded Smoothness: A New Algorithm and Convergence
           Analysis},
  author = {Hao, Jie and Gong, Xiaochuan and Liu, Mingrui},
  booktitle = {International Conference on Learning Representations},
  year = {2024}
}"""

_PEDREGOSA = """\
@inproceedings{pedregosa2016hyperparameter,
  title = {Hyperparameter Optimization with Approximate Gradient},
  author = {Pedregosa, Fabian},
  booktitle = {International Conference on Machine Learning},
  year = {2016}
}"""

_FRANCESCHI = """\
@inproceedings{franceschi2017forward,
  title = {Forward and Reverse Gradient-Based Hyperparameter Optimization},
  author = {Franceschi, Luca and Donini, Michele and Frasconi, Paolo and Pontil, Massimiliano},
  booktitle = {International Conference on Machine Learning},
  year = {2017}
}"""

CITATIONS = {
    "penalty": _KWON_2024,
    "penalty_sgd": _KWON_2024,
    "lvhba": _YAO,
    "bsvrb": _HU,
    "borep": _HAO,
    "implicit": _PEDREGOSA,
    "unroll": _FRANCESCHI,
}
