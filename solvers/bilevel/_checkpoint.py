"""States from which a run goes on bit for bit, in memory and in files."""

import json
import os
import tempfile
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .._core.validation import describe


@dataclass(frozen=True, eq=False)
class State:
    """What ``resume=`` takes: all that a run needs to go on, in host memory.

    Parameters
    ----------
    method : str
        The solver that it belongs to.
    nit : int
        Iterations so far.
    sizes : tuple of (int, int, str)
        Entries of x and of y, and their precision.
    data : dict
        Nested dictionaries, lists and tuples of arrays and plain values.
    """

    method: str
    nit: int
    sizes: tuple
    data: dict = field(repr=False)

    def save(self, path):
        """Write it to a file; one that is there already is replaced only by a whole one.

        Parameters
        ----------
        path : str or Path
            Where, with or without ``.npz``.
        """
        arrays = []
        text = json.dumps(_outline([self.method, self.nit, self.sizes, self.data], arrays))
        path = Path(path)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, delete=False) as file:
            try:
                np.savez(file, *arrays, outline=np.array(text))
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                Path(file.name).unlink()
                raise
        Path(file.name).replace(path)

    @classmethod
    def load(cls, path):
        """Read what `save` has written.

        Parameters
        ----------
        path : str or Path
            The file.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = [file[f"arr_{k}"] for k in range(len(file.files) - 1)]
                return cls(*_filled(json.loads(str(file["outline"])), arrays))
        except (EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"`resume` came as {os.fspath(path)!r}, which is no state of a run; "
                "expected a file that `checkpoint` has written"
            ) from error


# JSON keeps every float; arrays, tuples and dictionaries become marked lists.
def _outline(value, arrays):
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, dict):
        return {"dict": [[_outline(k, arrays), _outline(v, arrays)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_outline(v, arrays) for v in value]}
    if isinstance(value, list):
        return [_outline(v, arrays) for v in value]
    return value


def _filled(value, arrays):
    if isinstance(value, list):
        return [_filled(v, arrays) for v in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "array":
        return arrays[content]
    if kind == "tuple":
        return tuple(_filled(v, arrays) for v in content)
    return {_filled(k, arrays): _filled(v, arrays) for k, v in content}


def carried(value, change):
    """Return nested data with every array changed by a function, and plain numbers plain."""
    if isinstance(value, dict):
        return {k: carried(v, change) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(carried(v, change) for v in value)
    if isinstance(value, np.generic):
        return value.item()
    return change(value) if hasattr(value, "shape") else value


class Keeper:
    """Keeps the state of a run, and hands it on now and then.

    Parameters
    ----------
    checkpoint : str, Path or callable, optional
        Where states go: a file, or a function of a `State`.
    every : float
        Seconds between two of them.
    """

    def __init__(self, checkpoint, every):
        self.checkpoint, self.every = checkpoint, every
        self._latest, self._handed, self._last = None, None, time.monotonic()

    def keep(self, make):
        """Take note of how the run could go on.

        Parameters
        ----------
        make : callable
            Returns the `State`; called when it is wanted, so it may only refer to what no one
            changes in place.
        """
        self._latest = make
        if self.checkpoint is not None and time.monotonic() - self._last >= self.every:
            self._hand_on()

    def finish(self):
        """Return the last state, or None, and hand it on."""
        if self._latest is None:
            return None
        if self.checkpoint is not None and self._handed is not self._latest:
            self._hand_on()
        return self._latest()

    def _hand_on(self):
        self._handed, state = self._latest, self._latest()
        if callable(self.checkpoint):
            self.checkpoint(state)
        else:
            state.save(self.checkpoint)
        self._last = time.monotonic()


def check_checkpoint(checkpoint):
    """Return a path or a callable, or None."""
    if checkpoint is None or callable(checkpoint):
        return checkpoint
    if not isinstance(checkpoint, str | os.PathLike):
        raise TypeError(
            f"`checkpoint` came as {describe(checkpoint)}; expected a path or a callable"
        )
    folder = Path(checkpoint).absolute().parent
    if not folder.is_dir():
        raise ValueError(
            f"`checkpoint` came as {os.fspath(checkpoint)!r}; expected a path in a folder that "
            f"exists, and {str(folder)!r} does not"
        )
    return checkpoint


def check_resume(resume, method):
    """Return a state of the given solver, or None."""
    if resume is None:
        return None
    if isinstance(resume, str | os.PathLike):
        if not Path(resume).is_file():
            raise ValueError(
                f"`resume` came as {os.fspath(resume)!r}, which is no file; expected one that "
                "`checkpoint` has written"
            )
        resume = State.load(resume)
    if not isinstance(resume, State):
        raise TypeError(f"`resume` came as {describe(resume)}; expected a path or a `res.state`")
    if resume.method != method:
        raise ValueError(f"`resume` came as a state of {resume.method}; expected one of {method}")
    return resume


def check_sizes(resume, sizes):
    """Raise unless a state fits a problem."""
    if resume is not None and tuple(resume.sizes) != sizes:
        raise ValueError(
            f"`resume` came as a state for (entries of x, of y, precision) = "
            f"{tuple(resume.sizes)}; expected {sizes}"
        )
