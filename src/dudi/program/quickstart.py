"""`dudi quickstart`: the whole way on one computer, offline, told to a person who sees it for the first time."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dudi.command import say
from dudi.distill.run import default_output
from dudi.objective.methods import METHODS
from dudi.plan.out_of_memory import explained_out_of_memory
from dudi.program.train import train

if TYPE_CHECKING:
    from dudi.distill.recipe import RunConfig

RECIPE = "mini/dudi"
SHOWN = ("en", "id", "my")
"""Languages whose first row is shown: one that most people read, and two of the student's."""


def quickstart(*, overrides: Sequence[str] = (), output: Path | None = None) -> int:
    """Run the recipe `mini/dudi`, and say before what will happen and afterwards what to do next.

    `overrides` are as for `dudi train`; the run's folder is `runs/NAME` when none is given. Returns the exit code.
    """
    from dudi.distill.recipe import load_run_config

    config = load_run_config(RECIPE, overrides)
    say(introduction(config))
    with explained_out_of_memory(config):
        code = train(config, resume="auto", output=output, show=SHOWN)
    if code == 0:
        say(next_steps(config, default_output(config) if output is None else output))
    return code


def introduction(config: RunConfig) -> str:
    """What is about to happen, in a few lines."""
    method, cold = config.method, config.settings["cold_start"] != "none"
    own = config.student.model.startswith("package:dudi/mini") and config.origin("data.train") == "recipe"
    lines = ["A small student learns from a larger teacher. Nothing is downloaded."]
    if own:
        lines.append("The teacher knows the world's currencies and official languages, in eight")
        lines.append("languages. The student knows the names of countries, currencies and languages.")
    steps = [f"{method.upper()}: {METHODS[method].title}"]
    if cold:
        reads = "most of the facts, each in three languages" if own else "the rows as they are"
        steps.insert(0, f"cold start: the student reads {reads}")
    if config.benchmark is not None:
        steps.append("the same questions to the student before and after, and to its teacher")
    return "\n".join([*lines, *(f"  {number}. {step}" for number, step in enumerate(steps, start=1)), ""])


def next_steps(config: RunConfig, folder: Path) -> str:
    """Three commands: another method, one's own data, one's own models."""
    others = [name for name in METHODS if name != config.method]
    other = "gkd" if config.method != "gkd" else "dudi"
    place = shlex.quote(str(folder))
    return f"""Open {place}/report.html in a browser. Then:
  dudi quickstart --method {other}
      another method: {", ".join(others)}
  dudi quickstart data.train=rows.jsonl benchmark=null
      your own rows; from a CSV file: dudi prepare convert MY.csv rows.jsonl
  dudi train table2/dudi --dry-run
      your own models: student=NAME teacher=NAME; look before you train"""
