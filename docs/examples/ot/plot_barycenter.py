"""
What lies between two pictures?
===============================

The mean of two images shows both at once. Their barycentre moves the ink of one half-way to where
the other has it.
"""

import matplotlib.pyplot as plt
import numpy as np

import solvers

# %%
# Two handwritten digits as weights on the pixels of a grid, and the squared distance of pixels. A
# hundredth of the ink lies under all pixels, which we take away again.

side = 28
zero, one, C = solvers.datasets.digits_transport(0, 1, side=side)[:3]
digits = np.stack([zero, one])
digits = np.maximum(digits - 1.01 * digits.min(axis=1, keepdims=True), 0.0)
digits /= digits.sum(axis=1, keepdims=True)

# %%
# One barycentre for each share of the second digit. The largest cost is 1, so the blur is about
# the root of `reg` times the image's diagonal: a pixel or so.

shares = np.linspace(0.0, 1.0, 5)
middle = [
    solvers.ot.barycenter(digits, C, weights=[1.0 - share, share], reg=5e-4, tol=1e-6)
    for share in shares
]
assert all(res.success for res in middle)

fig, axes = plt.subplots(2, 5, figsize=(9, 3.9), layout="constrained")
for (above, below), share, res in zip(axes.T, shares, middle, strict=True):
    mixture = (1.0 - share) * digits[0] + share * digits[1]
    for ax, image in ((above, mixture), (below, res.x)):
        ax.imshow(image.reshape(side, side), cmap="gray_r", vmax=digits.max())
        ax.set(xticks=[], yticks=[])
    above.set_title(f"{share:.0%} one")
axes[0, 0].set_ylabel("mixture")
axes[1, 0].set_ylabel("barycentre")

# %%
# How many passes each of them took, and how far its certificate says that it is from the optimum:

for share, res in zip(shares, middle, strict=True):
    print(f"{share:4.0%}: {res.nit:3d} passes, {res.seconds:5.2f} s, {res.certificate}")

# %%
# Learnt: a barycentre interpolates shapes, not grey values. Its weights decide where on the way it
# lies; `reg` decides how sharp it is.
