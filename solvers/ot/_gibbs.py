"""Passes over the cost, and the Gibbs kernel between two of them in three ways of holding it.

``K`` is that of `kernels.cpu`: row-normalised for the column factors it was made with. Scaling it
by other column factors ``v`` costs a fraction of computing its exponentials anew, so everything
between two passes happens on it. The three kernel classes have the same methods.
"""

import numpy as np

from .._core.validation import check_memory
from ._cloud import Cloud

# Up to this many entries a dense kernel in float64 costs next to nothing.
SMALL = 250_000
# A compressed entry takes twelve bytes, a dense one in float32 four.
ROOM = 1 / 3
# Of a big cloud no more than these are stored, in 800 MB.
MOST_ENTRIES = 1 << 26
# A compressed entry costs about eight times a dense one, but the next temperature is lower: where
# the last kernel was this dense, it pays to compress.
PROMISING = 0.3
# Log-factors may spread this far before rows are searched for their largest entries again.
PEAK_HOLDS = 2.0
# Column sums, relative to their targets, beyond which a kernel has lost a column.
LOST = 1e20


class Passes:
    """Runs passes over the cost and holds the kernels that they make.

    Parameters
    ----------
    problem : Transport
        Without weights of zero.
    store_plan : {"auto", True, False}
        Whether a dense kernel is stored; "auto": if it fits into memory.
    number : dtype, optional
        Precision of a dense kernel, which is then never compressed.

    Attributes
    ----------
    f : array
        Row potentials of the last pass.
    density : float
        Of the last kernel: the fraction of entries that matter.
    """

    def __init__(self, problem, store_plan, number=None):
        self.problem = problem
        self._compresses = number is None and problem.C.size > SMALL
        self._number = np.dtype(number or (np.float32 if self._compresses else np.float64))
        self.holds_dense = self._fits() if store_plan == "auto" else store_plan
        self._xp = problem.be.xp
        self._none = self._xp.empty((0, problem.b.size))
        self._dense = self._csr = None
        self._shift = self._xp.empty_like(problem.a)
        self.f, self.density, self._too_dense = None, 1.0, np.inf

    def run(self, h, reg, cutoff=None):
        """Make the rows exact for column potentials `h`, which may be mended in place.

        Parameters
        ----------
        h : array
            Column potentials.
        reg : float
            Temperature.
        cutoff : float, optional
            Store the kernel; entries below this fraction of their row may be left out.

        Returns
        -------
        array
            The plan's column sums.
        kernel or None
            What was stored.
        """
        problem, xp = self.problem, self._xp
        sums, kernel = self._once(h, reg, cutoff)
        lost = xp.flatnonzero(~((sums > 1 / LOST) & (sums < LOST)))
        if lost.size > 0:
            # Their potentials are so far off that the kernel underflowed: set them directly. Once,
            # for what is returned must belong to `h`.
            problem.cost_kernels.column_potential(problem.C, self._shift, problem.a, reg, lost, h)
            sums, kernel = self._once(h, reg, cutoff)
        self.f = -reg * self._shift
        return problem.b * sums, kernel

    def use_float64(self):
        """Store dense kernels in full precision from now on, whatever the memory."""
        if self._number != np.float64:
            self._number, self._dense = np.dtype(np.float64), None
            self.holds_dense = self.holds_dense and self._fits()

    def dual(self, h):
        """Return the dual value at the last pass: exact rows leave only the linear part."""
        return self.problem.a @ self.f + self.problem.b @ h

    def _once(self, h, reg, cutoff):
        if cutoff is None:
            return self._row_pass(h, reg, self._none), None
        if self._compresses and (self.density < PROMISING or self._may_be_sparse(reg)):
            sums, kernel = self._compressed(h, reg, cutoff)
            if kernel is not None:
                return sums, kernel
            self._too_dense = 0.7 * reg
        return self._stored(h, reg, cutoff)

    @property
    def _is_big(self):
        """Whether a cloud's dense plan would take memory that a cloud is meant to save."""
        return isinstance(self.problem.C, Cloud) and self.problem.C.size > 4 * MOST_ENTRIES

    def _may_be_sparse(self, reg):
        # Then compressing is worth a try at each new temperature.
        return self._is_big and reg < self._too_dense

    def _row_pass(self, h, reg, K):
        p = self.problem
        return p.cost_kernels.row_pass(p.C, h, p.b, reg, p.a, self._shift, K)

    def _compressed(self, h, reg, cutoff):
        p, xp = self.problem, self._xp
        if self._csr is None:
            self._dense = None
            n, room = p.a.size, int(ROOM * p.C.size)
            room = (min(room, MOST_ENTRIES) if self._is_big else room) + p.b.size
            check_memory(12 * room, "The compressed plan", be=p.be)
            starts, ends = xp.zeros(n, np.int64), xp.zeros(n, np.int64)
            self._csr = starts, ends, xp.empty(room, np.int32), xp.empty(room)
        starts, ends, indices, values = self._csr
        sums, fitted = p.cost_kernels.sparse_row_pass(
            p.C, h, p.b, reg, p.a, self._shift, cutoff, indices, values, starts, ends
        )
        if not fitted:
            self._csr, self.density = None, 1.0
            return sums, None
        kernel = SparseKernel(self._csr, p)
        self.density = kernel.density
        return sums, kernel

    def _stored(self, h, reg, cutoff):
        p = self.problem
        if not self.holds_dense:
            sums = self._row_pass(h, reg, self._none)
            return sums, CostKernel(h.copy(), reg, self._shift.copy(), p)
        if self._dense is None:
            self._dense = self._xp.empty(p.C.shape, self._number)
        sums = self._row_pass(h, reg, self._dense)
        kernel = DenseKernel(self._dense, p)
        if self._compresses:
            self.density = kernel.survey(cutoff)
        return sums, kernel

    def _fits(self):
        try:
            nbytes = self._number.itemsize * self.problem.C.size
            check_memory(nbytes, "The dense plan", be=self.problem.be)
        except MemoryError:
            return False
        return True


