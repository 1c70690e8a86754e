"""What every comparison needs: equal threads, time limits, interleaving, a store, a table.

The method is the same for every family. A contender is first *tuned*: it runs with ever stricter
settings of its own stopping rule until an independent recomputation certifies the answer. The
settings found are then timed in rounds that go through all contenders forwards and backwards in
turn, so that a drift of the machine hits all of them alike.
"""

import argparse
import contextlib
import functools
import gc
import importlib.metadata
import json
import logging
import math
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import threadpoolctl

log = logging.getLogger(__name__)

RESULTS = Path(__file__).resolve().parents[1] / "results"
# Every library that may run below a contender reads one of these when it is loaded.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "NPROC",  # XLA
)


class OutOfTimeError(Exception):
    """A contender did not return within its time limit."""


class Attempt(NamedTuple):
    """One run of one contender, judged."""

    seconds: float
    cores: float
    error: float
    iterations: int


class Tuned(NamedTuple):
    """The last attempt of a contender, and the settings that belong to it."""

    attempt: Attempt
    threshold: float
    cap: int
    certified: bool
    note: str


def main(module, parser, run):
    """Call `run(options)` once for each of `--threads`.

    Each time in a new process, because libraries fix their number of threads as they are loaded.
    """
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if not options.worker:
        for count in options.threads:
            environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(count))
            arguments = [*sys.argv[1:], "--worker", "--threads", str(count)]
            subprocess.run([sys.executable, "-m", module, *arguments], env=environment, check=True)
        return
    (options.threads,) = options.threads
    logging.basicConfig(format="%(message)s")
    logging.getLogger("benchmarks").setLevel(logging.INFO)
    logging.getLogger("__main__").setLevel(logging.INFO)
    warnings.simplefilter("ignore")  # the tables say what failed
    with contextlib.suppress(ImportError):
        import torch

        torch.set_num_threads(options.threads)
    with threadpoolctl.threadpool_limits(options.threads):
        run(options)


def command(module):
    """Return the command that the user typed."""
    asked = shlex.join(sys.argv[1 : sys.argv.index("--worker")])
    return f"python -m {module} {asked}".rstrip()


@contextlib.contextmanager
def limit_seconds(seconds):
    """Raise `OutOfTimeError` in the block after `seconds`, if it runs Python code by then."""

    def stop(signum, frame):
        raise OutOfTimeError

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextlib.contextmanager
def without_collector():
    """Collect garbage now, and none in the block: no run is to pay for that of another.

    Around a time limit, never inside: what is raised in a callback of the collector gets lost.
    """
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def clocked(function, *args):
    """Return the answer, the wall-clock seconds and the cores kept busy."""
    cpu, wall = time.process_time(), time.perf_counter()
    answer = function(*args)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return answer, wall, cpu / wall


def tune(contender, tol, seconds, *, attempts=5):
    """Find settings of `contender` whose answer is certified at `tol`, within `seconds` a run.

    `contender` has `threshold(tol)`, a first guess for its own stopping rule; `cap`, the first
    limit for its iterations; `run(threshold, cap)`, timed; `iterations(answer)` and
    `error(answer)`, not timed.
    """
    threshold, cap = contender.threshold(tol), contender.cap
    best = None
    while attempts:
        try:
            contender.prepare(cap)
            with without_collector(), limit_seconds(1.5 * seconds):
                answer, wall, cores = clocked(contender.run, threshold, cap)
        except OutOfTimeError:
            attempt = Attempt(1.5 * seconds, 1.0, best.attempt.error if best else math.inf, 0)
            return Tuned(attempt, threshold, cap, False, "time")
        except Exception as problem:  # a peer may fail in any way, and the table shows how
            note = f"{type(problem).__name__}: {problem}"
            return best or Tuned(Attempt(0.0, 1.0, math.inf, 0), threshold, cap, False, note)
        attempt = Attempt(wall, cores, contender.error(answer), contender.iterations(answer))
        del answer
        certified = attempt.error <= tol
        capped = attempt.iterations >= cap
        note = "" if certified else "time" if capped or wall >= seconds else "stopped"
        if best is None or attempt.error <= best.attempt.error:
            best = Tuned(attempt, threshold, cap, certified, note)
        # A capped run that used most of the time has shown what it can do.
        if certified or wall >= (0.8 if capped else 1.0) * seconds:
            return best
        if capped:
            # As many iterations as should fit, but no jump on the word of one short run.
            cap = math.ceil(cap * min(8.0, seconds / wall))
            continue
        if not math.isfinite(attempt.error):
            return best
        attempts -= 1
        threshold *= min(0.3, 0.7 * tol / attempt.error)
    return best


