"""
How much does a Newton step save?
=================================

Plain Sinkhorn sweeps slow down as the entropic weight `reg` falls; Newton steps hardly do.
"""

import matplotlib.pyplot as plt

import solvers

# %%
# Two clouds of 300 points in the plane, at a largest cost of 1. All runs end when their
# certificates hold: the L1 error of both marginals is at most 1e-8.

a, b, C = solvers.datasets.gaussian_mixture_transport(300, rng=0)[:3]
for solve in (solvers.ot.sinkhorn, solvers.ot.sinkhorn_newton):
    solve(a, b, C, reg=1.0)  # compiles the kernels, or loads them
runs = {
    reg: {
        "plain": solvers.ot.sinkhorn(a, b, C, reg=reg, method="stabilized", maxiter=100_000),
        "over-relaxed": solvers.ot.sinkhorn(a, b, C, reg=reg, method="overrelaxed"),
        "sinkhorn_newton": solvers.ot.sinkhorn_newton(a, b, C, reg=reg),
    }
    for reg in (1e-1, 1e-3, 1e-4)
}

# %%
# Newton has few points, because it records only when it has read the whole cost. Its first ones
# belong to larger weights, from which it comes down.

fig, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharex=True, sharey=True, layout="constrained")
for ax, (reg, three) in zip(axes, runs.items(), strict=True):
    solvers.plot_convergence(three, ax=ax)
    ax.set(title=f"reg = {reg:g}", xscale="log", ylabel="marginal error (L1)")
    ax.get_legend().set_visible(ax is axes[0])
    ax.label_outer()

# %%
# In numbers:

for reg, three in runs.items():
    for name, res in three.items():
        print(
            f"reg = {reg:<6g} {name:<15} {res.seconds:7.4f} s, {res.nsinkhorn:6d} sweeps, "
            f"{res.nnewton:2d} Newton steps"
        )

# %%
# Learnt: for a large weight take any. The sweeps of plain Sinkhorn grow at least as fast as the
# weight falls, those of the over-relaxed method more slowly, and Newton needs a few steps more.
