"""The study under a weak teacher, by groups of languages, with a test of one row against each other one.

    python scripts/weak_teacher_tests.py docs/results/teacher/study.json --row gated

Reads what `dudi study run recipes/study/teacher/1-weak.yaml` keeps. Almost Stochastic Order, confidence 0.95 over all
tests of the table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dudi.comparison.significance import TAU, aso
from dudi.evaluation.records import STUDENT, read_evaluations
from dudi.study.grid import Study, read_study
from dudi.tables import grid_of, markdown

STUDY = Path(__file__).parents[1] / "recipes" / "study" / "teacher" / "1-weak.yaml"
WEAK, STRONG = ("ta", "my"), ("id", "vi", "th", "tl", "ms", "en")
GROUPS = {"strong (6)": STRONG, "weak (2)": WEAK, "Tamil": ("ta",), "Burmese": ("my",), "all": STRONG + WEAK}
Scores = Mapping[str, Mapping[str, list[float]]]
"""Of each row and group, one per seed, in percent."""


def scores_of(study: Study, file: Path) -> Scores:
    """The mean over each group's languages, which all have about as many questions."""
    names = {row.words: row.name for row in study.rows}
    found: dict[str, dict[str, list[float]]] = {}
    for one in read_evaluations(file):
        name = names.get(tuple(one.about.get("words", ())))
        if one.subject != STUDENT or name is None or one.benchmark["part"] != "test":
            continue
        own = found.setdefault(name, {group: [] for group in GROUPS})
        for run in one.runs:
            languages = {code: 100 * value["exact_match"] for code, value in run.scores["by_language"].items()}
            for group, codes in GROUPS.items():
                own[group].append(statistics.fmean(languages[code] for code in codes))
    return {row.name: found[row.name] for row in study.rows if row.name in found}


def means(scores: Scores) -> str:
    """The table of the means."""
    rows = [(name, (str(len(own["all"])), *(_mean(own[group]) for group in GROUPS))) for name, own in scores.items()]
    return "\n".join(markdown(grid_of(("seeds", *GROUPS), rows)).splitlines())


def tests(scores: Scores, tested: str) -> str:
    """eps_min of one row against each other one that has several seeds, in each group."""
    others = [name for name, own in scores.items() if name != tested and len(own["all"]) > 1]
    count = len(others) * len(GROUPS)
    rows = []
    for other in others:
        cells = [_tested(scores[tested][group], scores[other][group], count) for group in GROUPS]
        rows.append((f"{tested} > {other}", cells))
    return "\n".join(markdown(grid_of(tuple(GROUPS), rows)).splitlines())


def _tested(ours: Sequence[float], theirs: Sequence[float], count: int) -> str:
    gap = statistics.fmean(ours) - statistics.fmean(theirs)
    eps = aso(ours, theirs, comparisons=count)
    return f"{gap:+.1f} ({eps:.2f}){' ◇' if eps < TAU else ''}"


def _mean(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="study.json")
    parser.add_argument("--row", default="gated", help="which row is tested")
    parser.add_argument("--study", type=Path, default=STUDY)
    asked = parser.parse_args()
    scores = scores_of(read_study(asked.study), asked.file)
    sys.stdout.write(f"{means(scores)}\n\n{tests(scores, asked.row)}\n")


if __name__ == "__main__":
    main()
