"""scikit-learn estimators: networks trained to a certificate, in the layout of `MLPClassifier`."""

import numpy as np
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from .. import relu
from .._core._estimators import DTYPES, Classifier, numbered
from .._core.arrays import framework, to_numpy
from .._core.backend import get_backend
from .._core.validation import check_choice, check_flag, check_positive
from ._radius import radii

METHODS = ("admm", "ipm", "scp", "gated")
_BACKENDS = {None: "numpy", "cpu": "numpy", "gpu": "cupy"}


class Network(BaseEstimator):
    """What the two estimators share: scaling, training, and the network in the units of X."""

    def __init__(
        self,
        beta,
        *,
        loss,
        n_gates,
        robust_eps,
        bias,
        normalize,
        refine,
        tol,
        max_iter,
        method,
        device,
        random_state,
    ):
        self.beta = beta
        self.loss = loss
        self.n_gates = n_gates
        self.robust_eps = robust_eps
        self.bias = bias
        self.normalize = normalize
        self.refine = refine
        self.tol = tol
        self.max_iter = max_iter
        self.method = method
        self.device = device
        self.random_state = random_state

    def _train(self, X, Y):
        """Train on targets Y (n,) or (n, c) and keep the network."""
        mean, scale, one = self._scaling(X)
        Z = (X - mean) / scale
        if check_flag(self.bias, "bias"):
            Z = np.concatenate([Z, np.full((len(Z), 1), one, Z.dtype)], axis=1)
        self.result_ = res = self._solve(Z, Y, scale)
        hidden, out = to_numpy(res.net.hidden), to_numpy(res.net.out)
        hidden, offset = hidden[: X.shape[1]], one * hidden[X.shape[1] :].sum(axis=0)
        hidden = hidden / scale[:, None]
        out = out if out.ndim == 2 else out[:, None]
        self.coefs_ = [hidden, out]
        self.intercepts_ = [offset - mean @ hidden, np.zeros(out.shape[1], X.dtype)]
        self.certificate_, self.gap_, self.gap_global_ = res.certificate, res.gap, res.gap_global
        self.loss_ = res.fun / len(X)
        # A start that is good enough counts as one iteration, as scikit-learn wants it.
        self.n_iter_ = max(res.nit, 1)
        return self

    def _scaling(self, X):
        """Return what is taken off the features, what they are divided by, and the constant one.

        Rows then are of length 1 on average, so that `beta` means the same for few features and
        for many, and an offset costs as much as a weight.
        """
        d = X.shape[1]
        if not check_flag(self.normalize, "normalize"):
            return np.zeros(d, X.dtype), np.ones(d, X.dtype), 1.0
        wide = X.astype(np.float64, copy=False)
        mean, deviation = wide.mean(axis=0), wide.std(axis=0)
        # What is left of a constant feature is rounding.
        constant = deviation <= 1e3 * np.finfo(X.dtype).eps * abs(wide).max(axis=0)
        length = float(np.sqrt(d + bool(self.bias)))
        scale = np.where(constant, 1.0, deviation) * length
        return mean.astype(X.dtype), scale.astype(X.dtype), 1.0 / length

    def _solve(self, Z, Y, scale):
        method = check_choice(self.method, "method", METHODS)
        xp = get_backend(_BACKENDS[check_choice(self.device, "device", tuple(_BACKENDS))]).xp
        options = {
            # The functions' losses are sums over samples.
            "beta": len(Z) * check_positive(self.beta, "beta"),
            "loss": self.loss,
            "tol": self.tol,
            "maxiter": self.max_iter,
            "rng": check_random_state(self.random_state).randint(2**31 - 1),
        }
        size = None if isinstance(self.n_gates, str) and self.n_gates == "auto" else self.n_gates
        options["n_neurons" if method == "scp" else "n_gates"] = size
        if method == "admm":
            options["refine"] = self.refine
        if self.robust_eps is not None:
            if method != "admm":
                raise ValueError(
                    f"`robust_eps` came with method={method!r}; expected method='admm'"
                )
            options["robust_eps"] = self._radius(scale)
        solve = {
            "admm": "admm",
            "ipm": "interior_point",
            "scp": "sampled_convex",
            "gated": "gated",
        }[method]
        return getattr(relu, solve)(xp.asarray(Z), xp.asarray(Y), **options)

    def _radius(self, scale):
        """Return `robust_eps` in the units of the scaled features; the ones stay as they are."""
        eps = np.asarray(self.robust_eps, dtype=np.float64)
        if eps.ndim > 1 or (eps.ndim == 1 and eps.shape != scale.shape):
            raise ValueError(
                f"`robust_eps` came with shape {eps.shape}; expected a number or one for each of "
                f"{scale.size} features"
            )
        return np.append(eps / scale, np.zeros(int(self.bias)))

    def _scores(self, X):
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=DTYPES)
        (hidden, out), (offset, constant) = self.coefs_, self.intercepts_
        return np.maximum(X @ hidden + offset, 0.0) @ out + constant

    def to_torch(self):
        """Return the network as a PyTorch module.

        Returns
        -------
        torch.nn.Sequential
            A linear layer, ReLU, a linear layer; one output for each target or class, for two
            classes one. Outputs are those of `decision_function` or `predict`, as columns.
        """
        check_is_fitted(self)
        torch = framework("torch")
        layers = []
        for weights, offsets in zip(self.coefs_, self.intercepts_, strict=True):
            layer = torch.nn.Linear(*weights.shape, dtype=torch.from_numpy(weights).dtype)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(weights.T.copy()))
                layer.bias.copy_(torch.from_numpy(offsets.copy()))
            layers.append(layer)
        return torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1])

    def _filled(self, mlp, activation):
        """Give a network of scikit-learn what it would have learnt."""
        mlp.coefs_ = [weights.copy() for weights in self.coefs_]
        mlp.intercepts_ = [offsets.copy() for offsets in self.intercepts_]
        mlp.n_layers_, mlp.n_outputs_ = 3, self.coefs_[1].shape[1]
        mlp.out_activation_ = activation
        mlp.n_iter_, mlp.loss_, mlp.n_features_in_ = self.n_iter_, self.loss_, self.n_features_in_
        if hasattr(self, "feature_names_in_"):
            mlp.feature_names_in_ = self.feature_names_in_
        return mlp

    def _mlp_options(self):
        return {"hidden_layer_sizes": (self.coefs_[0].shape[1],), "activation": "relu"}


