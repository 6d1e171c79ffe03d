# make demo    set up where needed, then the whole story on the embedded model (writes clipcond-demo/index.html)
# make test    set up where needed, then the tests
# make check   everything that CI checks

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
ARGS ?=

.PHONY: help demo test lint check clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# //p' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.run-ready
	$(BIN)/clipcond demo $(ARGS)

test: $(VENV)/.dev-ready
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

lint: $(VENV)/.dev-ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: test lint
	$(BIN)/python scripts/check_wheel.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# The stamps are written last: a set-up that was cut short is done again, one that finished is not.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "clipcond needs Python 3.10 or newer; name one: make demo PYTHON=python3.12" >&2; exit 1; }
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "python3 cannot make a virtual environment; on Debian: apt install python3-venv" >&2; exit 1; }

$(VENV)/.run-ready: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing clipcond and its libraries into $(VENV) (1.2 GB on disk; this takes a few minutes once) ..." >&2
	@$(PIP) install -c constraints.txt --editable .
	@touch $@

# One pip call installs everything, so `make test` on a fresh machine does not resolve twice.
$(VENV)/.dev-ready: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing clipcond, its libraries and the test tools into $(VENV) (1.3 GB on disk; a few minutes, once) ..." >&2
	@$(PIP) install -c constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.run-ready
