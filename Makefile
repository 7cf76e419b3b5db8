# Everything starts here. `make help` lists the targets; each does the set-up it needs, once.
#
#   PYTHON       interpreter for a new virtual environment (default: /usr/bin/python3, else the first >= 3.11)
#   VENV         the virtual environment (default .venv; no spaces)
#   ARGS         passed to `onehop serve`, e.g. make run ARGS="--port 9000"
#   PYTEST_ARGS  passed to pytest, e.g. make test PYTEST_ARGS="tests/jail -k seccomp"

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?=
VENV ?= .venv
ARGS ?=
PYTEST_ARGS ?=
export PYTHON VENV

PY := $(VENV)/bin/python
CODE := $(wildcard src tests bench examples integrations)
# LangChain's packages are in an environment of their own, where nothing is checked.
TYPED := $(filter-out examples integrations,$(CODE)) $(addsuffix /src,$(filter-out %/langchain-onehop,$(wildcard integrations/*)))

# A moved checkout or an upgraded interpreter makes the environment useless: scripts/setup wrote where and with
# what it was made. Compared without starting a process.
ifneq ($(file <$(VENV)/.made-in),$(CURDIR) $(realpath $(PY)))
STALE := stale
endif

# In a checkout that is read-only for its user the tools keep their caches elsewhere.
ifeq ($(shell test -w . && echo yes),)
CACHE := $(or $(TMPDIR),/tmp)/onehop-cache-$(shell id -u)
export RUFF_CACHE_DIR := $(CACHE)/ruff
export MYPY_CACHE_DIR := $(CACHE)/mypy
export HYPOTHESIS_STORAGE_DIRECTORY := $(CACHE)/hypothesis
PYTEST_FLAGS := -o cache_dir=$(CACHE)/pytest
endif

.PHONY: help run test check compatibility format lock bench soak setup environment clean stale

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

run: $(VENV)/.ready-server $(VENV)/.compiled environment ## set up what is missing, then serve on http://127.0.0.1:8000
	@exec $(PY) -m onehop.cli.main serve $(ARGS)

test: $(VENV)/.ready-dev environment ## set up what is missing, then run all the tests
	@$(PY) -m pytest $(PYTEST_FLAGS) $(PYTEST_ARGS)

check: $(VENV)/.ready-dev ## ruff (lint, format), mypy --strict, and the layers of the imports
	@$(PY) -m ruff check $(CODE)
	@$(PY) -m ruff format --check $(CODE)
	@$(PY) -m mypy $(TYPED)
	@$(PY) -m pytest $(PYTEST_FLAGS) -q tests/test_layers.py

compatibility: $(VENV)/.ready-dev environment ## run the tests with other companies' clients; writes COMPATIBILITY.md
	@$(PY) -m pytest $(PYTEST_FLAGS) -m compat --compatibility $(PYTEST_ARGS)

format: $(VENV)/.ready-dev ## let ruff format the code and fix what it can
	@$(PY) -m ruff format $(CODE)
	@$(PY) -m ruff check --fix $(CODE)

bench: $(VENV)/.ready-bench $(VENV)/.compiled environment ## measure side by side with its peers; writes bench/RESULTS.md
	@$(PY) -m bench $(ARGS)

soak: $(VENV)/.ready-bench $(VENV)/.compiled environment ## mixed load for a long time, watching for what is left over
	@$(PY) -m bench.soak $(ARGS)

lock: $(VENV)/.ready-server ## resolve every lock anew: server, dev, bench, sandbox environments
	@scripts/lock
	@$(PY) -m onehop.environments.lock

setup: $(VENV)/.ready-bench ## only the virtual environment, with everything for tests and benchmarks

environment: $(VENV)/.ready-server ## build the default sandbox environment, if it is not there yet
	@$(PY) -m onehop.environments

clean: ## remove the virtual environment and all caches (ONEHOP_HOME stays)
	rm -rf -- $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV)/.ready-server: requirements.lock pyproject.toml scripts/setup $(STALE)
	@scripts/setup server

$(VENV)/.ready-dev: requirements-dev.lock requirements-older.lock requirements-langchain.lock pyproject.toml scripts/setup $(STALE)
	@scripts/setup dev

$(VENV)/.ready-bench: requirements-bench.lock requirements-older.lock requirements-langchain.lock pyproject.toml scripts/setup $(STALE)
	@scripts/setup bench

# With PYTHONDONTWRITEBYTECODE set nobody else would write our bytecode, and every start would compile the whole
# package. In a checkout of somebody else this may fail and only costs time.
$(VENV)/.compiled: $(VENV)/.ready-server $(shell find src -name '*.py')
	@$(PY) -m compileall -q src/onehop >/dev/null || true
	@touch $@ 2>/dev/null || true
