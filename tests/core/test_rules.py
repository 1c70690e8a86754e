"""Rules of small objects: which class kernels see, and what Numba's cache on disk makes of it."""

import math
import os
import pickle
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest
from conftest import ROOT

from solvers._core import rules

# A penalty in a file of its own, as a user would write it, and a kernel that calls its rule.
_USER = """
from typing import NamedTuple
import numba
from solvers import penalties

SCALE = {scale}

@numba.njit
def helper(w):
    return {power} * abs(w)

class Mine(NamedTuple):
    alpha: float

def value(penalty, w, j):
    return penalty.alpha[j] * SCALE * helper(w)

def prox(penalty, v, step, j):
    return v

penalties.register(Mine, value=value, prox=prox, distance=prox)
"""
_CALL = """
import sys
import numpy as np
from solvers import penalties
from solvers.bcd.kernels.cpu import penalty_sum
for name in sys.argv[1:]:
    Mine = __import__(name).Mine
    bound = penalties.bind(Mine(1.0), 3, np.float64)
    print(penalty_sum(bound, np.array([1.0, -2.0, 3.0])))
print("compiled", sum(penalty_sum.stats.cache_misses.values()))
"""


@pytest.fixture
def run(tmp_path):
    """Run a process with these user files and the same cache; return what it prints."""

    def start(**files):
        for name, (scale, power) in files.items():
            (tmp_path / f"{name}.py").write_text(_USER.format(scale=scale, power=power))
        env = {
            **os.environ,
            "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", _CALL, *files],
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.split("\n")[:-1]

    start.cache = tmp_path / "cache"
    return start


def test_the_cache_on_disk_serves_every_process_and_sees_every_edit(run):
    first = run(one=(1.0, 1.0))
    assert first == ["6.0", "compiled 1"]
    files = sorted(run.cache.rglob("*.nbc"))
    # Two more processes load what the first one compiled, and add nothing.
    for _ in range(2):
        assert run(one=(1.0, 1.0)) == ["6.0", "compiled 0"]
    assert sorted(run.cache.rglob("*.nbc")) == files
    # Another class of the same name and fields has its own rules.
    assert run(one=(1.0, 1.0), two=(10.0, 1.0)) == ["6.0", "60.0", "compiled 1"]
    # An edit of a number that a rule reads, and of a function that it calls, shows.
    assert run(one=(2.0, 1.0)) == ["12.0", "compiled 1"]
    assert run(one=(2.0, 5.0)) == ["60.0", "compiled 1"]


class Plain(NamedTuple):
    a: float
    b: float


def test_registering_again_replaces_the_rules():
    def one(x):
        return x.a

    def two(x):
        return x.b

    rules.register(Plain, f=one)
    first = rules.compiled_class(Plain)
    rules.register(Plain, f=two)
    second = rules.compiled_class(Plain)
    assert first is not second
    assert rules.function_of(first, "f") is one
    assert rules.function_of(second, "f") is two
    # The same rules make the same class, and so nothing new to compile.
    rules.register(Plain, f=one)
    assert rules.compiled_class(Plain) is first


def test_the_names_of_rules_and_their_defaults_count():
    def one(x, y=1.0):
        return x.a

    def two(x, y=2.0):
        return x.a

    kinds = set()
    for functions in ({"f": one}, {"g": one}, {"f": two}):
        rules.register(Plain, **functions)
        kinds.add(rules.compiled_class(Plain))
    assert len(kinds) == 3


def test_bound_tuples_pickle():
    rules.register(Plain, f=math_free)
    bound = rules.compiled_class(Plain)(1.0, np.arange(3))
    twin = pickle.loads(pickle.dumps(bound))
    assert type(twin) is type(bound)
    np.testing.assert_array_equal(twin.b, bound.b)


def math_free(x):
    return x.a


def test_a_recursive_rule_has_a_digest():
    rules.register(Plain, f=countdown)
    assert rules.function_of(rules.compiled_class(Plain), "f") is countdown


def countdown(x):
    return countdown(x)


@pytest.mark.parametrize("name", ["nonsense", "__wrapped__", "Mine__alpha", "_M__a__" + 16 * "0"])
def test_other_names_are_no_classes(name):
    with pytest.raises(AttributeError, match=name):
        getattr(rules, name)


class Dunder__Name(NamedTuple):  # noqa: N801
    a: float


class Trailing(NamedTuple):
    a_: float


def closure():
    factor = 2.0
    return lambda x: factor * x.a


@pytest.mark.parametrize(
    ("cls", "functions", "kind", "word"),
    [
        (object, {}, TypeError, "cls"),
        (Plain(1.0, 2.0), {}, TypeError, "cls"),
        (tuple, {}, TypeError, "cls"),
        (Dunder__Name, {}, ValueError, "cls"),
        (Trailing, {}, ValueError, "cls"),
        (Plain, {"f": math.exp}, TypeError, "f"),
        (Plain, {"f": closure()}, ValueError, "f"),
    ],
    ids=repr,
)
def test_what_cannot_be_compiled_is_refused(cls, functions, kind, word):
    with pytest.raises(kind, match=f"^`{word}` "):
        rules.register(cls, **functions)


def test_a_kernel_says_which_rule_is_missing():
    from numba.core.errors import TypingError

    from solvers.bcd.kernels.cpu import penalty_sum

    rules.register(Plain, f=math_free)
    with pytest.raises(TypingError, match="no rule `value` is registered"):
        penalty_sum(rules.compiled_class(Plain)(1.0, 2.0), np.zeros(2))
