"""Sphinx configuration. The build needs no network, and runs every example."""

import doctest
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.parsers.rst.directives import parser_name
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.directives.other import Include
from sphinx.util import logging

ROOT = Path(__file__).resolve().parents[1]
# Document this checkout, not what happens to be installed.
sys.path.insert(0, str(ROOT))

import solvers  # noqa: E402 (found through the line above)
from solvers.bcd import rules as bcd_rules  # noqa: E402

project = "array-solvers"
author = "The array-solvers developers"
copyright = f"{datetime.now(tz=UTC).year}, {author}"
version = release = solvers.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.doctest",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "examples"]
# In single backticks: parameters, fields and functions, linked where they have a page.
default_role = "py:obj"

# Links to other projects need their inventories from the network: only on request.
intersphinx_mapping = {}
if os.environ.get("DOCS_INTERSPHINX") == "1":
    intersphinx_mapping = {
        "python": ("https://docs.python.org/3", None),
        "numpy": ("https://numpy.org/doc/stable", None),
        "scipy": ("https://docs.scipy.org/doc/scipy", None),
        "matplotlib": ("https://matplotlib.org/stable", None),
    }

autosummary_generate = True
# The class template lists members; numpydoc need not.
numpydoc_show_class_members = False
# Every check but these: see-also sections and long introductions are a matter of need, examples
# are asked of functions only (tests/test_docs.py), and two values may share one line.
numpydoc_validation_checks = {"all", "SA01", "ES01", "EX01", "RT02"}
numpydoc_validation_exclude = {
    # Their parameters are fields, which stand under Attributes, or the enum machinery's own.
    r"\.(Transport|Linear|Graph|Constrained)Problem$",
    r"\.Status$",
    # One sentence says all.
    r"\.penalties\.\w+\.canonical$",
    # A parameter called `cls` is taken for that of a class method.
    r"\.(penalties|losses)\.register$",
}

doctest_default_flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
doctest_global_setup = "import numpy as np\nimport solvers"

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"
bibtex_reference_style = "author_year"

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "backreferences_dir": "gallery/backreferences",
    "doc_module": ("solvers",),
    "reference_url": {"solvers": None},
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    # What an example prints; not what its last line happens to return.
    "capture_repr": (),
    "remove_config_comments": True,
    "show_signature": False,
    "write_computation_times": False,
}

html_theme = "pydata_sphinx_theme"
# Browsers draw MathML themselves: pages need no script from the network either.
html_math_renderer = "mathml"
html_title = f"{project} {version}"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["docs.css"]
html_theme_options = {
    "secondary_sidebar_items": ["page-toc"],
    "header_links_before_dropdown": 4,
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": [],
}
# Pages without siblings.
html_sidebars = {"*": [], "families/*": []}


class Results(Include):
    """Include a table from ``benchmarks/results``, or say which command writes it."""

    def run(self):
        path = ROOT / "benchmarks" / "results" / self.arguments[0]
        if not path.exists():
            family = path.stem.partition("_")[0]
            text = (
                f"The table benchmarks/results/{path.name} is not part of this checkout; "
                f"benchmarks/results/README.md says how to write it for {family}."
            )
            return [nodes.note("", nodes.paragraph(text=text))]
        self.arguments[0] = f"/../benchmarks/results/{path.name}"
        self.options["parser"] = parser_name("myst_parser.sphinx_")
        return super().run()


class Rules(Directive):
    """List the rules of a table of ``solvers.bcd.rules`` with what they say of themselves."""

    required_arguments = 1

    def run(self):
        rows = nodes.bullet_list()
        for name, rule in vars(bcd_rules)[self.arguments[0]].items():
            sentence = nodes.paragraph("", "", nodes.literal(text=f'"{name}"'))
            sentence += nodes.Text(f": {rule.about}")
            rows += nodes.list_item("", sentence)
        return [rows]


def write_math(translator, node):
    """Write a formula as MathML."""
    formula, is_block = node.astext(), isinstance(node, nodes.math_block)
    try:
        translator.body.append(tex2mathml(formula, as_block=is_block))
    except MathError as error:
        logging.getLogger(__name__).warning("%s in %s", error, formula, location=node)
    raise nodes.SkipNode


def skip_foreign(*event):
    """Leave out fields of named tuples, which are attributes, and scikit-learn's own methods."""
    _, _, name, member, skip, _ = event
    is_field = (getattr(member, "__doc__", None) or "").startswith("Alias for field number")
    return skip or is_field or re.fullmatch(r"set_\w+_request", name) is not None


def setup(app):
    """Register what is defined above."""
    app.add_directive("results", Results)
    app.add_directive("rules", Rules)
    app.add_html_math_renderer("mathml", (write_math, None), (write_math, None))
    app.connect("autodoc-skip-member", skip_foreign)
    return {"parallel_read_safe": True}
