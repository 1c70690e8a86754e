import pickle
import re

import numpy as np
import pytest

from solvers._core.random import check_rng


@pytest.mark.parametrize(
    "seed", [7, np.int64(7), np.random.SeedSequence(7), np.random.PCG64(7)], ids=repr
)
def test_whatever_holds_a_seed_starts_the_stream_of_that_seed(seed):
    expected = np.random.default_rng(7).random(5)
    np.testing.assert_array_equal(check_rng(seed).random(5), expected)


def test_a_generator_is_used_as_it_is_and_advances():
    rng = np.random.default_rng(1)
    assert check_rng(rng) is rng


def test_none_takes_fresh_entropy_and_leaves_global_state_alone():
    before = pickle.dumps(np.random.get_state())  # noqa: NPY002
    assert check_rng(None).random() != check_rng(None).random()
    assert pickle.dumps(np.random.get_state()) == before  # noqa: NPY002


@pytest.mark.parametrize("seed", ["three", 1.5, True, [1, 2], np.random])
def test_anything_else_is_a_type_error_that_names_rng(seed):
    with pytest.raises(TypeError, match=r"^`rng` came as .*; expected None, an int, "):
        check_rng(seed)


def test_a_negative_seed_is_a_value_error():
    with pytest.raises(ValueError, match=r"^`rng` came as -1; expected a seed >= 0"):
        check_rng(-1)


def test_the_legacy_generator_is_refused_with_advice():
    advice = re.escape("pass np.random.default_rng(seed)")
    with pytest.raises(TypeError, match=rf"^`rng` .*{advice}"):
        check_rng(np.random.RandomState(0))
