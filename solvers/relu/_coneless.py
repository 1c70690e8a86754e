"""From a call to a result for programmes without cones: `gated` and `sampled_convex`."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .._core.arrays import Ingest
from .._core.certificate import Certificate
from .._core.monitor import Monitor
from .._core.random import check_rng
from .._core.validation import (
    check_array,
    check_callable,
    check_choice,
    check_count,
    check_flag,
    check_flag_or_stride,
    check_positive,
    check_threads,
    check_time_limit,
)
from ._certificate import relative_gap
from ._certificate_data import Data
from ._certificate_global import Everywhere, search
from ._net import Net, neurons, objective
from ._problem import Programme, check_data, theirs
from ._result import ReLUResult
from ._semismooth import Task
from ._softmax import EVERY

# Newton steps without a gap smaller by 1 %, after which a run has met its rounding errors.
_STALL = 60


@dataclass(frozen=True)
class Call:
    """The checked arguments that both functions share.

    Attributes
    ----------
    io : Ingest
    X, Y : array, shapes (n, d) and (c, n)
        With the column of ones, if there is a bias.
    vector : bool
        Whether the caller's targets had columns.
    unit : float
        What the loss is multiplied by in what the caller sees.
    beta : float
        The penalty of the sum of losses.
    """

    io: Any
    X: Any
    Y: Any
    vector: bool
    bias: bool
    loss: str
    parameters: dict[str, float]
    unit: float
    beta: float
    tol: float
    rng: np.random.Generator
    run: Monitor
    n_threads: int | None

    @property
    def xp(self):
        return self.io.xp

    def programme(self):
        """Return the programme with cones, without gates yet."""
        model = EVERY[self.loss](self.Y, self.xp, **self.parameters)
        return Programme(self.io.be, self.X, self.Y, model, self.beta, None, None, self.vector)

    def task(self, design, norm):
        """Return the programme for the solver, in the precision of the data."""
        return Task(self.io.be, design, self.programme().loss, norm, self.beta)

    def data(self, gates):
        """Return the programme as the judge knows it."""
        host = self.io.be.host
        return Data(host(self.X), host(self.Y), self.loss, self.parameters, self.beta, gates)

    def rounded(self, a):
        """Return an array as the caller will have it, on the host in float64."""
        return self.io.be.host(a).astype(self.io.dtype).astype(np.float64)

    def out(self, a):
        """Return a host array as the caller's kind."""
        return self.io.out(self.xp.asarray(a.astype(self.io.dtype)))


def pose(
    name, X, y, *, beta, loss, delta, logit_scale, loss_scale, bias, tol, maxiter, callback,
    time_limit, progress, history, n_threads, rng, gates=None,
):  # fmt: skip
    """Check what both functions take; `name` is that of the function."""
    beta = check_positive(beta, "beta")
    bias = check_flag(bias, "bias")
    io, X, Y, vector, parameters = check_data(
        X, y, loss, gates=gates, delta=delta, logit_scale=logit_scale, bias=bias,
        losses=EVERY,
    )  # fmt: skip
    mean = check_choice(loss_scale, "loss_scale", ("sum", "mean")) == "mean"
    unit = 1.0 / len(X) if mean else 1.0
    tol = check_positive(tol, "tol")
    run = Monitor(
        name,
        "gap",
        tol=tol,
        maxiter=check_count(maxiter, "maxiter"),
        time_limit=check_time_limit(time_limit),
        callback=check_callable(callback, "callback"),
        progress=check_flag(progress, "progress"),
        history=check_flag_or_stride(history, "history"),
        stall=_STALL,
    )
    return Call(
        io, X, Y, vector, bias, loss, parameters, unit, beta / unit, tol, check_rng(rng), run,
        check_threads(n_threads),
    )  # fmt: skip


def start(x0, call, shape, read):
    """Return the weights and the dual point of a start, None where there are none.

    `shape` is what a caller's weights have for each output; `read` finds them in an earlier
    result.
    """
    if x0 is None:
        return None, None
    c, earlier = len(call.Y), isinstance(x0, ReLUResult)
    if earlier and read not in x0:
        raise ValueError(
            f"`x0` came as a result of {x0.method}; expected one of {call.run.method}"
        )
    given = Ingest(dtype=call.io.dtype, x0=x0[read] if earlier else x0)
    if given.be is not call.io.be:
        raise TypeError(f"`x0` came as a {given.kind} array; expected {call.io.kind}, as the data")
    U = check_array(given, "x0", shape=(c, *shape) if call.vector else shape)
    z = Ingest(dtype=call.io.dtype, z=x0.z)["z"].reshape(c, -1) if earlier else None
    return U.reshape(c, *shape), z if earlier and z.shape == call.Y.shape else None


def finish(call, kind, data, blocks, z, upper, lower, *, merge, note=None, details=(), **fields):
    """Return the result of a run.

    Parameters
    ----------
    kind : str
        What the certificate is of.
    data : Data
    blocks : array, shape (c, 2, P, d)
        Weights inside their cones, on the host.
    z, upper, lower : array and floats
        The dual point, and the two bounds of the programme without cones.
    merge : bool
        Whether neurons that see the same samples become one.
    """
    V, W = theirs(blocks, call.vector)
    pair = neurons(V, W, np, data.X if merge else None)
    hidden, out = (call.rounded(a) for a in pair)
    found = search(data, z, blocks)[0]
    everywhere = Everywhere(data, thorough=False)
    bounds = {
        "fun_convex": upper,
        "dual": lower,
        "dual_global": everywhere.bound(z, found),
        "fun": objective(data.X, data.loss, call.beta, hidden, out),
        **dict(details),
    }
    certificate = Certificate(
        kind,
        relative_gap(upper, lower),
        call.tol,
        {name: call.unit * value for name, value in bounds.items()},
    )
    return call.run.finish(
        ReLUResult,
        certificate,
        note=note,
        V=call.out(V),
        W=call.out(W),
        gates=data.gates,
        net=Net(call.out(hidden), call.out(out), call.bias),
        gap=certificate.value,
        gap_global=relative_gap(bounds["fun"], bounds["dual_global"]),
        robust_fun=None,
        n_active=int((abs(blocks).max(axis=-1) > 0).sum()),
        z=call.out(z if call.vector else z[0]),
        rho=None,
        sigma=None,
        **certificate.details,
        **fields,
    )
