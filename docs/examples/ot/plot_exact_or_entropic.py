"""
What does the entropy do to a plan?
===================================

An exact plan sends each point to one or two others. Entropy blurs it, and `reg` says how much.
"""

import matplotlib.pyplot as plt
import numpy as np

import solvers

# %%
# Two clouds of 40 points with random weights; the largest cost is 1.

a, b, C, x, y = solvers.datasets.gaussian_mixture_transport(40, rng=3)[:5]
exact = solvers.ot.emd(a, b, C, polish=True)
plans = {
    f"reg = {reg:g}": solvers.ot.sinkhorn_newton(a, b, C, reg=reg) for reg in (0.1, 1e-2, 1e-3)
}
plans["exact"] = exact

# %%
# A line for each entry of the plan, as strong as what it carries, relative to its row's weight.


def draw(ax, P):
    """Draw the plan between the two clouds."""
    for i, j in np.argwhere(0.01 * a[:, None] < P):
        ax.plot(*zip(x[i], y[j], strict=True), "k-", alpha=min(1.0, P[i, j] / a[i]), lw=0.8)
    ax.scatter(*x.T, 2000 * a, "C0", zorder=2)
    ax.scatter(*y.T, 2000 * b, "C1", zorder=2)
    ax.set(xticks=[], yticks=[], aspect="equal")


fig, axes = plt.subplots(1, 4, figsize=(12, 3.4), layout="constrained")
for ax, (title, res) in zip(axes, plans.items(), strict=True):
    draw(ax, res.plan)
    ax.set_title(title)

# %%
# What it costs. The bracket of an entropic plan holds the exact cost, and closes as `reg` falls.

for title, res in plans.items():
    edges = int((res.plan > 1e-9).sum())
    print(f"{title:12s} cost {(C * res.plan).sum():.6f}, {edges:4d} edges", end="")
    if title == "exact":
        print(f"; {res.certificate}")
    else:
        print("; the exact cost is between {:.6f} and {:.6f}".format(*res.lp_bracket()))

# %%
# Learnt: ask for the exact plan when you need its edges, of which there are fewer than points. Ask
# for an entropic one when you need something smooth, or quick, with bounds for the exact cost.
