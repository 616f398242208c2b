"""The contest's scores as tables: for a terminal, and as the page `docs/results/mtllm.md`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table

from dudi.comparison.bootstrap import Answer, lead
from dudi.comparison.significance import TAU, aso
from dudi.data.cldr.speaker import LANGUAGES
from dudi.stacking.miniature.contest import SYSTEMS, Score
from dudi.stacking.miniature.places import OTHERS
from dudi.stacking.miniature.tasks import TASKS

WIDTH = 79
ABOUT = {
    "region": "In which part of the world does the sentence play? (five classes)",
}
Subject = tuple[str, str]
"""A system and the attention of its LLM."""


def subjects(scores: Sequence[Score]) -> list[Subject]:
    """The rows of a table: each kind of attention in the order of `SYSTEMS`; the encoder has none."""
    present = {(score.system, score.attention) for score in scores}
    kinds = dict.fromkeys(score.attention for score in scores if score.attention)
    order = [("encoder", ""), *((system, kind) for kind in kinds for system in SYSTEMS if system != "encoder")]
    return [subject for subject in order if subject in present]


def percent(
    scores: Iterable[Score], subject: Subject, task: str, languages: Sequence[str], *, parallel: bool
) -> list[float]:
    """Accuracy in percent of each seed: the mean over languages.

    Args:
        scores: All.
        subject: Whose.
        task: Of which task.
        languages: Each counts alike.
        parallel: On countries that the parallel text names, or on those that it does not.
    """
    found: dict[int, list[float]] = {}
    for score in scores:
        own = (score.system, score.attention) == subject and score.task == task
        if own and score.language in languages and score.parallel is parallel:
            found.setdefault(score.seed, []).append(100 * score.right / score.rows)
    return [statistics.mean(found[seed]) for seed in sorted(found)]


def cells(scores: Sequence[Score], subject: Subject, task: str) -> list[list[float]]:
    """One row of a table: each language, the seven, and the seven on countries that the translator never read."""
    known = [percent(scores, subject, task, [language], parallel=True) for language in ("en", *OTHERS)]
    return [*known, *(percent(scores, subject, task, OTHERS, parallel=parallel) for parallel in (True, False))]


HEADS = ("en", *OTHERS, "all 7", "hidden")


def terminal(scores: Sequence[Score], *, colour: bool = False) -> str:
    """The tasks for a person at a terminal of 80 columns."""
    console = Console(file=StringIO(), force_terminal=colour, width=WIDTH, highlight=False)
    for task in dict.fromkeys(score.task for score in scores):
        table = Table(title=f"{task}: right answers in %", box=None, title_justify="left", pad_edge=False)
        table.add_column("")
        for head in HEADS:
            table.add_column(head, justify="right")
        for attention in dict.fromkeys(kind for _, kind in subjects(scores)):
            if attention:
                table.add_row(f"[dim]{attention} LLM[/]")
            for subject in (own for own in subjects(scores) if own[1] == attention):
                values = [f"{statistics.mean(cell):.0f}" if cell else "-" for cell in cells(scores, subject, task)]
                style = "bold" if subject[0] == "mtllm" else None
                table.add_row(SYSTEMS[subject[0]], *values, style=style)
        console.print(table)
        console.print()
    console.print("en: English, in which the task was learned. hidden: countries whose names the MT model never read.")
    text = console.file
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines()) if isinstance(text, StringIO) else ""


def score_table(scores: Sequence[Score], task: str) -> list[str]:
    """Mean and standard deviation over seeds, in Markdown."""
    lines = [f"| LLM | system | {' | '.join(HEADS)} |", "|---" * (len(HEADS) + 2) + "|"]
    for subject in subjects(scores):
        values = [_mean(cell) for cell in cells(scores, subject, task)]
        lines.append(f"| {subject[1] or '-'} | {SYSTEMS[subject[0]]} | {' | '.join(values)} |")
    return lines


def lead_table(scores: Sequence[Score]) -> list[str]:
    """MT-LLM's lead over each rival with the same LLM, mean accuracy over the seven languages, in points.

    The interval is that of `dudi.comparison.bootstrap`: countries are drawn again with all their languages, and seeds
    with them. A lead is marked where the interval and Almost Stochastic Order over the seeds both say so.
    """
    heads = [f"{task}, {name}" for task in TASKS for name in ("named", "hidden")]
    lines = [f"| LLM | MT-LLM against | {' | '.join(heads)} |", "|---" * (len(heads) + 2) + "|"]
    for kind in dict.fromkeys(kind for _, kind in subjects(scores) if kind):
        for rival in (name for name in SYSTEMS if name != "mtllm"):
            sides = ("mtllm", kind), (rival, "" if rival == "encoder" else kind)
            row = [_lead(scores, sides, task, parallel) for task in TASKS for parallel in (True, False)]
            lines.append(f"| {kind} | {SYSTEMS[rival]} | {' | '.join(row)} |")
    return lines


def _lead(scores: Sequence[Score], sides: tuple[Subject, Subject], task: str, parallel: bool) -> str:
    own, rival = (_answers(scores, subject, task, parallel) for subject in sides)
    if not own or not rival:
        return "-"
    found = lead(own, rival)
    text = f"{100 * found.difference:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    if min(found.runs) < 2:
        return text
    first, second = (percent(scores, subject, task, OTHERS, parallel=parallel) for subject in sides)
    eps = aso(first, second)
    return f"**{text}**, {eps:.3f}" if found.carried and eps < TAU else f"{text}, {eps:.3f}"


def _answers(scores: Iterable[Score], subject: Subject, task: str, parallel: bool) -> list[list[Answer]]:
    """Of each seed its answers: an item is a country, a group a language."""
    runs: dict[int, list[Answer]] = {}
    for score in scores:
        own = (score.system, score.attention) == subject and score.task == task
        if own and score.language in OTHERS and score.parallel is parallel:
            answers = runs.setdefault(score.seed, [])
            answers += [Answer(code, score.language, right, rows) for code, (right, rows) in score.countries.items()]
    return list(runs.values())


def probe_table(probes: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """FVU and cosine of the aligned stacks, per language; the mean over seeds was taken before."""
    lines = [f"| LLM | | {' | '.join(LANGUAGES)} |", "|---" * (len(LANGUAGES) + 2) + "|"]
    for kind, found in probes.items():
        for key, name in (("fvu", "FVU"), ("cosine", "cosine")):
            lines.append(f"| {kind} | {name} | {' | '.join(f'{found[code][key]:.2f}' for code in LANGUAGES)} |")
    return lines


def _mean(found: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(found):.1f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.1f}{spread}" if found else "-"