def tune_count(contender, tol, seconds):
    """Find the fewest iterations of `contender` whose answer is certified at `tol`.

    For solvers whose work is set by a number of iterations, all of them alike: `contender` has
    `first`, a guess; `run(None, count)`, timed; `error(answer)`, not timed; perhaps `low`, a
    count that is known to be too small. To within a tenth. A run is not begun when the last one
    says that it would take longer than `seconds`, or when more iterations have twice changed
    nothing.
    """
    low, high, count = getattr(contender, "low", 0), None, contender.first
    best, settled = None, 0
    while True:
        try:
            contender.prepare(count)
            with without_collector():
                answer, wall, cores = clocked(contender.run, None, count)
        except Exception as problem:  # a peer may fail in any way, and the table shows how
            note = f"{type(problem).__name__}: {problem}"
            return best or Tuned(Attempt(0.0, 1.0, math.inf, 0), 0.0, count, False, note)
        attempt = Attempt(wall, cores, contender.error(answer), count)
        del answer
        certified = attempt.error <= tol
        better = best is None or attempt.error < 0.97 * best.attempt.error
        settled = 0 if better else settled + 1
        if certified or not (best and best.certified):
            note = "" if certified else "time"
            best = Tuned(attempt, 0.0, count, certified, note)
        if not best.certified and (settled == 2 or not math.isfinite(attempt.error)):
            return best._replace(note="stopped")
        low, high = (low, count) if certified else (count, high)
        if high is None:
            affordable = math.floor(seconds / wall * count)
            count = min(max(count + 1, math.ceil(1.6 * count)), affordable)
            if count <= low:
                return best
        elif high - low <= max(1, 0.1 * high):
            return best
        else:
            count = (low + high) // 2


def interleave(runs, *, repeat, budget):
    """Time `runs` (name -> callable) in turn, forwards and backwards, `repeat` times.

    Returns name -> list of seconds. A run leaves the field when it has used `budget` seconds, so
    slow ones are repeated less often.
    """
    times = {name: [] for name in runs}
    for number in range(repeat):
        order = list(runs) if number % 2 == 0 else list(runs)[::-1]
        for name in order:
            if sum(times[name]) < budget:
                with without_collector():
                    times[name].append(clocked(runs[name])[1])
    return times


def run_cell(contenders, data, tol, *, seconds, repeat=5, tuner=tune):
    """Tune and time contenders; return name -> entry of the store.

    `contenders` (name -> class) are made from `data`; one that is not installed is left out.
    `tuner` is `tune` or `tune_count`.
    """
    entries, runs = {}, {}
    for name, make in contenders.items():
        try:
            contender = make(*data)
        except ImportError:
            continue
        attempt, threshold, cap, certified, note = tuner(contender, tol, seconds)
        entries[name] = {
            "certified": certified,
            "seconds": attempt.seconds,
            "error": attempt.error if math.isfinite(attempt.error) else None,
            "iterations": attempt.iterations,
            "threshold": threshold,
            "cores": round(attempt.cores, 2),
            "note": note,
        }
        log.info("    %-24s %s", name, entries[name])
        if certified:
            runs[name] = functools.partial(contender.run, threshold, cap)
    for name, rounds in interleave(runs, repeat=repeat, budget=seconds).items():
        entries[name] |= {"seconds": statistics.median(rounds), "rounds": len(rounds)}
    return entries


def geometric_mean(values):
    """Return the geometric mean, NaN for nothing."""
    return math.exp(statistics.fmean(map(math.log, values))) if values else math.nan


class Store:
    """Finished cells in a JSON file, so that a long table can grow in several runs.

    A cell is a dict with its place in the table (`keys`), the load of the machine and one entry
    per contender. `runs` remembers every command that added to it.
    """

    def __init__(self, path, names):
        self.path, self.names = path, names
        content = json.loads(path.read_text()) if path.exists() else {"runs": [], "cells": []}
        self.runs = content["runs"]
        self.cells = {tuple(cell["keys"]): cell for cell in content["cells"]}

    def note_run(self, module, distributions):
        """Remember the command, the versions and the machine."""
        versions = {name: version(name) for name in distributions}
        run = {
            "command": command(module),
            "date": time.strftime("%Y-%m-%d"),
            "machine": machine(),
            "versions": {"Python": platform.python_version(), **versions},
        }
        if run not in self.runs:
            self.runs.append(run)

    def entries(self, keys):
        """Return the entries of one cell, none if it has not run."""
        return self.cells.get(keys, {}).get("entries", {})

    def add(self, keys, entries):
        """Merge the entries into a cell and write the file."""
        merged = self.entries(keys) | entries
        load = round(os.getloadavg()[0], 1)
        self.cells[keys] = {"keys": list(keys), "load": load, "entries": merged}
        # One cell a line, in an order that does not depend on the runs.
        cells = ",\n".join(json.dumps(self.cells[keys]) for keys in sorted(self.cells))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(
            f'{{"runs": {json.dumps(self.runs, indent=1)},\n"cells": [\n{cells}\n]}}\n'
        )


