"""Give one photograph the colours of another by moving colours at the least total cost."""

import warnings

import numpy as np
from scipy.spatial.distance import cdist

from .._core.arrays import to_numpy
from .._core.result import ConvergenceWarning
from ..datasets import sample_photographs
from ..ot import sinkhorn, sinkhorn_newton
from ._stop import Outcome, Peer

# Colours drawn from each photograph, for a quick tour and for a whole one.
FEW, MANY = 600, 2500
# Relative to the largest cost: colours mix within three percent of the largest distance.
REG = 1e-3
TOL = 1e-9
# Plain Sinkhorn gets as long as Newton took, but no less than a clock can tell.
SHORTEST = 0.05


def visit(trip):
    """Solve, give plain Sinkhorn the same time, and recolour every pixel."""
    xp, n = trip.be.xp, FEW if trip.quick else MANY
    source, target = sample_photographs()
    rng = np.random.default_rng(0)
    x, y = (rng.choice(p.reshape(-1, 3), n, replace=False) for p in (source, target))
    C = xp.asarray(_cost(x, y))
    with trip.step("preparing kernels, which takes longer the first time"):
        # A rehearsal in full size, for large problems have kernels of their own.
        _solve(sinkhorn_newton, C)
        _solve(sinkhorn, C, method="stabilized", maxiter=10)
    result = _solve(sinkhorn_newton, C, progress=True)
    seconds = max(result.seconds, SHORTEST)
    plain = _solve(sinkhorn, C, method="stabilized", time_limit=seconds)
    pixels = source[..., 0].size
    with trip.step(f"moving the colours of all {pixels:,} pixels"):
        painted = recolour(source, xp.asarray(y), result.g, result.reg, xp)
    return Outcome(
        result,
        [Peer("sinkhorn", plain.seconds, plain.certificate)],
        {"n": n, "m": n, "reg": result.reg, "fun": result.fun, "pixels": pixels},
        _picture(source, target, painted, result, plain),
    )


def _cost(x, y):
    return cdist(x, y, "sqeuclidean")


def _solve(solver, C, **options):
    with warnings.catch_warnings():
        # That plain Sinkhorn is not ready in time is the point; Newton is judged by the guide.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return solver(None, None, C, reg=REG, reg_scale="max", tol=TOL, **options)


def recolour(picture, y, g, reg, xp):
    """Extend the plan from the sampled colours to every pixel.

    A colour ``x`` goes to the mean of the target colours `y` with the weights that the plan would
    give to it, ``exp((g_j - |x - y_j|^2) / reg)`` up to a factor.

    Parameters
    ----------
    picture : ndarray, shape (height, width, 3)
        Colours in [0, 1].
    y : array, shape (m, 3)
        Target colours, all of the same weight.
    g : array, shape (m,)
        Their potentials.
    reg : float
        Entropic weight.
    xp : module
        Where `y` and `g` live.

    Returns
    -------
    ndarray, shape (height, width, 3)
        The picture in new colours.
    """
    colours, place = _palette(picture)
    # Up to |x|^2, which all weights share. Eight-bit pictures need no more than float32.
    slope = (2 * y.T / reg).astype(np.float32)
    offset = ((g - (y**2).sum(axis=1)) / reg).astype(np.float32)
    y = y.astype(np.float32)
    new = np.empty(colours.shape, np.float32)
    for start in range(0, len(colours), 4096):
        block = slice(start, start + 4096)
        W = xp.asarray(colours[block], dtype=np.float32) @ slope
        W += offset
        W -= W.max(axis=1, keepdims=True)
        xp.exp(W, out=W)
        new[block] = to_numpy(W @ y / W.sum(axis=1, keepdims=True))
    return new[place].reshape(picture.shape)


def _palette(picture):
    """Return the different colours of a picture, and which of them each pixel has."""
    pixels = picture.reshape(-1, 3)
    code = np.rint(255 * pixels).astype(int) @ (65536, 256, 1)
    _, first, place = np.unique(code, return_index=True, return_inverse=True)
    return pixels[first], place


def _picture(source, target, painted, result, plain):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8.4), layout="constrained")
    axes = figure.subplots(2, 2)
    panels = {
        "A photograph": source,
        "Another photograph": target,
        "The first in the colours of the second": painted,
    }
    for ax, (title, picture) in zip(axes.flat, panels.items(), strict=False):
        ax.imshow(picture)
        ax.set_title(title)
        ax.set_axis_off()
    _draw_errors(axes[1, 1], result, plain)
    return figure


def _draw_errors(ax, result, plain):
    """Draw the errors of both methods against time."""
    for name, run, colour in (("plain Sinkhorn", plain, "gray"), ("Newton", result, "tab:red")):
        seconds, error = run.history["seconds"], run.history["marginal_error"]
        # On its way down Newton balances the plans of larger weights, which are easier.
        last = run.history.get("reg", np.full(error.size, run.reg)) == run.reg
        label = f"{name}: {run.certificate.value:.1e} after {run.seconds:.2g} s"
        ax.semilogy(seconds, error, ":", color=colour)
        ax.semilogy(seconds[last], error[last], ".-", color=colour, label=label)
    ax.axhline(TOL, color="black", linewidth=0.8, linestyle="--", label=f"tolerance: {TOL:.0e}")
    n, m = result.f.size, result.g.size
    ax.set(xlabel="seconds", ylabel=result.certificate.kind)
    ax.set_title(f"Error of a plan for {n} x {m} colours (dotted: annealing)")
    ax.set_xlim(left=0)
    ax.grid(alpha=0.3)
    ax.legend(loc="lower left")
