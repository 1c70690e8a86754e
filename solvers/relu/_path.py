"""One programme for many penalty weights: the same gates, each answer the start of the next."""

import inspect
import math
import warnings
from importlib import import_module

import numpy as np

from .._core.arrays import to_numpy
from .._core.monitor import Monitor
from .._core.random import check_rng
from .._core.result import ConvergenceWarning, Status
from .._core.validation import check_choice, check_count, check_time_limit, describe
from ._certificate_bounds import dual_norm
from ._certificate_data import Data
from ._gates import Gates
from ._groups import NORMS, PerOutput
from ._problem import check_data
from ._softmax import EVERY

_DATA = ("X", "y", "beta")
METHODS = ("admm", "interior_point", "gated", "sampled_convex")
# Weights where the caller names none, and the smallest of them relative to the largest.
_COUNT, _RANGE = 20, 1e-3


def path(X, y, *, betas=None, method="admm", **options):
    r"""Train networks for a sequence of penalty weights, each answer certified.

    The weights are solved from the largest down, every answer the start of the next, over one set
    of gates or neurons.

    Parameters
    ----------
    X : array, shape (n, d)
        Data, one sample in each row.
    y : array, shape (n,) or (n, c)
        Targets.
    betas : int or sequence of float, optional
        Penalty weights, or how many, evenly spaced on a logarithmic scale from the smallest at
        which the network is zero down to a thousandth of it. Default: 20.
    method : {"admm", "interior_point", "gated", "sampled_convex"}
        The function that trains.
    **options : object
        Options of that function, but for `beta`. `time_limit` is that of all weights together; a
        callback that ends a run ends the path. With a `refine` each weight adds its own gates.

    Returns
    -------
    list of ReLUResult
        One for each weight, in the order in which they were given; each has a field `beta`.
        Shorter if a callback ended the path.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, or has an illegal value; the message names it.

    Warns
    -----
    ConvergenceWarning
        Once, if the certificate of any weight does not hold.

    References
    ----------
    .. [1] J. Friedman, T. Hastie, R. Tibshirani. Regularization paths for generalized linear
       models via coordinate descent. Journal of Statistical Software 33(1), 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from solvers import relu
    >>> x = np.linspace(-1.0, 1.0, 20)
    >>> results = relu.path(
    ...     np.c_[x, np.ones(20)], abs(x), betas=[0.1, 1.0], method="gated", n_gates=10, rng=0
    ... )
    >>> [res.beta for res in results]
    [0.1, 1.0]
    >>> bool(results[0].fun_convex < results[1].fun_convex)
    True
    """
    check_choice(method, "method", METHODS)
    train = getattr(import_module(__package__), method)
    _check_options(train, options)
    limit = check_time_limit(options.pop("time_limit", None))
    # One seed, so that every weight has the same neurons.
    options["rng"] = int(check_rng(options.get("rng")).integers(2**62))
    weights, found = _given(betas), {}
    clock = Monitor("path", "gap", tol=math.inf, maxiter=None)
    with warnings.catch_warnings():
        # One sentence about all weights takes their place.
        warnings.simplefilter("ignore", ConvergenceWarning)
        if isinstance(weights, int):
            weights, options = _spaced(X, y, train, weights, options)
        for k in sorted(range(len(weights)), key=weights.__getitem__, reverse=True):
            left = None if limit is None else max(limit - clock.seconds, 1e-9)
            res = found[k] = train(X, y, beta=weights[k], time_limit=left, **options)
            res["beta"] = weights[k]
            if res.status == Status.CALLBACK:
                break
            options = {**_over(res, train, options), "x0": res}
    results = [found[k] for k in sorted(found)]
    _warn(results)
    return results


def _check_options(train, options):
    legal = [
        name for name in inspect.signature(train).parameters if name not in ("X", "y", "beta")
    ]
    for name in options:
        if name not in legal:
            raise TypeError(
                f"`{name}` is no option of {train.__name__}; expected one of {', '.join(legal)}"
            )


def _given(betas):
    """Return the weights, or how many there should be."""
    if np.ndim(_COUNT if betas is None else betas) == 0:
        return _COUNT if betas is None else check_count(betas, "betas", minimum=1)
    try:
        weights = np.array(to_numpy(betas), dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(
            f"`betas` came as {describe(betas)}; expected a number of weights or a list of them"
        ) from None
    if weights.ndim != 1 or not weights.size:
        raise ValueError(f"`betas` came with shape {weights.shape}; expected a list of weights")
    if not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError("`betas` holds other than positive finite weights; expected only those")
    return weights.tolist()


def _spaced(X, y, train, count, options):
    """Return weights from the smallest that gives the zero network, and options with its gates."""
    names = ("loss", "delta", "logit_scale", "bias")
    given = {"loss": "squared", **{name: options[name] for name in names if name in options}}
    io, Z, Y, _, parameters = check_data(X, y, losses=EVERY, **given)
    unit = 1.0 / len(Z) if options.get("loss_scale") == "mean" else 1.0
    none = Gates(np.zeros((len(Z), 1), dtype=bool))
    data = Data(io.be.host(Z), io.be.host(Y), given["loss"], parameters, 1.0, none)
    z = data.loss.clip(-data.loss.slope(np.zeros(Y.shape)))
    above = float(data.lengths_of(z).sum())
    if not above > 0:
        raise ValueError(
            "`betas` came as None or a number of weights; expected a list of them: here every "
            "weight makes the network zero"
        )
    # It ends at once: so large a weight leaves nothing to do but to draw.
    res = train(X, y, beta=unit * above, **{**options, "x0": None})
    largest = _largest(data.over(res.gates), z, train.__name__, options)
    return (unit * largest * np.geomspace(1.0, _RANGE, count)).tolist(), _over(res, train, options)


def _largest(data, z, method, options):
    """Return the smallest weight of the penalty at which z, the slope at zero, is feasible."""
    if method == "sampled_convex":
        H = np.maximum(data.X @ to_numpy(data.gates.vectors).astype(np.float64), 0.0)
        return float(abs(z @ H).max())
    if method == "gated":
        joint = options.get("multi_output") == "joint"
        norm = NORMS[options.get("norm", "frobenius")] if joint else PerOutput
        return norm(np).dual(data.transpose(z)[:, 0])
    return dual_norm(data, z)


def _over(res, train, options):
    """Return options for the gates of a result."""
    takes = "gates" in inspect.signature(train).parameters
    return {**options, "gates": res.gates} if takes else options


def _warn(results):
    missed = [res for res in results if not res.success and res.status != Status.CALLBACK]
    if missed:
        worst = max(missed, key=lambda res: res.certificate.value)
        message = (
            f"path: {len(missed)} of {len(results)} weights ended above the tolerance, the worst "
            f"at {worst.beta:.3g}: {worst.message}"
        )
        warnings.warn(message, ConvergenceWarning, stacklevel=3)
