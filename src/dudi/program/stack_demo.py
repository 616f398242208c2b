"""`dudi stack demo`: MT-LLM against its rivals on small models of the package, offline, as a study of stacks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dudi.command import say
from dudi.config.recipe_files import STUDIES, recipes_folder
from dudi.program.study import RUNS, run_arguments, run_studies
from dudi.stacking.miniature.rows import write_rows
from dudi.study.grid import Study, read_study
from dudi.study.stack_worker import StackVerbs

ROWS = Path("data/stack")
"""Where the recipes of the miniature look for its rows."""
FILES = {"bidirectional": "1-miniature.yaml", "causal": "2-causal.yaml"}
QUICK: Mapping[str, Any] = {"max_steps": 3, "per_device_train_batch_size": 4}
QUICK_ALIGN: Mapping[str, Any] = {"start_rows": 32, "probe_rows": 2}
INTRODUCTION = """\
A translator of eight languages is stacked under a small LLM that has read
English alone. Nothing is downloaded. Each system learns from English rows in
which part of the world a sentence plays, and is asked in seven other
languages about other countries.
"""


def run(given: argparse.Namespace, stack_verb: StackVerbs) -> int:
    """Write the rows, run the studies by `stack_verb`, print their tables."""
    if given.rows is not None:
        write_rows(given.rows)
        return say(
            f"Written: the rows of the miniature in {given.rows}. Then:\n"
            f"  dudi stack align stack/mini/align data.train={given.rows}/english.jsonl "
            f"data.parallel={given.rows}/region-test.jsonl\n"
            f"  dudi stack teach stack/mini/region data.train={given.rows}/region-train.jsonl"
        )
    say(INTRODUCTION)
    write_rows(ROWS)
    studies = [_study(name, given) for name in FILES if given.attention in (name, "both")]
    parser = argparse.ArgumentParser()
    run_arguments(parser)
    words = parser.parse_args([], argparse.Namespace(jobs=given.jobs, output=given.output))
    code = run_studies(studies, words, stack_verb)
    say("\n".join(_tables(studies, given.output)))
    return code


def _study(attention: str, given: argparse.Namespace) -> Study:
    study = read_study(recipes_folder() / STUDIES / "stack" / FILES[attention])
    study = study.model_copy(update={"seeds": given.seeds})
    if not given.quick:
        return study
    assert study.asked is not None
    asked = study.asked.model_copy(update={"beams": 1, "max_new_tokens": 4})
    rows = []
    for row in study.rows:
        stages = []
        for stage in row.stages:
            keys = {**stage.keys, **QUICK, **(QUICK_ALIGN if stage.verb == "align" else {})}
            stages.append(stage.model_copy(update={"keys": keys}))
        rows.append(row.model_copy(update={"stages": tuple(stages)}))
    return study.model_copy(update={"rows": tuple(rows), "asked": asked})


def _tables(studies: list[Study], output: Path) -> Iterator[str]:
    """Each study by language and by split, for a terminal."""
    from dudi.comparison.render import render
    from dudi.study.page import comparison
    from dudi.study.results import FILE, collect

    results = collect(studies, RUNS, output / FILE)
    for study in studies:
        yield f"\n{study.title}\n"
        for view in study.views:
            yield render(comparison(study, view, results), "text", colour=sys.stdout.isatty())
