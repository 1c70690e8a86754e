"""How the loss is split off, which decides what the linear step of an iteration solves.

Every split keeps copies of what the loss sees, in units of the penalty rho:

- `Predictions`: ``p = F U``, one number for each sample.
- `Rows`: ``Q_k = sum_i d_ki (u_i - z_i)``, one row for each sample, with ``p_k = x_k^T Q_k``:
  for many samples.
- `Joint`: none. The loss stays in the linear step, as in the paper.

The first two serve any loss, and their linear steps do not depend on rho.
"""

from .._core.validation import check_choice
from ._block_descent import BlockDescent
from ._usolvers import Dense, Krylov, Sylvester, Woodbury

SPLITS = {
    "p": ("woodbury", "cg"),
    "Q": ("sylvester",),
    "paper": ("woodbury", "cg", "dense", "rbcd"),
}
# The split that a linear step belongs to, where only the step is named.
_HOME = {"woodbury": "p", "cg": "p", "sylvester": "Q", "dense": "paper", "rbcd": "paper"}
# Up to here, a matrix with a row for each sample (or gate) is cheaper than going without.
_DIRECT = 4000


def check_split(split, usolver, loss):
    """Return `split` and `usolver`, checked to belong together."""
    check_choice(split, "split", ("auto", *SPLITS))
    check_choice(usolver, "usolver", ("auto", *_HOME))
    if usolver == "auto":
        # Only descent takes the paper's step for the other losses.
        return split, "rbcd" if split == "paper" and loss != "squared" else usolver
    split = _HOME[usolver] if split == "auto" else split
    if usolver not in SPLITS[split]:
        expected = ", ".join(map(repr, SPLITS[split]))
        raise ValueError(
            f"`usolver` came as {usolver!r}; expected one of {expected} with split={split!r}"
        )
    if split == "paper" and usolver != "rbcd" and loss != "squared":
        raise ValueError(
            f"`usolver` came as {usolver!r}, which solves the paper's step of the squared loss "
            f"only; expected 'rbcd' with loss={loss!r}, or another split"
        )
    return split, usolver


def resolved(split, usolver, n, P):
    """Return `split` and `usolver` with the choices made that were left open."""
    if split == "auto":
        split = "Q" if n > _DIRECT >= P else "p"
    if usolver == "auto":
        usolver = "sylvester" if split == "Q" else "woodbury" if n <= _DIRECT else "cg"
    return split, usolver


def make_split(programme, split, usolver, sigma, theta, rng):
    """Return the split of a programme, `split` and `usolver` as `check_split` left them."""
    n, P = programme.X.shape[0], len(programme.mask)
    split, usolver = resolved(split, usolver, n, P)
    if usolver == "sylvester":
        return Rows(programme, sigma)
    if usolver == "rbcd":
        return Joint(programme, BlockDescent(programme, sigma, rng))
    if usolver == "woodbury":
        solver = Woodbury(programme, sigma, once=split == "p")
    else:
        solver = Krylov(programme, sigma, rng) if usolver == "cg" else Dense(programme, sigma)
    return Joint(programme, solver) if split == "paper" else Predictions(programme, solver, theta)


class Predictions:
    """The copy ``p = F U`` with ``theta rho`` as its penalty.

    Attributes
    ----------
    theta : float
        Weight of the copy's residuals, in units of rho.
    q : array, shape (c, n)
        What the copy is made from: ``p = prox(q)``, its scaled dual being ``q - p``.
    """

    def __init__(self, programme, solver, theta):
        xp = programme.xp
        self.programme, self.solver, self.theta = programme, solver, theta
        solver.weigh(theta)
        self.p, self.q = xp.zeros_like(programme.Y), xp.zeros_like(programme.Y)

    def start(self, U, rho):
        """Make the copy what it is where blocks U are a solution."""
        p = self.programme.predictions(U)
        # The dual is minus the loss's slope.
        self.settle(p + self.programme.loss.slope(p) / (rho * self.theta), rho)

    def solve(self, R, rho):
        """Return the U of the linear step; R (c, 2, P, d) may be overwritten."""
        return self.solver.solve(R, 2.0 * self.p - self.q)

    def absorb(self, U, F, rho, relax):
        """Update the copy, ``F = F U``; return squares of what is left, changed and missed."""
        xp, before = self.programme.xp, self.p
        self.settle(relax * F + (1.0 - relax) * before + (self.q - before), rho)
        return squares(xp, F - self.p, self.p - before, F - before)

    def settle(self, q, rho):
        """Make the copy anew from q."""
        self.q, self.p = q, self.programme.loss.prox(q, rho * self.theta)

    def rescale(self, factor):
        """Keep the dual in the caller's unit when rho becomes ``factor rho``."""
        self.q = self.p + (self.q - self.p) / factor

    def dual(self, rho):
        """Return the dual point z."""
        return rho * self.theta * (self.p - self.q)


