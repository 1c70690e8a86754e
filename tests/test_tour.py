import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import cdist

import solvers
from solvers._tour import STOPS, _guide
from solvers._tour import bcd as tumours
from solvers._tour import bilevel as labels
from solvers._tour import completion as photograph
from solvers._tour import constrained as digits
from solvers._tour import ot as color_transfer
from solvers._tour import relu as networks

ROOT = Path(__file__).parents[1]


def python(*args):
    # On one thread, for other tests may be busy on the other cores.
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *args], cwd=ROOT, env=alone, capture_output=True, text=True, check=False
    )


def refused(capsys, *args):
    """Return what the guide says before it leaves with the exit code of a usage error."""
    with pytest.raises(SystemExit) as leaving:
        _guide.main(list(args))
    assert leaving.value.code == 2
    return capsys.readouterr().err


def test_a_stop_is_a_family_with_a_line_and_a_module():
    beside = Path(_guide.__file__).parent.glob("[!_]*.py")
    assert sorted(STOPS) == sorted(path.stem for path in beside)
    assert all(hasattr(solvers, family) for family in STOPS)


def test_the_list_is_made_without_loading_anything_heavy():
    code = (
        "import sys; from solvers._tour._guide import main; main(['--list']); print(*sys.modules)"
    )
    done = python("-c", code)
    text, _, modules = done.stdout.rpartition("\n  ")
    assert done.returncode == 0, done.stderr
    for word in (*STOPS, solvers.__version__, np.__version__, "NumPy"):
        assert word in text
    heavy = {"numba", "sklearn", "matplotlib", "scipy"}
    assert not heavy & set(modules.split())


@pytest.mark.parametrize("argument", ["no-such-stop", "--no-such-option", "--device=abacus"])
def test_an_unknown_word_is_refused_in_one_sentence(argument, capsys):
    said = refused(capsys, argument)
    assert argument.removeprefix("--device=") in said.splitlines()[-1]


def test_an_output_folder_that_is_a_file_is_refused(tmp_path, capsys):
    taken = tmp_path / "taken"
    taken.touch()
    assert f"--out: File exists: {taken}" in refused(capsys, "--out", str(taken))


def test_a_missing_package_is_named_with_the_extra_that_brings_it(tmp_path, capsys, monkeypatch):
    for module in ("sklearn", "PIL"):
        monkeypatch.setitem(sys.modules, module, None)
    said = refused(capsys, "--out", str(tmp_path))
    assert said == 'The tour needs scikit-learn and pillow: pip install "array-solvers[demo]"\n'


def test_a_missing_device_is_a_usage_error(tmp_path, capsys, monkeypatch):
    from solvers._core import backend

    monkeypatch.setitem(sys.modules, "cupy", None)
    backend.get_backend.cache_clear()
    assert "--device: CUDA arrays need CuPy" in refused(
        capsys, "--device", "gpu", "--out", str(tmp_path)
    )


def test_a_quick_tour_writes_pictures_and_numbers_and_proves_its_answers(tmp_path):
    done = python("-W", "error", "-m", "solvers", "--quick", "--out", str(tmp_path / "here"))
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "here" / "tour.json").read_text(), parse_constant=pytest.fail)
    assert report["holds"]
    assert list(report["stops"]) == list(STOPS)
    for name, stop in report["stops"].items():
        certificate = stop["certificate"]
        assert certificate["holds"]
        assert certificate["value"] <= certificate["tol"]
        assert stop["peers"]
        assert str(tmp_path / "here" / f"{name}.png") in done.stdout
        picture = (tmp_path / "here" / stop["picture"]).read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 10_000
        assert stop["method"] in done.stderr  # the progress bar


def test_a_certificate_that_does_not_hold_fails_the_tour(tmp_path, capsys, monkeypatch):
    from matplotlib.figure import Figure

    from solvers._tour._stop import Outcome, Peer

    def visit(trip):
        C = np.array([[0.0, 1.0], [1.0, 0.5]])
        with pytest.warns(solvers.ConvergenceWarning):
            result = solvers.ot.sinkhorn([0.3, 0.7], [0.6, 0.4], C, reg=0.1, maxiter=1)
        peers = [Peer("none", 0.0, solvers.Certificate("error", np.nan, 1.0, {}))]
        return Outcome(result, peers, {"n": 2}, Figure())

    monkeypatch.setattr(color_transfer, "visit", visit)
    assert _guide.main(["ot", "--out", str(tmp_path)]) == 1
    assert "NOT every certificate holds" in capsys.readouterr().out
    report = json.loads((tmp_path / "tour.json").read_text(), parse_constant=pytest.fail)
    assert report["holds"] is False
    assert report["stops"]["ot"]["status"] == "MAXITER"


