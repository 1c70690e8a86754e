"""
What does a penalty of its own do for each feature?
===================================================

One ridge penalty is tuned on a grid, 100 by the gradient of the validation loss.
"""

import matplotlib.pyplot as plt
import numpy as np

from solvers import bilevel, datasets

X, t, w = datasets.autoregressive(600, 100, informative=10, noise=0.5, rng=0)
train, valid, test = (slice(k, k + 200) for k in (0, 200, 400))
problem = bilevel.problems.RidgeHPO(X[train], t[train], X[valid], t[valid])


def loss(y, part):
    return 0.5 * np.square(X[part] @ y - t[part]).mean()


def ridge(penalty):
    H = X[train].T @ X[train] / 200 + penalty * np.eye(100)
    return np.linalg.solve(H, X[train].T @ t[train] / 200)


best = min((ridge(p) for p in np.geomspace(1e-3, 1e2, 100)), key=lambda y: loss(y, valid))
test_losses, residuals = [], []


def watch(state):
    test_losses.append(loss(state.y, test))
    residuals.append(np.abs(problem.lower(state.x, state.y)[2]).max())


res = bilevel.penalty(problem, tol=1e-4, maxiter=1000, callback=watch)
print(res.summary())

# %%
# The certificate measures how far from stationary the penalties are, and how far from solved the
# lower level is. On the left the upper level's value, in the middle how far both levels are from
# solved on the way, on the right what the penalties have become.

fig, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
left.semilogx(res.history["nit"], res.history["fun"], label="validation, by descent")
left.semilogx(res.history["nit"], test_losses, label="test, by descent")
for part, color in ((valid, "tab:blue"), (test, "tab:orange")):
    left.axhline(loss(best, part), color=color, ls=":", label="by one penalty")
left.set(xlabel="iteration", ylabel="half the mean squared error", ylim=(0, 2.3))
middle.loglog(res.history["nit"], res.history["optimality"], label="upper level")
middle.loglog(res.history["nit"], residuals, label="lower level")
middle.set(xlabel="iteration", ylabel="largest entry of the gradient")
left.legend(), middle.legend()
right.scatter(np.abs(w), np.exp(res.x), c=w != 0, cmap="coolwarm", s=15)
right.set(xlabel="size of the true coefficient", ylabel="penalty", yscale="log")

# %%
# Learnt: 100 penalties fit 200 validation samples too well: the test loss follows, then turns. So
# the estimators of `solvers.bilevel` use folds, and stop by samples that neither level has seen.
