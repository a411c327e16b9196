# On a bare machine `make demo` and `make test` are all it takes: they build the environments they need, once.
#
#   .venv          the whole project, editable, with what develops it
#   .venv-runtime  the built wheel with the extra `cpu`, and pytest: what a scheduler installs
#   .venv-lowest   the same with the lowest versions that pyproject.toml admits
#
# Variables: PYTHON, the interpreter; LOWEST_PYTHON, that of .venv-lowest; PINS, what pip gets beside the project.
# pip's own variables hold too: PIP_EXTRA_INDEX_URL for an index of CPU builds of torch, PIP_NO_INDEX and
# PIP_FIND_LINKS without a network.

SHELL := /bin/bash
# Tests import onnxruntime by themselves; fcast tells it so each time.
export ORT_DISABLE_TELEMETRY := 1
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

ifndef PYTHON
PYTHON := $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)
endif
LOWEST_PYTHON ?= $(PYTHON)
# constraints.txt was made on Python 3.11. Another version gets what pyproject.toml admits, torch included: the newest.
PINS = $(shell $(PYTHON) -c 'import sys; print("-c constraints.txt" if sys.version_info[:2] == (3, 11) else "")')
LOWEST := $(CURDIR)/.venv/bin/python $(CURDIR)/tests/contracts/lower_bounds.py $(CURDIR)/pyproject.toml
PIP := bin/python -m pip install -q --disable-pip-version-check
SOURCES := $(shell find runtime training export predictor -name '*.py' -o -name 'bundle_*' -o -name py.typed 2>/dev/null)

.PHONY: help demo test test-all test-runtime test-lowest check clean

help:  ## list the targets (default)
	@sed -nE 's/^([a-z-]+):.*##  *(.*)/make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | while IFS='|' read -r name what; \
	do printf '  %-18s %s\n' "$$name" "$$what"; done

demo: .venv/.stamp  ## synthetic trace -> train -> export -> verify -> stream a forecast -> plot
	OMP_NUM_THREADS=1 .venv/bin/python -m examples.demo

test: test-all test-runtime test-lowest  ## every test, then those of the runtime with nothing else installed

test-all: .venv/.stamp
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest

check: .venv/.stamp  ## style, types and contracts
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/python -m pytest -q tests/contracts/test_imports.py tests/contracts/test_repository.py

clean:  ## remove the environments, caches and build leftovers (not runs/ and artifacts/)
	rm -rf .venv .venv-runtime .venv-lowest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.stamp: pyproject.toml constraints.txt
	@echo "Installing fcast and its development tools into .venv (minutes the first time)"
	$(PYTHON) -m venv .venv
	.venv/$(PIP) $(PINS) -e '.[dev]'
	@touch $@

# The environments of the runtime get the wheel, so what they run is what users install.
build/wheel/.stamp: .venv/.stamp LICENSE README.md $(SOURCES)
	rm -rf build
	.venv/bin/python -m pip wheel -q --disable-pip-version-check --no-deps -w build/wheel .
	@touch $@

.venv-runtime/.stamp: build/wheel/.stamp .venv-runtime/.libraries
	.venv-runtime/$(PIP) --force-reinstall --no-deps build/wheel/fcast-*.whl
	@touch $@

.venv-runtime/.libraries: pyproject.toml constraints.txt | build/wheel/.stamp
	@echo "Installing fcast[cpu] and pytest into .venv-runtime"
	$(PYTHON) -m venv --clear .venv-runtime
	.venv-runtime/$(PIP) $(PINS) "$$(echo $(CURDIR)/build/wheel/fcast-*.whl)[cpu]" pytest
	@touch $@

.venv-lowest/.stamp: build/wheel/.stamp .venv-lowest/.libraries
	.venv-lowest/$(PIP) --force-reinstall --no-deps build/wheel/fcast-*.whl
	@touch $@

.venv-lowest/.libraries: pyproject.toml constraints.txt tests/contracts/lower_bounds.py | build/wheel/.stamp
	@echo "Installing fcast[cpu] at its lowest versions and pytest into .venv-lowest"
	$(LOWEST_PYTHON) -m venv --clear .venv-lowest
	.venv-lowest/$(PIP) "$$(echo $(CURDIR)/build/wheel/fcast-*.whl)[cpu]" pytest $$($(LOWEST))
	@touch $@

# The tests of the runtime are copied away from the checkout, so that `import runtime` can only find the installed one.
define runtime-tests
	rm -rf build/tests-$(1)
	mkdir -p build/tests-$(1)/tests
	cp pyproject.toml build/tests-$(1)
	cp -r tests/__init__.py tests/data tests/runtime build/tests-$(1)/tests
	cd build/tests-$(1) && $(CURDIR)/.venv-$(1)/bin/python $(CURDIR)/tests/contracts/runtime_only.py $(2)
	cd build/tests-$(1) && OMP_NUM_THREADS=1 $(CURDIR)/.venv-$(1)/bin/python -m pytest -p no:cacheprovider
endef

test-runtime: .venv-runtime/.stamp
	$(call runtime-tests,runtime,)

test-lowest: .venv-lowest/.stamp
	$(call runtime-tests,lowest,$$($(LOWEST)))
