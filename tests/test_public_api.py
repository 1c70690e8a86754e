import ast
import importlib
import inspect
import pkgutil
import re
import sys

import pytest

import solvers

# A name that is public by accident fails here, and so does one that vanishes.
TOP_LEVEL = {
    "Certificate",
    "ConvergenceWarning",
    "Result",
    "Status",
    "bcd",
    "bilevel",
    "completion",
    "constrained",
    "datasets",
    "linalg",
    "losses",
    "newton",
    "ot",
    "penalties",
    "plot_convergence",
    "relu",
    "show_config",
    "warmup",
}


def public_functions(*modules):
    """Return the functions of some modules that are written here."""
    return [
        pytest.param(value, id=f"{module.__name__}.{name}")
        for module in modules
        for name, value in ((name, getattr(module, name)) for name in dir(module))
        if inspect.isfunction(value) and value.__module__.startswith("solvers.") and name[0] != "_"
    ]


FAMILIES = [
    getattr(solvers, part.name)
    for part in pkgutil.iter_modules(solvers.__path__)
    if part.ispkg and part.name in TOP_LEVEL
]


def test_the_top_level_names_are_the_written_ones():
    assert set(dir(solvers)) == TOP_LEVEL
    for name in TOP_LEVEL:
        assert getattr(solvers, name) is not None


def test_a_name_that_does_not_exist_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        solvers.no_such_name  # noqa: B018 (the access itself is under test)


def test_the_version_is_a_number():
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+|rc\d+)?", solvers.__version__)


def documented(function):
    """Return the type line of every parameter by name, from the numpydoc section."""
    text = inspect.cleandoc(function.__doc__).partition("\nParameters\n---")[2]
    text = re.split(r"\n\n[A-Z]\w+\n---", text)[0]
    lines = re.findall(r"^([*\w][*\w, ]*) :(.*)$", text, re.M)
    return {name.strip(" *"): line for names, line in lines for name in names.split(",")}


@pytest.mark.parametrize("function", public_functions(solvers, solvers.datasets, *FAMILIES))
def test_docstrings_name_every_parameter_with_its_true_default(function):
    told = documented(function)
    parameters = inspect.signature(function).parameters
    assert list(told) == list(parameters)
    for name, line in told.items():
        default = re.search(r"\bdefault:? (\S+)$", line)
        if default:
            word = default[1]
            value = ast.literal_eval(word) if re.match(r"[\d'\"\-NTF({\[]", word) else word
            assert parameters[name].default == value, f"`{name}`"


@pytest.mark.parametrize("function", public_functions(*FAMILIES))
def test_no_option_is_positional(function):
    parameters = inspect.signature(function).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    options = {"tol", "maxiter", "time_limit", "callback", "progress", "history", "rng"}
    assert not options & set(positional)


def test_warmup_refuses_unknown_families_by_name():
    with pytest.raises(ValueError, match="`families` came with 'to'; expected names among"):
        solvers.warmup("to")


def test_warmup_runs_the_hook_of_each_family_asked_for(tmp_path, monkeypatch):
    for family in ("solvers_toy", "solvers_other"):
        (tmp_path / family).mkdir()
        (tmp_path / family / "__init__.py").touch()
        (tmp_path / family / "_warmup.py").write_text(
            "import time\n\ndef warmup():\n    time.sleep(0.01)\n    calls.append(__name__)\n"
            "calls = []\n"
        )
    monkeypatch.setattr(solvers, "__path__", [*solvers.__path__, str(tmp_path)])
    assert 0.01 <= solvers.warmup("solvers_toy") < 5
    ran = sys.modules["solvers.solvers_toy._warmup"].calls
    assert ran == ["solvers.solvers_toy._warmup"]
    assert "solvers.solvers_other._warmup" not in sys.modules


def test_configuration_shows_versions_back_ends_threads_and_caches():
    config = solvers.show_config()
    assert config["versions"]["solvers"] == solvers.__version__
    assert config["versions"]["numpy"] == importlib.import_module("numpy").__version__
    assert "numpy" in config["back ends"]["available"]
    assert re.search(rf"^  numpy +{re.escape(config['versions']['numpy'])}$", str(config), re.M)
    assert list(config) == re.findall(r"^\S.*$", str(config), re.M)
