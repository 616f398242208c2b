"""Answers that a stack wrote beside classes that another chose for the same rows: docs/mtllm.md, Beyond the paper.

    python scripts/written_against_classified.py runs/written-*.jsonl --classified runs/eval-class --without en

The files of `dudi stack generate`, one a seed, and the folder of one system of `dudi stack eval`. A score is the mean
over languages of the share that is right; items and seeds are resampled (`dudi.comparison.bootstrap`).
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from dudi.command import say
from dudi.comparison.bootstrap import AnswerScore, lead


def answers(file: Path, without: str) -> dict[int, list[AnswerScore]]:
    """The answers of each seed; those of a file without seeds are of one."""
    found: dict[int, list[AnswerScore]] = {}
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["language"] != without:
            item = row.get("item") or row["id"].split("/")[1]
            found.setdefault(row.get("seed", 0), []).append(AnswerScore(item, row["language"], float(row["right"])))
    return found


def accuracy(run: list[AnswerScore]) -> float:
    """The mean over languages, in percent."""
    groups: dict[object, list[float]] = {}
    for one in run:
        groups.setdefault(one.group, []).append(one.value)
    return 100 * statistics.fmean(statistics.fmean(values) for values in groups.values())


def main() -> None:
    """Print both sides and the lead."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("written", nargs="+", type=Path)
    parser.add_argument("--classified", type=Path, required=True)
    parser.add_argument("--without", required=True, metavar="CODE", help="the language that was learned in")
    given = parser.parse_args()
    written = [run for file in given.written for run in answers(file, given.without).values()]
    classified = list(answers(given.classified / "answers.jsonl", given.without).values())
    for name, runs in (("written", written), ("classified", classified)):
        scores = [accuracy(run) for run in runs]
        spread = statistics.stdev(scores) if len(scores) > 1 else 0.0
        say(f"{name:<11}{statistics.fmean(scores):5.1f} ± {spread:.1f} %  ({len(scores)} seeds)")
    found = lead(written, classified)
    ahead, low, high = (100 * value for value in (found.difference, found.low, found.high))
    say(f"difference {ahead:+5.1f} [{low:+.1f}, {high:+.1f}]  (95 % over {found.items} items and seeds)")


if __name__ == "__main__":
    main()
