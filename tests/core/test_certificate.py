import copy
import math
import pickle
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from solvers import Certificate


@pytest.mark.parametrize(
    ("value", "holds"),
    [(0.5, True), (1.0, True), (np.nextafter(1.0, 2.0), False), (math.inf, False)],
)
def test_it_holds_up_to_the_tolerance_and_not_beyond(value, holds):
    assert Certificate("gap", value, 1.0, {}).holds is holds


@pytest.mark.parametrize(("value", "tol"), [(math.nan, 1.0), (0.0, math.nan)])
def test_nan_proves_nothing(value, tol):
    assert Certificate("gap", value, tol, {}).holds is False


def test_numbers_become_plain_and_indices_stay_whole():
    details = {"gap": np.float32(0.5), "worst": np.int64(3)}
    certificate = Certificate("gap", np.float64(0.5), np.float32(1), details)
    assert type(certificate.value) is type(certificate.tol) is float
    assert {k: type(v) for k, v in certificate.details.items()} == {"gap": float, "worst": int}
    details["gap"] = 7
    assert certificate.details["gap"] == 0.5


def test_it_cannot_be_improved_afterwards():
    with pytest.raises(FrozenInstanceError):
        Certificate("gap", 2.0, 1.0, {}).value = 0.0


def test_it_survives_pickle_and_deepcopy():
    certificate = Certificate("gap", 2.0, 1.0, {"primal": 3.0})
    assert pickle.loads(pickle.dumps(certificate)) == copy.deepcopy(certificate) == certificate


def test_text_names_the_quantity_and_the_verdict():
    assert str(Certificate("gap", 2e-9, 1e-8, {})) == "gap 2e-09, within the tolerance 1e-08"
    assert str(Certificate("gap", math.nan, 1e-8, {})) == "gap nan, not within the tolerance 1e-08"
    assert "holds=False" in repr(Certificate("gap", 2.0, 1.0, {}))
