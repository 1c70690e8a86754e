"""What `path` returns."""

import math
from typing import Any

import numpy as np

from .._core.backend import get_backend
from .._core.result import Result
from ._result import CITATION


class PathResult(Result):
    """Outcome of `solvers.bcd.path`.

    Attributes
    ----------
    alphas : numpy.ndarray, shape (A,)
        Penalty weights, in descending order.
    coefs : array, shape (A, p) or (A, p, C)
        Coefficients for each weight, built when asked for; `sparse` keeps the zeros out.
    intercepts : array, shape (A,) or (A, C)
        Intercepts; 0 where none was fitted.
    fun : numpy.ndarray, shape (A,)
        Objectives.
    gaps : numpy.ndarray, shape (A,)
        Duality gaps; NaN where there are none.
    certified : numpy.ndarray, shape (A,)
        Values of the certificates; `certificate` is the one with the largest.
    nits : numpy.ndarray, shape (A,)
        Iterations for each weight; `nit` is the number of weights.
    classes : numpy.ndarray or None
        Labels, in the order of the columns of `coefs`; the second of two is the positive one.
    """

    alphas: np.ndarray
    intercepts: Any
    fun: Any
    gaps: np.ndarray
    certified: np.ndarray
    nits: np.ndarray
    classes: Any

    @property
    def coefs(self):
        """Coefficients for each weight."""
        rows = np.zeros((len(self.alphas), math.prod(self._shape)), self._out.dtype)
        for row, place, numbers in zip(rows, self._places, self._numbers, strict=True):
            row[place] = numbers
        rows = rows.reshape(-1, *self._shape)
        return self._out(get_backend(self._backend).xp.asarray(rows))

    def sparse(self):
        """Return the coefficients without their zeros.

        Returns
        -------
        scipy.sparse.csr_array, shape (A, p)
            Of several classes, those of feature j and class k are in column ``j C + k``.
        """
        from scipy.sparse import csr_array

        starts = np.cumsum([0, *(place.size for place in self._places)])
        shape = len(self.alphas), math.prod(self._shape)
        return csr_array(
            (np.concatenate(self._numbers), np.concatenate(self._places), starts), shape=shape
        )

    def plot_coefs(self, *, ax=None):
        """Draw the coefficients that are not zero everywhere against the penalty weight.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; by default a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes.

        Raises
        ------
        ImportError
            If matplotlib is not installed.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as error:
            raise ImportError(
                'Plots need matplotlib: pip install "array-solvers[plot]".', name="matplotlib"
            ) from error
        ax = plt.subplots()[1] if ax is None else ax
        rows = self.sparse().tocsc()
        for j in np.flatnonzero(np.diff(rows.indptr)):
            ax.plot(self.alphas, rows[:, [j]].toarray()[:, 0], linewidth=1)
        positive = bool(np.all(self.alphas > 0))
        ax.set(xlabel="alpha", ylabel="coefficients", xscale="log" if positive else "linear")
        ax.invert_xaxis()
        return ax

    def cite(self):
        """Return BibTeX for block coordinate descent, followed by the library's own entry.

        Returns
        -------
        str
            For a bibliography file.
        """
        return f"{CITATION}\n\n{super().cite()}"
