"""The contest over seeds and kinds of attention: each in a process of its own, with one thread."""

from __future__ import annotations

import dataclasses
import multiprocessing
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dudi.command import say
from dudi.environment import quiet_libraries
from dudi.stacking.miniature.contest import Budget, Contest, Score, translations
from dudi.stacking.miniature.speed import seconds_per_row, translation_quality
from dudi.stacking.miniature.tasks import TASKS

Probes = dict[str, dict[str, dict[str, float]]]
"""FVU and cosine of a stack, by its name and by language."""


@dataclasses.dataclass
class Found:
    """What the contest found.

    Attributes:
        budget: How long each part learned.
        seeds: How many.
        scores: Of each system, task, language and side of the split.
        probes: Of the stacks of seed 0, before and after Stage 1.
        seconds: Wall time for one test row: `translate` and `mtllm`.
        quality: Of the translations, per language: `exact` in % and `chrf`.
    """

    budget: Budget
    seeds: int
    scores: list[Score]
    probes: Probes
    seconds: dict[str, float]
    quality: dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Work:
    """The work of one process; no attention: the encoder alone."""

    attention: str
    seed: int
    budget: Budget
    english_of: dict[tuple[str, str], str]
    folder: Path

    @property
    def title(self) -> str:
        """For a person."""
        return f"{self.attention + ' LLM' if self.attention else 'encoder alone'}, seed {self.seed}"


def contest(attentions: Sequence[str], seeds: int, jobs: int, budget: Budget) -> Found:
    """Translate the tests once, then run each seed and kind of attention.

    Args:
        attentions: Of the LLM.
        seeds: 0 to seeds - 1.
        jobs: Processes at a time.
        budget: How long each part learns.
    """
    english_of = _alone(translations, budget)
    quality, seconds = translation_quality(english_of, budget), _alone(seconds_per_row, budget)
    say(f"  translated: {len(english_of)} texts of the tests")
    scores: list[Score] = []
    probes: Probes = {}
    with tempfile.TemporaryDirectory(prefix="dudi-stack-") as name, _pool(jobs) as pool:
        work = [
            Work(attention, seed, budget, english_of, Path(name))
            for seed in range(seeds)
            for attention in (*attentions, "")
        ]
        for title, own, probed in pool.imap_unordered(_one, work):
            say(f"  learned and asked: {title}")
            scores, probes = scores + own, probes | probed
    scores.sort(key=lambda score: dataclasses.astuple(score))
    return Found(budget, seeds, scores, dict(sorted(probes.items(), reverse=True)), seconds, quality)


def _pool(jobs: int) -> Any:
    return multiprocessing.get_context("spawn").Pool(jobs, initializer=_start, maxtasksperchild=1)


def _start() -> None:
    """One thread a process: the same bits on the same machine, and no two that fight for a core."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    quiet_libraries()


def _alone(call: Callable[[Budget], Any], budget: Budget) -> Any:
    with _pool(1) as pool:
        return pool.apply(call, (budget,))


def _one(work: Work) -> tuple[str, list[Score], Probes]:
    one = Contest(work.attention or "causal", work.seed, work.budget, work.folder)
    if not work.attention:
        return work.title, [score for task in TASKS for score in one.run_encoder(task)], {}
    probes = {f"{work.attention}, untrained": one.probe(one.stack), f"{work.attention}, Stage 1": one.align()}
    scores = [score for task in TASKS for score in one.run(task, work.english_of)]
    return work.title, scores, probes if work.seed == 0 else {}
