"""The page over what `dudi eval` has written: models that nobody trained here, on one or several benchmarks."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.errors import ConfigError, DataError
from dudi.evaluation.benchmarks import find
from dudi.evaluation.records import FILE, FLOOR, Evaluation, part_of, read_evaluations
from dudi.evaluation.tables import TITLES, cells_grids, evaluation_grids, language_name, main_metric
from dudi.report import accuracy
from dudi.report.compared import QuestionsSection, side_by_side
from dudi.report.dots import DotRow, Dots, method_mark
from dudi.report.run_folder import FILES, number, text_of
from dudi.report.wording import in_order, lasted, said
from dudi.tables import Entry, Grid, Line

PER_LANGUAGE = 3
"""Questions of each language whose answers are shown, on each benchmark."""


def evaluation_folders(folders: Sequence[Path]) -> list[Path]:
    """The folders of `dudi eval` among those that are named; a folder of such folders stands for them. None of runs.

    Raises:
        ConfigError: some are runs and some are not.
    """
    found: list[Path] = []
    others: list[Path] = []
    for folder in folders:
        here = [folder] if (folder / FILE).is_file() else sorted(file.parent for file in folder.glob(f"*/{FILE}"))
        of_runs = any((own / name).exists() for own in (folder, *here) for name in FILES)
        if here and not of_runs:
            found += here
        else:
            others.append(folder)
    if found and others:
        raise ConfigError(
            f"{found[0]} was written by dudi eval, and {others[0]} was not; dudi compare shows both kinds"
        )
    return found


def content(folders: Sequence[Path]) -> dict[str, Any]:
    """What the template of the page is filled with, out of folders that each have an `evaluation.json`.

    Raises:
        ConfigError: two that are called the same.
        DataError: a file that cannot be read, or scores that are no numbers.
    """
    everybody = _renamed(folders)
    by_benchmark: dict[str, list[Evaluation]] = {}
    for one in everybody:
        by_benchmark.setdefault(str(one.benchmark.get("name")), []).append(one)
    names = list(dict.fromkeys(one.name for one in everybody))
    colours = {name: place for place, name in enumerate(names)}
    try:
        sections = [_section(name, own, colours) for name, own in by_benchmark.items()]
        glance = _glance(by_benchmark, colours)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{', '.join(names)}: scores that are no numbers: {error}") from error
    if len(sections) == 1:
        sections = [dataclasses.replace(sections[0], name="")]
    versions: dict[str, dict[str, None]] = {}  # each package in every version that has asked
    for one in everybody:
        for name, version in part_of(one.about, "versions").items():
            versions.setdefault(str(name), {})[str(version)] = None
    return {
        "title": ", ".join(names),
        "glance": glance,
        "benchmarks": sections,
        "answers": {name: shown for name, own in by_benchmark.items() if (shown := _answers(own, colours))},
        "per_language": PER_LANGUAGE,
        "versions": [(name, ", ".join(own)) for name, own in versions.items()],
        "runs": [],
    }


def _renamed(folders: Sequence[Path]) -> list[Evaluation]:
    """All evaluations; those of a name that several folders have are called after their folder."""
    read = [(folder.resolve(), one) for folder in folders for one in read_evaluations(folder / FILE)]
    owners: dict[str, set[Path]] = {}
    for folder, one in read:
        owners.setdefault(one.name, set()).add(folder)
    found: dict[tuple[str, str], Evaluation] = {}
    for folder, one in read:
        name = folder.name if len(owners[one.name]) > 1 else one.name
        place = str(one.benchmark.get("name")), name
        if place in found:
            raise ConfigError(f"{folder}: another folder is called '{name}' too; rename one")
        found[place] = dataclasses.replace(one, name=name)
    return list(found.values())


def _section(name: str, evaluations: Sequence[Evaluation], colours: Mapping[str, int]) -> QuestionsSection:
    first = evaluations[0]
    if len(evaluations) == 1:
        grids = evaluation_grids(first)
        section = QuestionsSection(chart=_chart(first, colours[first.name]))
    else:
        grids = {}
        for one in evaluations:
            grids |= {f"{one.name}: {title}": grid for title, grid in cells_grids(one).items()}
        guessing = first.guessing()
        references = [] if guessing is None else [dataclasses.replace(guessing, name=TITLES[FLOOR])]
        own = {one.name: colours[one.name] for one in evaluations}
        section = side_by_side(evaluations, references, (), own, "models")
    meanings = tuple((split, meaning) for split, meaning in find(name).meanings.items() if split in first.keys("split"))
    details = (*accuracy.asked(first), *_notes(evaluations))
    return dataclasses.replace(section, name=name, tables=grids, details=details, meanings=meanings)


def _chart(evaluation: Evaluation, colour: int) -> Dots | None:
    """One model by language, where what stands for its scores is a share."""
    metric, mark = main_metric(evaluation, "overall"), method_mark(colour)
    if metric.scale != 100 or not evaluation.keys("language"):
        return None
    rows = []
    places = {code: ("by_language", code) for code in in_order(evaluation.keys("language"))} | {"all": ("overall",)}
    for code, place in places.items():
        values = [metric.scale * value for value in evaluation.values(metric.name, *place)]
        error = evaluation.error(metric.name, *place)
        spread = {} if error is None else {mark: metric.scale * error}
        rows.append(DotRow(language_name(code), {mark: sum(values) / len(values) if values else None}, spread))
    return Dots(f"{metric.title.removesuffix(' in %')}, by language", rows, {mark: evaluation.name})


def _notes(evaluations: Sequence[Evaluation]) -> list[tuple[str, str]]:
    """What a person should know of the choice, and rows that were left out."""
    notes: dict[str, None] = {}
    rejected: dict[str, Any] = {}
    for one in evaluations:
        told = one.about.get("notes")
        notes |= dict.fromkeys(map(str, told)) if isinstance(told, list) else {}
        rejected |= part_of(one.about, "rejected")
    left_out = ", ".join(f"{reason} {count}" for reason, count in rejected.items())
    return [*(("note", note) for note in notes), *([("rows left out", left_out)] if left_out else [])]


def _glance(by_benchmark: Mapping[str, Sequence[Evaluation]], colours: Mapping[str, int]) -> Grid:
    """A row for each model and benchmark: what stands for its scores, and what was asked of whom."""
    lines = []
    for one in (one for evaluations in by_benchmark.values() for one in evaluations):
        metric = main_metric(one, "overall")
        mean, spread = metric.shown(one.values(metric.name, "overall"))
        if (error := one.error(metric.name, "overall")) is not None:
            spread = f"{metric.scale * error:.{metric.digits}f}"
        cells = (
            str(one.benchmark.get("name")),
            f"{metric.title}: {mean}" + ("" if spread == "-" else f" ± {spread}"),
            said(one.benchmark.get("questions")),
            ", ".join(map(str, one.seeds)),
            one.model,
            said(part_of(one.about, "subject").get("dtype")),
            lasted(number(one.about.get("seconds"))),
        )
        lines.append(Line(one.name, tuple(map(Entry, cells)), colour=colours[one.name]))
    columns = ("Benchmark", "Score", "Questions", "Seeds", "Weights from", "Precision", "Time")
    return Grid(columns, tuple(lines), "Model", texts=True)


def _answers(evaluations: Sequence[Evaluation], colours: Mapping[str, int]) -> list[dict[str, Any]]:
    """Questions that everybody answered, some of each language: a hash of their names decides, and tasks take turns.

    Their answers are (name, answer, whether it is right or None where nobody knows, colour).
    """
    from dudi.comparison.items import lines_of

    tables: list[dict[str, Mapping[str, Any]]] = []
    for one in evaluations:
        first = dataclasses.replace(one, runs=one.runs[:1], parts=())
        tables.append({str(line.get("id")): line for line in lines_of(first) if str(line.get("answer", "")).strip()})
    shared = set.intersection(*map(set, tables))
    by_language: dict[str, dict[str, list[str]]] = {}
    for name in sorted(shared, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        line = tables[0][name]
        tasks = by_language.setdefault(str(line.get("language") or ""), {})
        tasks.setdefault(str(line.get("task") or ""), []).append(name)
    found = []
    for code in in_order(by_language):
        turns = [(place, task, name) for task, own in by_language[code].items() for place, name in enumerate(own)]
        for _, task, name in sorted(turns)[:PER_LANGUAGE]:
            answers = []
            for one, table in zip(evaluations, tables, strict=True):
                own = table[name]
                right = own.get("exact", own.get("right"))  # a stack's answer is a class
                answers.append((one.name, str(own.get("answer")), right, colours[one.name]))
            line = tables[0][name]
            question = text_of(line, "question") or name  # stacks of earlier versions kept the row's name alone
            reference = text_of(line, "reference") or text_of(line, "label")
            shown = {"language": code, "task": task, "question": question, "reference": reference, "answers": answers}
            found.append(shown)
    return found
