# Every target does its own set-up; all are safe to repeat.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
# Tests start many processes: none compiles the modules once more.
unexport PYTHONDONTWRITEBYTECODE

LINTERS := lint-types lint-windows lint-pyright lint-style
.PHONY: setup peers run test quick lint $(LINTERS) bench soak clean
.DEFAULT_GOAL := setup

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	# torch alone first: an exact pin takes the CPU build, a range takes CUDA's.
	$(BIN)/pip install --quiet --no-compile -c constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --no-compile -c constraints.txt -e '.[dev]'
	# By all processors: pip takes one. Some files of packages are templates, and no
	# Python yet, which is no fault: what is not compiled here is at its first import.
	$(BIN)/python -m compileall -qq -j 0 -x '/tests/' $(VENV)/lib || true
	touch $@

setup: $(STAMP)

# Counterparts of the drivers that others wrote; tests without them skip and say so.
peers: $(STAMP)
	$(BIN)/pip install --quiet -c constraints.txt -r tests/peers.txt

run: $(STAMP)
	$(BIN)/labctl run protocols/quickstart.yaml

test: $(STAMP)
	$(BIN)/pytest -n 3 --dist worksteal --durations=20 --durations-min=5

quick: $(STAMP)
	$(BIN)/pytest -n 3 --dist worksteal -m 'not slow and not hardware and not gpu and not bench and not conformance'

# Two at a time: each uses one processor.
lint: $(STAMP)
	+$(MAKE) --no-print-directory -j2 $(LINTERS)

lint-style: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

lint-types: $(STAMP)
	$(BIN)/mypy

lint-windows: $(STAMP)
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 labctl drivers

lint-pyright: $(STAMP)
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

bench: $(STAMP)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/pytest tests/benchmarks -m bench -s -p no:xdist

soak: $(STAMP)
	LABCTL_SOAK=1 $(BIN)/pytest -n 3 --dist worksteal

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
