"""E4, E7 and E8 of `paper_bilevel`: levels that are means over samples."""

import logging
import math

import numpy as np

from benchmarks.paper import quiet
from benchmarks.peers import common
from benchmarks.peers.bilevel import Tuning
from solvers import bilevel

log = logging.getLogger(__name__)
BATCH = 64


# ---- E4: noisy labels


class Digits:
    """Digits with wrong labels, some clean ones, and others to test with."""

    def __init__(self, noisy, clean, flips, seed=0):
        from sklearn.datasets import load_digits

        images, t = load_digits(return_X_y=True)
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(t))
        X = np.c_[images / 16.0, np.ones(len(images))][order]
        self.labels = t[order]
        self.train, self.valid = slice(0, noisy), slice(noisy, noisy + clean)
        self.test = slice(noisy + clean, None)
        self.X, self.wrong = X, rng.random(noisy) < flips
        self.noisy = self.labels[self.train].copy()
        self.noisy[self.wrong] += rng.integers(1, 10, self.wrong.sum())
        self.noisy %= 10

    def problem(self):
        return bilevel.problems.HyperCleaning(
            self.X[self.train], self.noisy, self.X[self.valid], self.labels[self.valid], l2=1e-3
        )

    def right(self, W):
        """Return the share of test digits that coefficients (p, 10) get right."""
        return float(np.mean((self.X[self.test] @ W).argmax(axis=1) == self.labels[self.test]))

    def uniform(self, rows, labels):
        """Return the test accuracy of a model of some samples, the best of a few penalties."""
        from sklearn.linear_model import LogisticRegression

        shares = []
        for C in (0.01, 0.1, 1.0, 10.0, 100.0):
            model = LogisticRegression(C=C, fit_intercept=False, max_iter=1000)
            chosen = quiet(model.fit, rows, labels).predict(self.X[self.test])
            shares.append(float(np.mean(chosen == self.labels[self.test])))
        return max(shares)


def cleaning(options):
    """E4: what cleaning is worth, beside training on the clean samples alone."""
    from sklearn.metrics import roc_auc_score

    rows = []
    for flips in options.flips:
        for clean in options.clean:
            d = Digits(options.noisy, clean, flips)
            X, kept = d.X[d.train], ~d.wrong
            limits = {"maxiter": 100, "time_limit": options.patience}
            res = quiet(bilevel.penalty, d.problem(), tol=1e-6, **limits)
            area = roc_auc_score(kept, np.asarray(res.x))
            shares = [d.uniform(X, d.noisy), d.uniform(X[kept], d.noisy[kept]),
                      d.uniform(d.X[d.valid], d.labels[d.valid]), d.right(res.y)]  # fmt: skip
            rows.append([f"{flips:.0%}", clean, *(f"{share:.3f}" for share in shares),
                         f"{area:.3f}", common.significant(res.seconds)])  # fmt: skip
            log.info("E4 %s", rows[-1])
    return [{
        "title": f"E4: {options.noisy} digits with wrong labels",
        "text": "Test accuracy of softmax regression: on all samples as they are, on those whose "
        "labels are right (which nobody knows), on the clean validation samples alone, each with "
        "the best of five penalties by the test samples, and with weights chosen by the clean "
        "samples. Area under the curve of weights against wrong labels. The papers leave "
        "out what the clean samples alone are good for.",
        "header": ["wrong", "clean", "as they are", "wrong ones left out", "clean alone",
                   "cleaned", "area", "s"],
        "rows": rows,
    }]  # fmt: skip


