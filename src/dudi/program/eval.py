"""`dudi eval`: a model's answers to a benchmark, scored and kept."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import sys
import time
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dudi.comparison.comparability import differences
from dudi.errors import ConfigError
from dudi.evaluation.evaluate import evaluate
from dudi.evaluation.records import FILE, Evaluation, Run, read_evaluation, write_evaluation
from dudi.program.eval_options import (
    FOLDER,
    SEAHELM,
    check_numbers,
    decoding_of,
    questions_of,
    seahelm_command,
    seeds_of,
    source_of,
)

if TYPE_CHECKING:
    from dudi.data.chat import ChatFormat
    from dudi.evaluation.asking import Decoding
    from dudi.evaluation.benchmark import Answered
    from dudi.evaluation.question_files import Asked
    from dudi.evaluation.source import Source


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
    from dudi.environment import quiet_libraries
    from dudi.evaluation.summary import evaluation_tables

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
    from dudi.files import atomic_file

    with atomic_file(folder / ANSWERS) as temporary, temporary.open("w", encoding="utf-8") as out:
        for one in answered:
            out.write(json.dumps(dataclasses.asdict(one), ensure_ascii=False) + "\n")
    write_evaluation(result, folder)


def _settle(asked: Asked, folder: Path, max_share: float) -> None:
    """Write and show the rejected rows of a file.

    Raises:
        DataError: they are too many.
    """
    if asked.rejections.settle(folder / REJECTED):
        sys.stderr.write("".join(f"{line}\n" for line in asked.rejections.summary()))
    asked.rejections.check_share(asked.total, max_share)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}}
