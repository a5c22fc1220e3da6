# Two commands: `make course` executes and verifies the book, `make test` proves everything.
# Every target makes its own environment in .venv first; that step is over at once when nothing changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help course test check lab site bench-refit clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

course: $(VENV)/ready-course  ## execute every notebook, check its claims, build the site
	@$(BIN)/synthbook course run

test: $(VENV)/ready-dev  ## prove everything: lint, types, unit tests, strict comparison of every notebook, the site
	@$(BIN)/python -m pytest --nbval --nbval-current-env --nbval-sanitize-with tests/notebooks/sanitize.cfg --nbval-cell-timeout=120 \
	    tests synthbook notebooks

check: $(VENV)/ready-dev  ## the inner loop: lint, types and unit tests, in under 3 minutes
	@$(BIN)/python -m pytest -q -m "not slow" tests synthbook

lab: $(VENV)/ready-course  ## open JupyterLab on the notebooks
	@$(BIN)/jupyter lab notebooks

site: $(VENV)/ready-course  ## build the book from the committed outputs
	@$(BIN)/synthbook course site

bench-refit: $(VENV)/ready-course  ## time the two refitting engines against each other
	@$(BIN)/python bench/refit.py

clean:  ## remove everything that was built, the environment included
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info

$(VENV)/ready-%: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "synthbook needs Python 3.11, because PyBullet has no wheels for later versions."; \
	  echo "'$(PYTHON)' is $$($(PYTHON) --version 2>&1 || echo 'not installed')."; \
	  echo "Name another one:      make $(MAKECMDGOALS) PYTHON=python3.11"; \
	  echo "or let conda bring it: conda env create -f environment.yml && conda activate synthbook"; \
	  echo "                       synthbook course run"; \
	  exit 1; }
	@echo "Setting up $(VENV) (the first time this downloads several GB, mostly PyTorch) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS_$*)]'
	@touch $@

EXTRAS_course := course
EXTRAS_dev := course,dev