def _has_chances(estimator):
    if estimator.loss != "logistic":
        raise AttributeError(f"probabilities need loss='logistic', not {estimator.loss!r}")
    return True


class ConvexReLUClassifier(Classifier, Network):
    r"""Classification by a two-layer ReLU network, trained to a certified optimum.

    Minimises the *mean* loss plus :math:`\tfrac{\beta}{2} \sum_j (\|u_j\|^2 + \alpha_j^2)` over
    the neurons of :math:`f(x) = \sum_j (x^\top u_j)_+ \alpha_j`, by convex programmes over sets
    of activation patterns. More than two classes are told apart one against the rest.

    Parameters
    ----------
    beta : float, default 1e-3
        Weight of the penalty.
    loss : {"logistic", "hinge", "squared_hinge", "squared"}, default "logistic"
        Loss of a score and a label -1 or 1.
    n_gates : int or "auto", default "auto"
        Activation patterns, or neurons if `method` is "scp"; see `admm`.
    robust_eps : float or array of shape (p,), optional
        Train against every change of each feature by up to this much, in its own unit.
    bias : bool, default True
        Whether neurons have an offset. It is penalised like a weight.
    normalize : bool, default True
        Whether to standardise features. Predictions do not depend on the features' units then.
    refine : int or "auto", default "auto"
        Rounds in which the patterns improve, see `admm`; 0 keeps those that were drawn.
    tol : float, default 1e-3
        Largest relative duality gap.
    max_iter : int, default 2000
        Largest number of iterations.
    method : {"admm", "ipm", "scp", "gated"}, default "admm"
        `admm`, `interior_point`, `sampled_convex` or `gated`.
    device : {None, "cpu", "gpu"}, default None
        Where to train; None is the CPU.
    random_state : int, RandomState or None, default None
        Where patterns are drawn from.

    Attributes
    ----------
    classes_ : ndarray
        Labels, sorted.
    coefs_, intercepts_ : list of ndarray
        The network as in `sklearn.neural_network.MLPClassifier`, in the units of `X`.
    certificate_ : Certificate
        How far from the optimum over the patterns used the training is.
    gap_, gap_global_ : float
        The relative gap over these patterns, and over all networks.
    loss_ : float
        The objective.
    n_iter_ : int
        Iterations.
    result_ : ReLUResult
        Everything else about the answer, in the units of scaled features.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : ndarray of str
        Their names, where `X` had any.

    Examples
    --------
    >>> import solvers
    >>> from sklearn.datasets import make_moons
    >>> X, y = make_moons(100, noise=0.1, random_state=0)
    >>> model = solvers.relu.ConvexReLUClassifier(beta=1e-3, random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.95)
    True
    """

    def __init__(
        self,
        beta=1e-3,
        *,
        loss="logistic",
        n_gates="auto",
        robust_eps=None,
        bias=True,
        normalize=True,
        refine="auto",
        tol=1e-3,
        max_iter=2000,
        method="admm",
        device=None,
        random_state=None,
    ):
        super().__init__(
            beta,
            loss=loss,
            n_gates=n_gates,
            robust_eps=robust_eps,
            bias=bias,
            normalize=normalize,
            refine=refine,
            tol=tol,
            max_iter=max_iter,
            method=method,
            device=device,
            random_state=random_state,
        )

    def fit(self, X, y):
        """Train the network.

        Parameters
        ----------
        X : array, shape (n, p)
            Rows are samples.
        y : array, shape (n,)
            Labels of any kind, of two classes or more.

        Returns
        -------
        ConvexReLUClassifier
            Itself.
        """
        X, y = validate_data(self, X, y, dtype=DTYPES)
        self.classes_, place = numbered(y)
        signs = np.where(place[:, None] == np.arange(len(self.classes_)), 1.0, -1.0)
        signs = signs.astype(X.dtype)
        return self._train(X, signs if len(self.classes_) > 2 else signs[:, 1])

    @available_if(_has_chances)
    def predict_proba(self, X):
        """Predict probabilities of classes; with the logistic loss only.

        Parameters
        ----------
        X : array, shape (q, p)
            Rows are samples.

        Returns
        -------
        ndarray, shape (q, c)
            Rows sum to one. For more than two classes these are the probabilities of each class
            against the rest, divided by their sum.
        """
        scores = self._scores(X).astype(np.float64)
        chances = 0.5 * (1.0 + np.tanh(0.5 * scores))
        if len(self.classes_) == 2:
            return np.hstack([1.0 - chances, chances])
        # Where all classes are out of the question, none is preferred.
        total = chances.sum(axis=1, keepdims=True)
        return np.where(total > 0, chances, 1.0) / np.where(total > 0, total, chances.shape[1])

    def certified_radius(self, X):
        """Return how far the features of samples may move before the label can change.

        Parameters
        ----------
        X : array, shape (q, p)
            Rows are samples.

        Returns
        -------
        ndarray, shape (q,)
            No change of all features by up to this much, in the units of `X`, changes the
            predicted label. Bounds from intervals: the true radius may be larger.
        """
        scores = self._scores(X)
        X = np.asarray(validate_data(self, X, reset=False, dtype=DTYPES), np.float64)
        if scores.shape[1] == 1:
            scores = np.hstack([-scores, scores]) / 2
        hidden, out = (a.astype(np.float64) for a in self.coefs_)
        out = np.hstack([-out, out]) / 2 if out.shape[1] == 1 else out
        pre = X @ hidden + self.intercepts_[0]
        return radii(pre, abs(hidden).sum(axis=0), out, scores.argmax(axis=1))

    def to_mlp(self):
        """Return the network as a fitted network of scikit-learn.

        Returns
        -------
        sklearn.neural_network.MLPClassifier
            It predicts the same labels. Its probabilities of more than two classes are those of
            a softmax of the scores.
        """
        check_is_fitted(self)
        two = len(self.classes_) == 2
        mlp = self._filled(MLPClassifier(**self._mlp_options()), "logistic" if two else "softmax")
        mlp.classes_ = self.classes_
        mlp._label_binarizer = LabelBinarizer().fit(self.classes_)
        return mlp


