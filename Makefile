# Every target runs one plain command after the virtual environment is there.
# Needs Python 3.11 or newer, make, and reach of the package registries.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
STORE ?= dir
REQUIRE ?=
WORKERS ?= 2
REQUIRE_ARG := $(if $(REQUIRE),--require=$(REQUIRE))

.PHONY: help demo demo-migration test test-fast test-long lint types unit servers bench lock clean

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer on PATH; set PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# $(1): lock file. --no-deps: the lock is complete, and pip would look at newer releases of what is named with an extra;
# --no-build-isolation: its setuptools builds the package.
install = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/$(1).txt \
	&& $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .

$(VENV)/demo.stamp: requirements/demo.txt pyproject.toml | $(VENV)/bin/python
	$(call install,demo)
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt pyproject.toml | $(VENV)/bin/python
	$(call install,dev)
	@touch $@

demo: $(VENV)/demo.stamp  ## back up, move, restore and prove a real etcd on this machine; STORE=minio uses two MinIO servers
	$(if $(filter minio,$(STORE)),$(BIN)/python tests/servers/build.py minio)
	$(BIN)/backupagent demo --store $(STORE)

demo-migration: $(VENV)/demo.stamp  ## move a control plane between two Seeds, on a real Kubernetes API server; ends with EQUAL
	$(BIN)/python tests/servers/build.py kube-apiserver kube-controller-manager minio
	$(BIN)/backupagent demo --play migration --objects 20000

servers: $(VENV)/dev.stamp  ## build or install every server that tests use (cached outside the checkout)
	$(BIN)/python tests/servers/build.py $(REQUIRE_ARG)

lint: $(VENV)/dev.stamp  ## style, layers, dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pip check

types: $(VENV)/dev.stamp  ## mypy --strict
	$(BIN)/mypy

unit: $(VENV)/dev.stamp  ## unit tests, and the contracts on memory and local stores
	$(BIN)/python -m pytest -q -n $(WORKERS) tests/unit tests/contract -m "not servers"

test-fast: lint types unit  ## lint, types, unit, contract on memory and local: under 90 s

test: lint types servers  ## everything; REQUIRE=all makes a missing server a failure
	$(BIN)/python -m coverage erase
	$(BIN)/python -m pytest -n $(WORKERS) --dist=loadfile --cov --cov-report= $(REQUIRE_ARG)
	$(BIN)/python -m coverage report --skip-covered --fail-under=90
	$(BIN)/python -m coverage report --include='backupagent/model/*,backupagent/transfer/*' --fail-under=100

test-long: $(VENV)/dev.stamp servers  ## the tests that take many minutes and that make test leaves out; ONLY=WORDS chooses
	$(BIN)/python -m pytest -p no:randomly -m long --long -s $(if $(ONLY),-k "$(ONLY)") $(REQUIRE_ARG)

bench: $(VENV)/dev.stamp servers  ## measured runs beside the peers that are on PATH
	$(BIN)/backupagent bench restore
	$(BIN)/backupagent bench copy

lock:  ## pin all dependencies anew (needs uv on PATH)
	for extra in "" demo dev; do uv pip compile -q pyproject.toml $${extra:+--extra $$extra} --universal \
		--python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		-o requirements/$${extra:-base}.txt; done
	sed -n '/^setuptools==/,/[^\\]$$/p' requirements/demo.txt > requirements/build.txt

clean:  ## remove what was built here; caches outside the checkout stay
	rm -rf $(VENV) .tools build *.egg-info .coverage*
