"""Texts on the disk: the same rows as in memory, in a memory that does not grow, and trained on to the bit alike."""

import json
import subprocess
import sys

import datasets
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

from dudi.errors import DataError, EnvironmentFault
from dudi.stacking import Source, StackRow, align, build_stack
from dudi.stacking.reading import iterate_rows, with_english
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


# ---- of the hub no more than is read


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Dataset `somebody/texts` is a local file, read by `datasets` as it reads the hub; returns how it was opened."""
    file, opened, real = tmp_path / "texts.jsonl", [], datasets.load_dataset
    file.write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(5000)), encoding="utf-8")

    def load(name, config=None, *, split, streaming=False):
        assert name == "somebody/texts"
        opened.append(streaming)
        return real("json", data_files=str(file), split=split, streaming=streaming, cache_dir=str(tmp_path / "cache"))

    monkeypatch.setattr(datasets, "load_dataset", load)
    return opened


def test_a_hub_set_streams_where_not_all_of_it_is_read(hub, tmp_path):
    """2.5 million rows of FineWeb fetched and converted its whole part; a dry run, too, for a thousand of them."""
    streamed = list(iterate_rows("somebody/texts", language="eng_Latn", max_rows=1500))
    assert hub == [True]
    assert not list((tmp_path / "cache").rglob("*.arrow"))  # nothing was converted
    whole = list(iterate_rows("somebody/texts", language="eng_Latn"))
    assert hub == [True, False]
    assert list((tmp_path / "cache").rglob("*.arrow"))
    assert len(whole) == 5000
    assert streamed == whole[:1500]


def test_what_is_endless_ends_where_enough_is_read(monkeypatch):
    def endless():
        number = 0
        while True:
            yield {"text": f"text {number}"}
            number += 1

    monkeypatch.setattr(
        datasets, "load_dataset", lambda *told, **keys: datasets.IterableDataset.from_generator(endless)
    )
    rows = list(iterate_rows("somebody/texts", language="eng_Latn", max_rows=3))
    assert [row.text for row in rows] == ["text 0", "text 1", "text 2"]


def test_what_cannot_stream_is_read_whole(hub, monkeypatch):
    """Without a network a copy from before can be read, and `datasets` streams none."""
    load = datasets.load_dataset

    def offline(name, config=None, *, split, streaming=False):
        if streaming:
            raise ConnectionError("no network")
        return load(name, config, split=split)

    monkeypatch.setattr(datasets, "load_dataset", offline)
    assert len(list(iterate_rows("somebody/texts", language="eng_Latn", max_rows=3))) == 3
    assert hub == [False]


def test_a_hub_that_stops_in_between_is_said(monkeypatch):
    def broken():
        yield {"text": "text"}
        raise ConnectionError("reset by peer")

    found = datasets.IterableDataset.from_generator(broken)
    monkeypatch.setattr(datasets, "load_dataset", lambda *told, **keys: found)
    with pytest.raises(EnvironmentFault, match=r"the hub gave no more \(reset by peer\)"):
        list(iterate_rows("somebody/texts", language="eng_Latn", max_rows=3))
