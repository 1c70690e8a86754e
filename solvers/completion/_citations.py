"""BibTeX entries of the methods, by public function and by stage."""

_ROBUST = """\
@inproceedings{gu2024low,
  title = {Low rank matrix completion via robust alternating minimization in nearly linear time},
  author = {Gu, Yuzhou and Song, Zhao and Yin, Junze and Zhang, Lichen},
  booktitle = {International Conference on Learning Representations},
  year = {2024},
  eprint = {2302.11068},
  archiveprefix = {arXiv},
}"""
_IRLS = """\
@inproceedings{kuemmerle2021scalable,
  title = {A scalable second order method for ill-conditioned matrix completion from few samples},
  author = {K{\\"u}mmerle, Christian and {Mayrink Verdun}, Claudio},
  booktitle = {International Conference on Machine Learning},
  year = {2021},
  eprint = {2106.02119},
  archiveprefix = {arXiv},
}"""
_GAUSS_NEWTON = """\
@article{zilber2022gnmr,
  title = {{GNMR}: a provable one-line algorithm for low rank matrix recovery},
  author = {Zilber, Pini and Nadler, Boaz},
  journal = {SIAM Journal on Mathematics of Data Science},
  year = {2022},
  eprint = {2106.12933},
  archiveprefix = {arXiv},
}"""
_VARPRO = """\
@inproceedings{hong2015secrets,
  title = {Secrets of matrix factorization: approximations, numerics, manifold optimization and
           random restarts},
  author = {Hong, Je Hyeong and Fitzgibbon, Andrew},
  booktitle = {IEEE International Conference on Computer Vision},
  year = {2015},
}"""
_SCALED_GD = """\
@article{tong2021accelerating,
  title = {Accelerating ill-conditioned low-rank matrix estimation via scaled gradient descent},
  author = {Tong, Tian and Ma, Cong and Chi, Yuejie},
  journal = {Journal of Machine Learning Research},
  volume = {22},
  year = {2021},
  eprint = {2005.08898},
  archiveprefix = {arXiv},
}"""
_LMAFIT = """\
@article{wen2012solving,
  title = {Solving a low-rank factorization model for matrix completion by a nonlinear successive
           over-relaxation algorithm},
  author = {Wen, Zaiwen and Yin, Wotao and Zhang, Yin},
  journal = {Mathematical Programming Computation},
  volume = {4},
  pages = {333--361},
  year = {2012},
}"""
_SOFT_IMPUTE = """\
@article{hastie2015matrix,
  title = {Matrix completion and low-rank {SVD} via fast alternating least squares},
  author = {Hastie, Trevor and Mazumder, Rahul and Lee, Jason D. and Zadeh, Reza},
  journal = {Journal of Machine Learning Research},
  volume = {16},
  year = {2015},
  eprint = {1410.2596},
  archiveprefix = {arXiv},
}"""
_IMPLICIT = """\
@inproceedings{hu2008collaborative,
  title = {Collaborative filtering for implicit feedback datasets},
  author = {Hu, Yifan and Koren, Yehuda and Volinsky, Chris},
  booktitle = {IEEE International Conference on Data Mining},
  year = {2008},
}"""

CITATIONS = {
    "alternating_minimization": _ROBUST,
    "altmin": _ROBUST,
    "matrix_irls": _IRLS,
    "irls": _IRLS,
    "gauss_newton": _GAUSS_NEWTON,
    "gn": _GAUSS_NEWTON,
    "varpro": _VARPRO,
    "scaled_gd": _SCALED_GD,
    "lmafit": _LMAFIT,
    "soft_impute": _SOFT_IMPUTE,
    "als_implicit": _IMPLICIT,
}
