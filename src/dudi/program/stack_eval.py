"""`dudi stack eval`: systems on rows in many languages, over the seeds of their runs; every answer is kept."""

from __future__ import annotations

import argparse
import dataclasses
import glob
import json
import shlex
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dudi.command import say, words_of
from dudi.comparison.bootstrap import FEWEST_ITEMS, lead
from dudi.comparison.items import answers_by_run
from dudi.comparison.same import SEEDS
from dudi.data.locate import asked_split, note_of
from dudi.data.sources import by_language
from dudi.environment import quiet_libraries
from dudi.errors import ConfigError, DataError, did_you_mean
from dudi.evaluation.metrics import ACCURACY, MACRO_F1, METRICS, OVERALL
from dudi.evaluation.records import FILE, Evaluation, evaluations_in, keep_evaluations, read_evaluations
from dudi.evaluation.source import weights_of
from dudi.models.load import load_tokenizer
from dudi.program.stack import TRANSLATION
from dudi.report import write_model_card, write_report
from dudi.stacking import stored, systems
from dudi.stacking.codes import find_language, nllb_codes, same_language
from dudi.stacking.labelled import LabelledRows
from dudi.stacking.modeling import on_device
from dudi.stacking.reading import first_of_each, read_rows
from dudi.stacking.rows import StackRow, Task
from dudi.stacking.scores import transferred
from dudi.stacking.set_card import CARD
from dudi.stacking.systems import Measured, System
from dudi.stacking.task_sets import SOURCE_LANGUAGE
from dudi.stacking.tokens import Source, language_codes
from dudi.stacking.translation import Translated, translate_rows
from dudi.tables import grid_of, terminal


def run(given: argparse.Namespace) -> int:
    """Evaluate as the words say; print a table, and keep scores and answers.

    A system whose answers to the same rows lie in the folder already is not asked again.
    """
    quiet_libraries()
    complete(given)
    contestants = [system_of(word, given.translate) for word in given.systems]
    named = Counter(one.name for one in contestants)
    if twice := [name for name, count in named.items() if count > 1]:
        raise ConfigError(f"two systems are called '{min(twice)}'; call one NAME=RUN")
    if given.card:
        check_cards(contestants, given.translate)
    asked = _Asking(given)
    for system in contestants:
        asked.measure(system)
    whole = systems.read_measured(asked.output, asked.benchmark)
    if given.card:
        asked.notes += [line for system in contestants for line in put_on_cards(system, whole)]
    say(table(whole, given.source_language))
    for line in [*asked.notes, *told_leads(whole)]:
        say(line)
    say(f"scores   {asked.output}/evaluation.json\nanswers  {asked.output}/answers.jsonl")
    say(f"next     {shlex.join(comparing(asked.output, [one.evaluation for one in whole]))}")
    return 0


def complete(given: argparse.Namespace) -> None:
    """Put in how rows are translated, where nothing was said of it; what was said without `--translate` is refused."""
    for name, value in TRANSLATION.items():
        if getattr(given, name) is None:
            setattr(given, name, value)
        elif given.translate is None:
            raise ConfigError(f"--{name.replace('_', '-')}: is of a translation; name a model with --translate")


def check_cards(contestants: Sequence[System], translate: str | None) -> None:
    """Refuse `--card` where there is no card to put scores on: a system is no run, or reads translations."""
    if translate is not None:
        raise ConfigError("--card: the LLM behind a translator is no model of one run, and has no card")
    for system in contestants:
        for run in system.runs:
            if not (Path(run) / systems.RECIPE).is_file():
                raise ConfigError(f"--card: {run}: is no run of dudi stack, and has no card to put scores on")


def put_on_cards(system: System, measured: Sequence[Measured]) -> list[str]:
    """Put a system's scores into the report and the model card of each of its runs; returns a line for each."""
    own = next(one for one in measured if one.evaluation.name == system.name)
    folders = systems.keep_in_runs(system, own)
    for folder in folders:
        write_report([folder])
    return [f"card     {write_model_card(folder)}" for folder in folders]


