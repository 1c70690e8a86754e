"""E3 and E4 of `paper_relu`: how many samples of neurons and of gates are needed."""

import logging
import math

import numpy as np

from benchmarks.paper import quiet
from solvers import relu

log = logging.getLogger(__name__)
# Certainty of the guarantee of E3, and neurons that its claim is measured with.
PSI, FURTHER = 0.05, 2000


def sampled_neurons(options):
    """E3: the sampled convex programme by its number of neurons, and what theory promises."""
    X, y = options.sets["iris" if options.quick else "breast_cancer"]
    order = np.random.default_rng(0).permutation(len(X))
    train, test = order[::2], order[1::2]
    beta, n = options.beta, len(train)
    rows = []
    for N in options.neurons:
        res = trained(relu.sampled_convex, X[train], y[train], beta=beta, n_neurons=N, rng=1)
        right = np.mean(np.sign(res.net.predict(X[test])) == y[test])
        promised = guarantee(n, N)
        measured = improving(X[train], y[train] - res.net.predict(X[train]), beta)
        rows.append([N, f"{res.fun:.4f}", res.net.hidden.shape[1], f"{100 * right:.1f}",
                     "-" if promised >= 1 else f"{promised:.3f}", f"{measured:.3f}"])  # fmt: skip
        log.info("E3 %s", rows[-1])
    best = trained(relu.admm, X[train], y[train], beta=beta, refine="auto", tol=1e-3)
    right = np.mean(np.sign(best.net.predict(X[test])) == y[test])
    active = best.net.hidden.shape[1]
    rows.append(["refined", f"{best.fun:.4f}", active, f"{100 * right:.1f}", "-", "-"])
    return [{
        "title": f"E3: random neurons, n = {n}, beta = {beta}",
        "text": "Squared loss of labels, half of the samples for training. With N random neurons, "
        f"theory promises with certainty {1 - PSI} that one more lowers the optimum with at most "
        f"the probability that is given (a dash: none below 1); measured with {FURTHER} more. "
        "The last row trains hidden weights too, by `admm(refine=\"auto\")`.",
        "header": ["N", "objective", "active", "right, %", "promised", "measured"],
        "rows": rows,
    }]  # fmt: skip


def guarantee(n, N):
    """Return the smallest probability of improvement that `required_gates` allows with N draws."""
    return min((n + 1) / (PSI * (N + 1)), 2.0 * (n + 1 - math.log(PSI)) / N)


def improving(X, z, beta):
    """Return the share of further neurons that would lower the optimum whose dual point is z."""
    u = np.random.default_rng(2).standard_normal((X.shape[1], FURTHER))
    reach = z @ np.maximum(X @ (u / np.linalg.norm(u, axis=0)), 0.0)
    # What the tolerance of the run leaves undecided does not count.
    return np.mean(abs(reach) > beta * (1 + 1e-4))


def sampled_gates(options):
    """E4: the optimum over some gates against the optimum over all of them."""
    rows = []
    for n, r in options.exact:
        rng = np.random.default_rng(n + r)
        X = np.c_[rng.standard_normal((n, r - 1)), np.ones(n)] / math.sqrt(r)
        y = np.maximum(X @ rng.standard_normal((r, 6)), 0.0) @ rng.choice([-1.0, 1.0], 6)
        y += 0.1 * rng.standard_normal(n)
        best = trained(relu.exact, X, y, beta=options.beta / 10)
        for P in options.sampled:
            cells = []
            for scheme in ("gaussian", "data", "local"):
                res = trained(relu.admm, X, y, beta=options.beta / 10, n_gates=P, scheme=scheme,
                              tol=1e-4, maxiter=options.long)  # fmt: skip
                cells.append(f"{res.fun_convex / best.dual_global - 1.0:.1e}")
            rows.append([r, n, len(best.gates), f"{best.fun:.4f}", f"{best.gap_global:.0e}", P,
                         *cells])  # fmt: skip
            log.info("E4 %s", rows[-1])
        refined = trained(relu.admm, X, y, beta=options.beta / 10, refine="auto", tol=1e-4)
        rows.append([r, n, len(best.gates), f"{best.fun:.4f}", f"{best.gap_global:.0e}",
                     f"{len(refined.gates)} (refined)", "-", "-",
                     f"{refined.fun / best.dual_global - 1.0:.1e}"])  # fmt: skip
        log.info("E4 %s", rows[-1])
    return [{
        "title": f"E4: how many gates are needed, beta = {options.beta / 10}",
        "text": "Squared loss of a planted network in rank r, with a column of ones. The optimum "
        "over all gates is found and proved by `exact` (objective, proved gap). Beside it, the "
        "part by which the best objective found over P gates lies above it: gates of gaussian "
        "vectors, of differences of samples, and of a local descent. The last row of each problem "
        "is the network of `refine=\"auto\"`, with the gates it used.",
        "header": ["r", "n", "all gates", "optimum", "gap", "P", "gaussian", "data", "local"],
        "rows": rows,
    }]  # fmt: skip


def trained(solve, X, y, **options):
    """Train without words, with fixed random numbers."""
    return quiet(solve, X, y, **({"rng": 0} | options))
