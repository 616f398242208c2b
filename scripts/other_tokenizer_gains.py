"""How much of a teacher's gain a student keeps whose tokenizer is of another kind, with intervals.

    python scripts/other_tokenizer_gains.py runs/study

Reads the runs of `dudi study run recipes/study/tokenizers/1-proof.yaml`: their answers, question by question. A gain
is a row's exact match less that of the same student's SFT (or of `--over`). Facts are drawn again with the questions
that ask for them in all languages, the same for both students, and the seeds of each student, a row's with its SFT's;
intervals are the middle 95 percent of the draws. The share that is kept is the gain of `other` over the gain of `same`,
shown where the latter is above 0 in its whole interval.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
from mini.corpus import WEAK
from numpy.typing import NDArray

from dudi.comparison.items import lines_of
from dudi.data.cldr import LANGUAGES
from dudi.data.cldr.benchmark import Question, knowledge, questions
from dudi.evaluation.question_scores import question_scores
from dudi.evaluation.records import FILE, read_evaluations
from dudi.study.grid import Study, StudyRow, read_study
from dudi.study.jobs import job_of
from dudi.tables import DASH, grid_of, markdown

STUDY = Path(__file__).parents[1] / "recipes" / "study" / "tokenizers" / "1-proof.yaml"
TASKS = ("currency", "official_language")
STUDENTS = ("same", "other")
SPLITS = ("seen", "transfer", "unseen")
SIDES = ("strong (6)", "weak (2)")
"""Languages in which the teacher has read every fact, and two facts in five."""
SAMPLES = 10_000
COLUMNS = ("same", "other", "other − same", "share kept")
_Floats = NDArray[np.float64]
Right = Mapping[tuple[str, str], Mapping[int, _Floats]]
"""By student and row, then seed: (questions,) 100 where the answer is the expected one, else 0."""


def answers_of(study: Study, runs: Path, ids: list[str]) -> Right:
    """What the runs of a study have right, of those that are there."""
    found: dict[tuple[str, str], dict[int, _Floats]] = {}
    for row in study.rows:
        student, _, name = row.name.partition(": ")
        for seed in range(study.seeds):
            if scores := _run(study, row, seed, runs):
                found.setdefault((student, name), {})[seed] = np.array([scores[key] for key in ids])
    return found


def _run(study: Study, row: StudyRow, seed: int, runs: Path) -> dict[str, float]:
    """The score of each question in one run, by its id."""
    file = runs / job_of(study, row, seed).id / FILE
    known = read_evaluations(file) if file.is_file() else []
    lines = [line for one in known if one.subject == row.score for line in lines_of(one)]
    return {key: 100 * score.value for key, score in question_scores(lines, "exact_match").items()}


def differences(right: Right, over: str) -> dict[str, list[_Floats]]:
    """(seeds, questions) of each student, by row: its score less that of another row at the same seed."""
    found: dict[str, list[_Floats]] = {}
    for name in dict.fromkeys(name for _, name in right if name != over):
        for student in STUDENTS:
            own, start = right.get((student, name), {}), right.get((student, over), {})
            if seeds := sorted(own.keys() & start.keys()):
                found.setdefault(name, []).append(np.array([own[seed] - start[seed] for seed in seeds]))
    return {name: own for name, own in found.items() if len(own) == len(STUDENTS)}


def drawn_gains(gains: list[_Floats], facts: list[str], chosen: _Floats, seed: int = 0) -> list[_Floats]:
    """Mean gains in some of the questions, by student: (1 + SAMPLES,), what was measured first.

    Args:
        gains: Of each student, (its seeds, questions).
        facts: (questions,) the fact that each asks for.
        chosen: (questions,) 1 for those that count.
        seed: Of the draws.
    """
    generator = np.random.default_rng(seed)
    names, places = np.unique(facts, return_inverse=True)
    of_fact = np.zeros((len(facts), len(names)))
    of_fact[np.arange(len(facts)), places] = chosen
    times = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=SAMPLES)
    weights = np.vstack([np.ones(len(names)), times])
    asked = weights @ of_fact.sum(axis=0)
    means = []
    for own in gains:
        even = np.full(len(own), 1 / len(own))
        runs = np.vstack([even, generator.multinomial(len(own), even, size=SAMPLES) / len(own)])
        means.append((weights @ (own @ of_fact).T / asked[:, None] * runs).sum(axis=1))
    return means


def cells(same: _Floats, other: _Floats) -> list[str]:
    """One line of a table: both gains, their difference, and their ratio in percent."""
    kept = DASH
    if np.quantile(same[1:], 0.025) > 0:
        with np.errstate(divide="ignore", invalid="ignore"):  # single draws without a gain
            kept = _interval(100 * other / same, "{:.0f} %", "{:.0f}")
    return [*(_interval(one, "{:+.1f}", "{:+.1f}") for one in (same, other, other - same)), kept]


def _interval(values: _Floats, shown: str, bound: str) -> str:
    low, high = np.nanquantile(values[1:], (0.025, 0.975))
    return f"{shown.format(values[0])} [{bound.format(low)}, {bound.format(high)}]"


def groups(asked: list[Question]) -> dict[str, _Floats]:
    """(questions,) which of them are in each split, in each language, and where the teacher is strong or weak."""
    sides = [SIDES[one.row.language in WEAK] for one in asked]
    told = [{one.split, one.row.language, side, f"{side}, {one.split}"} for one, side in zip(asked, sides, strict=True)]
    names = [*SPLITS, *LANGUAGES, *SIDES, *(f"{side}, {split}" for side in SIDES for split in SPLITS)]
    return {"all": np.ones(len(asked))} | {name: np.array([float(name in own) for own in told]) for name in names}


def main() -> None:
    """Print a table of the rows, and one of each row's languages and splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, help="the folder of the study's runs")
    parser.add_argument("--over", default="SFT", help="the row that gains are taken over")
    parser.add_argument("--detail", nargs="*", default=["DuDi"], help="rows that are shown by language and split")
    parser.add_argument("--study", type=Path, default=STUDY)
    asked = parser.parse_args()
    every = questions(tasks=TASKS)
    facts = [knowledge(one.fact) for one in every]
    rows = differences(answers_of(read_study(asked.study), asked.runs, [one.row.id for one in every]), asked.over)
    seeds = {name: " / ".join(str(len(own)) for own in both) for name, both in rows.items()}
    everything = {
        f"{name} ({seeds[name]} seeds)": cells(*drawn_gains(own, facts, np.ones(len(every))))
        for name, own in rows.items()
    }
    tables = [("over " + asked.over, everything)]
    chosen = groups(every)
    for row in filter(rows.__contains__, asked.detail):
        tables.append((row, {name: cells(*drawn_gains(rows[row], facts, own)) for name, own in chosen.items()}))
    for corner, lines in tables:
        sys.stdout.write(f"{markdown(grid_of(COLUMNS, list(lines.items()), corner=corner))}\n\n")


if __name__ == "__main__":
    main()
