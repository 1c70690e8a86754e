"""The guide: reads the command line, visits the stops, and keeps the books."""

import argparse
import json
import math
import os
import platform
import time
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

import solvers

from . import STOPS

# What the stops draw with and take their data from: import names and distributions.
_NEEDED = {"sklearn": "scikit-learn", "matplotlib": "matplotlib", "PIL": "pillow"}
_SHOWN = ("numpy", "scipy", "numba", "scikit-learn", "matplotlib", "cupy-cuda12x", "cupy-cuda13x")


def main(argv=None):
    """Take the tour.

    Parameters
    ----------
    argv : list of str, optional
        Arguments in place of those of the command line.

    Returns
    -------
    int
        Exit code: 0 if every certificate holds, otherwise 1.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    if args.list:
        _list()
        return 0
    be = _ready(parser, args)
    started = time.perf_counter()
    stops = {}
    for name in args.stops:
        stops[name] = _visit(name, be, args)
    holds = all(stop["certificate"]["holds"] for stop in stops.values())
    report = {
        "holds": holds,
        "seconds": round(time.perf_counter() - started, 3),
        "device": args.device,
        "quick": args.quick,
        "versions": _versions(),
        "machine": _machine(),
        "stops": stops,
    }
    path = args.out / "tour.json"
    path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    verdict = "Every certificate holds." if holds else "NOT every certificate holds."
    print(f"\n{verdict} Numbers: {path}")
    return 0 if holds else 1


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m solvers",
        description="Solve one real, bundled problem per family, show the certificate of each "
        "answer, and write a picture of it.",
    )
    parser.add_argument(
        "stops", nargs="*", type=_stop, default=list(STOPS), metavar="STOP",
        help=f"where to go (default: everywhere): {', '.join(STOPS)}",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="list stops, versions and back ends")
    parser.add_argument("--quick", action="store_true", help="solve small problems")
    parser.add_argument(
        "--out", type=Path, default=Path("tour"), metavar="DIR",
        help="folder for pictures and numbers (default: ./tour)",
    )  # fmt: skip
    parser.add_argument(
        "--device", choices=("cpu", "gpu"), default="cpu", help="where to compute (default: cpu)"
    )
    return parser


def _stop(name):
    if name not in STOPS:
        raise argparse.ArgumentTypeError(f"no stop {name!r}; choose among {', '.join(STOPS)}")
    return name


def _list():
    sections = {"stops": STOPS, "versions": _versions(), "back ends": _back_ends()}
    for title, rows in sections.items():
        print(title)
        for name, value in rows.items():
            print(f"  {name:<16} {value}")


def _ready(parser, args):
    """Return the back end, or leave with one sentence about what is missing."""
    missing = [name for module, name in _NEEDED.items() if find_spec(module) is None]
    if missing:
        parser.exit(
            2, f'The tour needs {" and ".join(missing)}: pip install "array-solvers[demo]"\n'
        )
    try:
        args.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        parser.error(f"argument --out: {error.strerror}: {args.out}")
    from .._core.backend import get_backend

    try:
        return get_backend("cupy" if args.device == "gpu" else "numpy")
    except (ImportError, RuntimeError) as error:
        parser.error(f"argument --device: {error}")


def _visit(name, be, args):
    """Go to a stop, tell what happens there, and return its entry in the report."""
    from .._core.kernels.jit import compile_seconds
    from ._stop import Trip

    print(f"\n{name}: {STOPS[name]}", flush=True)
    started, compiled_before = time.perf_counter(), compile_seconds()
    trip = Trip(be, args.quick)
    outcome = import_module(f".{name}", __package__).visit(trip)
    picture = args.out / f"{name}.png"
    outcome.figure.savefig(picture, dpi=120)
    _show(outcome, picture)
    result = outcome.result
    return {
        "title": STOPS[name],
        "method": result.method,
        "status": result.status.name,
        "message": result.message,
        "certificate": _entry(result.certificate),
        "nit": result.nit,
        "seconds": result.seconds,
        "compile_seconds": compile_seconds() - compiled_before,
        "total_seconds": time.perf_counter() - started,
        "steps": trip.steps,
        "numbers": dict(outcome.numbers),
        "peers": [
            {"name": peer.name, "seconds": peer.seconds, "certificate": _entry(peer.certificate)}
            for peer in outcome.peers
        ],
        "picture": picture.name,
    }


def _show(outcome, picture):
    result = outcome.result
    print(_indented(result.summary()))
    rows = [(result.method, result.seconds, result.certificate)]
    rows += [(peer.name, peer.seconds, peer.certificate) for peer in outcome.peers]
    width = max(len(name) for name, _, _ in rows)
    print(f"\n  {'':<{width}}   seconds   {result.certificate.kind}")
    for name, seconds, certificate in rows:
        verdict = "holds" if certificate.holds else "does not hold"
        print(f"  {name:<{width}}  {seconds:8.3f}   {certificate.value:<8.2g}  {verdict}")
    print(f"\n  picture: {picture}", flush=True)


def _indented(text):
    return "\n".join(f"  {line}" for line in text.splitlines())


def _entry(certificate):
    """Return a certificate as JSON, which has no word for numbers that are not finite."""
    numbers = {"value": certificate.value, "tol": certificate.tol, **certificate.details}
    numbers = {k: v if math.isfinite(v) else str(v) for k, v in numbers.items()}
    return {"kind": certificate.kind, "holds": certificate.holds, **numbers}


def _versions():
    """Return versions without importing what they belong to."""
    versions = {"array-solvers": solvers.__version__, "python": platform.python_version()}
    for name in _SHOWN:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _back_ends():
    """Return which devices can be used."""
    # Only CuPy can tell whether it finds a device; without it there is nothing to ask.
    if find_spec("cupy") is None:
        return {"cpu": "NumPy", "gpu": "not available: needs CuPy"}
    from .._core.backend import available_backends

    found = "cupy" in available_backends()
    return {"cpu": "NumPy", "gpu": "CuPy" if found else "not available: CuPy finds no device"}


def _machine():
    return {"system": platform.system(), "machine": platform.machine(), "cpus": os.cpu_count()}
