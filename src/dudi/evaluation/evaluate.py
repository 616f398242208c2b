"""The one loop that asks: models, benchmarks, seeds."""

from __future__ import annotations

import dataclasses
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import PreTrainedModel

from dudi.environment import package_version
from dudi.evaluation.entry import Questions
from dudi.evaluation.records import Evaluation

_PACKAGES = ("dudi", "torch", "transformers", "sacrebleu", "py3langid")
Reads = TypeVar("Reads")


@dataclasses.dataclass(frozen=True, slots=True)
class Subject(Generic[Reads]):
    """One of those who answer.

    Attributes:
        name: What tables call it.
        model: Its folder or hub name.
        load: Brings its model, on its device, and what it reads with: its chat format, or a stack's tokenizer.
        role: Who it is in a run, as `Evaluation.subject`.
        about: What is known of it before it is asked.
    """

    name: str
    model: str
    load: Callable[[], tuple[PreTrainedModel, Reads]]
    role: str = ""
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def evaluate(
    subjects: Iterable[Subject[Reads]], asked: Sequence[Questions[Reads]], seeds: Sequence[int] = (0,)
) -> tuple[list[Evaluation], list[dict[str, Any]]]:
    """Ask models, one after the other; a bar on standard error shows how far it is.

    Args:
        subjects: Whom. Each model is loaded when its turn comes.
        asked: What.
        seeds: Of the sampling; with greedy decoding one alone, and of a stack that of its training.

    Returns:
        An evaluation for each subject and benchmark, and every answer as a line of `answers.jsonl`.

    Raises:
        ConfigError: seeds that greedy decoding cannot tell apart.
    """
    for one in asked:
        one.check_seeds(seeds)
    found: list[Evaluation] = []
    answers: list[dict[str, Any]] = []
    everybody, questions = list(subjects), sum(one.total for one in asked) * len(seeds)
    total, console = len(everybody) * questions, Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TimeRemainingColumn())
    # Nothing but the bar; without a terminal, nothing at all.
    with Progress(*columns, console=console, disable=not console.is_terminal or not total) as bar:
        task = bar.add_task("", total=total)
        for subject in everybody:
            words = f"asking: {subject.name}"
            bar.update(task, description=words)
            if bar.disable:
                sys.stderr.write(f"{words}, {questions} questions\n")
            model, reads = subject.load()
            for one in asked:
                started = time.monotonic()
                outcome = one.ask(model, reads, seeds, lambda count: bar.advance(task, count))
                about = {**subject.about, **outcome.about, **_facts(model, time.monotonic() - started)}
                new = Evaluation(subject.name, subject.model, one.benchmark, outcome.runs, about, subject.role)
                who = {"benchmark": new.benchmark.get("name"), "subject": subject.role or subject.name}
                answers += [{**who, **line} for line in outcome.answers]
                found.append(new)
    return found, answers


def _facts(model: PreTrainedModel, seconds: float) -> dict[str, Any]:
    versions = {name: package_version(name) for name in _PACKAGES}
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": round(seconds, 1),
        "device": str(model.device),
        "versions": {"python": platform.python_version()} | versions,
    }
