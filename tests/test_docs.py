"""What a build of the documentation would not notice."""

import ast
import inspect
import re

import pytest
from conftest import ROOT

import solvers

DOCS = ROOT / "docs"
EXAMPLES = sorted((DOCS / "examples").glob("*/*.py"))
PUBLIC = {"solvers": solvers} | {
    f"solvers.{name}": getattr(solvers, name)
    for name in solvers.__all__
    if inspect.ismodule(getattr(solvers, name))
}
# Modules within families.
PUBLIC |= {
    f"{module}.{name}": getattr(family, name)
    for module, family in PUBLIC.items()
    if module != "solvers"
    for name in getattr(family, "__all__", ())
    if inspect.ismodule(getattr(family, name))
}
# Data sets are made for examples and need fewer of their own.
FUNCTIONS = [
    pytest.param(getattr(PUBLIC[module], name), id=f"{module}.{name}")
    for module in PUBLIC
    for name in PUBLIC[module].__all__
    if inspect.isfunction(getattr(PUBLIC[module], name)) and module != "solvers.datasets"
]


def names_on_the_api_page():
    """Return what each module's list on the page holds."""
    page = (DOCS / "api" / "index.rst").read_text(encoding="utf-8")
    parts = re.split(r"^\.\. (?:current)?module:: (\S+)$", page, flags=re.MULTILINE)
    return {
        module: set(re.findall(r"^   (\w+)$", part, re.MULTILINE))
        for module, part in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_the_api_page_lists_every_public_name_and_no_other():
    public = {module: set(PUBLIC[module].__all__) for module in PUBLIC}
    # Modules have their own section.
    for module in PUBLIC:
        home, _, name = module.rpartition(".")
        public.get(home, set()).discard(name)
    assert names_on_the_api_page() == public


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_public_function_shows_an_example(function):
    assert "\nExamples\n--------\n" in inspect.cleandoc(function.__doc__)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_asks_one_question_and_is_short(path):
    text = path.read_text(encoding="utf-8")
    title, underline = ast.get_docstring(ast.parse(text)).splitlines()[:2]
    assert title.endswith("?")
    assert underline == "=" * len(title)
    assert len(text.splitlines()) < 60
    # Others are shown without being run.
    assert path.name.startswith("plot_")