class Rows:
    """The copies ``Q_k = sum_i d_ki (u_i - z_i)`` with ``tau rho`` as their penalty.

    Attributes
    ----------
    theta : float
        Weight tau of the copies' residuals, in units of rho.
    q : array, shape (c, n, d)
        What the copies are made from.
    """

    def __init__(self, programme, sigma, tau=0.3):
        xp, X = programme.xp, programme.X
        self.programme, self.theta = programme, tau
        self.solver = Sylvester(programme, sigma, tau)
        self.Q = xp.zeros((len(programme.Y), *X.shape), dtype=X.dtype)
        self.q = self.Q
        # Along their samples copies move, by `t`; a row of zeros moves nowhere.
        self.t, square = xp.zeros_like(programme.Y), xp.square(X).sum(axis=1)
        self.square = xp.where(square > 0, square, 1.0)

    def start(self, U, rho):
        """Make the copies what they are where blocks U are a solution."""
        slope = self.programme.loss.slope(self.programme.predictions(U)) / (rho * self.theta)
        self.settle(self.solver.rows(U) + slope[..., None] * self.programme.X, rho)

    def solve(self, R, rho):
        """Return the U of the linear step; R (c, 2, P, d) may be overwritten."""
        return self.solver.solve(R, 2.0 * self.Q - self.q)

    def absorb(self, U, F, rho, relax):
        """Update the copies; return squares of what is left, changed and missed."""
        xp, before, now = self.programme.xp, self.Q, self.solver.rows(U)
        self.settle(relax * now + (1.0 - relax) * before + (self.q - before), rho)
        return squares(xp, now - self.Q, self.Q - before, now - before)

    def settle(self, q, rho):
        """Make the copies anew from q."""
        programme = self.programme
        a = (q * programme.X).sum(axis=-1)
        p = programme.loss.prox(a, rho * self.theta / self.square)
        self.t = (p - a) / self.square
        self.q, self.Q = q, q + self.t[..., None] * programme.X

    def rescale(self, factor):
        """Keep the duals in the caller's unit when rho becomes ``factor rho``."""
        self.t = self.t / factor
        self.q = self.Q + (self.q - self.Q) / factor

    def dual(self, rho):
        """Return the dual point z."""
        return rho * self.theta * self.t


class Joint:
    """No copy: the loss stays in the linear step.

    Attributes
    ----------
    theta : float
        Zero, the weight of residuals that do not exist.
    q : array
        Empty: no state.
    """

    theta = 0.0

    def __init__(self, programme, solver):
        self.programme, self.solver, self.rho = programme, solver, None
        self.q = programme.Y[:, :0]
        self.F = programme.xp.zeros_like(programme.Y)

    def start(self, U, rho):
        """Begin descent at blocks U; other steps need no start."""
        self.solver.start(U)

    def solve(self, R, rho):
        """Return the U of the linear step; R (c, 2, P, d) may be overwritten."""
        if rho != self.rho:
            self.rho = rho
            self.solver.weigh(1.0 / rho)
        return self.solver.solve(R, self.programme.Y)

    def absorb(self, U, F, rho, relax):
        """Keep the predictions of U: nothing is left, changed or missed."""
        self.F = F
        return self.programme.xp.zeros(3)

    def settle(self, q, rho):
        """Nothing to make anew."""

    def rescale(self, factor):
        """Nothing to rescale: the solver is weighed anew."""

    def dual(self, rho):
        """Return the dual point z."""
        return -self.programme.loss.slope(self.F)


def squares(xp, *arrays):
    """Return the sums of squares of several arrays, in float64."""
    return xp.stack([xp.square(a).sum(dtype=float) for a in arrays])
