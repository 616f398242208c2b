"""`dudi eval`: a model's answers to the built-in benchmark or to a file of questions, over one or several seeds."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dudi.errors import ConfigError
from dudi.evaluation.comparability import differences
from dudi.evaluation.eval_options import (
    BATCH_SIZE,
    FOLDER,
    SEAHELM,
    add_arguments,
    check_numbers,
    decoding_of,
    questions_of,
    seahelm_command,
    seeds_of,
    source_of,
)
from dudi.evaluation.records import FILE, Evaluation, Run, read_evaluation, write_evaluation

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dudi.data.chat import ChatFormat
    from dudi.evaluation.asking import Decoding
    from dudi.evaluation.benchmark import Answered, Item
    from dudi.evaluation.question_files import Asked
    from dudi.evaluation.source import Source

__all__ = ["add_arguments", "evaluate", "run"]

ANSWERS, REJECTED = "answers.jsonl", "rejected.jsonl"
_PACKAGES = ("dudi", "torch", "transformers", "sacrebleu", "py3langid")


def run(given: argparse.Namespace) -> int:
    """`dudi eval`.

    Returns:
        The exit code.

    Raises:
        DudiError: with the exit code that belongs to it.
    """
    if given.benchmark == SEAHELM:
        seahelm = seahelm_command()
        if seahelm is None:
            raise ConfigError("dudi eval: this version of dudi does not drive SEA-HELM")
        return int(seahelm.run(given))
    from dudi.command import say
    from dudi.evaluation.summary import evaluation_tables
    from dudi.run import quiet_libraries

    check_numbers(given)
    seeds, decoding = seeds_of(given), decoding_of(given)
    decoding.check_seeds(seeds)
    quiet_libraries()
    source = source_of(given)
    chat = source.chat()
    asked = questions_of(given, source)
    folder = given.output or FOLDER / source.name.replace("/", "-")
    planned = Evaluation(
        name=source.name,
        model=source.model,
        benchmark=asked.benchmark | {"decoding": decoding.described()},
        runs=tuple(Run(seed, {}) for seed in seeds),
        about={"subject": source.identity(chat)},
    )
    colour = sys.stdout.isatty()
    finished = None if given.force else finished_evaluation(folder, planned)
    if finished is not None:
        table = evaluation_tables(finished, colour=colour)
        return say(f"{table}\n\n{folder} holds this evaluation; --force runs it again")
    _settle(asked, folder, given.max_rejected_share)
    result, answered = _carry_out(source, chat, asked, planned, decoding, given.batch_size)
    _write(folder, result, answered)
    return say(f"{evaluation_tables(result, colour=colour)}\n\n{folder / FILE}\n{folder / ANSWERS}")


def evaluate(
    model: PreTrainedModel,
    chat: ChatFormat,
    items: Sequence[Item],
    decoding: Decoding,
    *,
    name: str,
    model_name: str,
    benchmark: Mapping[str, Any],
    seeds: Sequence[int] = (0,),
    candidates: Sequence[str] | None = None,
    batch_size: int = BATCH_SIZE,
    keep: Callable[[Answered], None] = lambda answered: None,
    done: Callable[[int], None] = lambda count: None,
) -> Evaluation:
    """Put questions to a model, once for each seed.

    Args:
        model: Any causal language model.
        chat: Its chat format.
        items: What is asked.
        decoding: How answers are decoded.
        name: What tables call the model.
        model_name: Its folder or hub name.
        benchmark: What is asked, for the record; the decoding is added.
        seeds: Of the sampling; with temperature 0 one alone.
        candidates: The languages that an answer can be in; None: all that dudi knows.
        batch_size: Questions that are decoded together; answers do not depend on it.
        keep: Given every answer.
        done: Told how many more questions are through.

    Returns:
        Scores by seed, seeds ascending. `about["guessing"]` has the floor's, where it is known.

    Raises:
        ConfigError: seeds that greedy decoding cannot tell apart, or an option out of its range.
    """
    from dudi.evaluation.benchmark import put
    from dudi.evaluation.summary import FLOOR, summarise
    from dudi.languages import load_languages

    decoding.check_seeds(seeds)
    bits: dict[str, float] | None = None
    runs: list[Run] = []
    guessing = None
    for seed in sorted(seeds):
        answered = put(
            "model",
            model,
            chat,
            items,
            decoding,
            seed=seed,
            candidates=sorted(load_languages()) if candidates is None else candidates,
            batch_size=batch_size,
            bits=bits,
            done=done,
        )
        bits = {one.id: one.bits for one in answered}
        summary = summarise(answered)
        guessing = summary.get(FLOOR)
        runs.append(Run(seed, summary["model"]))
        for one in answered:
            keep(dataclasses.replace(one, subject=name))
    how = {**benchmark, "decoding": decoding.described()}
    return Evaluation(name, model_name, how, tuple(runs), {"guessing": guessing} if guessing else {})


def finished_evaluation(folder: Path, planned: Evaluation) -> Evaluation | None:
    """What a folder holds already, when it is what would be done again.

    Args:
        folder: Where the results would go.
        planned: What would be done: its seeds, without scores.

    Raises:
        ConfigError: the folder holds another evaluation; the message says what differs.
    """
    if not (folder / FILE).is_file():
        return None
    there = read_evaluation(folder / FILE)
    old, new = (
        dataclasses.replace(one, name=word, benchmark=_identity(one))
        for one, word in ((there, "the folder"), (planned, "this command"))
    )
    found = differences(old, new)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise ConfigError(
            f"{folder} holds another evaluation: {found[0].text}{more}; use another --output, or --force to replace it"
        )
    return there


def _identity(one: Evaluation) -> dict[str, Any]:
    """What an evaluation is, seeds aside: the questions, the decoding, and who is asked."""
    return {**one.benchmark, "called": one.name, "model": one.model, **one.about.get("subject", {})}


def _carry_out(
    source: Source, chat: ChatFormat, asked: Asked, planned: Evaluation, decoding: Decoding, batch_size: int
) -> tuple[Evaluation, list[Answered]]:
    """Load the model and ask it, with a bar."""
    from dudi.evaluation.bar import progress_bar

    model = source.load()
    answered: list[Answered] = []
    total, started = len(asked.items) * len(planned.runs), time.monotonic()
    with progress_bar(total) as bar:
        task = bar.add_task(f"asking: {source.name}", total=total)
        if bar.disable:
            sys.stderr.write(f"asking: {source.name}, {total} questions\n")
        result = evaluate(
            model,
            chat,
            asked.items,
            decoding,
            name=planned.name,
            model_name=planned.model,
            benchmark=asked.benchmark,
            seeds=planned.seeds,
            candidates=asked.candidates,
            batch_size=batch_size,
            keep=answered.append,
            done=lambda count: bar.advance(task, count),
        )
    about = {**planned.about, **result.about, "rejected": dict(asked.rejections.counts)}
    about |= {"seconds": round(time.monotonic() - started, 1), "device": str(model.device), "versions": _versions()}
    return dataclasses.replace(result, about=about), answered


def _write(folder: Path, result: Evaluation, answered: Iterable[Answered]) -> None:
    """The answers, and then the scores: a folder with scores is whole."""
    from dudi.data.files import atomic_file

    with atomic_file(folder / ANSWERS) as temporary, temporary.open("w", encoding="utf-8") as out:
        for one in answered:
            out.write(json.dumps(dataclasses.asdict(one), ensure_ascii=False) + "\n")
    write_evaluation(result, folder)


def _settle(asked: Asked, folder: Path, max_share: float) -> None:
    """Write and show the rejected rows of a file.

    Raises:
        DataError: they are too many.
    """
    if len(asked.rejections):
        asked.rejections.write(folder / REJECTED)
        sys.stderr.write("".join(f"{line}\n" for line in asked.rejections.summary()))
    asked.rejections.check_share(asked.total, max_share)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}
