"""What this installation can do, and paying the compiler ahead of time."""

import importlib
import os
import pkgutil
import platform
import time
from importlib import metadata
from importlib.util import find_spec

import solvers

__all__ = ["show_config", "warmup"]

_PACKAGES = (
    "numpy",
    "scipy",
    "numba",
    "llvmlite",
    "threadpoolctl",
    "tqdm",
    "matplotlib",
    "scikit-learn",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "torch",
    "jax",
)


class Config(dict[str, dict[str, str]]):
    """Sections of a report, by title; shows itself as aligned text."""

    def __repr__(self) -> str:
        lines = []
        for title, rows in self.items():
            lines += [title, *(f"  {name:<16} {value}" for name, value in rows.items())]
        return "\n".join(lines)


def show_config() -> Config:
    """Report versions, back ends, threads and caches.

    Returns
    -------
    Config
        A dictionary of sections, each a dictionary of strings, that prints as text.

    Examples
    --------
    >>> import solvers
    >>> sorted(solvers.show_config())
    ['back ends', 'caches', 'threads', 'versions']
    """
    from solvers._core.backend import available_backends

    versions = {"solvers": solvers.__version__, "python": platform.python_version()}
    versions |= {name: version for name in _PACKAGES if (version := _version(name))}
    return Config(
        {
            "versions": versions,
            "back ends": {"available": ", ".join(available_backends())},
            "threads": _threads(),
            "caches": _caches(),
        }
    )


def warmup(*families: str) -> float:
    """Compile the kernels of some families now, so that first calls need not.

    Parameters
    ----------
    *families : str
        Names such as ``"ot"``; none means all.

    Returns
    -------
    float
        Seconds spent. Kernels that the disk cache holds are only loaded.

    Raises
    ------
    ValueError
        If a family does not exist.

    Examples
    --------
    >>> import solvers
    >>> seconds = solvers.warmup("ot")
    """
    known = _families()
    unknown = [name for name in families if name not in known]
    if unknown:
        expected = ", ".join(map(repr, known))
        raise ValueError(f"`families` came with {unknown[0]!r}; expected names among {expected}")
    started = time.perf_counter()
    for name in families or known:
        importlib.import_module(f"solvers.{name}._warmup").warmup()
    return time.perf_counter() - started


def _families() -> list[str]:
    """Return the sub-packages that have kernels to compile."""
    names = [part.name for part in pkgutil.iter_modules(solvers.__path__) if part.ispkg]
    return [name for name in names if find_spec(f"solvers.{name}._warmup")]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _threads() -> dict[str, str]:
    import numba

    layer: str
    try:
        layer = numba.threading_layer()
    except ValueError:
        layer = "chosen by the first parallel kernel"
    rows = {"CPUs": str(os.cpu_count()), "Numba": str(numba.get_num_threads()), "layer": layer}
    if find_spec("threadpoolctl"):
        from threadpoolctl import threadpool_info

        rows |= {pool["prefix"]: str(pool["num_threads"]) for pool in threadpool_info()}
    return rows


def _caches() -> dict[str, str]:
    import numba

    if os.environ.get("SOLVERS_NUMBA_CACHE", "1") == "0":
        place = "off (SOLVERS_NUMBA_CACHE=0)"
    else:
        place = numba.config.CACHE_DIR or "__pycache__ beside the kernels, else the user's cache"
    cuda = os.environ.get("CUPY_CACHE_DIR", "~/.cupy/kernel_cache")
    return {"Numba kernels": place, "CUDA kernels": cuda}
