"""Refinement: solving again with the gates that the solution asks for."""

from dataclasses import replace

import numpy as np

from .._core.validation import check_choice, check_count
from ._certificate_global import search
from ._gates import Patterns, pack
from ._local import descend, placed

# Rounds of refine="auto".
_ROUNDS = 10
# The gap that gates need that others will follow, at least.
_ENOUGH = 1e-2
# How far the dual must reach beyond beta along a neuron for its gate to be missing.
_MISSING = 1e-3
# The relative gain of a round of descent alone that is worth another one.
_FAR = 1e-3
# The relative gain, in units of the tolerance, of a round that is worth another one.
_GAIN = 0.3
# New neurons of one output, sign and round; rounds that a gate may stay idle.
_NEW, _IDLE = 16, 2


def check_rounds(refine):
    """Return the number of rounds."""
    if isinstance(refine, str):
        check_choice(refine, "refine", ("auto",))
        return _ROUNDS
    return check_count(refine, "refine")


def refined(engine, rounds, local):
    """Return an engine that solves, adds gates and solves again, up to `rounds` times.

    Gates that are added are those of the neurons of the best network, of where descent leads
    from it, and of neurons along which the dual point violates its constraint. The optimum over
    the new gates is thus never above the objective of that network. With `local`, nothing is
    solved as long as new neurons and descent alone go far.
    """
    if not rounds:
        return engine

    def run(programme, watch, options):
        idle, enough, quick = {}, max(options.tol, _ENOUGH), local
        for _ in range(rounds):
            if not quick and watch.gap > enough:
                watch.enough = enough
                engine(programme, watch, replace(options, tol=enough))
                watch.enough = None
            if watch.run.status is not None or watch.run.late:
                break
            before = watch.best.value
            if (grown := grow(programme, watch, idle, quick)) is None:
                break
            gates, U = grown
            gain = (before - watch.data.network_objective(U)) / max(abs(before), 1e-300)
            if not quick and gain <= _GAIN * options.tol:
                # Hardly a better network: the programme need not grow for it.
                watch.suggest(U)
                break
            programme = programme.over(gates)
            watch.enter(programme, U)
            watch.record(judged=False, iterations=0)
            options = replace(options, x0=programme.xp.asarray(U, dtype=programme.X.dtype))
            quick = quick and gain > _FAR
        U = programme.xp.asarray(watch.best.U, dtype=programme.X.dtype)
        options = replace(options, x0=U)
        if watch.run.status is None:
            if watch.gap <= options.tol:
                watch.record(judged=True, iterations=0)
            else:
                engine(programme, watch, options)
        watch.suggest(descended(programme, watch))

    return run


def grow(programme, watch, idle, quick):
    """Return other gates and a network in their cones, None if no gate is missing.

    `idle` counts, by pattern, the rounds in which a gate has not been used.
    """
    best, data = watch.best, watch.data
    z = -data.loss.slope(data.outputs(best.network)) if quick else best.z
    _, neurons, values = search(data, z, best.network)
    new, signs = missing(data, neurons, values)
    new *= stride(data, best.network, new, signs)
    U = descended(programme, watch, new, signs)
    B, signs = rows(U if data.network_objective(U) < best.value else best.network)
    found = Patterns(programme.be.host(programme.X))
    numbers = found.add(B.reshape(-1, B.shape[-1]).T)
    if len(found) == 0:
        return None
    if not quick:
        found.add(new.reshape(-1, new.shape[-1]).T)
        old = found.keys(data.gates.bits)
        if found.index.keys() <= set(old):
            return None
        used = (best.U != 0).any(axis=(0, 1, 3))
        for key, busy in zip(old, used, strict=True):
            idle[key] = 0 if busy else idle.get(key, 0) + 1
        found.join(data.gates.select([k for k, key in enumerate(old) if idle[key] < _IDLE]))
    gates = found.gates()
    return gates, placed(B, signs, numbers, len(gates))


def missing(data, neurons, values):
    """Return short neurons along which the dual point is too long, as rows and signs."""
    c, _, _, d = neurons.shape
    B, signs = np.zeros((c, 2, _NEW, d)), np.ones((c, 2, _NEW))
    signs[:, 1] = -1.0
    for o, s in np.ndindex(c, 2):
        U, reach = neurons[o, s], values[o, s]
        order = np.argsort(-reach, kind="stable")
        order = order[reach[order] > data.beta * (1 + _MISSING)]
        # Most starts lead to the same few maxima.
        bits = pack(data.X, U[order].T)
        _, first = np.unique(bits, axis=0, return_index=True)
        order = order[np.sort(first)][:_NEW]
        H = np.maximum(U[order] @ data.X.T, 0.0)
        length = (reach[order] - data.beta) / np.square(H).sum(axis=1)
        B[o, s, : len(order)] = length[:, None] * U[order]
    return B.reshape(c, -1, d), signs.reshape(c, -1)


def stride(data, U, B, signs):
    """Return how long new neurons should be, in units of theirs, to lower the objective most."""
    p, q = data.outputs(U), (np.maximum(B @ data.X.T, 0.0) * signs[..., None]).sum(axis=1)
    cost = data.beta * float(np.linalg.norm(B, axis=-1).sum())
    steps = 0.5 ** np.arange(12)
    values = [data.loss.value(p + t * q) + t * cost for t in steps]
    return steps[int(np.argmin(values))]


def descended(programme, watch, more=None, signs=None):
    """Return the network that descent from the best one leads to, as blocks; with more neurons."""
    B, S = rows(watch.best.network)
    if more is not None:
        B, S = np.concatenate([B, more], axis=1), np.concatenate([S, signs], axis=1)
    B, S = descend(programme, B, S, late=lambda: watch.run.late)
    B = B.astype(np.float64)
    return np.stack([B * (S > 0)[..., None], B * (S < 0)[..., None]], axis=1)


def rows(U):
    """Return the neurons of blocks U, longest first, as rows (c, m, d) and signs (c, m)."""
    B = np.concatenate([U[:, 0], U[:, 1]], axis=1)
    signs = np.repeat([[1.0, -1.0]], U.shape[2], axis=1) * np.ones((len(U), 1))
    length = np.linalg.norm(B, axis=-1)
    order = np.argsort(-length, axis=1, kind="stable")
    order = order[:, : int((length > 0).sum(axis=1).max())]
    return np.take_along_axis(B, order[..., None], axis=1), np.take_along_axis(
        signs, order, axis=1
    )
