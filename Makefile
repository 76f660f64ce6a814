# Needs Python 3.11 or newer and make; everything else goes into .venv.
#   make demo                 a phantom study through the embedded node (STUDY=folder for your own)
#   make test                 all tests (ARGS='-k intake -x' goes to pytest; WORKERS=3 where cores are idle while tests wait)
#   make test-full            the system tests with whole studies instead of a part of each
#   make lint  make bench  make setup  make clean

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
# The environment is made anew when pyproject.toml changes, and only then.
STAMP := $(VENV)/.made-from-$(shell cksum < pyproject.toml | tr ' ' '-')

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full lint format bench clean

help:
	@sed -n 's/^#  *\(make .*\)/\1/p' Makefile

setup: $(STAMP)

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one with: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "$(PYTHON) has no venv module (on Debian and Ubuntu: apt-get install python3-venv)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@rm -f $(VENV)/.made-from-*
	@touch $@

demo: setup
	$(BIN)/pacsnode demo $(if $(STUDY),--study '$(STUDY)') $(ARGS)

test: setup
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-full: setup
	$(BIN)/python -m pytest tests/system --full $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	PYTHONPATH=.:tests $(BIN)/python -m bench.bench_receive $(ARGS)
	PYTHONPATH=.:tests $(BIN)/python -m bench.bench_turnaround $(ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
