"""`dudi stack demo`: MT-LLM against its rivals on small models of the package, offline, on a laptop."""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dudi.errors import ConfigError

if TYPE_CHECKING:
    from dudi.stacking.miniature.contest import Budget, Score

ATTENTIONS = ("bidirectional", "causal")
INTRODUCTION = """\
A translator of eight languages is stacked under a small LLM that has read English alone.
Nothing is downloaded. Each system learns two tasks from English rows and is asked in
seven other languages, about countries that no training row names:
  region: in which part of the world does the sentence play?
  choice: which of four answers is right? (place, money or language of a country)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of `dudi stack demo`."""
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N-1 (default: 1)")
    parser.add_argument("--attention", choices=(*ATTENTIONS, "both"), default="both", help="of the LLM (default: both)")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes, a thread each (default: 2)")
    parser.add_argument(
        "--quick", action="store_true", help="a few steps and rows: to see that it runs, not what it says"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="write mtllm.md and mtllm.json there")


def run(given: argparse.Namespace) -> int:
    """Run the contest and print its tables.

    Raises:
        ConfigError: a number below 1.
    """
    for name in ("seeds", "jobs"):
        if vars(given)[name] < 1:
            raise ConfigError(f"dudi stack demo: --{name} must be at least 1, got {vars(given)[name]}")
    from dudi.stacking.miniature.contest import Budget
    from dudi.stacking.miniature.page import page
    from dudi.stacking.miniature.results import terminal

    budget = quick() if given.quick else Budget()
    attentions = ATTENTIONS if given.attention == "both" else (given.attention,)
    _say(INTRODUCTION)
    started = time.perf_counter()
    found = contest(attentions, given.seeds, given.jobs, budget)
    _say(terminal(found.scores, colour=sys.stdout.isatty()))
    _say(speed(found))
    _say(f"{time.perf_counter() - started:.0f} s in all.")
    if given.output is not None:
        given.output.mkdir(parents=True, exist_ok=True)
        (given.output / "mtllm.md").write_text(page(found), encoding="utf-8")
        text = json.dumps(dataclasses.asdict(found), ensure_ascii=False, indent=1)
        (given.output / "mtllm.json").write_text(text + "\n", encoding="utf-8")
        _say(f"Written: {given.output / 'mtllm.md'}, {given.output / 'mtllm.json'}")
    return 0


@dataclasses.dataclass
class Found:
    """What a run of the demo found.

    Attributes:
        budget: How long each part learned.
        seeds: How many.
        scores: Of each system, task, language and side of the split.
        probes: FVU and cosine per kind of attention and language, before (`untrained`) and after Stage 1, seed 0.
        seconds: Wall time for one test row: `translate` and `mtllm`.
        chrf: Of the translator, per language, on the test sentences of named countries.
    """

    budget: Budget
    seeds: int
    scores: list[Score]
    probes: dict[str, dict[str, dict[str, float]]]
    seconds: dict[str, float]
    chrf: dict[str, float]


def quick() -> Budget:
    """A few steps and rows."""
    from dudi.stacking.miniature.contest import Budget

    return Budget(align_steps=4, align_batch=8, task_steps=3, task_batch=4, tests=4, beams=2)


def contest(attentions: Sequence[str], seeds: int, jobs: int, budget: Budget) -> Found:
    """Translate the tests once, then run each seed and kind of attention in a process of its own.

    Args:
        attentions: Of the LLM.
        seeds: 0 to seeds - 1.
        jobs: Processes at a time, of one thread each.
        budget: How long each part learns.
    """
    with tempfile.TemporaryDirectory(prefix="dudi-stack-") as name:
        folder = Path(name)
        english_of = _alone(_translations, budget)
        chrf, seconds = _alone(_quality, english_of, budget), _alone(_seconds, budget)
        work: list[tuple[Any, ...]] = [
            (kind, attention, seed, budget, english_of, folder)
            for seed in range(seeds)
            for kind, attention in (*(("stack", attention) for attention in attentions), ("encoder", ""))
        ]
        scores, probes = [], {}
        with _pool(jobs) as pool:
            for part, own, probed in pool.imap_unordered(_one, work):
                _say(f"  {part}: done")
                scores += own
                probes |= probed
    scores.sort(
        key=lambda score: (score.seed, score.attention, score.system, score.task, score.language, score.parallel)
    )
    return Found(budget, seeds, scores, probes, seconds, chrf)


def _pool(jobs: int) -> Any:
    return multiprocessing.get_context("spawn").Pool(jobs, initializer=_start, maxtasksperchild=1)


def _start() -> None:
    """One thread a process: the same bits on the same machine, and no two that fight for a core."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from dudi.run import quiet_libraries

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    quiet_libraries()


def _alone(call: Callable[..., Any], *words: Any) -> Any:
    with _pool(1) as pool:
        return pool.apply(call, words)


def _translations(budget: Budget) -> dict[tuple[str, str], str]:
    from dudi.stacking.miniature.contest import translations

    return translations(budget)


def _quality(english_of: dict[tuple[str, str], str], budget: Budget) -> dict[str, float]:
    from dudi.stacking.miniature.speed import translation_quality

    return translation_quality(english_of, budget)


def _seconds(budget: Budget) -> dict[str, float]:
    from dudi.stacking.miniature.speed import seconds_per_row

    return seconds_per_row(budget)


def _one(work: tuple[Any, ...]) -> tuple[str, list[Score], dict[str, dict[str, dict[str, float]]]]:
    from dudi.stacking.miniature.contest import Contest
    from dudi.stacking.miniature.tasks import TASKS

    kind, attention, seed, budget, english_of, folder = work
    one = Contest(attention or "causal", seed, budget, folder)
    if kind == "encoder":
        return f"encoder alone, seed {seed}", [score for task in TASKS for score in one.run_encoder(task)], {}
    probes = {f"{attention}, untrained": one.probe(one.stack), f"{attention}, aligned": one.align()}
    scores = [score for task in TASKS for score in one.run(task, english_of)]
    return f"{attention} LLM, seed {seed}", scores, probes if seed == 0 else {}


def speed(found: Found) -> str:
    """One line about time."""
    translate, stacked = found.seconds["translate"], found.seconds["mtllm"]
    return (
        f"One test sentence takes translate-test {1000 * translate:.1f} ms and MT-LLM {1000 * stacked:.1f} ms "
        f"({translate / stacked:.0f} times less): it decodes nothing."
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
