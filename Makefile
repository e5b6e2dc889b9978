# Two commands do everything: `make train` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard csrc/*.cpp csrc/cpu/* csrc/cuda/*) setup.py pyproject.toml

.PHONY: train test lint bench sanitize clean

train: $(VENV)/installed
	$(BIN)/selshare train digits

test: $(VENV)/installed lint
	$(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks

# csrc/ with AddressSanitizer and UBSan, in build/sanitized, and the tests that reach it.
sanitize: $(VENV)/installed
	$(BIN)/python csrc/sanitize.py

# Rebuilds when a compiled source or a dependency changes.
$(VENV)/installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf build dist src/*.egg-info src/selshare/*.so
