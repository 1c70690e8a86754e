"""Fixtures for all tests, and a kernel cache that no edit can make stale."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parents[1]


def _kernel_cache():
    """Return a folder named after the sources of everything that is compiled.

    Numba's own cache watches only the file that holds a kernel, not the files whose functions it
    inlines: after an edit there it would go on running the old code.
    """
    sources = sorted((ROOT / "solvers").rglob("*.py"))
    texts = [(source, source.read_bytes()) for source in sources]
    compiled = [
        text for source, text in texts if source.parent.name == "kernels" or b"numba" in text
    ]
    place = ROOT / ".pytest_cache" / "numba"
    folder = place / hashlib.sha256(b"\0".join(compiled)).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(place.iterdir(), key=lambda f: f.stat().st_mtime)[:-4]:
        shutil.rmtree(old, ignore_errors=True)
    return folder


# Before Numba is imported; processes started by a test, xdist's too, inherit it.
os.environ.setdefault("NUMBA_CACHE_DIR", str(_kernel_cache()))

settings.register_profile("ci", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=500, deadline=None)
# `pytest --hypothesis-profile=thorough` asks for the other one.
settings.load_profile("ci")


def pytest_collection_modifyitems(items):
    """Skip what needs a device where there is none."""
    needy = [item for item in items if item.get_closest_marker("gpu")]
    if needy and not _device_is_there():
        for item in needy:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def _device_is_there():
    from solvers._core.backend import available_backends

    return "cupy" in available_backends()


@pytest.fixture
def rng():
    """A generator that starts the same in every test."""
    import numpy as np

    return np.random.default_rng(0)


@pytest.fixture(params=["float64", "float32"])
def dtype(request):
    """Both precisions, by name."""
    return request.param
