"""Texts on the disk: the same rows as in memory, in a memory that does not grow, and trained on to the bit alike."""

import json
import subprocess
import sys

import pytest
from stack_helpers import (
    FOREIGN,
    TEXTS,
    english_rows,
    make_llm,
    make_llm_tokenizer,
    make_mt,
    make_nllb_tokenizer,
    make_stack_args,
    same,
    weights,
)

from dudi.errors import DataError
from dudi.stacking import Source, StackRow, align, build_stack
from dudi.stacking.reading import with_english
from dudi.stacking.store import TextRows, write_texts
from dudi.training.runlog import read_jsonl


def test_rows_come_back_as_they_were(tmp_path):
    rows = [StackRow(f"text {n} ကခ\n", "eng_Latn" if n % 3 else "mya_Mymr", id=f"r{n}") for n in range(10_000)]
    counts = write_texts(tmp_path, iter(rows), "x")
    stored = TextRows(tmp_path)
    assert counts == stored.counts == {"mya_Mymr": 3334, "eng_Latn": 6666}
    assert len(stored) == 10_000
    assert [stored[n] for n in (0, 4095, 4096, 9_999, -1)] == [rows[n] for n in (0, 4095, 4096, 9_999, -1)]
    assert stored[8_190:8_195] == rows[8_190:8_195]
    assert list(stored) == rows
    assert stored.first_of_each() == rows[:2]
    assert stored.lengths() == [len(row.text.encode()) for row in rows]
    with pytest.raises(IndexError):
        stored[10_000]


def test_the_digest_knows_each_field_and_the_order(tmp_path):
    first, second = StackRow("a", "eng_Latn", id="1"), StackRow("b", "eng_Latn", id="2")
    digests = []
    for number, rows in enumerate(([first, second], [second, first], [StackRow("a", "ind_Latn", id="1"), second])):
        write_texts(tmp_path / str(number), rows, "x")
        digests.append(TextRows(tmp_path / str(number)).digest)
    assert len(set(digests)) == 3


def test_no_row_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="corpus: no row"):
        write_texts(tmp_path / "new", iter(()), "corpus")
    assert not list((tmp_path / "new").glob("*.arrow"))


def test_stage_1_is_the_same_from_memory_and_from_the_disk(tmp_path):
    write_texts(tmp_path / "texts", english_rows(), "x")
    found = []
    for name, rows in (("memory", english_rows()), ("disk", TextRows(tmp_path / "texts"))):
        stack = build_stack(make_mt(), make_llm())
        args = make_stack_args(tmp_path / name, train_sampling_strategy="group_by_length", max_steps=3)
        align(stack, Source(make_nllb_tokenizer()), Source(make_llm_tokenizer()), rows, args)
        found.append((weights(stack), [line["loss"] for line in read_jsonl(tmp_path / name / "metrics.jsonl")]))
    assert same(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


MEASURE = """
import resource, sys
from pathlib import Path
from dudi.stacking.reading import iterate_rows
from dudi.stacking.store import TextRows, write_texts
for file in map(Path, sys.argv[1:]):
    write_texts(file.with_suffix(""), iterate_rows(str(file), language="eng_Latn"), "x")
    rows = TextRows(file.with_suffix(""))
    print(len(rows), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_stays_flat(tmp_path):
    """Half a million rows took more than a gigabyte as objects."""
    files = [tmp_path / f"{count}.jsonl" for count in (1_000, 30_000)]
    for file in files:
        with file.open("w", encoding="utf-8") as out:
            out.writelines(json.dumps({"text": f"{n} " + "word " * 400}) + "\n" for n in range(int(file.stem)))
    words = [sys.executable, "-c", MEASURE, *map(str, files)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    (_, few), (count, many) = (map(int, line.split()) for line in done.stdout.splitlines())
    assert count == 30_000
    assert many - few < 30  # MiB; the texts alone are 60 MB


# ---- parallel text


def test_the_english_of_a_row_is_found_by_its_id():
    """Parallel sets have a row a language; only such with a column for English could be measured on."""
    rows = [StackRow(text, "ind_Latn", id=str(n)) for n, text in enumerate(FOREIGN)]
    rows += [StackRow(text, "en", id=str(n)) for n, text in enumerate(TEXTS)]
    found = with_english(rows, "x")
    assert [row.english for row in found] == TEXTS * 2
    assert [row.text for row in found] == FOREIGN + TEXTS
    with pytest.raises(DataError, match="x: 7 \\(ind_Latn\\): has no 'english'"):
        with_english([*rows[:8], *rows[8:15]], "x")
    own = StackRow("kucing", "ind_Latn", english="cat", id="9")
    assert with_english([own], "x") == [own]
