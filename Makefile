# Short names for the commands of README.md and CONTRIBUTING.md.
PYTHON = .venv/bin/python

.PHONY: demo test lint docs

.venv:
	python3 -m venv .venv && .venv/bin/pip install -q -e ".[test,lint,docs]"

demo: .venv
	$(PYTHON) -m solvers

test: .venv
	$(PYTHON) -m pytest -q

lint: .venv
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m codespell_lib
	$(PYTHON) -m mypy

docs: .venv
	$(PYTHON) -m sphinx -W --keep-going -b html docs docs/_build/html
