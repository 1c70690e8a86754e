"""
Where do charges on a sphere come to rest?
==========================================

Equal charges repel each other and stay at distance 1 from the centre: an equation for each of
them, and as many local minima as one likes. The certificate tells minima from saddles.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial import ConvexHull

import solvers

# %%
# Thirty-two charges from random places. Newton steps on the optimality conditions would go to any
# point where forces balance, saddles included; the merit function and the shifts of the Hessian
# keep them to minima.

problem = solvers.datasets.thomson(32, rng=3)
res = solvers.constrained.minimize(problem.fun, problem.x0, **problem.keywords())
print(res.summary())
print(f"energy {res.fun:.9f}, best known 412.261274651")

# %%
# Turning the sphere changes nothing, so three directions are flat; all others curve upwards. A
# ring of charges along the equator balances its forces too, and is certified to be no minimum.

t = 2 * np.pi * np.arange(32) / 32
ring = np.stack([np.cos(t), np.sin(t), 0 * t], axis=1).reshape(-1)
cert = solvers.constrained.certify(ring, problem.fun, **problem.keywords())
print(cert, "with smallest curvature", round(cert.details["smallest_curvature"], 1))

# %%
# The hull of the charges shows how many neighbours each has: five at twelve places,
# six elsewhere.

x = res.x.reshape(-1, 3)
hull = ConvexHull(x)
neighbours = np.bincount(hull.simplices.reshape(-1))
fig = plt.figure(figsize=(10, 4.6), layout="constrained")
ball = fig.add_subplot(121, projection="3d", computed_zorder=False)
ball.plot_trisurf(*x.T, triangles=hull.simplices, color="w", edgecolor="0.5", alpha=0.35)
for count, color in ((5, "tab:orange"), (6, "tab:blue")):
    ball.scatter(*x[neighbours == count].T, s=60, color=color, label=f"{count} neighbours")
ball.set_box_aspect((1, 1, 1), zoom=1.35)
ball.set_axis_off()
ball.legend(loc="upper left")
res.plot(x="nit", ax=fig.add_subplot(122))

# %%
# Learnt: close to the answer each step doubles the digits. What comes out is the pattern of a
# football, the best one known; another start may end in another minimum, certified as well.