def test_recolouring_sends_sampled_colours_where_the_plan_sends_them(rng):
    # Eight-bit colours, each twice: what is sampled is exactly what the picture holds.
    pixels = np.repeat(rng.choice(256**3, 30, replace=False), 2)
    picture = np.stack([pixels >> 16, pixels >> 8 & 255, pixels & 255], axis=-1) / 255.0
    y = rng.random((40, 3))
    C = cdist(picture[::2], y, "sqeuclidean")
    result = solvers.ot.sinkhorn_newton(None, None, C, reg=0.02)
    means = result.plan @ y / result.plan.sum(axis=1, keepdims=True)
    new = color_transfer.recolour(picture.reshape(6, 10, 3), y, result.g, result.reg, np)
    np.testing.assert_allclose(new.reshape(60, 3), np.repeat(means, 2, axis=0), atol=1e-5)


@pytest.mark.parametrize("shape", [(16, 24), (17, 22), (5, 40)])
def test_patches_overlap_and_make_up_the_image_again(shape, rng):
    image = rng.random(shape)
    patches = photograph.cut(image)
    known = ~np.isnan(patches)
    assert np.all(np.isin(patches[known], image))
    # Each pixel is in as many patches, also those at the border.
    assert known.sum() == image.size * (photograph.SIDE // photograph.STEP) ** 2
    again = photograph.glue(np.where(known, patches, 7.0), shape)
    np.testing.assert_allclose(again, image, rtol=1e-12)


def test_a_restored_image_is_judged_on_what_was_lost():
    whole = np.full((4, 4), 0.5)
    damaged = whole.copy()
    damaged[1, 2] = damaged[3, 0] = np.nan
    guess = np.full((4, 4), 9.0)
    guess[1, 2] = guess[3, 0] = 0.6
    restored = photograph.fill(damaged, guess)
    assert np.isnan(damaged).sum() == 2
    np.testing.assert_array_equal(restored[~np.isnan(damaged)], 0.5)
    assert photograph.fidelity(restored, whole, damaged) == pytest.approx(20.0)


def test_interpolation_is_exact_for_a_plane_and_reaches_the_border():
    plane = np.add.outer(np.linspace(0.0, 0.4, 20), np.linspace(0.1, 0.6, 30))
    damaged = plane.copy()
    damaged[5:9, 7:20:2] = damaged[0, 0] = np.nan
    image = photograph.interpolate(damaged)
    np.testing.assert_allclose(image[5:9], plane[5:9], rtol=1e-10)
    assert image[0, 0] in (plane[0, 1], plane[1, 0], plane[1, 1])


def test_repeated_decompositions_solve_the_same_problem_when_they_have_time(monkeypatch):
    damaged, _ = solvers.datasets.damaged_photograph(missing=0.5, rng=0)
    patches = photograph.cut(damaged[200:224, 200:224])
    ours = photograph._solve(patches)
    problem = photograph._problem(patches)
    # A clock that ticks once for each decomposition.
    clock = SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(photograph, "time", clock)
    answer, _ = photograph.soft_impute(patches, problem["lam"], 200)
    judged = solvers.completion.certify(patches, **answer, **problem)
    assert ours.success
    assert judged.details["primal"] == pytest.approx(ours.certificate.details["primal"], rel=2e-3)


def test_mistakes_are_counted_for_each_point_of_a_path():
    X, y = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]), np.array([1.0, -1.0, -1.0])
    coefs, intercepts = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([0.0, 1.0])
    np.testing.assert_allclose(tumours.mistakes(X, y, coefs, intercepts), [0.0, 2 / 3])


def test_scikit_learn_is_asked_for_the_same_minimum():
    X, y, _ = solvers.datasets.autoregressive(60, 20, informative=5, classes=True, rng=0)
    peer = tumours._peer(X, y, 0.05)
    assert peer.certificate.value < 1e-3
    assert peer.certificate.details["primal"] == pytest.approx(
        tumours._solve(X, y, 0.05).fun, rel=1e-3
    )