def report(store, title, packages, ours, variants=()):
    """Return the page: the best method of each package, mean ratios, every method, the runs.

    `packages` maps the name of a package to the names of its methods, and `variants` are other
    methods of ours, which only the table of every method shows.
    """
    methods = [ours, *variants, *(method for members in packages.values() for method in members)]
    cells = [store.cells[keys] for keys in sorted(store.cells)]
    return "\n\n".join(
        [
            f"# {title}",
            "Seconds (median) to an answer that an independent float64 recomputation certifies at "
            "`tol`, for the best method of each package; in brackets its seconds divided by ours, "
            "bold where we lose. `> 30` means that the time limit came first, with the accuracy "
            "reached by then; `fails` that the method ended by itself short of the tolerance.",
            markdown(
                [*store.names, ours, *packages, "load"],
                [_best_row(cell, packages, ours) for cell in cells],
            ),
            "## Geometric means",
            "Of the peer's seconds divided by ours, over the cells that both sides certify: a "
            "peer's failures do not count against it.",
            markdown(
                [*store.names[-2:], "package", "seconds / ours", "certified by both", "we lose"],
                _mean_rows(cells, packages, ours),
            ),
            "## Every method",
            markdown(
                [*store.names, *methods],
                [
                    [*_place(cell), *(_text(cell["entries"].get(m)) for m in methods)]
                    for cell in cells
                ],
            ),
            "## Runs",
            "\n".join(map(_run_line, store.runs)) + "\n",
        ]
    )


def _best_row(cell, packages, ours):
    mine = cell["entries"].get(ours)
    texts = []
    for package, members in packages.items():
        name, entry = _best(cell["entries"], members)
        text = f"{_text(entry)} {name.removeprefix(package).strip()}".rstrip()
        factor = _ratio(entry, mine)
        if factor is not None:
            # Rows in which a peer is faster have to be easy to find.
            mark = "" if factor >= 1 else "**"
            text += f" ({mark}x{significant(factor)}{mark})"
        texts.append(text)
    return [*_place(cell), _text(mine), *texts, cell["load"]]


def _mean_rows(cells, packages, ours):
    everyone = [method for members in packages.values() for method in members]
    rows = []
    for group in sorted({tuple(cell["keys"][-2:]) for cell in cells}):
        inside = [cell["entries"] for cell in cells if tuple(cell["keys"][-2:]) == group]
        for package, members in [*packages.items(), ("the best of all", everyone)]:
            found = [(_best(entries, members)[1], entries.get(ours)) for entries in inside]
            ratios = [r for r in (_ratio(*pair) for pair in found) if r is not None]
            asked = sum(entry is not None for entry, _ in found)
            rows.append(
                [
                    *group,
                    package,
                    f"x{significant(geometric_mean(ratios))}" if ratios else "-",
                    f"{len(ratios)} of {asked}",
                    sum(r < 1 for r in ratios),
                ]
            )
    return rows


def _best(entries, members):
    """Return name and entry of the fastest certified method, else of the most accurate one."""
    present = [(name, entries[name]) for name in members if name in entries]
    certified = [pair for pair in present if pair[1]["certified"]]
    if certified:
        return min(certified, key=lambda pair: pair[1]["seconds"])
    return min(present, key=lambda pair: pair[1]["error"] or math.inf, default=("", None))


def _ratio(peer, mine):
    """Return the peer's seconds over ours, None unless both are certified."""
    if peer and mine and peer["certified"] and mine["certified"]:
        return peer["seconds"] / mine["seconds"]
    return None


def _place(cell):
    return [f"{key:g}" if isinstance(key, float) else str(key) for key in cell["keys"]]


def _text(entry):
    if entry is None:
        return ""
    if entry["certified"]:
        return significant(entry["seconds"], 3)
    reached = f" at {entry['error']:.0e}" if entry["error"] is not None else ""
    if entry["note"] == "time":
        return f"> {significant(entry['seconds'])}{reached}"
    return "fails" + reached


def _run_line(run):
    versions = ", ".join(f"{name} {number}" for name, number in run["versions"].items())
    return f"- `{run['command']}` ({run['date']}; {run['machine']}; {versions})"


def version(distribution):
    """Return the installed version, or a dash."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "-"


def machine():
    """Describe the machine in one line."""
    names = [platform.processor() or platform.machine()]
    with contextlib.suppress(OSError):
        info = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in info if line.startswith("model name")]
        flags = next((line for line in info if line.startswith("flags")), "")
        names[0] += ", AVX-512" if "avx512f" in flags else ", no AVX-512"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} x {names[0]}, {memory:.0f} GiB, {platform.system()}"


def markdown(header, rows):
    """Return a table; the first column is text, the others are numbers."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def significant(value, digits=2):
    """Format with `digits` significant digits and no exponent: 0.0123, 1.2, 123."""
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"
