"""
Is a sketch of the Newton system cheaper than its solution?
===========================================================

Randomised sketches approach the solution of a linear system row by row. AdaSketch-Newton uses them
for Newton steps, to the accuracy that each step needs. What does that buy?
"""

import matplotlib.pyplot as plt

import solvers

# %%
# Logistic regression with weights of length 1 that satisfy ten linear equations, as in the paper.

problem = solvers.datasets.constrained_logistic(2000, 60, 10, rng=0)
options = {**problem.keywords(), "rng": 0, "n_threads": 1}
runs = {}
for inner in ("direct", "pcg", "minres", "block-kaczmarz", "kaczmarz++"):
    again = [
        solvers.constrained.minimize(problem.fun, problem.x0, inner=inner, **options)
        for _ in range(4)  # the first one may compile
    ]
    runs[inner] = min(again, key=lambda run: run.seconds)
    print(f"{inner:15s} {runs[inner].certificate}, {runs[inner].ninner} inner steps")

# %%
# All answers are certified in the same way. The left picture counts Newton steps, the right one
# seconds.

fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
for ax, x, unit in ((axes[0], "nit", 1.0), (axes[1], "seconds", 1e-3)):
    for inner, run in runs.items():
        ax.semilogy(run.history[x] / unit, run.history["kkt"], marker=".", label=inner)
    ax.axhline(1e-8, color="grey", linestyle=":", label="tolerance")
axes[0].set(xlabel="Newton steps", ylabel="KKT residual")
axes[1].set(xlabel="milliseconds")
axes[1].legend(loc="center right")

# %%
# Learnt: sketches take about as many Newton steps, each of which takes longer. They are for
# matrices whose rows are dear to read, or cheap to make up; where the matrix fits in memory,
# factorise it, and where only products are at hand, use a Krylov method.
