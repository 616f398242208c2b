"""Runs in SEA-HELM's own interpreter, its checkout as working directory: one run of SEA-HELM over chosen tasks.

    PYTHON inside.py REQUEST.json      # keys: see `SeaHelm._drive` in evaluate.py

SEA-HELM's command line knows sets of tasks only; its class takes another file of sets, which is what this needs.
Nothing of `dudi` is imported: it need not be installed there.
"""

from __future__ import annotations

import datetime
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import types
from pathlib import Path
from typing import Any

STAND_INS: dict[str, tuple[str, ...]] = {
    "vllm": ("distributed", "inputs", "reasoning", "v1", "v1.engine", "v1.engine.exceptions"),
    "open_clip": (),
}
"""Packages that SEA-HELM imports at start, and that a run against a server never calls."""
RECORDED = ("torch", "transformers", "datasets", "openai", "omegaconf", "pandas", "scikit-learn", "sacrebleu", "vllm")


class _StandIn(types.ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (Exception,), {"__annotations__": {}, "__module__": self.__name__})
        setattr(self, name, made)
        return made


def stand_in() -> list[str]:
    """Put empty modules where packages are missing that only in-process models and judges need; returns which."""
    missing = [name for name in STAND_INS if importlib.util.find_spec(name) is None]
    for package in missing:
        for name in (package, *(f"{package}.{inner}" for inner in STAND_INS[package])):
            module = _StandIn(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
            module.__path__ = []
            sys.modules[name] = module
    return missing


def evaluate(request: dict[str, Any]) -> None:
    """What SEA-HELM's own command line does, with our file of tasks."""
    installed = {str(one.metadata["Name"]).lower(): one.version for one in importlib.metadata.distributions()}
    versions = {name: installed[name] for name in RECORDED if name in installed}
    facts = {"versions": {"python": platform.python_version(), **versions}, "without": stand_in()}
    setup_root_logger = importlib.import_module("src.base_logger").setup_root_logger
    get_serving_class = importlib.import_module("src.serving").get_serving_class
    evaluation = importlib.import_module("src.seahelm_evaluation").SeaHelmEvaluation
    Path(request["facts"]).write_text(json.dumps(facts), encoding="utf-8")
    output, model, run = request["output_dir"], request["model_name"], request["run"]
    started = datetime.datetime.now().isoformat()
    evaluation.create_seahelm_run_folders(output_dir=output, model_name=model, run_number=run)
    setup_root_logger(filepath=str(Path(output) / os.path.basename(model) / f"run_{run}/logs/logfile_{started}.log"))
    llm = get_serving_class(
        model_type="local_openai",
        model_name=model,
        is_base_model=False,
        seed=request["seed"],
        base_url=request["base_url"],
        api_key="none",
        max_workers=request["max_workers"],
    )
    llm.cleanup = lambda: None  # it would end a model of its own before a judge is loaded
    evaluation(
        llm,
        request["set"],
        output,
        model,
        task_config_file=request["tasks_file"],
        skip_task=[],
        limit=request["limit"],
        seed=request["seed"],
        no_batching=False,
        tokenize_prompts=False,
        run_number=run,
        datetime=started,
    ).run_evaluation(llm=llm, use_cached_results=True)


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # the checkout; our folder's modules are not SEA-HELM's to see
    evaluate(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
