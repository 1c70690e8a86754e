"""The judge of completed matrices on CuPy arrays; runs where `cupy` is the stand-in."""

import cupy
import numpy as np
import pytest

from solvers import completion
from solvers.completion import _certificate_gap as gap

OPTIONS = {
    "exact": {},
    "plain": {"lam": 0.5},
    "sharp": {"lam": 0.5, "certificate": ("gap",)},
    "weighted": {"lam": 0.1, "weighted_lambda": True},
    "feedback": {"lam": 0.5, "implicit": True, "nu": 0.5},
    "nonnegative": {"lam": 0.5, "nonnegative": True},
    "robust": {"lam": 0.5, "loss": "tukey"},
    "duplicates": {"lam": 0.5, "duplicates": "mean"},
    "held out": {"lam": 0.5, "holdout": [0, 3]},
}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("name", OPTIONS)
def test_the_verdict_is_that_on_the_host(monkeypatch, rng, name, exact):
    if not exact:
        monkeypatch.setattr(gap, "_SMALL", 0)
        monkeypatch.setattr(gap, "_EXACT", 0)
    m, n, k = 14, 11, 2
    rows, cols = np.nonzero(rng.random((m, n)) < 0.7)
    rows[rows == 4] = 5
    if name == "duplicates":
        rows, cols = np.r_[rows, rows[:3]], np.r_[cols, cols[:3]]
    else:
        rows, cols = np.unique(np.stack([rows, cols]), axis=1)
    vals = rng.normal(size=rows.size)
    answer = rng.random((m, k)), np.ones(k), rng.random((n, k))
    biases = rng.normal(size=m) if name == "plain" else None
    results = []
    for to in (np.asarray, cupy.asarray):
        given = {"shape": (m, n), **OPTIONS[name]}
        if name in ("plain", "sharp"):
            given["weights"] = to(np.linspace(0.0, 1.0, rows.size))
        if biases is not None:
            given["row_bias"] = to(biases)
        data = to(rows), to(cols), to(vals)
        results.append(completion.certify(data, *map(to, answer), **given))
    expected, found = results
    assert found.kind == expected.kind
    assert found.details.keys() == expected.details.keys()
    for key, value in expected.details.items():
        assert type(found.details[key]) in (int, float)
        assert found.details[key] == pytest.approx(value, rel=1e-9, abs=1e-12)


def test_kinds_are_not_mixed(rng):
    M, U, s, V = np.eye(3), np.ones((3, 1)), np.ones(1), np.ones((3, 1))
    with pytest.raises(TypeError, match="`U`"):
        completion.certify(M, *map(cupy.asarray, (U, s, V)))
