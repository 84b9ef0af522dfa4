# `make run` and `make test` do everything. Each command makes the virtual environment that it needs.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help run test lint docs studies versions vllm-test

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	@touch $@

run: $(VENV)/installed ## compare IVC-Prune with its baselines on the packaged model
	$(BIN)/python run.py pruner=none hydra.run.dir=outputs/none
	$(BIN)/python run.py -m +experiment=compare
	$(BIN)/python run.py -m +experiment=matched
	$(BIN)/python -m ivcp.report outputs/none outputs/compare outputs/matched --out outputs/report

test: $(VENV)/installed ## run the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(VENV)/installed ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

studies: $(VENV)/installed ## run the six studies of experiments/ on both packaged models, or go on with them
	PATH="$(abspath $(BIN)):$$PATH" bash experiments/studies.sh

versions: $(VENV)/installed ## run the tests of the engine with older versions of transformers
	PYTHON=$(BIN)/python tests/versions.sh

vllm-test: ## run the tests of the vLLM plug-in, in an environment of its own
	PYTHON=$(PYTHON) tests/serving/run.sh

docs: $(VENV)/installed ## build the documentation into site/
	$(BIN)/mkdocs build --strict
