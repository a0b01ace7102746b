# make demo       compress a small network on handwritten digits and show the report
# make test       run the tests
# make lint       style, formatting, types and CI files
# make docs       write the generated pages again: docs/recipe.md and docs/command.md
# make benchmark  the short form of all measurements, on one page: runs/benchmark.md
#
# PYTHON=…     the Python to build .venv with (3.11 or newer)
# PIP_ARGS=…   further arguments for pip, such as the index of CPU-only wheels of torch
# VENV=…       an environment of your own instead of .venv

VENV ?= .venv
PIP_ARGS ?=
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,\
	$(shell $(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))
BIN = $(VENV)/bin

.PHONY: demo test lint docs benchmark
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/compressor demo --out runs/demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q -n auto --maxprocesses 8

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/check-jsonschema -q --builtin-schema vendor.github-workflows .github/workflows/ci.yml samples/ci/github-workflow.yml
	$(BIN)/check-jsonschema -q --builtin-schema vendor.github-actions samples/ci/action.yml
	$(BIN)/check-jsonschema -q --builtin-schema vendor.gitlab-ci samples/ci/gitlab-ci.yml

docs: $(VENV)/.installed
	$(BIN)/python -m tests.generate

benchmark: $(VENV)/.installed
	$(BIN)/python -m tests.benchmarks

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt $(PIP_ARGS) -e '.[dev]'
	@touch $@
