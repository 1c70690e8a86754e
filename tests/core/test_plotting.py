import builtins

import numpy as np
import pytest

from solvers import Certificate, Result, plot_convergence

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def run(gap, method="newton"):
    gap = np.array(gap, dtype=float)
    nit = np.arange(1, len(gap) + 1)
    return Result(
        method=method,
        nit=len(gap),
        certificate=Certificate("gap", 1.0, 1e-3, {}),
        history={"nit": nit, "seconds": nit / 10, "gap": gap, "fun": gap + 1},
    )


@pytest.mark.parametrize(("x", "expected"), [("nit", [1, 2, 3]), ("seconds", [0.1, 0.2, 0.3])])
def test_the_residual_is_drawn_on_a_logarithmic_axis(x, expected):
    ax = run([1.0, 0.1, 1e-3]).plot(x=x)
    np.testing.assert_allclose(ax.lines[0].get_xdata(), expected)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [1.0, 0.1, 1e-3])
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [1e-3, 1e-3])
    assert ax.get_yscale() == "log"


def test_runs_are_compared_by_their_labels_in_given_axes():
    given = plt.subplots()[1]
    ax = plot_convergence({"ours": run([1.0, 0.1]), "history": run([2.0, 0.2])}, ax=given)
    assert ax is given
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["ours: gap", "history: gap"]


@pytest.mark.parametrize("gap", [[], [0.0], [1.0, np.nan]])
def test_odd_histories_are_drawn_without_a_warning(gap):
    run(gap).plot().figure.canvas.draw()


def test_an_unknown_axis_is_refused_by_name():
    with pytest.raises(ValueError, match="`x` came as 'time'; expected one of 'seconds', 'nit'"):
        run([1.0]).plot(x="time")


def test_a_run_without_a_history_is_refused_by_its_label():
    quiet = run([1.0])
    quiet.history = {}
    with pytest.raises(ValueError, match="`quiet` came without a history"):
        plot_convergence({"loud": run([1.0]), "quiet": quiet})


def test_a_missing_matplotlib_names_the_extra(monkeypatch):
    load = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return load(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"array-solvers\[plot\]"):
        run([1.0]).plot()
