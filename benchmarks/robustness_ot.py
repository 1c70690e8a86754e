"""How often are random problems solved? Ours and the peers on `datasets.random_transport`.

Run from the repository's root, in an environment that has the peers::

    python -m benchmarks.robustness_ot --problems 300

A peer may tighten its own stopping rule until the independent recomputation of the marginal error
is content or its time is up, and gets the cost shifted and scaled to [0, 1], as some of them ask
for. Ours gets the problem as it is, and one call.
"""

import argparse
import collections
import functools
import logging
import statistics
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.peers import common
from benchmarks.peers.ot import CONTENDERS, DISTRIBUTIONS, OURS
from solvers import datasets

TOL, LOOSE = 1e-9, 1e-6
DEFAULT = [
    OURS,
    "POT sinkhorn",
    "POT sinkhorn_log",
    "POT sinkhorn_stabilized",
    "regot ssns",
    "regot splr",
    "ott plain",
    "mdot-tnt",
]

log = logging.getLogger(__name__)


class Outcome(NamedTuple):
    """What one contender made of one problem."""

    error: float
    seconds: float
    warned: bool
    end: str
    positive: bool


def scaled(problem):
    """The same problem with costs in [0, 1]: the plan is unchanged."""
    span = np.ptp(problem.C) or 1.0
    return problem._replace(C=(problem.C - problem.C.min()) / span, reg=problem.reg / span)


def solve(name, problem, seconds):
    """Run one contender on one problem and judge what comes back."""
    judged = _ours if name == OURS else _peer
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        error, elapsed, end = judged(name, problem, seconds)
    positive = bool((problem.a > 0).all() and (problem.b > 0).all())
    return Outcome(error, elapsed, bool(seen), end, positive)


def _peer(name, problem, seconds):
    problem = scaled(problem)
    tuned = common.tune(CONTENDERS[name](problem, problem.reg), TOL, seconds)
    return (
        tuned.attempt.error,
        tuned.attempt.seconds,
        "certified" if tuned.certified else tuned.note,
    )


def _ours(name, problem, seconds):
    contender = CONTENDERS[name](problem, problem.reg)
    run = functools.partial(contender.run, TOL, time_limit=seconds)
    with common.without_collector():
        answer, elapsed, _ = common.clocked(run)
    error = contender.error(answer)
    certified = error <= TOL
    if answer.success != certified:
        return error, elapsed, "claims success" if answer.success else "claims failure"
    return error, elapsed, "certified" if certified else answer.status.name


def row(name, outcomes):
    """One line of the table."""

    def share(numbers):
        numbers = list(numbers)
        return f"{100 * statistics.fmean(numbers):.1f} %" if numbers else "-"

    errors = np.array([outcome.error for outcome in outcomes])
    ends = collections.Counter(outcome.end.split(":")[0] for outcome in outcomes)
    certified = [outcome.seconds for outcome in outcomes if outcome.end == "certified"]
    return [
        name,
        share(errors <= TOL),
        share(errors <= LOOSE),
        share(outcome.error <= TOL for outcome in outcomes if outcome.positive),
        sum(outcome.warned for outcome in outcomes),
        int(np.sum(~np.isfinite(errors))),
        ", ".join(f"{end} {count}" for end, count in ends.most_common()),
        common.significant(statistics.median(certified)) if certified else "-",
    ]


def page(outcomes, command):
    """The whole report."""
    header = [
        "contender",
        f"certified at {TOL:g}",
        f"at {LOOSE:g}",
        f"at {TOL:g}, weights > 0",
        "problems with a warning",
        "no finite answer",
        "how they end",
        "median s",
    ]
    versions = ", ".join(f"{name} {common.version(name)}" for name in DISTRIBUTIONS)
    count = len(next(iter(outcomes.values())))
    return "\n\n".join(
        [
            "# Robustness of entropic optimal transport",
            f"{count} problems `datasets.random_transport(0 .. {count - 1})`. `stopped`: the "
            "peer ended by itself short of the tolerance, however strict its own rule was made; "
            "`time`: its time was up; `claims`: ours and the recomputation disagree. The seconds "
            "are those of the certified answers.",
            common.markdown(header, [row(name, list(o)) for name, o in outcomes.items()]),
            f"`{command}` ({common.machine()}; {versions})\n",
        ]
    )


def run(options):
    """Run every contender on every problem, rewriting the report as it grows."""
    command = common.command("benchmarks.robustness_ot")
    for name in options.peers:
        solve(name, datasets.random_transport(0), options.seconds)  # compiles
    outcomes = {name: [] for name in options.peers}
    for seed in range(options.problems):
        problem = datasets.random_transport(seed)
        for name in options.peers:
            outcome = solve(name, problem, options.seconds)
            outcomes[name].append(outcome)
            if outcome.end != "certified":
                log.info("%4d %-24s %s", seed, name, outcome)
        if seed % 10 == 9 or seed == options.problems - 1:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(page(outcomes, command))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=300)
    parser.add_argument("--peers", nargs="+", default=DEFAULT, choices=CONTENDERS)
    parser.add_argument("--seconds", type=float, default=2.0, help="limit for one run")
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--out", type=Path, default=common.RESULTS / "ot_robustness.md")
    common.main("benchmarks.robustness_ot", parser, run)


if __name__ == "__main__":
    main()
