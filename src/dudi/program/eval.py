"""`dudi eval`: a model's answers to benchmarks, scored and kept."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dudi.command import say
from dudi.comparison.same import differences
from dudi.data.chat import ChatFormat
from dudi.environment import quiet_libraries
from dudi.errors import ConfigError
from dudi.evaluation.benchmarks import SERVED, check_name, choose, find
from dudi.evaluation.entry import Asked, Preview
from dudi.evaluation.evaluate import Subject, evaluate
from dudi.evaluation.records import ANSWERS, FILE, Evaluation, SeedScores, keep_evaluations, place_of, read_evaluations
from dudi.evaluation.tables import evaluation_tables
from dudi.files import json_text
from dudi.program.eval_options import FOLDER, benchmarks_of, check_numbers, seeds_of, source_of, unread, wanted_of
from dudi.program.lm_eval import listed, settle_model
from dudi.program.seahelm_options import seahelm_arguments

REJECTED = "rejected.jsonl"


def run(given: argparse.Namespace) -> int:
    """`dudi eval`.

    Returns:
        The exit code.

    Raises:
        DudiError: with the exit code that belongs to it.
    """
    names = benchmarks_of(given)
    for name in names:
        check_name(name)
    if (listing := listed(names, given.tasks)) is not None:
        return say(listing)
    settle_model(given)
    if served := [name for name in names if find(name).served]:
        from dudi.program import seahelm

        if len(names) > 1:
            raise ConfigError(f"--benchmark {served[0]} asks a server: give it a command of its own")
        return seahelm.run(given)
    if word := unread(given, ("limit",), seahelm_arguments):
        raise ConfigError(f"{word}: only --benchmark {SERVED} reads it")
    check_numbers(given)
    quiet_libraries()
    source, seeds = source_of(given), seeds_of(given)
    wanted = wanted_of(given, source.trained)
    plain = all(find(name).plain for name in names) and not wanted.options.get("apply_chat_template")
    subject = source.subject(template=not plain)
    folder = given.output or FOLDER / source.name.replace("/", "-")
    there = read_evaluations(folder / FILE) if (folder / FILE).is_file() and not given.force else []
    shown: dict[tuple[str, str], Evaluation | None] = {}
    everything: list[Asked] = []
    left: list[Asked] = []
    for name in names:
        asked = choose(name, wanted)
        asked.check_seeds(seeds)
        everything.append(asked)
        planned = Evaluation(
            source.name, subject.model, asked.benchmark, tuple(SeedScores(seed, {}) for seed in seeds), subject.about
        )
        if place_of(planned) in shown:
            raise ConfigError(f"--benchmark {name}: two of them are called '{place_of(planned)[0]}'; rename a file")
        shown[place_of(planned)] = finished_evaluation(folder, there, planned)
        left += [asked] if shown[place_of(planned)] is None else []
    if given.write_out:
        chat = source.chat(template=not plain)
        say("\n\n".join(_shown(one) for asked in everything for one in asked.previews(chat, seeds[0])) + "\n")
    new = _ask(subject, left, seeds, folder, given.max_rejected_share) if left else []
    shown |= {place_of(one): one for one in new}
    colour = sys.stdout.isatty()
    tables = [evaluation_tables(one, colour=colour) for one in shown.values() if one is not None]
    tables += [json_text(asked.configuration) for asked in everything] if given.show_config else []
    end = f"{folder / FILE}\n{folder / ANSWERS}"
    return say("\n\n".join([*tables, end if left else f"{folder} holds this evaluation; --force runs it again"]))


def _shown(preview: Preview) -> str:
    """A question for people to read, as it is sent: a prompt's last space or line shows."""
    return f"--- {preview.name}: the first prompt, up to |\n{preview.prompt}|\n--- right: {preview.reference}"


def finished_evaluation(folder: Path, there: Sequence[Evaluation], planned: Evaluation) -> Evaluation | None:
    """What a folder holds already of what would be done.

    Args:
        folder: Where the results would go.
        there: What it holds.
        planned: What would be done: its seeds, without scores.

    Raises:
        ConfigError: the folder holds another model, or the same benchmark asked in another way; the message says what
            differs.
    """
    for old in there:
        same = old.benchmark.get("name") == planned.benchmark.get("name")
        pair = ((old, "the folder"), (planned, "this command"))
        whole = [dataclasses.replace(one, name=word, benchmark=_identity(one, same)) for one, word in pair]
        if found := differences(whole[0], whole[1], seeds=same):
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise ConfigError(
                f"{folder} holds another evaluation: {found[0].text}{more}; use another --output, or --force to "
                "replace it"
            )
        if same:
            return old
    return None


def _identity(one: Evaluation, questions: bool) -> dict[str, Any]:
    """What an evaluation is, seeds aside: who is asked, and the questions and the decoding."""
    who = {"called": one.name, "model": one.model, **one.about.get("subject", {})}
    return {**(one.benchmark if questions else {}), **who}


def _ask(
    subject: Subject[ChatFormat], asked: Sequence[Asked], seeds: Sequence[int], folder: Path, max_share: float
) -> list[Evaluation]:
    """Ask, and keep what was answered beside what the folder holds of other benchmarks."""
    for one in asked:
        sys.stderr.write("".join(f"{line}\n" for line in one.settle(folder / REJECTED, max_share)))
    found, answers = evaluate([subject], asked, seeds)
    keep_evaluations(found, answers, folder, stays=lambda old: _identity(old, False) == _identity(found[0], False))
    return found
