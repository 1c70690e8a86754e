"""
How much does a Newton step save?
=================================

Plain Sinkhorn sweeps slow down as the entropic weight `reg` falls; Newton steps hardly do.
"""

import matplotlib.pyplot as plt

import solvers

# %%
# Two clouds of 300 points in the plane, at a largest cost of 1. Both functions run until their
# certificates hold: the L1 error of both marginals is at most 1e-8.

a, b, C = solvers.datasets.gaussian_mixture_transport(300, rng=0)[:3]
for solve in (solvers.ot.sinkhorn, solvers.ot.sinkhorn_newton):
    solve(a, b, C, reg=1.0)  # compiles the kernels, or loads them
runs = {
    reg: {
        "sinkhorn": solvers.ot.sinkhorn(a, b, C, reg=reg, maxiter=100_000),
        "sinkhorn_newton": solvers.ot.sinkhorn_newton(a, b, C, reg=reg),
    }
    for reg in (1e-1, 1e-3, 1e-4)
}

# %%
# Newton has few points, because it records only when it has read the whole cost. Its first ones
# belong to larger weights, from which it comes down.

fig, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharex=True, sharey=True, layout="constrained")
for ax, (reg, pair) in zip(axes, runs.items(), strict=True):
    solvers.plot_convergence(pair, ax=ax)
    ax.set(title=f"reg = {reg:g}", xscale="log", ylabel="marginal error (L1)")
    ax.get_legend().set_visible(ax is axes[0])
    ax.label_outer()

# %%
# In numbers:

for reg, pair in runs.items():
    plain, newton = pair["sinkhorn"], pair["sinkhorn_newton"]
    print(
        f"reg = {reg:<6g} sinkhorn: {plain.nit:6d} sweeps, {plain.seconds:7.4f} s    newton: "
        f"{newton.nit} passes, {newton.nnewton:2d} Newton steps, {newton.seconds:7.4f} s"
    )

# %%
# Learnt: for a large weight take either. The sweeps of plain Sinkhorn grow at least as fast as the
# weight falls, while Newton needs a few passes and steps more.
