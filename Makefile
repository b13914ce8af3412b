# Everything a developer does. `make` alone lists the targets.
#
#   PYTHON   the Python, 3.11 or newer, that .venv is made with
#   N, FULL  for `make bench`: outputs applied at once, and outputs in all
#   ARGS     more arguments for pytest, such as ARGS="-k rotation -x"

PYTHON ?= python3
N ?= 5000
FULL ?= 10000
ARGS ?=

BIN := .venv/bin
PYTEST := $(BIN)/pytest
TREES := operator tools tests bench

.DEFAULT_GOAL := help
.PHONY: help setup programs controlplane crds openapi fuzz crds-check demo demo-agent test bench lint format types layers unit integration e2e docs constraints clean
# The steps of one target come after one another, also with -j: they share .venv, the caches and the processors.
.NOTPARALLEL:

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

setup: ## the Python environment .venv, OpenSSH and OpenSSL; does nothing where nothing changed
	@$(PYTHON) tools/bootstrap.py

programs: ## the same, and the servers that the tests use: PostgreSQL, MariaDB, nginx, and keytool
	@$(PYTHON) tools/bootstrap.py --tests

controlplane: setup ## etcd, kube-apiserver, kube-controller-manager, kubectl and helm: found, or built once (minutes)
	@PYTHONPATH=tools $(BIN)/python -m controlplane build

demo: controlplane ## see it work: a real API server, the chart, the operator, a login over SSH; stays until Ctrl-C
	@PYTHONPATH=tools $(BIN)/python -m demo

demo-agent: controlplane ## the same for machines outside of the cluster: the agent joins by a secret and as a pod, and logs in
	@PYTHONPATH=tools $(BIN)/python -m demo --agent

test: programs controlplane lint types layers crds-check ## everything that must be right before a commit goes in
	$(PYTEST) --cov --cov-report=term-missing:skip-covered $(ARGS)

unit: programs ## the tests that need no cluster
	$(PYTEST) tests/unit $(ARGS)

integration: programs controlplane ## the parts on a real API server
	$(PYTEST) tests/integration $(ARGS)

e2e: programs controlplane ## whole stories, with faults
	$(PYTEST) tests/e2e $(ARGS)

docs: programs controlplane ## README and docs: every example, link, reason and metric
	$(PYTEST) tests/integration/test_docs.py $(ARGS)

bench: controlplane ## the budgets, measured: make bench N=5000 FULL=10000
	PYTHONPATH=.:tools:operator $(BIN)/python -m bench --pairs $(N) --full $(FULL)

lint: setup ## ruff: rules and format
	$(BIN)/ruff check $(TREES)
	$(BIN)/ruff format --check $(TREES)

format: setup ## ruff: repair what it can, and format
	$(BIN)/ruff check --fix $(TREES)
	$(BIN)/ruff format $(TREES)

types: setup ## mypy, strict
	$(BIN)/mypy
	$(BIN)/mypy tools/bootstrap.py tools/demo bench

layers: setup ## import-linter: an import never points up
	$(BIN)/lint-imports

crds: setup ## write crds/ from the models
	$(BIN)/machinebot crds --directory crds

openapi: setup ## write docs/openapi.json from the messages of the join API
	$(BIN)/python -m machinebot.protocol > docs/openapi.json

fuzz: setup ## the parsers of what comes from outside, for minutes: make fuzz ARGS="-k jwks"
	MACHINEBOT_FUZZ=1 $(PYTEST) tests/fuzz -p no:randomly --timeout=3600 $(ARGS)

crds-check: setup
	@directory=$$(mktemp -d) && trap 'rm -rf "$$directory"' EXIT && $(BIN)/machinebot crds --directory "$$directory" >/dev/null \
	  && { diff -ru crds "$$directory" || { echo "crds/ is not what the models say: make crds" >&2; exit 1; }; } \
	  && echo "crds/ is what the models say"

constraints: setup ## constraints.txt from pyproject.toml; with UPGRADE=--upgrade to the newest versions
	$(BIN)/uv pip compile --python-version 3.11 --generate-hashes --no-emit-index-url --universal --all-extras --group dev pyproject.toml \
	  -o constraints.txt $(UPGRADE)

clean: ## remove .venv and the caches in this folder (not the control plane's programs, which take minutes to build)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage dist
	find $(TREES) -name __pycache__ -type d -prune -exec rm -rf {} +
