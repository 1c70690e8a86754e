"""The measurements on the theory of alternating minimisation, in small."""

import argparse
import json

import numpy as np
import pytest

from benchmarks import paper_completion


def test_the_paper_is_measured_with_tables_numbers_and_a_picture(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(paper_completion, "ERRORS", (1e-1, 1e-3))
    options = argparse.Namespace(
        ranks=[(3, 40)], theory=[(200, 1, 0.8, 1e-1)], seconds=0.2, repeat=1, work=1e4, side=80,
        out=tmp_path / "results", figure=tmp_path / "paper.png", command="me",
    )  # fmt: skip
    paper_completion.run(options)
    found = json.loads((options.out / "paper_completion.json").read_text())
    (rank,) = found["ranks"]
    assert {"cg 0.1", "sketch 0.1", "subspace 0.1"} <= set(rank["faster"])
    ends = {(row["relative"], row["error"]): row["curve"][-1] for row in found["errors"]}
    # Errors of a fixed size stay; those that shrink with the residual cost nothing in the end.
    assert 1e-4 < ends[False, 1e-3] < 1e-2
    assert max(ends[True, 1e-1], ends[True, 1e-3]) < 1e-12
    modes = {row["mode"]: row for row in found["theory"]}
    assert paper_completion.contraction(modes["theory"]["distances"]) < 0.5
    page = (options.out / "paper_completion.md").read_text()
    assert "| 3 | 40 | " in page
    assert "`me` (" in page
    assert options.figure.read_bytes().startswith(b"\x89PNG")


def test_contraction_is_the_worst_factor_above_rounding():
    assert paper_completion.contraction([1.0, 0.5, 0.1, 1e-14, 1e-15]) == pytest.approx(0.5)
    assert np.isnan(paper_completion.contraction([1.0]))
