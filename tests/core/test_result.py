import copy
import pickle
import re
from functools import cached_property
from typing import ClassVar

import numpy as np
import pytest
from scipy.optimize import OptimizeResult

from solvers import Certificate, ConvergenceWarning, Result, Status
from solvers._core.result import explain


class Plan(Result):
    f: np.ndarray

    _bibtex: ClassVar = {"newton": "@article{someone, title={Newton}}"}

    @property
    def total(self):
        return self._cost.sum()

    @cached_property
    def doubled(self):
        return 2 * self.f


def a_result(**fields):
    given = {
        "success": True,
        "status": Status.CONVERGED,
        "message": "gap 1e-10 is within the tolerance 1e-09 after 3 iterations.",
        "method": "newton",
        "nit": 3,
        "certificate": Certificate("gap", 1e-10, 1e-9, {"primal": 2.5}),
        "stages": [("start", 2, 0.25), ("newton", 1, 0.5)],
        "seconds": 0.75,
        "compile_seconds": 0.0,
        "history": {"nit": np.arange(3), "seconds": np.arange(3.0), "gap": np.ones(3)},
        "f": np.arange(4.0),
        "_cost": np.arange(5.0),
    }
    return Plan(**{**given, **fields})


def test_it_is_a_scipy_result_with_keys_as_attributes():
    res = a_result()
    assert isinstance(res, OptimizeResult)
    assert res.nit == res["nit"] == 3
    with pytest.raises(AttributeError):
        res.plam  # noqa: B018 (the access itself is under test)


def test_properties_of_a_family_win_over_keys_and_see_private_ones():
    res = a_result(total="a key of the same name")
    assert res.total == 10.0
    assert res.doubled is res.doubled


@pytest.mark.parametrize("back", [copy.deepcopy, lambda r: pickle.loads(pickle.dumps(r))])
def test_pickle_and_deepcopy_keep_everything(back):
    res = a_result()
    np.testing.assert_array_equal(res.doubled, 2 * res.f)
    twin = back(res)
    assert type(twin) is Plan
    assert twin.certificate == res.certificate
    assert twin.status is Status.CONVERGED
    assert twin.total == 10.0
    np.testing.assert_array_equal(twin.doubled, res.doubled)
    twin.f[0] = 9.0
    assert res.f[0] == 0.0


def test_completion_offers_fields_methods_and_properties_but_nothing_private():
    offered = set(dir(a_result()))
    assert {"f", "certificate", "summary", "plot", "cite", "total", "doubled"} <= offered
    assert "_cost" not in offered


@pytest.mark.parametrize(
    "value",
    [{}, [], None, np.zeros((0, 3)), np.float32(1.5), np.array(["a"]), np.array(3.0), 10**400],
)
def test_any_value_can_be_shown(value):
    assert re.search(r"^ *odd: \S", repr(a_result(odd=value)), re.M)


def test_text_abbreviates_big_arrays_and_hides_private_fields():
    text = repr(a_result(big=np.arange(10**6).reshape(1000, 1000)))
    assert text.startswith("Plan:\n")
    assert "int64 array of shape (1000, 1000) [0, 1, 2, ..., 999998, 999999]" in text
    assert "CONVERGED (0)" in text
    assert "_cost" not in text
    assert len(text) < 2000
    assert repr(Result()) == "Result:"


def test_summary_tells_the_end_the_stages_and_the_certificate():
    lines = a_result(compile_seconds=1.5).summary().splitlines()
    assert lines[0] == "newton: " + a_result().message
    assert re.fullmatch(r"  start +2 iterations +0.250 s", lines[1])
    assert re.fullmatch(r"  newton +1 iterations +0.500 s", lines[2])
    assert "1.500 s" in lines[3]
    assert lines[4] == "  certificate: gap 1e-10, within the tolerance 1e-09"
    assert lines[5] == "    primal: 2.5"
    assert "compil" not in a_result().summary()


def test_citation_holds_the_method_and_the_library():
    assert re.findall(r"@\w+\{(\w+)", a_result().cite()) == ["someone", "array_solvers"]
    assert re.findall(r"@\w+\{(\w+)", a_result(method="other").cite()) == ["array_solvers"]


@pytest.mark.parametrize("status", Status)
def test_every_end_has_a_sentence_with_value_tolerance_and_reason(status):
    certificate = Certificate("KKT residual", 3.25e-5, 1e-9, {})
    text = explain(status, certificate, 7, "It rains.")
    assert text.startswith("KKT residual 3.25e-05")
    assert "1e-09" in text
    assert "7" in text
    assert text.endswith(". It rains.")
    # Where the run fell short, the sentence goes on to say what to do.
    assert (";" in text) == (status not in (Status.CONVERGED, Status.CALLBACK))


def test_one_iteration_is_singular():
    certificate = Certificate("gap", 1.0, 0.5, {})
    assert "maxiter = 1 iteration;" in explain(Status.MAXITER, certificate, 1)


def test_the_warning_is_a_runtime_warning_of_its_own():
    assert issubclass(ConvergenceWarning, RuntimeWarning)
