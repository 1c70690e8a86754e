"""
How many entries does it take to find a matrix?
===============================================

A matrix of rank k has k (m + n - k) parameters, so fewer entries cannot do. How close to that can
a solver come?
"""

import warnings

import matplotlib.pyplot as plt
import numpy as np

import solvers

# %%
# Planted matrices of 50 rows and columns, two for each rank and oversampling. A run counts if its
# *certificate* holds: then the known entries are met to ten digits, or the fit is stationary.
# Whether the others are right is another question, so we count these as well.

n, ranks, oversamplings, trials = 50, [1, 2, 4, 7, 10], np.linspace(1.0, 2.25, 6), 2
certified, found = np.zeros((2, len(ranks), len(oversamplings)))
warnings.simplefilter("ignore", solvers.ConvergenceWarning)  # failures are what we look for
for (i, j), _ in np.ndenumerate(certified):
    for seed in range(trials):
        k = ranks[i]
        rows, cols, vals, L, R = solvers.completion.make_planted(
            n, n, k, oversamplings[j], min_degree=0, rng=seed
        )
        res = solvers.completion.alternating_minimization(
            (rows, cols, vals), k, shape=(n, n), tol=1e-10, maxiter=100, rng=seed
        )
        error = np.linalg.norm(res.todense() - L @ R.T) / np.linalg.norm(L @ R.T)
        certified[i, j] += res.success / trials
        found[i, j] += (error < 1e-6) / trials

# %%
# The axis below is the share of entries that are known; the dashed line is the counting limit.

fig, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
shares = np.outer([k * (2 * n - k) / n**2 for k in ranks], oversamplings)
grid = np.broadcast_to(np.array(ranks)[:, None], shares.shape)
for ax, share, title in zip(axes, (certified, found), ("certified", "found"), strict=True):
    dots = ax.scatter(shares, grid, c=share, s=70, cmap="viridis", vmin=0, vmax=1, edgecolor="k")
    ax.plot(shares[:, 0], ranks, "--", color="gray", label="counting limit")
    ax.set(xlabel="share of entries known", title=title)
    ax.legend(loc="lower right")
axes[0].set_ylabel("rank")
fig.colorbar(dots, label=f"share of {trials} matrices")

# %%
# Learnt: for the larger ranks a quarter more than the counting limit is enough. For the smallest
# it is not, because chance leaves some rows with fewer than k entries. They are lost for every
# method, however well the known entries are met; ``res.unidentified_rows`` names them.
