"""Compiling the kernels ahead of the first call that matters."""

import warnings

import numpy as np

from .._core.result import ConvergenceWarning
from ._sketch_project import sketch_project
from .sketches import SKETCHES


def warmup():
    """Take some steps of every sketch, on dense and sparse rows; nothing else is compiled."""
    from scipy import sparse

    A = np.eye(12) + 0.1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for sketch in SKETCHES:
            for matrix in (A, sparse.csr_array(A)):
                sketch_project(matrix, A.sum(axis=1), sketch=sketch, maxiter=20, rng=0)
