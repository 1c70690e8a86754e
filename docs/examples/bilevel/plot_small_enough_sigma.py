"""
How small should sigma be?
==========================

The penalised value has an exact gradient that needs no second derivatives. How far is it from the
gradient that one wants, and does the estimate know?
"""

import matplotlib.pyplot as plt
import numpy as np

from solvers import bilevel

rng = np.random.default_rng(0)
A, B = np.diag(np.geomspace(0.1, 1.0, 8)), rng.standard_normal((8, 3))
target, x = rng.standard_normal(8), rng.standard_normal(3)


def lower(x, y):
    return 0.5 * y @ A @ y - y @ B @ x, -B.T @ y, A @ y - B @ x


def upper(x, y):
    return 0.5 * (y - target) @ (y - target), None, y - target


# %%
# The lower level's solution is linear in x here, so the true gradient is a formula.

y = np.linalg.solve(A, B @ x)
exact = B.T @ np.linalg.solve(A, y - target)
sigmas = np.geomspace(1e-1, 1e-9, 17)
fig, ax = plt.subplots(layout="constrained")
for order, color in ((1, "tab:orange"), (2, "tab:blue")):
    found = [
        bilevel.hypergradient(upper, lower, x, np.zeros(8), sigma=s, order=order, tol=1e-13)
        for s in sigmas
    ]
    errors = [np.linalg.norm(h.grad - exact) / np.linalg.norm(exact) for h in found]
    estimates = [h.err / np.linalg.norm(exact) for h in found]
    ax.loglog(sigmas, errors, "o-", color=color, label=f"order {order}: error")
    ax.loglog(sigmas, estimates, "--", color=color, label=f"order {order}: estimate")
ax.set(xlabel="sigma", ylabel="relative error of the hyper-gradient")
ax.legend()

# %%
# Learnt: the smallest sigma is not the best one. The error falls like sigma, extrapolated like its
# square, until rounding, which grows like 1 / sigma, takes over. Left alone, solvers choose sigma
# by the estimate.
