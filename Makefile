# The two commands of the README are `make sweep` and `make test`; both set everything up first.
PYTHON ?= python3
VENV ?= .venv
RUN = $(VENV)/bin/python

# What `make sweep` runs; for the real corpus, or on a cluster, say:
#   make sweep SWEEP=configs/cornell_random.yaml MODEL=cornell ARGS="--set hidden_size=128"
#   make sweep STORAGE=/mnt/runs ARGS="--address auto"
SWEEP ?= configs/demo.yaml
MODEL ?= everyday
STORAGE ?= runs
# What `make dashboard` shows: NAME=..., else the newest experiment.
SHOWN := $(or $(NAME),latest)
NAME := $(or $(NAME),sweep-$(shell date +%Y%m%d-%H%M%S))
ARGS ?=
# Test processes at once, each of which may start Ray.
JOBS ?= 2

.PHONY: help sweep dashboard test test-slow test-long test-all guard audit lint types setup setup-dev clean
.DEFAULT_GOAL := help

help: ## say what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.runtime ## install what the project needs into .venv
setup-dev: $(VENV)/.development ## install what the tests need too

$(VENV)/.runtime: requirements.txt
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/.development: requirements.txt requirements-dev.txt
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@ $(VENV)/.runtime

sweep: $(VENV)/.runtime ## search, show the results, promote the best model, let it reply
	$(RUN) -m tuning run $(SWEEP) --name $(NAME) --storage $(STORAGE) $(ARGS)
	$(RUN) -m analysis results $(NAME) --storage $(STORAGE)
	$(RUN) -m analysis promote $(NAME) --storage $(STORAGE) --name $(MODEL) --force
	$(RUN) -m model chat $(MODEL) --say "hello !" --say "how are you today ?" \
	  --say "what is the capital of france ?" --say "tell me a joke ." --say "goodbye !"

dashboard: $(VENV)/.runtime ## look at a search with optuna-dashboard: the newest, or NAME=...
	file=$$($(RUN) -m tuning.study $(SHOWN) --storage $(STORAGE)) && \
	  exec $(VENV)/bin/optuna-dashboard "$$file" $(ARGS)

test: $(VENV)/.development ## the tests, in under ten minutes on two cores
	$(RUN) -m pytest -n $(JOBS)

test-slow: $(VENV)/.development ## what `make test` leaves out: slow tests, and processes killed
	$(RUN) -m pytest -m "(slow or chaos) and not alone and not long" -n $(JOBS) --dist loadfile
	$(RUN) -m pytest -m "alone and not long"

test-long: $(VENV)/.development ## what CI has no time for: run before a release
	$(RUN) -m pytest -m long

test-all: test test-slow test-long ## all tests

guard: $(VENV)/.development ## has anything become slower? (ratios against the recorded ones)
	$(RUN) benchmarks/guard.py

audit: $(VENV)/.development ## known weaknesses of all that is installed; asks pypi.org
	$(RUN) -m pip_audit --local

lint: $(VENV)/.development ## style
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: $(VENV)/.development ## static types
	$(RUN) -m mypy

clean: ## remove what was built; experiments, models and data stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
