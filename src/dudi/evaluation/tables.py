"""Scores as tables for a terminal of 80 columns: one evaluation over its seeds, or everybody in a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dudi.evaluation.benchmarks import find
from dudi.evaluation.metrics import METRICS, STANDARD_ERROR, Metric
from dudi.evaluation.records import FLOOR, STUDENT, Evaluation, part_of
from dudi.languages.registry import LANGUAGES
from dudi.tables import WIDTH, Grid, Laid, grid_of, terminal

GROUP = "group"
"""Tasks of which a benchmark makes one score in its own way."""
MOST_SPLITS = 4
"""More splits than these do not fit beside each other."""
NOT_MEASURED = "-"
CELLS = "language_and_task"
"""What a benchmark of several tasks has beside languages and tasks: each task in each language, a metric of its own."""
TITLES = {FLOOR: "guessing", "cold_start": "cold start"}
_COLUMNS = ("exact_match", "chrf", "token_f1", "in_language", "bits_per_byte")
_LINES = (*_COLUMNS, "in_language_strict", "repetition", "length", "ended", "empty")
"""What is told of answers to questions; of anything else, whatever was measured."""


def evaluation_tables(evaluation: Evaluation, *, colour: bool = False) -> str:
    """Mean and standard deviation (n - 1) over seeds, of one seed the standard error; a dash is what was not measured.

    Args:
        evaluation: On any benchmark.
        colour: Whether to write escape codes for a terminal.
    """
    whole, bare = evaluation_grids(evaluation), evaluation_grids(evaluation, errors=False)
    tables = [terminal(_fitting(whole[name], bare[name]), title=name, colour=colour) for name in whole]
    if any(_error(evaluation, metric, ["overall"]) for metric in _measured(evaluation, _LINES)):
        tables.append(f"± and error: {STANDARD_ERROR}")
    return "\n\n".join([_headline(evaluation), *tables])


def evaluation_grids(evaluation: Evaluation, errors: bool = True) -> dict[str, Grid]:
    """The tables of one evaluation by their titles, with its standard errors or without them."""
    splits, groups, found = splits_of(evaluation), evaluation.keys(GROUP), cells_grids(evaluation, errors)
    if not evaluation.keys(CELLS):
        main = _measured(evaluation, _LINES)[0]
        columns = splits if len(splits) <= MOST_SPLITS else []
        found[main.title.replace(" in %", ", in %")] = _main_grid(evaluation, main, columns)
    if groups:
        found["By group"] = _rows_of(evaluation, GROUP, groups, _metrics_of_groups([evaluation], groups), errors)
    metrics = _measured(evaluation, _COLUMNS)
    if languages := evaluation.keys("language"):
        beside = metrics[1:] or metrics  # the first has its own table
        found["By language"] = _rows_of(evaluation, "language", languages, beside, errors)
    if len(splits) > MOST_SPLITS:
        found["By split"] = _rows_of(evaluation, "split", splits, metrics, errors)
    found["Over all questions"] = _overall_grid(evaluation)
    return found


def benchmark_tables(evaluations: Sequence[Evaluation], *, colour: bool = False) -> str:
    """What a person reads after a run: by split for everybody, by language before and after.

    Args:
        evaluations: Of the subjects of one run on one benchmark.
        colour: Whether to write escape codes for a terminal.
    """
    by_role = by_subject(evaluations)
    if any(one.keys(CELLS) for one in by_role.values()):
        tables = []
        for title, made in {"By task": tasks_grid, "By group": groups_grid, "By language": languages_grid}.items():
            grid = _fitting(made(by_role), made(by_role, errors=False))
            tables += [terminal(grid, title=title, colour=colour)] if grid.lines else []
        return "\n\n".join([*tables, *([f"±: {STANDARD_ERROR}"] if any("±" in table for table in tables) else [])])
    splits, meanings = splits_of(*evaluations), find(evaluations[0].benchmark.get("name")).meanings
    parts = [_subjects_table(by_role, splits, colour)]
    parts += [f"  {split}: {meanings[split]}" for split in splits if split in meanings]
    return "\n".join([*parts, "", _languages_table(by_role, splits, colour)])


def by_subject(evaluations: Iterable[Evaluation]) -> dict[str, Evaluation]:
    """Evaluations on one benchmark by who answered, guessing in front where it is known."""
    found = {one.subject or one.name: one for one in evaluations}
    floors = [floor for one in found.values() if (floor := one.guessing()) is not None]
    return {**({FLOOR: floors[0]} if floors else {}), **found}


def title(evaluation: Evaluation) -> str:
    """What a table calls a subject."""
    return TITLES.get(evaluation.subject, evaluation.name)


def before_method(subjects: Iterable[str]) -> str | None:
    """What a student was before its method: the cold start, or else the base; None when neither answered."""
    there = set(subjects)
    return next((name for name in ("cold_start", "base") if name in there), None)


def splits_of(*evaluations: Evaluation) -> list[str]:
    """Every split, in the benchmark's own order, others as they come."""
    there = dict.fromkeys(split for one in evaluations for split in one.keys("split"))
    order = find(evaluations[0].benchmark.get("name")).orders.get("split", ())
    return sorted(there, key=lambda split: order.index(split) if split in order else len(order))