def loops(options):
    """E4: stochastic loops and penalties, by samples seen."""
    d = Digits(options.noisy, options.clean[0], options.flips[0])
    problem = d.problem()
    judge = Tuning(
        d.X[d.train], d.noisy, d.X[d.valid], d.labels[d.valid], "cleaning"
    ).psi  # fmt: skip
    rows, curves = [], []
    for method in ("shared", "single-loop", "f2sa", "f3sa", "soba", "saba", "stocbio"):
        trace = []

        def look(state, trace=trace):
            trace.append((len(trace) + 1, np.array(state.x)))

        res = quiet(
            bilevel.penalty_sgd, problem, method=method, batch=min(BATCH, options.clean[0]),
            epochs=options.epochs, time_limit=options.patience, callback=look, rng=0,
        )  # fmt: skip
        every = max(1, len(trace) // min(options.points, 10))
        points = [(k, judge(x)) for k, x in trace[every - 1 :: every]]
        rows.append([method, f"{judge(res.x):.4f}", f"{d.right(res.y):.3f}",
                     res.counts["n_samples"], common.significant(res.seconds)])  # fmt: skip
        curves.append((method, *map(list, zip(*points, strict=True))))
        log.info("E4 %s", rows[-1])
    return [{
        "title": "E4: stochastic loops on noisy digits",
        "text": f"{options.epochs} epochs with batches of at most {BATCH}, all options at their "
        "defaults; psi at the answer, solved anew, and the accuracy on test samples. \"shared\" "
        "is ours; \"f2sa\", \"f3sa\" and \"single-loop\" are published penalty loops; the others "
        "take products with second derivatives.",
        "header": ["method", "psi", "test accuracy", "samples", "s"],
        "rows": rows, "curves": curves, "axes": ["epoch", "psi"], "scale": "linear",
    }]  # fmt: skip


# ---- E7: many blocks


class Blocks:
    """Logistic regressions that share one penalty for each feature."""

    def __init__(self, m, n, p, seed=0):
        rng = np.random.default_rng(seed)
        self.m, self.p = m, p
        W = rng.standard_normal((m, p)) * (np.arange(p) < p // 3)
        X = rng.standard_normal((m, 2 * n, p))
        t = np.where(rng.random((m, 2 * n)) < 1 / (1 + np.exp(-np.einsum("bnp,bp->bn", X, W))),
                     1.0, -1.0)  # fmt: skip
        self.X, self.V = X[:, :n].copy(), X[:, n:].copy()
        self.t, self.tv = t[:, :n].copy(), t[:, n:].copy()

    def problem(self):
        return bilevel.problems.MultiBlockLogistic(self.X, self.t, self.V, self.tv)

    def psi(self, x):
        """Return the mean validation loss, every block solved by Newton's method."""
        X, t, n, e = self.X, self.t, self.X.shape[1], np.exp(np.asarray(x))
        Y = np.zeros((self.m, self.p))
        for _ in range(50):
            s = 1 / (1 + np.exp(np.clip(t * np.einsum("bnp,bp->bn", X, Y), -500, 500)))
            grad = -np.einsum("bnp,bn->bp", X, t * s) / n + e * Y
            if abs(grad).max() < 1e-10:
                break
            H = np.einsum("bnp,bn,bnq->bpq", X, s * (1 - s) / n, X, optimize=True)
            H[:, range(self.p), range(self.p)] += e
            Y = Y - np.linalg.solve(H, grad[..., None])[..., 0]
        return float(np.logaddexp(0, -self.tv * np.einsum("bnp,bp->bn", self.V, Y)).mean())


def blocks(options):
    """E7: variants by epochs, and what more blocks and samples in a step are worth."""
    data = Blocks(*options.blocks)
    problem = data.problem()
    first = data.psi(problem.x0)
    runs = [("v1", options.sampled[0]), ("v2", options.sampled[0])]
    runs += [("v3", sampled) for sampled in options.sampled]
    found, rows, curves = [], [], []
    for variant, (sampled, batch) in runs:
        trace = []

        def look(state, trace=trace):
            trace.append((state.nit, np.array(state.x)))

        res = quiet(
            bilevel.bsvrb, problem, variant=variant, blocks=sampled, batch=batch,
            epochs=options.passes, callback=look, time_limit=options.patience, rng=0,
        )  # fmt: skip
        found.append((variant, sampled, batch, res, [(k, data.psi(x)) for k, x in trace]))
        log.info("E7 %s, %d blocks of %d: %.1f s", variant, sampled, batch, res.seconds)
    lowest = min(value for *_, values in found for _, value in values)
    for variant, sampled, batch, res, values in found:
        goal = lowest + 0.1 * (first - lowest)
        reached = next((k for k, value in values if value <= goal), None)
        rows.append([variant, sampled, batch, f"{values[-1][1]:.4f}", reached or "-",
                     "-" if reached is None else reached * sampled * batch,
                     common.significant(res.seconds)])  # fmt: skip
        curves.append(
            (f"{variant}, I = {sampled}, B = {batch}", *map(list, zip(*values, strict=True)))
        )
    return [{
        "title": f"E7: {data.m} blocks of {data.X.shape[1]} samples, p = {data.p}",
        "text": f"{options.passes} epochs of BSVRB with I blocks of B samples in a step. psi at "
        "the end, every block solved by Newton's method; steps until nine tenths of the way from "
        f"the start ({first:.4f}) to the lowest value seen ({lowest:.4f}), looked at after every "
        "epoch, and samples until then. v1 and v2 take second derivatives, v3 none.",
        "header": ["variant", "I", "B", "psi", "steps", "samples", "s"],
        "rows": rows, "curves": curves, "axes": ["step", "psi"], "scale": "linear",
    }]  # fmt: skip


# ---- E8: an upper level of exponential growth


class Growth:
    """``f = sum cosh(3 (y - t))`` over a linear lower level: gradients grow like f itself."""

    def __init__(self, d=10, distance=2.0, samples=64, seed=0):
        rng = np.random.default_rng(seed)
        Q, _ = np.linalg.qr(rng.standard_normal((d, d)))
        self.A = (Q * np.geomspace(1.0, 0.3, d)) @ Q.T
        self.t, self.samples = distance * np.ones(d), samples
        # Noise of both levels' samples, of mean zero.
        self.noise = 0.1 * rng.standard_normal((samples, d))
        self.noise -= self.noise.mean(axis=0)
        self.x0, self.y0, self.d = np.zeros(d), np.zeros(d), d

    def lower(self, x, y, idx=slice(None)):
        r = self.A @ y - x + self.noise[idx].mean(axis=0)
        return 0.5 * y @ self.A @ y - y @ (self.A @ y - r), -y, r

    def upper(self, x, y, idx=slice(None)):
        e = 3.0 * (y - self.t - self.noise[idx])
        return float(np.cosh(e).sum(axis=1).mean()), 0 * x, 3.0 * np.sinh(e).mean(axis=0)

    def psi(self, x):
        return self.upper(x, np.linalg.solve(self.A, x))[0]


def growth(options):
    """E8: steps of the length of the gradient, and of a length of their own."""
    g = Growth()
    levels = [bilevel.Oracle(value_and_grads=fun, n_samples=g.samples)
              for fun in (g.upper, g.lower)]  # fmt: skip
    second = bilevel.Oracle(
        value_and_grads=g.lower, n_samples=g.samples,
        hvp_yy=lambda x, y, v, idx: g.A @ v, hvp_xy=lambda x, y, v, idx: -v,
    )  # fmt: skip
    lowest = g.psi(g.A @ g.t)
    epochs = max(2, options.growth * 16 // g.samples)
    rows = []
    for lr in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1):
        entries = {
            "plain steps": (bilevel.penalty_sgd, levels, {"epochs": epochs}),
            "normalised steps": (bilevel.penalty_sgd, levels,
                                 {"epochs": epochs, "normalize": True}),
            "BO-REP, first order": (bilevel.borep, levels, {"maxiter": options.growth}),
            "BO-REP": (bilevel.borep, [levels[0], second],
                       {"maxiter": options.growth, "first_order": False}),
        }  # fmt: skip
        for label, (solve, oracles, own) in entries.items():
            res = quiet(solve, *oracles, g.x0, g.y0, batch=16, lr_upper=lr, rng=0,
                        time_limit=options.patience, **own)  # fmt: skip
            # Where plain steps end, the value may be too large for a number.
            with np.errstate(all="ignore"):
                over = g.psi(np.asarray(res.x)) - lowest
            rows.append([label, f"{lr:.0e}", res.status.name.lower(), res.nit,
                         f"{over:.1e}" if math.isfinite(over) else "-"])  # fmt: skip
            log.info("E8 %s", rows[-1])
    rows.sort(key=lambda row: row[0])
    return [{
        "title": "E8: an upper level of exponential growth",
        "text": f"The sum of {g.d} hyperbolic cosines of 3 (y - t), from y = 0 with t = 2 "
        f"({g.psi(g.x0):.0f} at the start, {lowest:.1f} at the solution), a quadratic lower "
        "level, noise in both; batches of 16. Value above the solution's where the run ends, by "
        "the length of upper steps: plain ones multiply it with the gradient, which is thousands "
        "of times longer at the start than near the solution.",
        "header": ["method", "length", "end", "steps", "above"],
        "rows": rows,
    }]  # fmt: skip
