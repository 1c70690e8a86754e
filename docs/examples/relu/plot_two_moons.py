"""
How much better could this network be?
======================================

A network draws a boundary between two moons. Training by descent ends somewhere; convex training
ends with a proof of how far from the best it is.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

import solvers

X, y = make_moons(60, noise=0.2, random_state=1)
penalties = [1e-1, 1e-2, 1e-3]
options = {"max_iter": 5000, "random_state": 0}
models = [solvers.relu.ConvexReLUClassifier(beta=beta, **options) for beta in penalties]
for model in models:
    print(model.fit(X, y).certificate_)

# %%
# Left of each boundary the score is positive, right of it negative. Under a smaller penalty more
# neurons bend it more. The gap compares with all weights over the gates in use, the global gap
# with *all* networks, however many neurons they have.

grid = np.stack(np.meshgrid(np.linspace(-2, 3, 200), np.linspace(-1.7, 2.2, 200)), axis=-1)
fig, axes = plt.subplots(1, 3, figsize=(12, 4), sharey=True, layout="constrained")
for ax, model in zip(axes, models, strict=True):
    score = model.decision_function(grid.reshape(-1, 2)).reshape(200, 200)
    ax.contourf(grid[..., 0], grid[..., 1], score, 20, cmap="RdBu", vmin=-6, vmax=6)
    ax.contour(grid[..., 0], grid[..., 1], score, [0.0], colors="black")
    ax.scatter(*X.T, c=y, cmap="RdBu", edgecolor="black", s=20)
    ax.set(
        title=f"beta {model.beta:g}, {model.coefs_[0].shape[1]} neurons\n"
        f"gap {model.gap_:.1e}, global gap {model.gap_global_:.1e}",
        xlabel="first feature",
    )
axes[0].set_ylabel("second feature")

# %%
# Learnt: hardly. Both gaps are the same, for the patterns of sixty points in the plane can all be
# listed: no network, of any size and from any start, has an objective lower by more than that.
