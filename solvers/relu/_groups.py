"""Norms of the weights of one gate or neuron, which the programmes without cones penalise.

Weights are arrays T of shape (c, P, k): output, group, entry. Each norm knows its sum over
groups, its dual norm, its shrinkage, and that shrinkage's derivative.
"""


class PerOutput:
    """The Euclidean norm for each output and group: the outputs are programmes of their own."""

    # What is one vector.
    axes: tuple[int, ...] = (2,)

    def __init__(self, xp):
        self.xp = xp

    def sizes(self, T):
        """Return the norm of each vector, with its axes kept."""
        return self.xp.sqrt(self.xp.square(T).sum(axis=self.axes, keepdims=True))

    def total(self, T):
        """Return the sum of all norms."""
        return float(self.sizes(T).sum())

    def dual(self, F):
        """Return the largest dual norm."""
        return float(self.sizes(F).max())

    def shrink(self, T, t):
        """Return every vector moved by t towards zero."""
        return T * self.xp.maximum(1.0 - t / self.xp.maximum(self.sizes(T), 1e-300), 0.0)

    def derivative(self, T, t):
        """Return the derivative of `shrink` at T."""
        return Shrinking(self, T, t)


class Frobenius(PerOutput):
    """The Frobenius norm of each group over all outputs."""

    axes = (0, 2)


class Shrinking:
    """The derivative of a Euclidean shrinkage: ``a G + b T <T, G>`` for each vector.

    Attributes
    ----------
    a, b : array, shape (c, P, 1)
    """

    def __init__(self, norm, T, t):
        xp, size = norm.xp, norm.sizes(T)
        size = xp.maximum(size, 1e-300)
        moved = size > t
        self.xp, self.T, self._axes = xp, T, norm.axes
        shape = (T.shape[0], T.shape[1], 1)
        self.a = xp.broadcast_to(xp.where(moved, 1.0 - t / size, 0.0), shape).astype(T.dtype)
        self.b = xp.broadcast_to(xp.where(moved, t / size / size / size, 0.0), shape)
        self.b = self.b.astype(T.dtype)

    def of(self, output):
        """Return a and ``sqrt(b) T`` of one output."""
        return self.a[output, :, 0], self.xp.sqrt(self.b[output]) * self.T[output]

    def __call__(self, G):
        along = (self.T * G).sum(axis=self._axes, keepdims=True)
        return self.a * G + self.b * along * self.T


class Nuclear:
    """The sum of singular values of each group, as a matrix of entries by outputs."""

    def __init__(self, xp):
        self.xp = xp

    def total(self, T):
        """Return the sum of all norms."""
        return float(self._svd(T)[1].sum())

    def dual(self, F):
        """Return the largest dual norm, a spectral one."""
        return float(self._svd(F)[1].max())

    def shrink(self, T, t):
        """Return every matrix with its singular values moved by t towards zero."""
        L, s, R = self._svd(T)
        return _stacked((L * self.xp.maximum(s - t, 0.0)[:, None, :]) @ R)

    def derivative(self, T, t):
        """Return the derivative of `shrink` at T."""
        return Thresholding(self, T, t)

    def _svd(self, T):
        return self.xp.linalg.svd(T.transpose(1, 2, 0), full_matrices=False)


class Thresholding:
    """The derivative of singular value thresholding.

    With ``f(s) = (s - t)_+`` the symmetric part of a direction, in singular vectors, is weighed
    by differences of f, the skew part by sums, and what lies outside by ``f(s) / s``.
    """

    def __init__(self, norm, T, t):
        xp, self.T = norm.xp, T
        self.L, s, self.R = norm._svd(T)
        f = xp.maximum(s - t, 0.0)
        rise, gap = f[:, :, None] - f[:, None, :], s[:, :, None] - s[:, None, :]
        level = xp.broadcast_to((s > t)[:, :, None], gap.shape).astype(T.dtype)
        far = abs(gap) > 1e-10 * xp.maximum(s[:, :1, None], 1e-300)
        self._symmetric = xp.where(far, rise / xp.where(far, gap, 1.0), level)
        total = xp.maximum(s[:, :, None] + s[:, None, :], 1e-300)
        self._skew = (f[:, :, None] + f[:, None, :]) / total
        self._outside = (f / xp.maximum(s, 1e-300)).astype(T.dtype)

    def of(self, output):
        """Return a and ``sqrt(b) T`` of a Euclidean shrinkage that is near, for one output."""
        return self._outside.max(axis=1), 0.0 * self.T[output]

    def __call__(self, G):
        L, R = self.L, self.R
        Lt, Rt = L.swapaxes(1, 2), R.swapaxes(1, 2)
        G = G.transpose(1, 2, 0)
        inner = Lt @ G @ Rt
        turned = inner.swapaxes(1, 2)
        middle = 0.5 * self._symmetric * (inner + turned) + 0.5 * self._skew * (inner - turned)
        left = (G @ Rt - L @ inner) * self._outside[:, None, :]
        right = (Lt @ G - inner @ R) * self._outside[:, :, None]
        return _stacked((L @ middle + left) @ R + L @ right)


def _stacked(M):
    """Return matrices (P, k, c) as weights (c, P, k)."""
    return M.transpose(2, 0, 1)


NORMS = {"frobenius": Frobenius, "nuclear": Nuclear}
