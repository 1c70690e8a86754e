"""
Where does each point of one shape go on another?
=================================================

Two clouds of points, and no matrix between them: a `PointCloud` computes costs when they are
needed. The plan pairs the points, as smoothly as `reg` asks for.
"""

import matplotlib.pyplot as plt
import numpy as np

import solvers

# %%
# 2000 points on a sphere, 3000 on a trefoil knot of some thickness.

rng = np.random.default_rng(0)
sphere = rng.normal(size=(2000, 3))
sphere *= 2.0 / np.linalg.norm(sphere, axis=1, keepdims=True)
t = rng.uniform(0.0, 2.0 * np.pi, 3000)
knot = np.stack(
    [np.sin(t) + 2.0 * np.sin(2.0 * t), np.cos(t) - 2.0 * np.cos(2.0 * t), -np.sin(3.0 * t)]
).T
knot += 0.15 * rng.normal(size=knot.shape)

# %%
# Each point of the sphere moves to the mean of where its mass goes. The plan times the points of
# the knot gives all of these means at once, again without a matrix.

res = solvers.ot.sinkhorn_newton(None, None, solvers.ot.PointCloud(sphere, knot), reg=0.01)
moved = len(sphere) * res.apply(knot)
print(res.summary())

# %%
# A colour for each point of the sphere stays with it on its way.

fig, axes = plt.subplots(1, 4, figsize=(12, 3.3), subplot_kw={"projection": "3d"})
colours = (sphere - sphere.min(axis=0)) / np.ptp(sphere, axis=0)
for ax, share in zip(axes, (0.0, 0.4, 0.8, 1.0), strict=True):
    ax.scatter(*((1.0 - share) * sphere + share * moved).T, c=colours, s=3)
    ax.set(title=f"{share:.0%} of the way", xlim=(-3, 3), ylim=(-3, 3), zlim=(-2, 2))
    ax.set_box_aspect((6, 6, 4), zoom=1.35)
    ax.view_init(elev=90, azim=-90)
    ax.set_axis_off()
fig.subplots_adjust(left=0, right=1, bottom=0, top=0.88, wspace=0)

# %%
# How much of the transport cost is the entropy's doing is known as well: without it, the least
# cost lies between these two numbers.

print("{:.4f} .. {:.4f}".format(*res.lp_bracket()))

# %%
# Learnt: a `PointCloud` goes wherever a cost matrix would, and `apply` wherever the plan would, so
# memory grows with the points, not with their pairs.
