"""Rows for the recipes of `recipes/stack/real/`, from the Parquet files of docs/tasks.md.

    python scripts/real_stack_rows.py DIR --output data/stack-real

`english.jsonl`: the English of NTREX-128, TICO-19, TALPCo, Tatoeba and Common Voice, each sentence once, for Stage 1.
None of them shares sentences with FLORES, of which SIB-200 and Belebele are made. `parallel.jsonl`: 100 lines of NTREX
in each language with their English, which Stage 1 does not read; there FVU and cosine are measured. `sentiment/`: one
task of four sets, positive or negative, learned in NusaX's English and asked in five languages (the neutral rows of
three of the sets mean different things). `operators/`: which operation a word problem of MSVAMP asks for, in English
and Thai; problems that vary one story stay on one side.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from dudi.command import output_folder, say
from dudi.files import write_json_lines
from dudi.languages.flores import FLORES

SETS = ("ntrex128", "tico19", "talpco", "tatoeba_laser", "commonvoice_sentences")
HELD_OUT = 100
"""Lines of NTREX: its last, since lines of one document stand together."""
SENTIMENT = {
    "en": "nusax_senti",
    "id": "nusax_senti",
    "ta": "indicsentiment",
    "tl": "batayan_sentiment",
    "th": "wisesight",
}
"""The set that a language is asked from."""
LABELS = ("negative", "positive")
ASKED = 150
"""Rows of sentiment a language, the first of each set."""
OPERATORS = {"+": "addition", "-": "subtraction", "*": "multiplication", "/": "division"}
SAME_STORY = 0.35
"""Share of two problems' words, one after the other in the set, from which on they vary one story."""
LEARNED, HELD_BACK = 60, 6
"""Stories of `operators/train` and of `operators/dev`; the others are asked."""


def records(folder: Path, name: str) -> Iterator[dict[str, str]]:
    """The rows of one set, as its file has them."""
    for batch in pq.ParquetFile(folder / f"{name}.parquet").iter_batches():
        yield from batch.to_pylist()


def parallel(folder: Path) -> list[dict[str, str]]:
    """The last lines of NTREX in every language, each with its English."""
    by_line: dict[str, dict[str, str]] = {}
    for row in records(folder, "ntrex128"):
        by_line.setdefault(row["row"], {})[row["lang"]] = row["text"]
    last = sorted(by_line)[-HELD_OUT:]
    return [
        {"id": f"ntrex/{line}", "language": code, "text": text, "english": by_line[line]["en"]}
        for line in last
        for code, text in sorted(by_line[line].items())
        if code != "en"
    ]


def english(folder: Path, kept: set[str]) -> Iterator[str]:
    """Every English sentence once, but those that are kept for measuring.

    Args:
        folder: Of the Parquet files.
        kept: Sentences that are left out.
    """
    for row in itertools.chain.from_iterable(records(folder, name) for name in SETS):
        text = row.get("en") or (row["text"] if row["lang"] == "en" else "")
        if text and text not in kept:
            kept.add(text)
            yield text


def sentiment(folder: Path, language: str, split: str) -> Iterator[dict[str, str]]:
    """The rows of a language's set that are positive or negative.

    Args:
        folder: Of the Parquet files.
        language: One of `SENTIMENT`.
        split: As the set calls it.
    """
    name = SENTIMENT[language]
    for row in records(folder, name):
        if row["lang"] == language and row["split"] == split and row["label"] in LABELS:
            yield {
                "id": f"{name}/{row['row']}",
                "language": FLORES[language],
                "text": row["text"],
                "label": row["label"],
            }


def write_sentiment(folder: Path, output: Path) -> int:
    """Write the task's rows as `dudi stack prepare` writes a set's; how many are asked."""
    for split, part in (("train", "train"), ("valid", "dev")):
        write_json_lines(output / part / f"{FLORES['en']}.jsonl", sentiment(folder, "en", split))
    asked = 0
    for language in SENTIMENT:
        rows = list(itertools.islice(sentiment(folder, language, "test"), ASKED))
        write_json_lines(output / "test" / f"{FLORES[language]}.jsonl", rows)
        asked += len(rows)
    return asked


def stories(folder: Path) -> dict[str, int]:
    """The story of each problem, by its row, from the English."""
    found: dict[str, int] = {}
    before: set[str] = set()
    number = -1
    for row in records(folder, "msvamp"):
        if row["lang"] == "en":
            words = set(re.findall("[a-z]+", row["question"].lower()))
            number += not before or len(words & before) / len(words | before) < SAME_STORY
            before, found[row["row"]] = words, number
    return found


def write_operators(folder: Path, output: Path) -> int:
    """Write the problems with one operation; how many are asked."""
    story = stories(folder)
    count = max(story.values()) + 1
    sides = ["train"] * LEARNED + ["dev"] * HELD_BACK + ["test"] * (count - LEARNED - HELD_BACK)
    side = dict(zip(random.Random(0).sample(range(count), count), sides, strict=True))
    rows: dict[tuple[str, str], list[dict[str, str]]] = {}
    for row in records(folder, "msvamp"):
        operators = re.findall(r"(?<!\S)[-+*/](?!\S)", row["equation"])
        name, language = side[story[row["row"]]], FLORES[row["lang"]]
        if len(operators) == 1 and (name == "test" or row["lang"] == "en"):
            own = {"language": language, "text": row["question"], "label": OPERATORS[operators[0]]}
            rows.setdefault((name, language), []).append({"id": f"msvamp/{row['row']}", **own})
    for (name, language), own_rows in rows.items():
        write_json_lines(output / name / f"{language}.jsonl", own_rows)
    return sum(len(own_rows) for (name, _), own_rows in rows.items() if name == "test")


def main() -> None:
    """Write all files, and say how many rows they have."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--output", type=output_folder, default=Path("data/stack-real"))
    asked = parser.parse_args()
    pairs = parallel(asked.folder)
    texts = list(english(asked.folder, {pair["english"] for pair in pairs}))
    write_json_lines(asked.output / "english.jsonl", ({"language": "en", "text": text} for text in texts))
    write_json_lines(asked.output / "parallel.jsonl", pairs)
    count = write_sentiment(asked.folder, asked.output / "sentiment")
    problems = write_operators(asked.folder, asked.output / "operators")
    say(
        f"{asked.output}: {len(texts)} English sentences; {len(pairs)} pairs; {count} rows of sentiment and {problems} "
        "of operators to ask"
    )


if __name__ == "__main__":
    main()