def language_name(code: str) -> str:
    """A language's English name; the code where it is not known."""
    return LANGUAGES[code].name if code in LANGUAGES else code


def cells_grids(evaluation: Evaluation, errors: bool = True) -> dict[str, Grid]:
    """By what is measured: tasks down, languages across, each task in the first of its metrics; none without tasks."""
    codes = evaluation.keys(CELLS)
    rows: dict[str, list[tuple[str, list[str]]]] = {}
    for task in evaluation.keys("task") if codes else ():
        metric = main_metric(evaluation, "by_task", task)
        cells = [_cell(evaluation, metric, [f"by_{CELLS}", code, task], errors) for code in codes]
        cells.append(_cell(evaluation, metric, ["by_task", task]))
        rows.setdefault(metric.title.replace(" in %", ", in %"), []).append((task, cells))
    return {title: grid_of((*codes, "all"), own) for title, own in rows.items()}


def _fitting(with_errors: Grid, without: Grid) -> Grid:
    """A table with its standard errors where it fits a terminal with them, else without."""
    return with_errors if Laid(with_errors).width <= WIDTH else without


def main_metric(evaluation: Evaluation, *place: str) -> Metric:
    """The metric that stands for a part of the scores: the first of `METRICS` that it has, else the first at all."""
    there = _numbers(part_of(evaluation.runs[0].scores, *place))
    return evaluation.metric(next((name for name in METRICS if name in there), there[0] if there else "score"))


def _numbers(scores: Mapping[str, Any]) -> list[str]:
    """The metrics among the keys of a part of the scores."""
    return [name for name, value in scores.items() if isinstance(value, int | float) and name != "questions"]


def _measured(evaluation: Evaluation, usual: Sequence[str]) -> list[Metric]:
    """The metrics of answers to questions, or else whatever was measured overall."""
    overall = evaluation.runs[0].scores.get("overall", {})
    if "exact_match" in overall and not evaluation.keys(CELLS):
        return [METRICS[name] for name in usual]
    return [evaluation.metric(name) for name in _numbers(overall)]


def _headline(evaluation: Evaluation) -> str:
    how = evaluation.benchmark
    decoding, told = how.get("decoding", {}), find(how.get("name")).how
    drawn = "greedy" if not decoding.get("temperature") else f"temperature {decoding['temperature']:g}"
    drawn = drawn if told is None else told(decoding, False)
    seeds = f"{len(evaluation.seeds)} seeds" if len(evaluation.seeds) > 1 else f"seed {evaluation.seeds[0]}"
    part = f", {how['part']}" if "part" in how else ""
    return f"{evaluation.name} on {how.get('name')}{part}: {how.get('questions')} questions, {drawn}, {seeds}"


def _main_grid(evaluation: Evaluation, main: Metric, splits: Sequence[str]) -> Grid:
    """The main metric: languages down, splits across."""
    lines = []
    for code in evaluation.keys("language"):
        lines.append((language_name(code), evaluation, ["by_language_and_split", code], ["by_language", code]))
    lines.append(("all", evaluation, ["by_split"], ["overall"]))
    if (guessing := evaluation.guessing()) is not None:
        first = Evaluation("", "", {}, guessing.runs[:1])  # the same for every seed
        lines.append(("guessing", first, ["by_split"], ["overall"]))
    rows = []
    for label, one, by_split, overall in lines:
        places = [*([*by_split, split] for split in splits), overall]
        rows.append((label, [_cell(one, main, place) for place in places]))
    return grid_of((*splits, "all"), rows, kinds={"all": "strong", "guessing": "faint"})


def _rows_of(evaluation: Evaluation, by: str, keys: Sequence[str], metrics: Sequence[Metric], errors: bool) -> Grid:
    rows = []
    for key in keys:
        cells = [_cell(evaluation, metric, [f"by_{by}", key], errors) for metric in metrics]
        rows.append((language_name(key) if by == "language" else key, cells))
    return grid_of([metric.heading for metric in metrics], rows)


def _overall_grid(evaluation: Evaluation) -> Grid:
    rows, known = [], False
    for metric in _measured(evaluation, _LINES):
        mean, std = metric.shown(evaluation.values(metric.name, "overall"))
        error = _error(evaluation, metric, ["overall"])
        rows.append((metric.title, (mean, error or std)))
        known = known or bool(error)
    return grid_of(("mean", "error" if known else "std"), rows)


def _metrics_of_groups(evaluations: Iterable[Evaluation], groups: Sequence[str]) -> list[Metric]:
    found: dict[str, Metric] = {}
    for one in evaluations:
        for leaf in (run.scores.get(f"by_{GROUP}", {}).get(group, {}) for run in one.runs for group in groups):
            found |= {name: one.metric(name) for name in leaf if name not in ("questions", "stderr", *found)}
    return list(found.values())


