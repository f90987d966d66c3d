# Needs make and python3 (3.10 to 3.13, with venv). Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
# For pytest, for example: make test PYTEST_ARGS="-n 8 --dist loadgroup -k launcher"
PYTEST_ARGS ?= -n 3 --dist loadgroup
# For python -m benchmarks, for example: make bench BENCH_ARGS="--sizes 100 1000"
BENCH_ARGS ?=

# The commands of the virtual environment come first, for task scripts too: they call `python`.
USE_VENV = PATH="$$(cd "$(VENV)/bin" && pwd):$$PATH"; export PATH
PIP = $(VENV)/bin/python -m pip -qq --disable-pip-version-check

# Stamps, so that what is installed already is not installed again. The first carries the interpreter's
# name: another PYTHON makes the environment anew.
MADE = $(VENV)/.made-by-$(notdir $(PYTHON))
RUN = $(VENV)/.installed
DEV = $(VENV)/.installed-dev
BENCH = $(VENV)/.installed-bench

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs bench clean

help: ## show this list
	@echo "usage: make TARGET [PYTHON=python3.12] [PYTEST_ARGS='...']"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1|\2/p' Makefile | awk -F '|' '{ printf "  %-6s %s\n", $$1, $$2 }'

demo: $(RUN) ## run docs/examples/quickstart in a temporary directory
	@$(USE_VENV); dir=$$(mktemp -d) || exit 1; \
	trap 'motoko kill -C "$$dir" >/dev/null 2>&1; rm -rf "$$dir"' EXIT; \
	trap 'exit 130' INT TERM; \
	cp -R docs/examples/quickstart/. "$$dir" && cd "$$dir" && rm -rf .wf */.bd */BD-*-runs && \
	motoko run --run-name demo --inputs 2.1 3.2

test: lint docs ## lint, docs, then all tests with coverage; as root on Debian it installs SLURM for them
	@.ci/install-slurm
	@$(USE_VENV); python -m pytest --cov --cov-fail-under=90 $(PYTEST_ARGS)

lint: $(DEV) ## ruff, mypy and the import contracts
	@$(USE_VENV); set -e; ruff check .; ruff format --check .; mypy; lint-imports

docs: $(DEV) ## build docs/_build/html; a warning is an error
	@$(USE_VENV); sphinx-build -W -n --keep-going -q docs docs/_build/html
	@echo "docs/_build/html/index.html"

bench: $(BENCH) ## measure beside Motoko 0.1.4 and other engines, about 35 minutes
	@$(USE_VENV); python -m benchmarks $(BENCH_ARGS)

clean: ## remove the environment and everything built
	rm -rf "$(VENV)" dist build docs/_build .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache \
	    .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(MADE):
	@command -v "$(PYTHON)" >/dev/null || { echo "$(PYTHON): not found; name one with PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { \
	    echo "Motoko needs Python 3.10 to 3.13, and $(PYTHON) is $$("$(PYTHON)" -V 2>&1)." >&2; \
	    echo "Name another one, for example: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments: its module venv or ensurepip is missing." >&2; \
	    echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "making $(VENV) with $$("$(PYTHON)" -V)"
	@"$(PYTHON)" -m venv --clear "$(VENV)"
	@touch "$@"

$(RUN): $(MADE) pyproject.toml
	@echo "installing Motoko into $(VENV)"
	@$(PIP) install --editable .
	@touch "$@"

$(DEV): $(MADE) pyproject.toml
	@echo "installing Motoko and its development tools into $(VENV)"
	@$(PIP) install --editable '.[test,lint,docs]'
	@touch "$@" "$(RUN)"

$(BENCH): $(MADE) pyproject.toml
	@echo "installing Motoko and what its benchmarks need into $(VENV)"
	@$(PIP) install --editable '.[bench]'
	@touch "$@" "$(RUN)"