class DenseKernel:
    """Every entry stored: in float32 where the problem is big, so that half the cost fits."""

    def __init__(self, K, problem):
        self._K, self._a, self._kernels = K, problem.a, problem.kernels
        self._xp, self._problem = problem.be.xp, problem
        self._peaks, self.spread_out = None, False
        # The error below which the rounding of the entries shows.
        self.floor = 1e-7 if K.dtype.itemsize == 4 else 0.0

    def survey(self, cutoff):
        """Return the fraction of entries above a fraction of their row, from a sample of rows."""
        sample = self._K[:: max(1, self._K.shape[0] // 64)] * self._problem.b
        density, peak = self._problem.be.host((sample > cutoff).mean(), sample.max())
        # Where no entry has most of its row, the Laplacian's diagonal is about the column sums.
        self.spread_out = bool(density > PROMISING and peak < 0.5)
        return density

    def weigh(self, a):
        """Choose other row sums for the plan."""
        self._a = a

    def sweep(self, v):
        """Return ``rho = K v`` and ``K^T (a / rho)``."""
        rho = self._xp.empty_like(self._a)
        return rho, self._kernels.sweep(self._K, v, self._a, rho)

    def fix(self, v, rho):
        """Choose the plan, by its column factors, that the methods below belong to."""
        xp = self._xp
        # Any entry near the largest will do for a peak: look again only where factors have moved.
        host = self._problem.be.host
        if self._peaks is None or host(xp.ptp(xp.log(v / self._peaks_at))) > PEAK_HOLDS:
            self._peaks, self._peaks_at = self._kernels.row_peaks(self._K, v), v
        self._plan = self._K, v, rho, self._a, self._peaks

    def laplacian(self, x):
        """Return ``(diag(c) - P^T diag(1/a) P) x``."""
        return self._kernels.laplacian(*self._plan, x)

    def diagonal(self, c):
        """Return the diagonal of the Laplacian, roughly `c` where no entry dominates."""
        return c if self.spread_out else self._kernels.laplacian_diagonal(*self._plan)

    def gram(self):
        """Return ``P^T diag(1/a) P``; only its lower triangle counts, without the diagonal."""
        xp, (K, v, rho, a, _) = self._xp, self._plan
        W = xp.zeros((v.size, v.size))
        scale = xp.sqrt(a) / rho
        for start in range(0, a.size, 512):
            rows = slice(start, start + 512)
            P = K[rows] * scale[rows, None]
            P *= v
            W += P.T @ P
        return W


class SparseKernel:
    """Only the entries that matter, in float64."""

    floor = 0.0

    def __init__(self, csr, problem):
        starts, ends, _, _ = csr
        self._csr, self._a, self._kernels = csr, problem.a, problem.kernels
        self._xp = problem.be.xp
        self.density = problem.be.host((ends - starts).sum()) / problem.C.size

    def weigh(self, a):
        """Choose other row sums for the plan."""
        self._a = a

    def sweep(self, v):
        """Return ``rho = K v`` and ``K^T (a / rho)``."""
        rho = self._xp.empty_like(self._a)
        return rho, self._kernels.csr_sweep(*self._csr, v, self._a, rho)

    def fix(self, v, rho):
        """Choose the plan, by its column factors, that the methods below belong to."""
        peaks = self._kernels.csr_row_peaks(*self._csr, v)
        self._plan = *self._csr, v, rho, self._a, peaks

    def laplacian(self, x):
        """Return ``(diag(c) - P^T diag(1/a) P) x``."""
        return self._kernels.csr_laplacian(*self._plan, x)

    def diagonal(self, c):
        """Return the diagonal of the Laplacian; `c` are the column sums."""
        return self._kernels.csr_laplacian_diagonal(*self._plan)

    def gram(self):
        """Return ``P^T diag(1/a) P``; only its lower triangle counts, without the diagonal."""
        m = self._plan[4].size
        W = self._xp.zeros((m, m))
        self._kernels.csr_gram(*self._plan[:7], W)
        return W


class CostKernel:
    """Nothing stored: blocks of rows are computed anew for every product."""

    floor = 0.0

    def __init__(self, h, reg, shift, problem):
        self._h, self._reg, self._shift, self._problem = h, reg, shift, problem
        self._a, self._xp, self._kernels = problem.a, problem.be.xp, problem.kernels

    def _blocks(self):
        C, xp = self._problem.C, self._xp
        step = max(1, (1 << 18) // C.shape[1])
        for start in range(0, C.shape[0], step):
            rows = slice(start, start + step)
            K = xp.subtract(self._h, C[rows], dtype=np.float64)
            K /= self._reg
            K -= self._shift[rows, None]
            yield rows, xp.exp(K, out=K)

    def weigh(self, a):
        """Choose other row sums for the plan."""
        self._a = a

    def sweep(self, v):
        """Return ``rho = K v`` and ``K^T (a / rho)``."""
        a = self._a
        rho, sums = self._xp.empty_like(a), 0.0
        for rows, K in self._blocks():
            sums = sums + self._kernels.sweep(K, v, a[rows], rho[rows])
        return rho, sums

    def fix(self, v, rho):
        """Choose the plan, by its column factors, that the methods below belong to."""
        self._v, self._rho = v, rho
        self._peaks = self._xp.empty(rho.size, np.int64)
        for rows, K in self._blocks():
            self._peaks[rows] = self._kernels.row_peaks(K, v)

    def _plans(self):
        for rows, K in self._blocks():
            yield K, self._v, self._rho[rows], self._a[rows], self._peaks[rows]

    def laplacian(self, x):
        """Return ``(diag(c) - P^T diag(1/a) P) x``."""
        return sum(self._kernels.laplacian(*plan, x) for plan in self._plans())

    def diagonal(self, c):
        """Return the diagonal of the Laplacian; `c` are the column sums."""
        return sum(self._kernels.laplacian_diagonal(*plan) for plan in self._plans())

    def gram(self):
        """Return ``P^T diag(1/a) P``; only its lower triangle counts, without the diagonal."""
        W = 0.0
        for K, v, rho, a, _ in self._plans():
            P = K * (self._xp.sqrt(a) / rho)[:, None] * v
            W = W + P.T @ P
        return W
