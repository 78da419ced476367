# Everything happens in a virtual environment inside the checkout; nothing else is touched.
#
#   make assignment   train what is missing at the default scale, hold it against the published runs,
#                     write report/index.html
#   make test         lint, types, import contracts, tests
#   make test-whole   studies, pages in a browser, the notebook, other libraries: each as a whole
#   make test-slow    the tests that take minutes, every case of the products of which `make test` has some,
#                     and property tests with ten times as many examples
#   make torture      kills, damage, hostile words and many runners in full; figures in docs/reliability.md
#   make bench        kernels, blocks and training steps against their peers on this CPU; rows of results/benchmarks.jsonl
#   make numbers      fill the numbers of those rows into README.md, benchmarks/README.md and results/benchmarks.md
#   make sanitize     the kernels under the address and undefined-behaviour sanitizers
#   make report       the published report as a page, with its tables and figures, from results/; trains nothing
#   make published    train again what results/ shows; make rates: search its learning rates again
#
# Any Python >= 3.11 will do; make PYTHON=/path/to/python names one.

PYTHONS := $(or $(PYTHON),python3.13 python3.12 python3.11 python3.14 python3)
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml constraints.txt $(wildcard native/*)
# Each worker begins with a half of its own, so that what a module makes once is not made by all.
PYTEST := $(BIN)/python -m pytest -n auto --dist worksteal
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: assignment test test-whole test-slow torture lint bench numbers sanitize rates published report clean

assignment: $(VENV)/.installed
	$(BIN)/recall study run assignment --against results/records $(ARGS)

test: lint
	$(PYTEST)

test-whole: $(VENV)/.installed-dev
	$(PYTEST) -m "whole and not slow"

test-slow: $(VENV)/.installed-dev
	$(PYTEST) -m slow --timeout 1800
	$(PYTEST) -m "hypothesis and not slow" --hypothesis-profile thorough --timeout 1800

# What is timed is alone on the machine.
TIMED = tests/test_torture_overhead.py tests/test_torture_clusters.py
FULL = -m "" --torture --timeout 7200
torture: $(VENV)/.installed-dev
	$(PYTEST) $(FULL) $(filter-out $(TIMED),$(wildcard tests/test_torture_*.py))
	$(BIN)/python -m pytest $(FULL) $(TIMED)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks --rows results/benchmarks.jsonl $(ARGS)

numbers: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.tables
	$(BIN)/cog -r -I . README.md benchmarks/README.md docs/reliability.md

sanitize: $(VENV)/.installed-dev
	$(BIN)/cmake -S native -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DRECALL_SANITIZE=ON
	$(BIN)/cmake --build build/sanitize
	build/sanitize/sanitize

# Hours on two cores; then the choice among the rates.
rates: $(VENV)/.installed
	$(BIN)/recall study run rates --store results/records --out build/rates
	$(BIN)/recall study choose-rates --store results/records

published: $(VENV)/.installed
	$(BIN)/recall study run assignment --scale published --store results/records --out results/report $(ARGS)
	$(BIN)/recall study run delays --scale published --store results/records --out results/delays
	$(BIN)/recall study run controls --scale published --store results/records --out results/controls

report: $(VENV)/.installed
	$(BIN)/recall report assignment --scale published --store results/records --out report $(ARGS)
	$(BIN)/recall report delays --scale published --store results/records --out report/delays
	$(BIN)/recall report controls --scale published --store results/records --out report/controls

# The first Python that runs (a pyenv shim may not), is new enough and can make environments.
$(BIN)/python:
	@for python in $(PYTHONS); do \
	  "$$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	    && exec "$$python" -m venv $(VENV); \
	done; \
	echo "Found no Python >= 3.11 with venv; tried: $(PYTHONS)." >&2; \
	echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python;" >&2; \
	echo "anywhere: uv python install 3.13), or name yours: make PYTHON=/path/to/python" >&2; \
	exit 1

# Installing for development brings everything that running needs.
$(VENV)/.installed: $(SOURCES) | $(BIN)/python
	$(INSTALL) --editable .
	touch $@

$(VENV)/.installed-dev: $(SOURCES) | $(BIN)/python
	$(INSTALL) --editable ".[dev]"
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
