"""Runs in SEA-HELM's own interpreter, its checkout as working directory: one run of SEA-HELM over chosen tasks.

    PYTHON inside.py check                 # import SEA-HELM, print its versions as JSON
    PYTHON inside.py run REQUEST.json      # keys: see `dudi.evaluation.seahelm.driver`

SEA-HELM's command line knows sets of tasks only; its class takes another file of sets, which is what this needs.
Nothing of `dudi` is imported: it need not be installed there.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.machinery
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
import types
from pathlib import Path
from typing import Any

STAND_INS: dict[str, tuple[str, ...]] = {
    "vllm": ("distributed", "inputs", "reasoning", "v1", "v1.engine", "v1.engine.exceptions"),
    "open_clip": (),
}
"""Packages that SEA-HELM imports at start, and that a run against a server never calls."""
RECORDED = ("torch", "transformers", "datasets", "openai", "omegaconf", "pandas", "scikit-learn", "sacrebleu", "vllm")
PATIENCE = 120.0


class _StandIn(types.ModuleType):
    """A module in which every name is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (Exception,), {"__annotations__": {}, "__module__": self.__name__})
        setattr(self, name, made)
        return made


def stand_in() -> list[str]:
    """Put empty modules where packages are missing that only in-process models and judges need.

    Returns:
        The packages that were missing.
    """
    missing = [name for name in STAND_INS if importlib.util.find_spec(name) is None]
    for package in missing:
        for name in (package, *(f"{package}.{inner}" for inner in STAND_INS[package])):
            module = _StandIn(name)
            module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
            module.__path__ = []
            sys.modules[name] = module
    return missing


def check() -> None:
    """Import SEA-HELM and print what it runs on."""
    missing = stand_in()
    importlib.import_module("src.seahelm_evaluation")
    versions = {"python": platform.python_version()}
    for name in RECORDED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    sys.stdout.write("\n" + json.dumps({"versions": versions, "without": missing}) + "\n")


def evaluate(request: dict[str, Any]) -> None:
    """What SEA-HELM's own command line does, with our file of tasks.

    Args:
        request: Of `driver.request`.
    """
    stand_in()
    setup_root_logger = importlib.import_module("src.base_logger").setup_root_logger
    get_serving_class = importlib.import_module("src.serving").get_serving_class
    evaluation = importlib.import_module("src.seahelm_evaluation").SeaHelmEvaluation
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
        api_key=request["api_key"],
        max_workers=request["max_workers"],
    )
    # Called before a judge of SEA-HELM's own is loaded. The judge wants the memory that our server holds.
    llm.cleanup = lambda: release(Path(request["released"]), Path(request["stopped"]))
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


def release(released: Path, stopped: Path) -> None:
    """Say that the model's server is no longer needed, and wait until it has been stopped."""
    released.touch()
    deadline = time.monotonic() + PATIENCE
    while not stopped.exists() and time.monotonic() < deadline:
        time.sleep(0.2)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("check", "run"))
    parser.add_argument("request", type=Path, nargs="?")
    given = parser.parse_args()
    if given.what == "check":
        return check()
    return evaluate(json.loads(given.request.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.path[0] = os.getcwd()  # the checkout; our folder's modules are not SEA-HELM's to see
    main()
