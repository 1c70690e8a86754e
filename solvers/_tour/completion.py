"""Restore a photograph that has lost most of its pixels, from what its small parts have in common.

A photograph as a whole is far from low rank, its patches are not: a row of the matrix holds the
pixels of one patch. Patches overlap, so every pixel is restored several times; the mean counts.
The penalty is such that the best matrix of any rank has one below `RANK`, which makes the problem
convex, and the duality gap proves that no matrix does better by more than `TOL`.
"""

import time

import numpy as np
from scipy import linalg
from scipy.interpolate import griddata

from .._core.arrays import to_numpy
from ..completion import alternating_minimization, certify
from ..datasets import damaged_photograph
from ._stop import Outcome, Peer

# Pixels along the side of a patch, and from one patch to the next.
SIDE, STEP = 8, 4
RANK = 24
# Over the square root of the number of patches, as singular values grow with it.
LAM = 0.045
# Penalty of a patch's mean brightness, which costs next to nothing.
LAM_BIAS = 0.1
TOL = 1e-3
# The other method gets as long as ours took, but no less than a clock can tell.
SHORTEST = 0.1


def visit(trip):
    """Solve, give repeated singular value decompositions the same time, and interpolate."""
    damaged, whole = damaged_photograph(rng=0)
    if trip.quick:
        damaged, whole = (image[100:260, 200:400] for image in (damaged, whole))
    patches = cut(damaged)
    with trip.step("preparing kernels, which takes longer the first time"):
        _solve(trip.be.xp.asarray(cut(damaged[:64, :64])))
    result = _solve(trip.be.xp.asarray(patches), progress=True)
    X = result.todense()
    restored = fill(damaged, glue(to_numpy(X), damaged.shape))
    problem = _problem(patches)
    answer, seconds = soft_impute(patches, problem["lam"], max(result.seconds, SHORTEST))
    judged = certify(patches, **answer, **problem)
    with trip.step("interpolating between the pixels that are left"):
        flat = interpolate(damaged)
    psnr = {
        "restored": fidelity(restored, whole, damaged),
        "interpolated": fidelity(flat, whole, damaged),
    }
    print(f"  PSNR on the lost pixels: ours {psnr['restored']:.2f} dB, "
          f"linear interpolation {psnr['interpolated']:.2f} dB")  # fmt: skip
    lost = int(np.isnan(damaged).sum())
    return Outcome(
        result,
        [Peer("repeated scipy.linalg.svd", seconds, judged)],
        {
            "patches": len(patches),
            "pixels_of_a_patch": patches.shape[1],
            "rank": RANK,
            "lam": problem["lam"],
            "fun": result.fun,
            "lost_pixels": lost,
            **{f"psnr_{name}_db": value for name, value in psnr.items()},
        },
        _picture(damaged, flat, restored, whole, psnr),
    )


def _problem(patches):
    lam = LAM * float(np.sqrt(len(patches)))
    return {"lam": lam, "lam_bias": LAM_BIAS, "certificate": ("gap",), "tol": TOL}


def _solve(patches, **options):
    return alternating_minimization(
        patches, RANK, bias=True, rng=0, **_problem(patches), **options
    )


def cut(image):
    """Return the patches of an image as rows; beyond its border nothing is known."""
    height, width = image.shape
    wide = np.pad(image, ((SIDE - STEP, SIDE), (SIDE - STEP, SIDE)), constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(wide, (SIDE, SIDE))
    # The last patches begin before the image ends.
    windows = windows[: height + SIDE - STEP : STEP, : width + SIDE - STEP : STEP]
    return windows.reshape(-1, SIDE * SIDE)


def glue(patches, shape):
    """Return the image of `shape` whose pixels are the means of those in its patches."""
    rows, cols = (-(-(length + SIDE - STEP) // STEP) for length in shape)
    patches = patches.reshape(rows, cols, SIDE, SIDE)
    total = np.zeros((STEP * (rows - 1) + SIDE, STEP * (cols - 1) + SIDE))
    count = np.zeros(total.shape)
    for i, j in np.ndindex(SIDE, SIDE):
        part = np.s_[i : i + STEP * rows : STEP, j : j + STEP * cols : STEP]
        total[part] += patches[:, :, i, j]
        count[part] += 1
    start, (height, width) = SIDE - STEP, shape
    return (total / count)[start : start + height, start : start + width]


def fill(damaged, image):
    """Return the damaged image with its lost pixels from another one."""
    return np.where(np.isnan(damaged), np.clip(image, 0.0, 1.0), damaged)


def fidelity(image, whole, damaged):
    """Return the peak signal-to-noise ratio on the lost pixels, in decibels."""
    error = (image - whole)[np.isnan(damaged)]
    return float(-10.0 * np.log10(np.square(error).mean()))


def interpolate(damaged):
    """Return the linear interpolant on a triangulation; beyond its hull, the nearest pixel."""
    lost = np.isnan(damaged)
    known, wanted = np.argwhere(~lost), np.argwhere(lost)
    values = griddata(known, damaged[~lost], wanted)
    outside = np.isnan(values)
    values[outside] = griddata(known, damaged[~lost], wanted[outside], method="nearest")
    image = damaged.copy()
    image[lost] = values
    return image


def soft_impute(M, lam, seconds):
    """Fill the gaps by a shrunk decomposition and biases, again and again until time is up."""
    started, gaps = time.perf_counter(), np.isnan(M)
    (m, n), mu = M.shape, np.nanmean(M)
    b, c, filled = np.zeros((m, 1)), np.zeros(n), np.where(gaps, mu, M)
    while True:
        U, s, Vt = linalg.svd(filled - mu - b - c, full_matrices=False)
        U, s, Vt = U[:, :RANK], np.maximum(s[:RANK] - lam, 0.0), Vt[:RANK]
        X = (U * s) @ Vt
        b = (filled - mu - c - X).sum(axis=1, keepdims=True) / (n + LAM_BIAS)
        c = (filled - mu - b - X).sum(axis=0) / (m + LAM_BIAS)
        taken = time.perf_counter() - started
        if taken >= seconds:
            answer = {"U": U, "s": s, "V": Vt.T, "mu": mu, "row_bias": b[:, 0], "col_bias": c}
            return answer, taken
        filled = np.where(gaps, mu + b + c + X, M)


def _picture(damaged, flat, restored, whole, psnr):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8.8), layout="constrained")
    lost = np.isnan(damaged).mean()
    panels = {
        f"A photograph without {lost:.0%} of its pixels": damaged,
        f"Interpolated: {psnr['interpolated']:.2f} dB on the lost pixels": flat,
        f"Patches completed, no matrix is better: {psnr['restored']:.2f} dB": restored,
        "The photograph": whole,
    }
    for ax, (title, image) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        ax.imshow(image, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
        ax.set_facecolor("tab:red")
        ax.set_title(title)
        ax.set_xticks([])
        ax.set_yticks([])
    return figure