def _cell(evaluation: Evaluation, metric: Metric, place: Sequence[str], errors: bool = True) -> str:
    """A mean with its standard deviation over seeds, or else its standard error.

    A dash for none, and for what is no number: reports read the files of others.
    """
    try:
        mean, spread = metric.shown(evaluation.values(metric.name, *place))
    except (TypeError, ValueError):
        return NOT_MEASURED
    if spread == NOT_MEASURED:
        spread = _error(evaluation, metric, place) if errors else ""
    return f"{mean} ±{spread}" if spread else mean


def _error(evaluation: Evaluation, metric: Metric, place: Sequence[str]) -> str:
    error = evaluation.error(metric.name, *place)
    return "" if error is None else f"{metric.scale * error:.{metric.digits}f}"


def tasks_grid(by_role: Mapping[str, Evaluation], errors: bool = True) -> Grid:
    """Tasks down, everybody in a run across, each task in the first of its metrics, with its standard error."""
    first = next(iter(by_role.values()))
    tasks = dict.fromkeys(task for one in by_role.values() for task in one.keys("task"))
    lines = [(task, main_metric(first, "by_task", task), ["by_task", task]) for task in tasks]
    return _everybody(by_role, lines, errors)


def groups_grid(by_role: Mapping[str, Evaluation], errors: bool = True) -> Grid:
    """Groups of tasks down, each in every metric that it says, everybody in a run across, with standard errors.

    Without lines, where no group has a score of its own.
    """
    lines: list[tuple[str, Metric, list[str]]] = []
    for group in dict.fromkeys(group for one in by_role.values() for group in one.keys(GROUP)):
        metrics = _metrics_of_groups(by_role.values(), [group])
        lines += [(group, metric, [f"by_{GROUP}", group]) for metric in metrics]
    return _everybody(by_role, lines, errors)


def languages_grid(by_role: Mapping[str, Evaluation], errors: bool = True) -> Grid:
    """Languages down, everybody in a run across, in every metric of the whole that the language has."""
    first = next(iter(by_role.values()))
    main, metrics = main_metric(first, "overall"), _measured(first, _LINES)
    places = {language_name(code): ["by_language", code] for code in first.keys("language")} | {"all": ["overall"]}
    lines = []
    for metric in [main, *(metric for metric in metrics if metric != main)]:
        for name, place in places.items():
            if metric == main or any(_cell(one, metric, place) != NOT_MEASURED for one in by_role.values()):
                lines.append((name, metric, place))
    return _everybody(by_role, lines, errors)


def _everybody(
    by_role: Mapping[str, Evaluation], lines: Iterable[tuple[str, Metric, Sequence[str]]], errors: bool
) -> Grid:
    """Parts of the scores down, each in a metric, everybody in a run across."""
    rows = []
    for name, metric, place in lines:
        cells = [_cell(one, metric, place, errors) for one in by_role.values()]
        rows.append((f"{name}: {metric.heading}", cells))
    return grid_of([title(one) for one in by_role.values()], rows)


def _subjects_table(by_role: dict[str, Evaluation], splits: Sequence[str], colour: bool) -> str:
    rows, kinds = [], {}
    for role, one in by_role.items():
        places = [*(("by_split", split) for split in splits), ("overall",)]
        bits = one.values("bits_per_byte", "overall")
        cells = [_share(one, "exact_match", *place) for place in places]
        cells += [_share(one, "in_language", "overall"), f"{bits[0]:.2f}" if bits else NOT_MEASURED]
        rows.append((title(one), cells))
        kinds[title(one)] = "strong" if role == STUDENT else "faint" if role == FLOOR else ""
    table = grid_of((*splits, "all", "in language", "bits per byte"), rows, kinds=kinds)
    return terminal(table, title="Questions answered exactly, in %", colour=colour)


def _languages_table(by_role: dict[str, Evaluation], splits: Sequence[str], colour: bool) -> str:
    """Per language and split, before and after; the teacher beside."""
    before = before_method(by_role) or ""
    pair = [by_role[role] for role in (before, STUDENT) if role in by_role]
    pair = pair or [one for role, one in by_role.items() if role != FLOOR][:1]
    teacher = by_role.get("teacher")
    rows = []
    for code in pair[0].keys("language"):
        places = [["by_language_and_split", code, split] for split in splits] or [["by_language", code]]
        cells = []
        for place in places:
            cells.append(" > ".join(_share(one, "exact_match", *place).rjust(3) for one in pair))
        cells += [_share(teacher, "exact_match", "by_language", code)] if teacher is not None else []
        rows.append((language_name(code), cells))
    columns = [*(splits or ["all"]), *(["teacher (all)"] if teacher is not None else [])]
    words = " > ".join(title(one) for one in pair)
    return terminal(grid_of(columns, rows), title=f"By language: {words}", colour=colour)


def _share(evaluation: Evaluation, metric: str, *place: str) -> str:
    values = evaluation.values(metric, *place)
    return f"{100 * sum(values) / len(values):.0f}" if values else NOT_MEASURED
