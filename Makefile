# make demo: from a fresh clone to checked certificates.  make test: the whole suite.
# Both create .venv first, and install into it, when it is missing or out of date.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# One thread each: the suite and the service run several processes at once.
export OMP_NUM_THREADS ?= 1
export ORT_DISABLE_TELEMETRY := 1

.PHONY: demo test typed serve lint bench contract drill clean

demo: $(INSTALLED)
	$(BIN)/python examples/demo.py

# Shapes and types are checked in every call where parts of the search are tested one by one. The
# rest, which makes the same calls a thousand times, does without here: it takes more than half of
# the time. `make typed` checks them everywhere.
TYPED := tests/network tests/onnx_import tests/references

test: lint
	$(BIN)/python -m pytest -n 2 $(TYPED)
	$(BIN)/python -m pytest -n 2 --jaxtyping-packages= tests $(TYPED:%=--ignore=%)

typed: $(INSTALLED)
	$(BIN)/python -m pytest -n 2

serve: $(INSTALLED)
	$(BIN)/lipcert serve

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.global_solver
	$(BIN)/python -m benchmarks.recursion
	$(BIN)/python -m benchmarks.refinement
	$(BIN)/python -m benchmarks.torus
	$(BIN)/python -m benchmarks.product
	$(BIN)/python -m benchmarks.global_yardsticks
	$(BIN)/python -m benchmarks.published
	$(BIN)/python -m benchmarks.local_yardsticks
	$(BIN)/python -m benchmarks.check_time

# Thousands of random calls against a service, with and without keys.
contract: $(INSTALLED)
	$(BIN)/python tests/service/schemathesis_run.py

# Long: faults, kills, load and hostile files against a real service (docs/durability.md).
drill: $(INSTALLED)
	LIPCERT_TESTS=full $(BIN)/python -m pytest -q tests/service/test_faults.py
	$(BIN)/python -m benchmarks.kill_drill
	$(BIN)/python -m benchmarks.kill_drill --postgresql
	$(BIN)/python -m benchmarks.service_load
	$(BIN)/python -m benchmarks.hostile_rest

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "lipcert needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet \
	  -c constraints.txt -e '.[verify,serve,postgres,dev]'
	touch $@
