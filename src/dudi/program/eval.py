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
from dudi.environment import quiet_libraries
from dudi.errors import ConfigError
from dudi.evaluation.benchmarks import DEFAULT, SERVED, check_name, choose, find
from dudi.evaluation.entry import Asked
from dudi.evaluation.evaluate import evaluate
from dudi.evaluation.records import ANSWERS, FILE, Evaluation, SeedScores, evaluations_in, keep_evaluations, place_of
from dudi.evaluation.tables import evaluation_tables
from dudi.files import json_text
from dudi.program.eval_options import FOLDER, check_numbers, seeds_of, source_of, unread, wanted_of
from dudi.program.lm_eval import listed, settle_model
from dudi.program.seahelm_options import seahelm_arguments

REJECTED = "rejected.jsonl"


def run(given: argparse.Namespace) -> int:
    """Ask, score and keep what the words say; print tables."""
    names = given.benchmark = list(dict.fromkeys(given.benchmark or [DEFAULT]))
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
    there = [] if given.force else evaluations_in(folder)
    shown: dict[tuple[str, str], Evaluation | None] = {}
    everything: list[Asked] = []
    left: list[Asked] = []
    unscored = tuple(SeedScores(seed, {}) for seed in seeds)
    for name in names:
        asked = choose(name, wanted)
        asked.check_seeds(seeds)
        everything.append(asked)
        planned = Evaluation(source.name, subject.model, asked.benchmark, unscored, subject.about)
        place = place_of(planned)
        if place in shown:
            raise ConfigError(f"--benchmark {name}: two of them are called '{place[0]}'; rename a file")
        shown[place] = finished_evaluation(folder, there, planned)
        left += [asked] if shown[place] is None else []
    if given.write_out:
        chat = source.chat(template=not plain)
        previews = []
        for sent in (sent for asked in everything for sent in asked.previews(chat, seeds[0])):
            prompt = f"{sent.prompt}|"  # its last space or line shows
            previews.append(f"--- {sent.name}: the first prompt, up to |\n{prompt}\n--- right: {sent.reference}")
        say("\n\n".join(previews))
    for one in left:
        sys.stderr.write("".join(f"{line}\n" for line in one.settle(folder / REJECTED, given.max_rejected_share)))
    if left:
        new, answers = evaluate([subject], left, seeds)
        keep_evaluations(new, answers, folder, stays=lambda old: _identity(old, False) == _identity(new[0], False))
        shown |= {place_of(one): one for one in new}
    colour = sys.stdout.isatty()
    tables = [evaluation_tables(one, colour=colour) for one in shown.values() if one is not None]
    tables += [json_text(asked.configuration) for asked in everything] if given.show_config else []
    end = f"{folder / FILE}\n{folder / ANSWERS}"
    return say("\n\n".join([*tables, end if left else f"{folder} holds this evaluation; --force runs it again"]))


def finished_evaluation(folder: Path, there: Sequence[Evaluation], planned: Evaluation) -> Evaluation | None:
    """What a folder holds already of what would be done, which has its seeds, without scores.

    Raises:
        ConfigError: it holds another model, or the same benchmark asked in another way.
    """
    for old in there:
        same = old.benchmark.get("name") == planned.benchmark.get("name")
        pair = ((old, "the folder"), (planned, "this command"))
        whole = [dataclasses.replace(one, name=word, benchmark=_identity(one, same)) for one, word in pair]
        if found := differences(whole[0], whole[1], seeds=same):
            what = found[0].text + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")
            advice = "use another --output, or --force to replace it"
            raise ConfigError(f"{folder} holds another evaluation: {what}; {advice}")
        if same:
            return old
    return None


def _identity(one: Evaluation, questions: bool) -> dict[str, Any]:
    """What an evaluation is, seeds aside: who is asked, and the questions and the decoding."""
    who = {"called": one.name, "model": one.model, **one.about.get("subject", {})}
    return {**(one.benchmark if questions else {}), **who}
