"""
Which samples should a margin bend for?
=======================================

A support vector machine pays for each sample on the wrong side of its margin. One price for all is
the rule; here each sample has its own, chosen by samples left out.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from solvers import bilevel

A, t = make_moons(60, noise=0.25, random_state=2)
t = 2.0 * t - 1
t[:4] *= -1  # four wrong labels
V, tv = make_moons(200, noise=0.25, random_state=3)
tv = 2.0 * tv - 1
n, A1, V1 = len(t), np.c_[A, np.ones(60)], np.c_[V, np.ones(200)]


def lower(x, y):  # y holds two weights, an offset and a slack for each sample
    w, slack, price = y[:2], y[3:], np.exp(x)
    value = 0.5 * w @ w + 0.5 * price @ slack**2
    return value, 0.5 * price * slack**2, np.r_[w, 0.0, price * slack]


def upper(x, y):
    missing = np.maximum(1 - tv * (V1 @ y[:3]), 0)
    gy = np.r_[-V1.T @ (tv * missing) / 200, np.zeros(n)]
    return 0.5 * missing @ missing / 200, None, gy


# Each margin, or the slack that makes up for it: 1 - slack_i - t_i (w.a_i + b) <= 0.
rows = bilevel.Affine(np.zeros((n, n)), np.c_[-t[:, None] * A1, -np.eye(n)], -np.ones(n))
start = np.r_[0.0, 0.0, 0.0, np.ones(n)]
one = bilevel.lvhba(upper, lower, rows, np.zeros(n), start, X=bilevel.box(0.0, 0.0))
own = bilevel.lvhba(upper, lower, rows, np.zeros(n), start, X=bilevel.box(-6, 3), tol=1e-4)
print(own.summary())

# %%
# A dot is a sample, the larger the dearer; a cross has a wrong label.

fig, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
grid = np.linspace(-2, 3, 2)
for ax, res, name in zip(axes, (one, own), ("one price", "own prices"), strict=True):
    size = 40 * np.exp(res.x / 2)
    ax.scatter(*A[4:].T, c=t[4:], s=size[4:], cmap="coolwarm", edgecolor="black")
    ax.scatter(*A[:4].T, c=t[:4], s=size[:4], cmap="coolwarm", marker="X", edgecolor="black")
    for level in (-1, 0, 1):
        style = "k-" if level == 0 else "k:"
        ax.plot(grid, (level - res.y[2] - res.y[0] * grid) / res.y[1], style)
    ax.set(title=f"{name}: loss {res.fun:.3f}", xlabel="first feature", ylim=(-1.5, 2))
axes[0].set_ylabel("second feature")

# %%
# Learnt: samples on the wrong side, three of the four wrong labels among them, become cheap, and
# those that mark the boundary dear: the line turns, and the loss on samples left out falls.
