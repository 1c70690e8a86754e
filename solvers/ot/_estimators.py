"""Transport as a scikit-learn transformer."""

import numpy as np
from sklearn.base import BaseEstimator, OneToOneFeatureMixin, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from .._core._estimators import DTYPES
from .._core.arrays import Ingest
from ._cloud import PointCloud, checked_cloud
from ._problem import row_blocks
from ._sinkhorn_newton import sinkhorn_newton


class TransportMap(OneToOneFeatureMixin, TransformerMixin, BaseEstimator):
    r"""Move points the way that optimal transport moves one cloud onto another.

    `fit` transports the points of `X`, with equal weights, onto those of a target cloud, and
    `transform` moves any point to the mean of the targets that it is transported to. New points
    are weighed by the same formula, so the map is smooth and defined everywhere.

    Parameters
    ----------
    cost : {"sqeuclidean", "euclidean", "cityblock", "cosine"} or callable, default "sqeuclidean"
        Cost between two points, as in `PointCloud`.
    reg : float, optional
        Entropic weight, in the unit of the cost; the larger, the more targets share a point.
        Default: 0.05 times the standard deviation of the costs.
    target : array, shape (k, d), optional
        Target cloud, unless `fit` is given one. Default: `X` itself, which makes the map a
        smoother.
    tol : float, optional
        Largest marginal error of the plan. Default: 1e-8, in float32 1e-5.
    max_iter : int, default 500
        Largest number of passes over the costs.

    Attributes
    ----------
    target_ : ndarray, shape (k, d)
        The target cloud.
    potential_ : ndarray, shape (k,)
        Potential of the targets, in the unit of the cost.
    reg_ : float
        The entropic weight used.
    result_ : TransportResult
        Everything else about the plan, with its certificate.
    n_iter_ : int
        Passes over the costs.
    n_features_in_ : int
        Number of coordinates of a point.
    feature_names_in_ : ndarray of str
        Names of the columns of `X`, where it had any.

    See Also
    --------
    sinkhorn_newton : What `fit` calls.

    Notes
    -----
    The image of a point `x` is :math:`\sum_j p_j y_j` with :math:`p_j \propto b_j \exp((g_j -
    c(x, y_j)) / \varepsilon)`, the barycentric projection of the entropic plan. Costs are
    evaluated in blocks and never stored.

    References
    ----------
    .. [1] A.-A. Pooladian, J. Niles-Weed. Entropic estimation of optimal transport maps. 2021.
       arXiv:2109.12004.

    Examples
    --------
    >>> import numpy as np, solvers
    >>> x = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    >>> solvers.ot.TransportMap(reg=0.1).fit(x, x + 5.0).transform([[0.0, 0.0]]).round(2)
    array([[5., 5.]])
    """

    def __init__(self, cost="sqeuclidean", reg=None, target=None, tol=None, max_iter=500):
        self.cost = cost
        self.reg = reg
        self.target = target
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X, y=None):
        """Find the plan between `X` and the target cloud.

        Parameters
        ----------
        X : array, shape (n, d)
            Source points.
        y : array, shape (k, d), optional
            Target points. Labels, a one-dimensional `y`, are ignored.

        Returns
        -------
        TransportMap
            Itself.
        """
        X = validate_data(self, X, dtype=DTYPES)
        target = self.target if y is None or np.asarray(y).ndim == 1 else y
        if target is None:
            target = X
        else:
            name = "target" if target is self.target else "y"
            target = check_array(target, dtype=X.dtype, input_name=name)
            if target.shape[1] != X.shape[1]:
                raise ValueError(
                    f"`{name}` came with shape {target.shape}; expected {X.shape[1]} columns, "
                    "as in `X`"
                )
        cloud = PointCloud(X, target, cost=self.cost)
        res = sinkhorn_newton(None, None, cloud, reg=self.reg, tol=self.tol, maxiter=self.max_iter)
        self.target_, self.potential_, self.reg_ = target, res.g, res.reg
        self.result_, self.n_iter_ = res, res.nit
        return self

    def transform(self, X):
        """Move points.

        Parameters
        ----------
        X : array, shape (n, d)
            Points, whether `fit` has seen them or not.

        Returns
        -------
        ndarray, shape (n, d)
            Their images, in the convex hull of the target cloud.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=DTYPES, reset=False)
        cloud = PointCloud(X, self.target_, cost=self.cost)
        io = Ingest(x=X, y=self.target_)
        C = checked_cloud(cloud, io)
        images = np.empty(X.shape, X.dtype)
        for rows in row_blocks(io.be, C):
            z = (self.potential_ - C[rows]) / self.reg_
            z -= z.max(axis=1, keepdims=True)
            np.exp(z, out=z)
            # The targets' weights are equal, so they cancel.
            images[rows] = (z @ self.target_) / z.sum(axis=1, keepdims=True)
        return images

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
