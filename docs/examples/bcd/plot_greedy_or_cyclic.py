"""
How should the next block be chosen?
====================================

In turn, at random, or where it promises most? And one coordinate at a time, or many?
"""

import warnings

import matplotlib.pyplot as plt

import solvers
from solvers import bcd, penalties

# %%
# Sparse logistic regression with 400 features. Each run may update as many blocks as it takes to
# move 1600 coefficients; none is asked to converge.

X, y, _ = solvers.datasets.autoregressive(300, 400, rho=0.5, classes=True, rng=0)
alpha = 0.05 * bcd.alpha_max("logistic", X, y)
problem = bcd.Problem(X, y, datafit="logistic", penalty=penalties.L1(alpha))
best = bcd.logistic(X, y, alpha, penalty="l1", tol=1e-12).fun
warnings.simplefilter("ignore", solvers.ConvergenceWarning)


def run(size, selection, partition, update):
    """Return the distance to the best objective after every update."""
    res = bcd.minimize(
        problem, selection=selection, partition=partition, block_size=size, update=update,
        working_set=False, maxiter=1600 // size, tol=1e-12, check_every=1, rng=0,
    )  # fmt: skip
    return res.history["nit"], res.history["fun"] - best


# %%
# Blocks of one coefficient move along the gradient; blocks of twenty by a Newton step.

rules = {
    "cyclic": ("cyclic", "order"),
    "random": ("random", "order"),
    "greedy, fixed blocks": ("gs-q", "sort"),
    "greedy, any block": ("gs-q", "variable"),
}
fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for ax, size, update in zip(axes, (1, 20), ("gradient", "prox_newton"), strict=True):
    for name, (selection, partition) in rules.items():
        ax.semilogy(*run(size, selection, partition, update), label=name)
    ax.set(xlabel="updates", title=f"{size} at a time, {update}", ylim=(1e-11, 1))
axes[0].set_ylabel("objective minus its minimum")
axes[1].legend()

# %%
# Learnt: looking where to go pays (of blocks of one, "fixed" and "any" are the same). Newton steps
# on larger blocks make more of each coefficient that moves, and most where a block may be any set:
# as soon as it holds all that will not be zero, what follows is Newton's method. `logistic` takes
# care that it does.
