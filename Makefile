# make demo and make test work on a fresh machine with Python 3.11 or newer; everything else is for development.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo dev dev-demo mlflow mlflow-demo emulate check-aws test test-all test-gpu lint audit sbom clean install

help: ## Show these lines
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do printf '%-20s %s\n' "$$name" "$$what"; done

demo: $(VENV)/.installed ## Run the whole pipeline on drawn phantoms, apart from what is yours
	@$(BIN)/penumo demo

dev: $(VENV)/.installed ## Open Dagster's UI on your data: http://127.0.0.1:3000
	@$(BIN)/penumo dev

dev-demo: $(VENV)/.installed ## Open Dagster's UI on the demo's data
	@$(BIN)/penumo --demo dev

mlflow: $(VENV)/.installed ## Open MLflow's UI on your trainings and models: http://127.0.0.1:5000
	@$(BIN)/penumo mlflow

mlflow-demo: $(VENV)/.installed ## Open MLflow's UI on the demo's
	@$(BIN)/penumo --demo mlflow

emulate: $(VENV)/.installed ## Start AWS on loopback, without an account: S3, logs, and SageMaker jobs that really run
	$(BIN)/python -m penumo_assets_tests.aws.emulator --write .penumo/emulator.env

check-aws: $(VENV)/.installed ## Say what is missing on AWS before a job is paid; reads only
	@$(BIN)/python tools/check_aws.py

# A worker per core, a file of tests at a time. More than four workers would need more memory than most machines have.
PYTEST := $(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: $(VENV)/.installed ## Run the tests of every part: some minutes on two cores
	$(PYTEST) -m "not slow"

test-all: lint ## Lint, then run all tests, with coverage: what must hold of every commit
	$(PYTEST) --cov --cov-report html:build/coverage

test-gpu: $(VENV)/.installed ## On a machine with a GPU, hold its results against the CPU's
	PENUMO_TEST_GPU=1 $(BIN)/pytest -m gpu

lint: $(VENV)/.installed ## Check style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The auditor has an environment of its own.
audit: ## Look the locked packages up in a public database of vulnerabilities
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --requirement tools/supply_chain/requirements.txt
	build/audit/bin/python tools/supply_chain/audit.py constraints.txt

sbom: $(VENV)/.installed ## Write build/sbom.cdx.json: what the lock consists of, with licences
	$(BIN)/python tools/supply_chain/sbom.py constraints.txt build/sbom.cdx.json

install: $(VENV)/.installed ## Set up .venv and .env; the other targets do it when needed

# Every package by its exact version, from one file: nothing is left for a resolver to choose.
$(VENV)/.installed: constraints.txt pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit('Python 3.11 or newer is needed' if sys.version_info < (3, 11) else 0)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python tools/install.py constraints.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/penumo env --write
	@touch $@

clean: ## Remove the environment, what was built, and the demo; your own data in .penumo stays
	rm -rf $(VENV) .penumo/demo build *.egg-info
