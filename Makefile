# make demo: a whole run on two CPU cores.  make test: the tests, on every core; make test TESTS=... : those, in one
# process.  make reference: the pages that are made from the schema and the command line.  make site: the documentation
# as a site.  All set up .venv first.
VENV ?= .venv
PYTHON ?= $(firstword $(foreach name,python3 python3.13 python3.12 python3.11,\
    $(shell command -v $(name) >/dev/null 2>&1 && $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
STAMP := $(VENV)/.stamp
BIN := $(VENV)/bin

.PHONY: demo test lint types contracts reference site environment
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

reference: environment
	$(BIN)/python -m pipeline.config.reference > docs/configuration.md
	$(BIN)/python -m flows.reference > docs/commands.md

site: environment
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --site-dir $(or $(SITE),site)

environment: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "radaug needs Python 3.11 or newer: none was found. Try make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@
