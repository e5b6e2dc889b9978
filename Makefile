# Two commands do everything: `make train` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := $(wildcard csrc/*.cpp csrc/cpu/* csrc/cuda/*) setup.py pyproject.toml

.PHONY: train test lint bench docs wheel sanitize clean

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

docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# libgomp is PyTorch's: see docs/installing.md.
wheel: $(VENV)/installed
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/auditwheel repair --exclude libgomp.so.1 --wheel-dir dist dist/*-linux_*.whl
	rm dist/*-linux_*.whl

# Rebuilds when a compiled source or a dependency changes.
$(VENV)/installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf build dist site src/*.egg-info src/selshare/*.so
