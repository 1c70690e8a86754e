"""
Does descent find the best network?
===================================

Thirty points on a line: all activation patterns can be listed, so the best network is known.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize

import solvers

rng, beta, m = np.random.default_rng(3), 0.01, 20
x = np.sort(rng.uniform(-1, 1, 30))
X, y = np.c_[x, np.ones(30)], np.sin(7 * x) + 0.1 * rng.standard_normal(30)
best = solvers.relu.exact(X, y, beta=beta, tol=1e-6, rng=0)
print(f"{best.message} The gap to all networks is {best.gap_global:.1e}.")


def objective(theta):
    hidden, out = theta[: 2 * m].reshape(2, m), theta[2 * m :]
    pre = X @ hidden
    error = np.maximum(pre, 0) @ out - y
    slope = X.T @ (np.outer(error, out) * (pre > 0)), np.maximum(pre, 0).T @ error
    slope = np.r_[slope[0].ravel(), slope[1]] + beta * theta
    return 0.5 * error @ error + 0.5 * beta * theta @ theta, slope


def adam(theta, rate=0.01):
    mean = square = 0.0
    for k in range(1, 4001):
        g = objective(theta)[1]
        mean, square = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g * g
        theta = theta - rate * mean / (1 - 0.9**k) / (np.sqrt(square / (1 - 0.999**k)) + 1e-8)
    return theta


starts = np.random.default_rng(0).standard_normal((15, 3 * m))
ends = {"L-BFGS": [minimize(objective, s, jac=True, method="L-BFGS-B").x for s in starts]}
ends["Adam"] = [adam(s) for s in starts]

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
wide = np.c_[np.linspace(-1, 1, 400), np.ones(400)]
for name, found in ends.items():
    excess = np.sort([objective(theta)[0] / best.fun - 1 for theta in found])
    left.plot(100 * excess, "o", label=name)
    worst = max(found, key=lambda theta: objective(theta)[0])
    right.plot(wide[:, 0], np.maximum(wide @ worst[: 2 * m].reshape(2, m), 0) @ worst[2 * m :])
left.set(xlabel="start, sorted", ylabel="objective above the best (%)", yscale="symlog")
left.legend()
right.plot(wide[:, 0], best.net.predict(wide), color="black", label="the best network")
right.plot(x, y, ".", color="gray", label="data")
right.set(xlabel="x", ylabel="y", title="the best, and the worst ends of descent")
right.legend()

# %%
# Learnt: not from these starts, and without a bound there is no telling how far they are.
