"""
How far does a label reach?
===========================

A hundred points of a lattice are known. A harmonic function spreads them: every other value is the
mean of its neighbours'.
"""

import matplotlib.pyplot as plt
import numpy as np

import solvers

# %%
# Two of the ways to get there: a Cholesky factor, and block coordinate descent whose blocks are
# trees, each solved exactly by passing messages. The answers agree, as their certificates say.

side = 60
W, labels, truth, _ = solvers.datasets.lattice_graph(side, labelled=150, rng=0)
direct = solvers.bcd.label_propagation(W, labels, method="cholesky")
trees = solvers.bcd.label_propagation(W, labels, method="tree", tol=1e-6)
for res in (direct, trees):
    print(f"{res.certificate.value:.1e} after {res.nit} iterations")
print(f"largest difference: {np.abs(direct.x - trees.x).max():.1e}")

# %%
# What was known, what came of it, and what was hidden:

fig, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained")
panels = {"known": labels, "propagated": direct.x, "the truth": truth}
for ax, (title, values) in zip(axes, panels.items(), strict=True):
    image = ax.imshow(values.reshape(side, side), vmin=truth.min(), vmax=truth.max())
    ax.set(title=title, xticks=[], yticks=[], facecolor="lightgray")
fig.colorbar(image, ax=axes, label="value")

# %%
# Learnt: a label reaches to the next one, and no further; between them the surface is stretched as
# a skin would be, with cusps where it is held. Exact blocks descend quickly at first, then slowly:
# unless there are bounds, a factorisation is the better choice.
error = np.abs(direct.x - truth)[np.isnan(labels)]
print(f"mean error {error.mean():.2f}, of values that vary by {truth.std():.2f}")