@pytest.mark.parametrize("k", [2, 3])
def test_derivatives_of_the_softmax_fit_agree_with_differences(k, rng):
    X, y, T = digits.digits((3, 5, 8)[:k])
    problem = digits.pose(X, y, T, np)
    x = digits.first_guess(T) + 0.1 * rng.normal(size=65 * k)
    u, v, h = rng.normal(size=65 * k), rng.normal(size=5 * k + 1), 1e-6

    def slope(function):
        return (function(x + h * u) - function(x - h * u)) / (2 * h)

    con = problem["constraints"]
    assert problem["jac"](x) @ u == pytest.approx(slope(problem["fun"]), rel=1e-5)
    np.testing.assert_allclose(problem["hess"](x) @ u, slope(problem["jac"]), atol=1e-4)
    np.testing.assert_allclose(con.jac(x) @ u, slope(con.fun), atol=1e-6)
    np.testing.assert_allclose(con.hess(x, v) @ u, slope(lambda x: v @ con.jac(x)), atol=1e-6)


def test_small_turns_and_shifts_are_along_the_tangents():
    i, j = np.mgrid[-3.5:4.5, -3.5:4.5]
    ring = np.exp(-(((np.hypot(i, j)) - 2.0) ** 2))
    down, right, turned, larger = digits.tangents(ring)
    # A ring looks the same however it is turned, up to the grid; all tangents are orthogonal.
    assert abs(turned @ larger) < 0.1
    np.testing.assert_allclose(np.linalg.norm([down, right, larger], axis=1), 1.0)
    np.testing.assert_allclose([down @ right, down @ larger, right @ larger], 0.0, atol=1e-12)


def test_scipy_is_judged_by_the_same_certificate():
    X, y, T = digits.digits((3, 8))
    problem = digits.pose(X, y, T, np)
    curve, peer = digits.scipy_run("trust-constr", problem, digits.first_guess(T))
    ours = digits.solve(problem, digits.first_guess(T))
    assert ours.success
    assert peer.certificate.holds
    assert curve.shape[0] == 2
    assert curve[1, -1] == pytest.approx(peer.certificate.value, rel=1e-6)
    assert abs(T[1] @ ours.x[65:129]).max() <= 1e-10
    assert np.linalg.norm(ours.x[:64]) == pytest.approx(1.0, rel=1e-10)


def test_a_network_of_scikit_learn_is_judged_with_its_offsets():
    X, y = solvers.datasets.standard_table("breast_cancer")
    X, y = np.column_stack([X[:120, :5], np.ones(120)]), y[:120]
    hidden, out, _ = networks._perceptron(X, y, 2.0)
    net = solvers.relu.Net(hidden, out)
    with_offsets = networks.multilayer_perceptron(2.0, networks.NEURONS).fit(X[:, :-1], y)
    chance = with_offsets.predict_proba(X[:, :-1])[:, 1]
    assert 1 / (1 + np.exp(-net.predict(X))) == pytest.approx(chance)
    result = networks._solve(X, y, 2.0)
    judged = networks.judge(X, y, 2.0, hidden, out, result)
    # Neurons are balanced first, which lowers the penalty and leaves the outputs.
    size = np.sqrt(np.linalg.norm(hidden, axis=0) / np.maximum(abs(out), 1e-300))
    balanced = solvers.relu.Net(hidden / size, out * size)
    value = solvers.relu.network_objective(X, y, balanced, 2.0, "logistic")
    assert judged.details["fun_convex"] == pytest.approx(value)
    assert judged.details["fun_convex"] >= result.dual_global
    share, radius = networks.prospects(X, y, hidden, out)
    assert share == (np.sign(net.predict(X)) == y).mean()
    assert (radius > 0).mean() == share


def test_half_of_the_labels_are_one_digit_too_high():
    X, y, given, wrong, (trusted, labelled, test) = labels.mislabelled(400)
    assert sorted({*trusted, *labelled, *test}) == sorted((*trusted, *labelled, *test))
    assert np.array_equal(given == y[labelled], ~wrong)
    assert np.array_equal((given - y[labelled])[wrong] % 10, np.ones(wrong.sum()))
    assert 0.4 < wrong.mean() < 0.6
    assert X.shape == (1797, 65)


def test_softmax_regression_is_the_lower_level_with_equal_weights():
    X, _, given, _, (_, labelled, _) = labels.mislabelled(200)
    Y = labels.softmax_regression(X[labelled], given, labels.L2)
    scores = X[labelled] @ Y
    chances = np.exp(scores - scores.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    slope = X[labelled].T @ (chances - np.eye(10)[given]) / 200 + labels.L2 * Y
    assert np.abs(slope).max() < 1e-3
