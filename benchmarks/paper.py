"""What reports on papers' experiments share: running, the page of tables, and the picture.

An experiment is a function of the options that returns tables: dicts with a `title`, `text`,
`header` and `rows`, and `curves` (label, x, y), `axes` and `scale` where there is something to
draw.
"""

import argparse
import json
import logging
import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import common

log = logging.getLogger(__name__)
_FIGURES = Path(__file__).parents[1] / "docs" / "_static"


def quiet(fun, *data, **options):
    """Call without warnings: the tables say how a run ended."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fun(*data, **options)


@dataclass(frozen=True)
class Report:
    """The experiments of the papers of one family.

    Attributes
    ----------
    name : str
        Of the module, and of the files that are written.
    title, text : str
        What the page begins with.
    experiments : tuple of callable
        In the order of the page.
    settings : callable
        Given `quick`, returns the sizes of the experiments, which become options.
    """

    name: str
    title: str
    text: str
    experiments: tuple
    settings: callable

    def run(self, options):
        """Run the experiments that were asked for; write the tables and the figure."""
        options.out.mkdir(parents=True, exist_ok=True)
        store = options.out / f"{self.name}.json"
        found = json.loads(store.read_text()) if options.only and store.exists() else {}
        for experiment in self.experiments:
            if options.only and experiment.__name__ not in options.only:
                continue
            start = time.perf_counter()
            found[experiment.__name__] = experiment(options)
            log.info("%s: %.0f s", experiment.__name__, time.perf_counter() - start)
            store.write_text(json.dumps(found) + "\n")
        (options.out / f"{self.name}.md").write_text(self.page(found, options.command))
        draw(self.tables(found), options.figure)

    def tables(self, found):
        """Return the tables of all experiments that were run, in order."""
        return [table for step in self.experiments for table in found.get(step.__name__, [])]

    def page(self, found, command):
        """Return the page."""
        used = ("numpy", "scipy", "numba")
        versions = ", ".join(f"{name} {common.version(name)}" for name in used)
        parts = [f"# {self.title}", self.text]
        for table in self.tables(found):
            parts += [f"## {table['title']}", table["text"]]
            parts.append(common.markdown(table["header"], table["rows"]))
        parts.append(f"`{command}` ({common.machine()}; {versions})\n")
        return "\n\n".join(parts)

    def main(self, summary):
        """Run as a program."""
        parser = argparse.ArgumentParser(description=summary)
        parser.add_argument("--quick", action="store_true", help="small problems, few iterations")
        names = [step.__name__ for step in self.experiments]
        parser.add_argument("--only", nargs="+", choices=names, default=[], metavar="EXPERIMENT")
        parser.add_argument("--threads", nargs=1, type=int, default=[1])
        parser.add_argument("--out", type=Path, default=common.RESULTS)
        parser.add_argument("--figure", type=Path, default=_FIGURES / f"{self.name}.png")
        common.main(f"benchmarks.{self.name}", parser, self._worker)

    def _worker(self, options):
        """Run in a process whose number of threads is set."""
        options.command = f"python -m benchmarks.{self.name}" + " --quick" * options.quick
        vars(options).update(self.settings(options.quick))
        self.run(options)


def draw(tables, path):
    """Draw what has curves, three in a row."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    drawn = [table for table in tables if table.get("curves")]
    if not drawn:
        return
    columns = min(3, len(drawn))
    lines = math.ceil(len(drawn) / columns)
    fig, axes = plt.subplots(lines, columns, figsize=(5 * columns, 4 * lines), squeeze=False,
                             layout="constrained")  # fmt: skip
    for ax, table in zip(axes.flat, drawn, strict=False):
        for label, x, y in table["curves"]:
            ax.plot(x, y, label=label)
        ax.set_title(table["title"], fontsize=10)
        scale = table.get("scale", "log")
        if scale == "loglog":
            ax.set_xscale("log")
        ax.set_yscale("log" if scale == "loglog" else scale)
        ax.set(xlabel=table["axes"][0], ylabel=table["axes"][1])
        ax.grid(alpha=0.3)
        ax.legend(fontsize=7)
    for ax in axes.flat[len(drawn) :]:
        ax.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=80)
    plt.close(fig)
