"""
How do the colours of one photograph move to another?
=====================================================

A transport plan between two clouds of colours gives each colour a new one: the mean of where it
goes. The potentials extend that map from a sample to all pixels.
"""

import matplotlib.pyplot as plt
import numpy as np
from scipy.spatial.distance import cdist

import solvers

# %%
# Two photographs, 300 pixels of each as samples, and the squared distance of their colours.

photographs = [image[::2, ::2] for image in solvers.datasets.sample_photographs()]
rng = np.random.default_rng(0)
x, y = (rng.choice(image.reshape(-1, 3), 300, replace=False) for image in photographs)
res = solvers.ot.sinkhorn_newton(None, None, cdist(x, y, "sqeuclidean"), reg=0.03)
print(res.summary())

# %%
# The row of the plan that belongs to a new colour follows from the potential of the other side. So
# one solve serves both directions.


def transfer(image, samples, potential):
    """Move the colours of an image towards `samples`."""
    exponent = (potential - cdist(image.reshape(-1, 3), samples, "sqeuclidean")) / res.reg
    weights = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    means = weights @ samples / weights.sum(axis=1, keepdims=True)
    return means.reshape(image.shape)


moved = transfer(photographs[0], y, res.g), transfer(photographs[1], x, res.f)

fig, axes = plt.subplots(2, 2, figsize=(9, 6.2), layout="constrained")
titles = "a temple", "a flower", "the temple in the flower's colours", "and the other way round"
for ax, image, title in zip(axes.flat, [*photographs, *moved], titles, strict=True):
    ax.imshow(image)
    ax.set_title(title)
    ax.axis("off")

# %%
# Learnt: the potentials, one number for each sample, are the whole answer. The plan is not needed,
# and a smaller `reg` would keep more of the contrast.
