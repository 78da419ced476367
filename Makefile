# Everything happens in a virtual environment inside the checkout; nothing else is touched.
#
#   make assignment   train what is missing at the default scale, write report/index.html
#   make test         lint, types, import contracts, tests
#   make test-slow    the tests that take minutes
#   make bench        kernels, blocks and training steps against their peers on this CPU
#   make sanitize     the kernels under the address and undefined-behaviour sanitizers

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt $(wildcard native/*)
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: assignment test test-slow lint bench sanitize rates published clean

assignment: $(VENV)/.installed
	$(BIN)/recall study run assignment $(ARGS)

test: lint
	$(BIN)/python -m pytest -n auto

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m slow

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks $(ARGS)

sanitize: $(VENV)/.installed-dev
	$(BIN)/cmake -S native -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DRECALL_SANITIZE=ON
	$(BIN)/cmake --build build/sanitize
	build/sanitize/sanitize

# Search the learning rates again (an hour on two cores), then choose among them.
rates: $(VENV)/.installed
	$(BIN)/recall study run rates --store results/records --out build/rates
	$(BIN)/recall study choose-rates --store results/records

# Run again what results/ shows, with three seeds, and redraw it.
published: $(VENV)/.installed
	$(BIN)/recall study run assignment --scale published --store results/records --out results/report $(ARGS)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# Installing for development brings everything that running needs.
$(VENV)/.installed: $(SOURCES) | $(VENV)/bin/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-dev: $(SOURCES) | $(VENV)/bin/python
	$(INSTALL) --editable ".[dev]"
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
