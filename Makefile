# make demo and make test work on a fresh machine with Python 3.11 or newer; everything else is for development.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_HOME ?= $(CURDIR)/.penumo/dagster

.PHONY: demo dev emulate test lint audit sbom clean install

demo: $(VENV)/.installed
	$(BIN)/penumo demo

dev: $(VENV)/.installed
	$(BIN)/python -c "from penumo_assets.instance import dagster_home; dagster_home()"
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/dg dev

# AWS on loopback, without an account: S3, CloudWatch Logs, and SageMaker jobs that run for real as subprocesses.
emulate: $(VENV)/.installed
	$(BIN)/python -m penumo_assets_tests.aws.emulator --write .penumo/emulator.env

test: $(VENV)/.installed
	$(BIN)/pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Known vulnerabilities of the locked packages, by a public database; the auditor has an environment of its own.
audit:
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --requirement tools/supply_chain/requirements.txt
	build/audit/bin/python tools/supply_chain/audit.py constraints.txt

# What the lock consists of, with versions and licences: build/sbom.cdx.json, CycloneDX.
sbom: $(VENV)/.installed
	$(BIN)/python tools/supply_chain/sbom.py constraints.txt build/sbom.cdx.json

install: $(VENV)/.installed

# Every package by its exact version, from one file: nothing is left for a resolver to choose.
$(VENV)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed' if sys.version_info < (3, 11) else 0)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

clean:
	rm -rf $(VENV) .penumo build *.egg-info
