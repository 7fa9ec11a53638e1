# What a reviewer types. `make help` lists it.
#
#   PROFILE=mini|paper            which models, data and hyperparameters (default: mini)
#   RUNNER=auto|docker|podman|local   where it runs (default: auto)
#   ARGS="--seed 7"               handed to `kit reproduce` as they are

SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
PROFILE ?= mini
RUNNER ?= auto
ARGS ?=
IMAGE ?= safety-repro-kit
PYTEST_WORKERS ?= 2

KIT := $(VENV)/bin/kit
# A recipe that names $(MAKE) itself would be run even by `make -n`.
MAKE_PROGRAM := $(MAKE)
TARGET := $(if $(filter paper,$(PROFILE)),gpu,cpu)

.PHONY: help setup setup-dev test test-slow test-gpu test-slurm lint list lock docs clean

help:  ## this list
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

setup: $(VENV)/.cpu  ## a local environment with CPU builds, under .venv
setup-dev: $(VENV)/.dev  ## the same with what the tests need

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: Python 3.11 or newer is needed; set PYTHON=python3.x" >&2; exit 4; }
	@$(PYTHON) -m venv $(VENV)

# The stamps hold the set-up back only while lock and project file stay the same.
$(VENV)/.cpu: requirements/cpu.txt pyproject.toml | $(VENV)/bin/python
	@if [ -e $(VENV)/.dev ]; then :; else $(VENV)/bin/python requirements/install.py cpu; fi
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt pyproject.toml | $(VENV)/bin/python
	@$(VENV)/bin/python requirements/install.py dev
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.cpu

reproduce-%:  ## run, verify and report one experiment
	@RUNNER=$(RUNNER) TARGET=$(TARGET) IMAGE=$(IMAGE) VENV=$(VENV) MAKE="$(MAKE_PROGRAM)" \
	  requirements/runner.sh kit reproduce $* --profile $(PROFILE) $(ARGS)

rehearse-%:  ## full shape, random weights: does it fit, how long does it take
	@RUNNER=$(RUNNER) TARGET=gpu IMAGE=$(IMAGE) VENV=$(VENV) MAKE="$(MAKE_PROGRAM)" \
	  requirements/runner.sh kit rehearse $* $(ARGS)

verify-%: $(VENV)/.cpu  ## verify the newest run of one experiment again
	@run=$$(ls -td runs/$*-$(PROFILE)-* 2>/dev/null | head -n 1); \
	  if [ -z "$$run" ]; then echo "error: no run of $* ($(PROFILE)) yet; type: make reproduce-$*" >&2; exit 4; fi; \
	  $(KIT) verify "$$run" $(ARGS)

list: $(VENV)/.cpu  ## the experiments
	@$(KIT) list

lint: $(VENV)/.dev  ## ruff and mypy
	@$(VENV)/bin/ruff format --check kit tests requirements
	@$(VENV)/bin/ruff check kit tests requirements
	@$(VENV)/bin/mypy

test: $(VENV)/.dev lint  ## everything that needs neither a GPU nor patience
	@$(VENV)/bin/kit validate
	@$(VENV)/bin/kit docs --check
	@$(VENV)/bin/pytest -q -n $(PYTEST_WORKERS)

test-slow: $(VENV)/.dev  ## rebuilds of miniature models, large simulations, browser tests
	@$(VENV)/bin/pytest -q -m slow

test-gpu: $(VENV)/.dev  ## needs a CUDA device
	@$(VENV)/bin/pytest -q -m gpu

test-slurm: $(VENV)/.dev  ## a real SLURM of one node (Debian: slurmctld slurmd slurm-client munge)
	@$(VENV)/bin/pytest -q -m slurm -rs -n 0 tests/slurm

docs: $(VENV)/.cpu  ## regenerate schemas and the generated parts of the documents
	@$(KIT) docs

lock: $(VENV)/.dev  ## make the hashed locks again (needs pip-tools)
	@for name in cpu dev; do \
	  extra="--extra cpu --extra report --extra sign"; [ $$name = dev ] && extra="$$extra --extra dev"; \
	  CUSTOM_COMPILE_COMMAND="make lock" $(VENV)/bin/pip-compile -q --generate-hashes --strip-extras \
	    --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
	    $$extra -o requirements/$$name.txt pyproject.toml || exit; done
	@$(VENV)/bin/python requirements/measure.py

clean:  ## remove the environment and the store; runs are kept
	rm -rf $(VENV) .kit build *.egg-info
