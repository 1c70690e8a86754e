"""
Which features come in, and when?
=================================

As the penalty falls, coefficients leave zero one after the other. Cross-validation says where to
stop, the certificate that every point of the path is right.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_diabetes

import solvers

# %%
# Ten measurements of 442 patients, and how their disease progressed within a year.

data = load_diabetes()
X, y = data.data / data.data.std(axis=0), data.target
path = solvers.bcd.path(solvers.bcd.lasso, X, y, alphas=100, fit_intercept=True)
print(path.certificate)

# %%
# Where a sample left out is predicted best:

chosen = solvers.bcd.LassoCV(alphas=path.alphas, cv=10).fit(X, y)
error = np.sqrt(chosen.mse_path_)
mean, spread = error.mean(axis=1), error.std(axis=1) / np.sqrt(10)

fig, axes = plt.subplots(2, 1, figsize=(8, 6.5), sharex=True, layout="constrained")
for name, series in zip(data.feature_names, path.coefs.T, strict=True):
    axes[0].plot(path.alphas, series, label=name)
axes[0].set(ylabel="coefficient", xscale="log")
axes[0].invert_xaxis()
axes[0].legend(ncols=2)
axes[1].plot(path.alphas, mean)
axes[1].fill_between(path.alphas, mean - spread, mean + spread, alpha=0.3)
axes[1].set(xlabel="alpha", ylabel="error on samples left out")
for ax in axes:
    ax.axvline(chosen.alpha_, color="gray", ls="--")

# %%
# Learnt: the body mass index and one blood value come first and stay. Where the error is least,
# to the dashed line, some coefficients are zero still; but the error is flat, so that fewer would
# do almost as well.
print([name for name, w in zip(data.feature_names, chosen.coef_, strict=True) if w])
