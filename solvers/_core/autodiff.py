"""Functions written in PyTorch or JAX, called with arrays of any kind."""

import contextlib

import numpy as np

from .arrays import Ingest, Outlet, framework, to_numpy
from .trees import leaves, refilled


def for_any_kind(function, backend, device=None):
    """Return a function of a framework's arrays as one of arrays of any one kind.

    Parameters
    ----------
    function : callable
        Takes arrays, or trees of arrays, of the framework and returns the same.
    backend : {"jax", "torch"}
        The framework.
    device : torch.device, optional
        Where PyTorch computes; by default where the arrays are.

    Returns
    -------
    callable
        What it returns is of the kind of its arguments, and where they are. It takes ``idx=``,
        whole numbers that `function` gets last, as an array of the framework.
    """

    def call(*given, idx=None):
        arrays = [array for tree in given for array in leaves(tree)]
        names = [f"argument {k}" for k in range(len(arrays))]
        io = Ingest(**dict(zip(names, arrays, strict=True)))
        with io.device, precision(backend, io.dtype):
            entered = [_entered(io, *pair, backend) for pair in zip(names, arrays, strict=True)]
            if device is not None:
                entered = [array.to(device) for array in entered]
            parts = iter(entered)
            theirs = [refilled(tree, parts) for tree in given]
            if idx is not None:
                theirs.append(_indices(idx, backend, entered[0]))
            answer = function(*theirs)
            back = (_returned(io, part, backend, arrays[0]) for part in leaves(answer))
            return refilled(answer, back)

    return call


def _entered(io, name, array, backend):
    """Return an argument as an array of the framework, of the call's precision."""
    if io.kind == backend:
        return array if io.raw(name).dtype == io.dtype else io.out(io[name])
    if backend == "jax" and io.be.name == "numpy":
        # Not committed to the host: JAX computes where the caller's own data are.
        return framework("jax").numpy.array(io[name])
    return Outlet(backend, io.dtype)(io[name])


def _indices(idx, backend, beside):
    module = framework(backend)
    if backend == "jax":
        return module.numpy.asarray(idx)
    return module.as_tensor(idx, device=beside.device)


def _returned(io, part, backend, first):
    """Return an array of the framework as the caller's kind, where the arguments were."""
    if io.kind == backend:
        return part.to(first.device) if backend == "torch" else part
    if io.be.name == "numpy":
        return io.out(to_numpy(part))
    return io.out(Ingest(part=part).raw("part"))


def precision(backend, dtype):
    """Return a context in which JAX does not round double precision to single."""
    if backend == "torch" or dtype == np.float32:
        return contextlib.nullcontext()
    jax = framework("jax")
    # Where releases before 0.8 keep it.
    home = jax if hasattr(jax, "enable_x64") else framework("jax.experimental")
    return home.enable_x64(True)
