"""
Is a photograph a matrix of low rank?
=====================================

Seventy per cent of the pixels are lost. The ridge decides how much of the rest is believed; the
certificate tells how well that problem is solved, and not whether it was the right one.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.interpolate import griddata

import solvers

# %%
# One solve for each ridge. Where it is strong, rank 25 is more than the best matrix of any rank
# needs: the duality gap closes and proves that. Where it is weak, the message says that the answer
# is stationary for this rank, no more.

damaged, whole = (x[::2, ::2] for x in solvers.datasets.damaged_photograph(rng=0))
lost = np.isnan(damaged)
options = {"center": True, "tol": 1e-3, "rng": 0}
ridges, runs = [4.0, 2.0, 1.0, 0.5], []
for lam in ridges:
    run = solvers.completion.alternating_minimization(damaged, 25, lam=lam, **options)
    runs.append(run)
    print(f"lam {lam}: {run.message}")

# %%
# The obvious alternative knows that neighbours are alike, which a matrix does not.


def psnr(image):
    """Return the peak signal-to-noise ratio on the lost pixels, in decibels."""
    return -10 * np.log10(np.mean((np.clip(image, 0, 1) - whole)[lost] ** 2))


flat = damaged.copy()
flat[lost] = griddata(np.argwhere(~lost), damaged[~lost], np.argwhere(lost), fill_value=0.5)
fits = [np.where(lost, run.todense(), damaged) for run in runs]
best = max(fits, key=psnr)
fig, axes = plt.subplots(2, 2, figsize=(9, 6.4), layout="constrained")
panels = {"lost: 70 %": damaged, "completed": best, "interpolated": flat}
for ax, (title, image) in zip(axes.flat, panels.items(), strict=False):
    ax.imshow(image, cmap="gray", vmin=0, vmax=1)
    ax.set(title=title, xticks=[], yticks=[], facecolor="tab:red")
axes[1, 1].plot(ridges, [psnr(fit) for fit in fits], "o-", label="completed")
axes[1, 1].axhline(psnr(flat), color="gray", label="interpolated")
axes[1, 1].set(xlabel="ridge lam", ylabel="PSNR on the lost pixels (dB)")
axes[1, 1].legend()

# %%
# Learnt: not quite. Interpolation is better here, however well the problem is solved. In the
# matrix whose rows are patches, low rank does say something: ``python -m solvers completion``.
