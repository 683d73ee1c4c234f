# make demo: a whole run on two CPU cores.  make test: the tests, on every core; make test TESTS=... : those, in one
# process.  All set up .venv first.
VENV ?= .venv
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,\
    $(shell command -v $(name) >/dev/null 2>&1 && $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
STAMP := $(VENV)/.stamp
BIN := $(VENV)/bin

.PHONY: demo test lint types contracts environment
.DELETE_ON_ERROR:

demo: environment
	$(BIN)/radaug run configs/demo.yaml

test: environment
	$(BIN)/pytest $(or $(TESTS),--numprocesses=auto --dist=worksteal)

lint: environment
	$(BIN)/ruff check pipeline flows tests benchmarks
	$(BIN)/ruff format --check pipeline flows tests benchmarks

types: environment
	$(BIN)/mypy

contracts: environment
	$(BIN)/lint-imports

environment: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "radaug needs Python 3.11 or newer: none was found. Try make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@
