# What a reviewer types. `make help` lists it.
#
#   PROFILE=mini                  which models, data and hyperparameters; `kit show EXP` lists them
#   RUNNER=auto|docker|podman|local   where it runs (default: auto)
#   ARGS="--seed 7"               handed to `kit reproduce` as they are
#   TARGET=cpu|gpu, ENGINE, BASE, PIP_CONF, CA_BUNDLE, BUILD_ARGS   of `make image`: docs/container.md

SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
PROFILE ?= mini
TARGET ?= cpu
RUNNER ?= auto
ARGS ?=
IMAGE ?= safety-repro-kit
ENGINE ?= $(if $(filter docker podman,$(RUNNER)),$(RUNNER),auto)
GPU_VENV ?= .venv-gpu
EXPORTS_VENV ?= .venv-exports
PYTEST_WORKERS ?= 2

KIT := $(VENV)/bin/kit
# A recipe that names $(MAKE) itself would be run even by `make -n`.
MAKE_PROGRAM := $(MAKE)
RUN := RUNNER=$(RUNNER) IMAGE=$(IMAGE) VENV=$(VENV) GPU_VENV=$(GPU_VENV) MAKE="$(MAKE_PROGRAM)" requirements/runner.sh

.PHONY: pictures help setup setup-dev setup-gpu test test-slow test-gpu test-image test-slurm test-exports test-mutants bench lint list lock docs image pin-images clean

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

setup-gpu: $(GPU_VENV)/.gpu  ## the full-size set (vLLM, CUDA), under .venv-gpu
$(GPU_VENV)/.gpu: requirements/gpu.txt pyproject.toml
	@$(PYTHON) -m venv $(GPU_VENV)
	@$(GPU_VENV)/bin/python requirements/install.py gpu
	@$(GPU_VENV)/bin/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

reproduce-%:  ## run, verify and report one experiment
	@PROFILE=$(PROFILE) TARGET=$$($(PYTHON) requirements/target.py $* $(PROFILE)) $(RUN) kit reproduce $* --profile $(PROFILE) $(ARGS)

rehearse-%:  ## full shape, random weights: does it fit, how long does it take
	@PROFILE=paper TARGET=gpu $(RUN) kit rehearse $* $(ARGS)

verify-%: $(VENV)/.cpu  ## verify the newest run of one experiment again
	@run=$$(ls -d runs/$*-$(PROFILE)-2* 2>/dev/null | sort | tail -n 1); \
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
	@$(VENV)/bin/pytest -q -m 'slow and not image'

test-gpu: $(VENV)/.dev  ## needs a CUDA device
	@$(VENV)/bin/pytest -q -m gpu

test-mutants: $(VENV)/.dev  ## 150 planted bugs, and which the tests notice (an hour and a half on two cores; SEED= for a fresh sample)
	@$(VENV)/bin/python -m tests.mutants.run $(or $(COUNT),150) $(or $(SEED),20261128) $(or $(RECORD),benchmarks/mutants.json) --jobs $(or $(JOBS),2) $(ARGS)

bench: $(VENV)/.dev  ## seconds of the commands that somebody waits for
	@$(VENV)/bin/pytest -q -n 0 benchmarks $(ARGS)

test-slurm: $(VENV)/.dev  ## a real SLURM of one node (Debian: slurmctld slurmd slurm-client munge)
	@KIT_SLURM_RECORD=1 $(VENV)/bin/pytest -q -rs -m slurm -n 0 tests/slurm
	@$(KIT) docs

docs: $(VENV)/.cpu  ## regenerate schemas and the generated parts of the documents
	@$(KIT) docs

lock: $(VENV)/.dev  ## make the hashed locks and sizes.json again (needs pip-tools and uv)
	@$(VENV)/bin/python requirements/lock.py

pictures: $(VENV)/.dev  ## the README's pictures of the run PICTURED= (needs chromium and tmux)
	@$(VENV)/bin/python requirements/pictures.py $(PICTURED)

image:  ## build the container image (TARGET=cpu|gpu)
	@TARGET=$(TARGET) ENGINE=$(ENGINE) IMAGE=$(IMAGE) PYTHON=$(PYTHON) requirements/image.sh

pin-images:  ## record the base image's digest, where the registry is reached
	@$(PYTHON) requirements/images.py pin

test-image: $(VENV)/.dev  ## build the cpu image and reproduce tiny-adapt in it
	@KIT_IMAGE_RECORD=1 $(VENV)/bin/pytest -q -rs -m image tests/container
	@$(KIT) docs

$(EXPORTS_VENV)/.exports: requirements/exports.txt
	@$(PYTHON) -m venv $(EXPORTS_VENV)
	@$(EXPORTS_VENV)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes -r $<
	@touch $@

test-exports: $(VENV)/.dev $(EXPORTS_VENV)/.exports  ## a whole experiment through real Snakemake, a crate through its validator
	@KIT_TEST_TOOLS=$(CURDIR)/$(EXPORTS_VENV)/bin $(VENV)/bin/pytest -q -rs -m 'slow or not slow' tests/engine/export tests/report/test_crate_validator.py

clean:  ## remove the environment and the store; runs are kept
	rm -rf $(VENV) $(GPU_VENV) $(EXPORTS_VENV) .kit build *.egg-info
