"""
What does an adversary do to a network?
=======================================

It moves every sample a little, to where the network errs most. Robust training counts on that:
its objective bounds the worst case, whatever the attack.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from solvers import relu

radius = 0.15
X, y = make_moons(80, noise=0.05, random_state=2)
y = np.where(y > 0, 1.0, -1.0)
options = {"beta": 0.1, "loss": "hinge", "bias": True, "n_gates": 80, "tol": 1e-2, "rng": 0}
plain = relu.admm(X, y, **options)
robust = relu.admm(X, y, robust_eps=radius, **options)
print(f"The worst case of the robust network is at most {robust.robust_fun:.2f}.")
for name, res in (("standard", plain), ("robust", robust)):
    attack = relu.attack_pgd(res.net, X, y, radius, rng=0)
    print(f"{name}: an attack raises the loss to {attack.loss.sum():.2f}")

# %%
# The boxes are what each sample may become. The standard boundary cuts through some of them.

grid = np.stack(np.meshgrid(np.linspace(-1.5, 2.5, 150), np.linspace(-1, 1.5, 150)), axis=-1)
fig, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
for ax, (name, res) in zip(axes, (("standard", plain), ("robust", robust)), strict=False):
    score = res.net.predict(grid.reshape(-1, 2)).reshape(150, 150)
    ax.contourf(grid[..., 0], grid[..., 1], score, [-99, 0, 99], colors=("#f4c7b8", "#bcd7ee"))
    for corner, label in zip(X - radius, y, strict=True):
        color = "tab:blue" if label > 0 else "tab:red"
        ax.add_patch(plt.Rectangle(corner, 2 * radius, 2 * radius, fill=False, color=color))
    ax.set(title=name, xlabel="first feature", ylabel="second feature", aspect="equal")

radii = np.linspace(0.01, 0.3, 10)
for name, res in (("standard", plain), ("robust", robust)):
    attacks = [relu.attack_pgd(res.net, X, y, eps, rng=0).pred for eps in radii]
    axes[2].plot(radii, [100 * np.mean(pred == y) for pred in attacks], "o-", label=name)
axes[2].axvline(radius, color="gray", ls="--", label="radius of the training")
axes[2].set(xlabel="radius of the attack", ylabel="labels right under attack (%)")
axes[2].legend()

# %%
# Learnt: a network that looks perfect may fail for most samples when they move a little. The
# robust one is built so that they cannot, up to the radius that it was trained for.
