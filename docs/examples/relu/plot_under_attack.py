"""
What does an adversary do to a network?
=======================================

It moves every sample a little, to where the network errs most. Robust training counts on that:
its objective bounds the worst case, whatever the attack.
"""

import matplotlib.pyplot as plt
import numpy as np

from solvers import relu

rng, radius = np.random.default_rng(0), 0.3
corners, labels = (
    np.array([[1, 0.6], [-1, -0.6], [1, -0.6], [-1, 0.6]]),
    np.array([1.0, 1, -1, -1]),
)
place = rng.integers(0, 4, 40)
X, y = corners[place] + rng.uniform(-0.25, 0.25, (40, 2)), labels[place]
options = {"beta": 0.1, "loss": "hinge", "bias": True, "tol": 1e-2, "rng": 0}
plain = relu.admm(X, y, n_gates=40, **options)
robust = relu.admm(X, y, n_gates=5, robust_eps=radius, **options)
print(f"The worst case of the robust network is at most {robust.robust_fun:.2f}.")
for name, res in (("standard", plain), ("robust", robust)):
    attack = relu.attack_pgd(res.net, X, y, radius, rng=0)
    print(f"{name}: an attack raises the loss to {attack.loss.sum():.2f}")

# %%
# The boxes are what each sample may become. Both boundaries leave them whole, but the hinge loss
# asks for more: a margin, which the standard network has on the samples only.

grid = np.stack(np.meshgrid(np.linspace(-1.7, 1.7, 150), np.linspace(-1.3, 1.3, 150)), axis=-1)
fig, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
for ax, (name, res) in zip(axes, (("standard", plain), ("robust", robust)), strict=False):
    score = res.net.predict(grid.reshape(-1, 2)).reshape(150, 150)
    ax.contourf(grid[..., 0], grid[..., 1], score, [-99, 0, 99], colors=("#f4c7b8", "#bcd7ee"))
    for corner, label in zip(X - radius, y, strict=True):
        color = "tab:blue" if label > 0 else "tab:red"
        ax.add_patch(plt.Rectangle(corner, 2 * radius, 2 * radius, fill=False, color=color))
    ax.set(title=name, xlabel="first feature", ylabel="second feature", aspect="equal")

radii = np.linspace(0.0, 0.4, 9)
for name, res in (("standard", plain), ("robust", robust)):
    losses = [relu.attack_pgd(res.net, X, y, max(r, 1e-9), rng=0).loss.sum() for r in radii]
    axes[2].plot(radii, losses, "o-", label=name)
axes[2].axvline(radius, color="gray", ls="--", label="radius of the training")
axes[2].set(xlabel="radius of the attack", ylabel="loss under attack")
axes[2].legend()

# %%
# Learnt: most of what an attack within the radius could do, robust training has ruled out, with a
# bound that no cleverer attack can break. Beyond the radius it promises nothing.