def system_of(word: str, translate: str | None) -> System:
    """`RUN`, `NAME=RUN,RUN` or a pattern as a system."""
    name, equals, rest = word.partition("=")
    if not equals or Path(word).exists():
        name, rest = "", word
    runs: list[str] = []
    for part in filter(None, rest.split(",")):
        found = [part] if not glob.has_magic(part) or Path(part).exists() else sorted(glob.glob(part))
        if not found:
            raise ConfigError(f"{part}: no run matches")
        runs += found
    if not runs:
        raise ConfigError(f"{word}: name a run, or NAME=RUN,RUN")
    own = name.strip() or Path(runs[0].rstrip("/")).name
    return System(own if name.strip() or translate is None else f"{own}, translated", tuple(runs))


class _Asking:
    """The rows of one call, read once for each task, and translated once."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.codes = pairs_of(given.code, "--code")
        self.columns = pairs_of(given.column, "--column")
        self.device = device_of(given.device)
        self.name = _name_of(given.rows)
        self.split = asked_split(given.rows, given.split)
        self.output: Path = given.output or Path("runs") / f"eval-{self.name}"
        self.benchmark: Mapping[str, Any] = {}
        self.notes: list[str] = []
        self._labelled: dict[Task, LabelledRows] = {}
        self._translated: dict[Task, Translated] = {}

    def measure(self, system: System) -> None:
        """Ask a system, and keep its scores and answers, where the folder does not hold them."""
        seeds, task = sorted(system.by_seed()), system.task()
        labelled = self.labelled(task)
        about = {"runs": list(system.runs), "subject": self.identity(system)}
        if self.given.translate is not None:
            about["translate"] = self.given.translate
        if not self.given.force and self._is_kept(system.name, seeds, about):
            self.notes.append(f"{self.output} holds the answers of {system.name}; --force asks again")
            return
        translated = self.translated(task)
        labelled = dataclasses.replace(labelled, translated=translated)
        measured = systems.ask(system, labelled, self.device, self.codes, about)
        keep_evaluations([measured.evaluation], measured.answers, self.output)
        self._note(system, measured.evaluation.about, translated)

    def identity(self, system: System) -> dict[str, Any]:
        """What decides a system's answers beside the rows: another one under the same name is asked anew."""
        given = self.given
        weights = [stored.digest_of(run) for run in system.runs]
        found = {"weights": weights, "max_length": given.max_length, "codes": self.codes}
        if given.translate is None:
            return found
        found |= {name: getattr(given, name) for name in ("translate", *TRANSLATION)}
        return found | {"translator": weights_of(given.translate)}

    def _is_kept(self, name: str, seeds: list[int], about: Mapping[str, Any]) -> bool:
        """Whether the folder holds what would be asked, of the very same models."""
        own = (one for one in evaluations_in(self.output) if one.name == name and one.benchmark == self.benchmark)
        return any(one.seeds == seeds and one.about.get("subject") == about["subject"] for one in own)

    def labelled(self, task: Task) -> LabelledRows:
        """The labelled rows, in the languages that are asked for."""
        if task not in self._labelled:
            given = self.given
            rows = read_rows(
                given.rows, task, split=self.split, language=given.language, columns=self.columns, key="--column"
            )
            if not (Path(given.rows) / CARD).is_file() and (note := note_of(given.rows, self.split)):
                self.notes.append(f"note: {note}")
            rows = _chosen(rows, words_of(given.languages))
            if unlabelled := Counter(row.language for row in rows if row.label is None):
                self.notes.append(f"note: {given.rows}: rows without a label were left out: {by_language(unlabelled)}")
            rows = first_of_each((row for row in rows if row.label is not None), given.max_rows)
            if not rows:
                raise DataError(f"{given.rows}: no row has a label")
            self._check_source_language(rows)
            if len({row.language for row in rows}) > 1 and any(row.item is None and not row.has_id for row in rows):
                counted = "rows have no id: the n-th row of each language counts as one item"
                self.notes.append(f"note: {given.rows}: {counted}")
            found = LabelledRows(
                name=self.name, rows=rows, task=task, split=self.split, source_language=given.source_language,
                batch_size=given.batch_size, max_length=given.max_length,
            )  # fmt: skip
            if self.benchmark and self.benchmark != found.benchmark:
                raise ConfigError(f"{given.rows}: the systems were tuned on different tasks, and read other rows of it")
            self.benchmark, self._labelled[task] = found.benchmark, found
        return self._labelled[task]

    def translated(self, task: Task) -> Translated | None:
        """The rows in the target language, where a translator is named."""
        given = self.given
        if given.translate is None:
            return None
        if task not in self._translated:
            tokenizer = load_tokenizer(given.translate)
            languages = language_codes(tokenizer)
            source = Source(tokenizer, {ours: theirs for ours, theirs in self.codes.items() if theirs in languages})
            translator = on_device(systems.open_translator(given.translate), self.device)
            self._translated[task] = translate_rows(
                translator, source, self.labelled(task).rows, given.target, num_beams=given.beams,
                batch_size=given.batch_size, max_length=given.translate_length, max_new_tokens=given.max_new_tokens,
            )  # fmt: skip
            self.notes += [f"note: {code} is translated as {how}" for code, how in source.stand_ins.items()]
        return self._translated[task]

    def _check_source_language(self, rows: Sequence[StackRow]) -> None:
        """Refuse a source language that nobody knows: every language would count as one to transfer to."""
        code = self.given.source_language
        there = list(dict.fromkeys(row.language for row in rows))
        if find_language(code) is None and code not in there:
            raise ConfigError(f"--source-language: no row is in '{code}'{did_you_mean(code, [*there, *nllb_codes()])}")
        if code != SOURCE_LANGUAGE and not any(same_language(code, one) for one in there):
            self.notes.append(f"note: no row is in '{code}': the mean is over all languages ({', '.join(there)})")

    def _note(self, system: System, about: Mapping[str, Any], translated: Translated | None) -> None:
        """What was shortened, cut, or read as another language: said once a system."""
        notes = []
        if shortened := about["shortened"]:
            longer = f"rows longer than {about['max_length']} tokens"
            notes.append(f"note: {system.name}: {longer} were shortened: {by_language(shortened)}")
        if translated is not None and translated.cut:
            longer = f"texts longer than {self.given.translate_length} tokens"
            notes.append(f"note: {longer} were cut for translation: {by_language(translated.cut)}")
        if translated is not None and translated.unfinished:
            longer = f"translations that had not ended after {self.given.max_new_tokens} tokens"
            notes.append(f"note: {longer} were cut (--max-new-tokens): {by_language(translated.unfinished)}")
        notes += [f"note: {code} is read as {how}" for code, how in about["stand_ins"].items()]
        self.notes += [note for note in notes if note not in self.notes]