class ConvexReLURegressor(RegressorMixin, MultiOutputMixin, Network):
    r"""Regression by a two-layer ReLU network, trained to a certified optimum.

    Minimises the *mean* loss plus :math:`\tfrac{\beta}{2} \sum_j (\|u_j\|^2 + \alpha_j^2)` over
    the neurons of :math:`f(x) = \sum_j (x^\top u_j)_+ \alpha_j`, by convex programmes over sets
    of activation patterns. Several targets are several networks.

    Parameters
    ----------
    beta : float, default 1e-3
        Weight of the penalty.
    loss : {"squared", "huber"}, default "squared"
        Half the square of a residual; with "huber" only up to 1.35, in the unit of standardised
        targets, and linear from there.
    n_gates, robust_eps, bias : object
        As in `ConvexReLUClassifier`.
    normalize : bool, default True
        Whether to standardise features and targets.
    refine, tol, max_iter, method, device, random_state : object
        As in `ConvexReLUClassifier`.

    Attributes
    ----------
    coefs_, intercepts_ : list of ndarray
        The network as in `sklearn.neural_network.MLPRegressor`, in the units of `X` and `y`.
    certificate_, gap_, gap_global_, n_iter_, n_features_in_, feature_names_in_ : object
        As in `ConvexReLUClassifier`.
    loss_ : float
        The objective, in the unit of standardised targets.
    result_ : ReLUResult
        Everything else about the answer, in the units of scaled features and targets.

    Examples
    --------
    >>> import solvers
    >>> from sklearn.datasets import make_friedman1
    >>> X, y = make_friedman1(150, 5, random_state=0)
    >>> model = solvers.relu.ConvexReLURegressor(beta=1e-3, random_state=0).fit(X, y)
    >>> bool(model.score(X, y) > 0.9)
    True
    """

    def __init__(
        self,
        beta=1e-3,
        *,
        loss="squared",
        n_gates="auto",
        robust_eps=None,
        bias=True,
        normalize=True,
        refine="auto",
        tol=1e-3,
        max_iter=2000,
        method="admm",
        device=None,
        random_state=None,
    ):
        super().__init__(
            beta,
            loss=loss,
            n_gates=n_gates,
            robust_eps=robust_eps,
            bias=bias,
            normalize=normalize,
            refine=refine,
            tol=tol,
            max_iter=max_iter,
            method=method,
            device=device,
            random_state=random_state,
        )

    def fit(self, X, y):
        """Train the network.

        Parameters
        ----------
        X : array, shape (n, p)
            Rows are samples.
        y : array, shape (n,) or (n, c)
            Targets.

        Returns
        -------
        ConvexReLURegressor
            Itself.
        """
        X, y = validate_data(self, X, y, dtype=DTYPES, multi_output=True, y_numeric=True)
        y = y.astype(X.dtype, copy=False)
        mean, unit = np.zeros(1, X.dtype), np.ones(1, X.dtype)
        if check_flag(self.normalize, "normalize"):
            mean, unit = np.atleast_1d(y.mean(axis=0)), np.atleast_1d(y.std(axis=0))
            unit = np.where(unit > 0, unit, 1)
        self._train(X, (y - mean) / unit)
        self._column = y.ndim == 1
        self.coefs_[1] = self.coefs_[1] * unit
        self.intercepts_[1] = self.intercepts_[1] + mean
        return self

    def predict(self, X):
        """Predict targets.

        Parameters
        ----------
        X : array, shape (q, p)
            Rows are samples.

        Returns
        -------
        ndarray, shape (q,) or (q, c)
            Predictions.
        """
        outputs = self._scores(X)
        return outputs[:, 0] if self._column else outputs

    def to_mlp(self):
        """Return the network as a fitted network of scikit-learn.

        Returns
        -------
        sklearn.neural_network.MLPRegressor
            It makes the same predictions.
        """
        check_is_fitted(self)
        return self._filled(MLPRegressor(**self._mlp_options()), "identity")
