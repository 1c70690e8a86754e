"""Local rates of convergence: what `theta` promises."""

import numpy as np
import pytest

from solvers import constrained
from tests.constrained.nonlinear import CURVED


def ratios(name, **options):
    """Return by how much each of the last iterations lowered the residual, and the result."""
    res = constrained.minimize(**CURVED[name].keywords(), **options)
    assert res.success, res.message
    kkt = res.history["kkt"]
    return kkt[1:] / kkt[:-1], res


@pytest.mark.parametrize("name", CURVED)
def test_residuals_fall_ever_faster_by_default(name):
    last = ratios(name, tol=1e-10)[0][-3:]
    assert (last < 0.05).all()
    assert (np.diff(last) < 0).all()


@pytest.mark.parametrize("inner", ["minres", "gmres"])
def test_inexact_solves_that_become_exact_are_superlinear(inner):
    last = ratios("HS77", inner=inner)[0][-3:]
    assert (np.diff(last) < 0).all()
    assert last[-1] < 0.01


@pytest.mark.parametrize("inner", ["minres", "gmres"])
def test_a_number_as_theta_gives_a_linear_rate_in_proportion(inner):
    options = {"inner": inner, "tol": 1e-11}
    loose, far = ratios("HS100LNP", theta=1.0, **options)
    tight, near = ratios("HS100LNP", theta=0.1, **options)
    # Inner solves leave up to theta / 10 of the residual, and mostly not much less.
    assert (loose[-6:] > 0.005).all()
    assert (loose[-6:] < 0.2).all()
    assert np.median(tight[-5:]) < 0.2 * np.median(loose[-6:])
    assert near.nit < far.nit
    np.testing.assert_allclose(far.history["delta"], 0.1)
    np.testing.assert_allclose(near.history["delta"], 0.01)