def _chosen(rows: list[StackRow], languages: Sequence[str] | None) -> list[StackRow]:
    """Rows in the languages that are asked for, by any name of theirs."""
    if not languages:
        return rows
    there = list(dict.fromkeys(row.language for row in rows))
    wanted: set[str] = set()
    for code in languages:
        found = [one for one in there if same_language(one, code)]
        if not found:
            raise ConfigError(f"--languages: no row is in '{code}'{did_you_mean(code, there)}")
        wanted.update(found)
    return [row for row in rows if row.language in wanted]


def _name_of(rows: str) -> str:
    """What the rows are called: as their card says, else by their file or folder."""
    card = Path(rows) / CARD
    if card.is_file():
        try:
            return str(json.loads(card.read_text(encoding="utf-8"))["name"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{card}: is no data card: {error}") from error
    return Path(rows.replace(":", "-")).name.removesuffix(".jsonl").removesuffix(".parquet").replace("*", "all")


# ---- what is said


def table(measured: Sequence[Measured], source_language: str) -> str:
    """Accuracy a language and system in %, mean and standard deviation over seeds; then means, macro F1 and time."""
    evaluations = [one.evaluation for one in measured]
    codes = [str(code) for code in evaluations[0].benchmark["languages"]]
    others = transferred(codes, source_language)
    learned = [code for code in codes if code not in others]
    lines = [(code, _cells(evaluations, ACCURACY, "by_language", code)) for code in [*learned, *others]]
    what = f"mean of {len(others)} without {learned[0]}" if learned else f"mean of {len(others)}"
    lines.append((what, _cells(evaluations, ACCURACY, OVERALL)))
    lines.append((f"{what}, macro F1", _cells(evaluations, MACRO_F1, OVERALL)))
    lines.append(("ms a row", [_spent(one) for one in evaluations]))
    return terminal(grid_of([one.name for one in evaluations], lines, corner="accuracy in %"))


def _cells(evaluations: Sequence[Evaluation], metric: str, *keys: str) -> list[str]:
    cells = []
    for one in evaluations:
        mean, spread = METRICS[metric].shown(one.values(metric, *keys))
        cells.append(mean if spread == "-" else f"{mean} ± {spread}")
    return cells


def _spent(evaluation: Evaluation) -> str:
    seconds = evaluation.about["seconds_per_row"]
    reading = statistics.fmean(one["reading"] for one in seconds)
    translating = statistics.fmean(one["translating"] for one in seconds)
    return f"{1000 * reading:.1f}" + (f" + {1000 * translating:.1f}" if translating else "")


def told_leads(measured: Sequence[Measured]) -> list[str]:
    """The best system against each other, without the language that was learned in: its lead, and whether it is one.

    The intervals, over items and seeds drawn anew, hold together at 95 %.
    """
    if len(measured) < 2:
        return []
    overall = {one.evaluation.name: one.evaluation.values(ACCURACY, OVERALL) for one in measured}
    best = max(overall, key=lambda name: sum(overall[name]) / len(overall[name]))
    sides = {one.evaluation.name: list(answers_by_run(one.answers, ACCURACY).values()) for one in measured}
    others = [name for name in sides if name != best]
    lines = []
    for name in others:
        found = lead(sides[best], sides[name], comparisons=len(others))
        seeds = f" and {' and '.join(map(str, found.runs))} seeds" if max(found.runs) > 1 else ", one seed a side"
        verdict = "" if found.carried else ": no lead"
        verdict += f", since fewer than {FEWEST_ITEMS} items carry none" if found.few else ""
        low, high = 100 * found.low, 100 * found.high
        lines.append(
            f"{best} against {name}: {100 * found.difference:+.1f} [{low:+.1f}, {high:+.1f}]{verdict} "
            f"(95 % over {found.items:,} items{seeds})"
        )
    return lines


def comparing(output: Path, evaluations: Sequence[Evaluation]) -> list[str]:
    """The command that puts systems of a folder, asked the same rows, side by side with what `dudi compare` wants."""
    words = ["dudi", "compare", *(f"{output}:{one.name}" for one in evaluations)]
    if len({str(one.benchmark["name"]) for one in read_evaluations(output / FILE)}) > 1:
        words += ["--benchmark", str(evaluations[0].benchmark["name"])]
    if any(one.seeds != evaluations[0].seeds for one in evaluations):
        words += ["--allow-different", SEEDS]
    return words


def device_of(name: str) -> torch.device:
    """The device that `--device` names; `auto` is a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device: '{name}' is no device; give auto, cpu, cuda, cuda:1 ...") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"--device: '{name}' is not here ({torch.cuda.device_count()} GPUs); give auto or cpu")
    return device


def pairs_of(words: list[str], option: str) -> dict[str, str]:
    """`text=premise` as a mapping."""
    pairs = [word.partition("=") for word in words]
    for ours, equals, theirs in pairs:
        if not (ours and equals and theirs):
            raise ConfigError(f"{option} {ours}{equals}{theirs}: write OURS=THEIRS, as {option} text=premise")
    return {ours: theirs for ours, _, theirs in pairs}
