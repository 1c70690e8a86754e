"""What a user pays before the first call."""

from benchmarks.common import in_fresh_process

CLOCK = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def fastest_import(module, repeat=7):
    """Least seconds of several imports: the disk may be busy with something else."""
    return min(in_fresh_process(CLOCK.format(module))[0] for _ in range(repeat))


class Import:
    """Seconds of `import solvers` in a fresh interpreter."""

    def track_import_seconds(self):
        return fastest_import("solvers")

    def track_import_relative_to_numpy(self):
        return fastest_import("solvers") / fastest_import("numpy")

    def track_modules_loaded(self):
        code = "import sys; n = len(sys.modules); import solvers; print(len(sys.modules) - n)"
        return in_fresh_process(code)[0]

    track_import_seconds.unit = "seconds"
    track_import_relative_to_numpy.unit = "x"
    track_modules_loaded.unit = "modules"
