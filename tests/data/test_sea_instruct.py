"""SEA-Instruct: parsing, filtering, the sample's mix, its independence of files, and its data card."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dudi.data.rows import MAX_CHARACTERS, RowError
from dudi.data.sea.filter import parse_conversations
from dudi.data.sea.prepare import prepare_sea_instruct
from dudi.data.sea.sampling import largest_remainder
from dudi.data.sources import load_rows
from dudi.errors import ConfigError, DataError

TEXT = {
    "th": ("ประเทศไทยมีกี่จังหวัด ข้อ {n}", "ประเทศไทยมีเจ็ดสิบเจ็ดจังหวัด รวมกรุงเทพมหานคร ข้อ {n}"),
    "vi": (
        "Việt Nam có bao nhiêu tỉnh thành, câu {n}?",
        "Trước năm 2025, Việt Nam có sáu mươi ba tỉnh thành, câu {n}.",
    ),
    "id": (
        "Sebutkan ibu kota provinsi Jawa Barat, nomor {n}!",
        "Ibu kota provinsi Jawa Barat adalah Kota Bandung, nomor {n}.",
    ),
    "en": ("What is the capital of England, number {n}?", "The capital of England is London, number {n}."),
}
TAGS = {
    "source": "aisingapore/sea-instruct",
    "prompt_primary_language": "English",
    "prompt_primary_domain": "Education",
    "prompt_primary_task": "Reasoning",
    "prompt_complexity": "Simple",
    "prompt_input_quality": "Excellent",
    "prompt_is_coherent": True,
    "prompt_is_natural": True,
}


def turns(language, n):
    question, answer = TEXT[language]
    return [
        {"role": "user", "content": question.format(n=n), "country": None},
        {"role": "assistant", "content": answer.format(n=n), "country": None},
    ]


def sea(language, n, **changes):
    conversations = repr(turns(language, n)) if n % 2 else json.dumps(turns(language, n), ensure_ascii=False)
    return {"conversations_id": f"{language}{n}", "conversations": conversations} | TAGS | changes


def write(path, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def prepare(source, tmp_path, name="out", **options):
    options = {"languages": ["th"], "per_language": 100} | options
    return prepare_sea_instruct([str(source)], tmp_path / name / "sample.parquet", **options)


def rows_of(tmp_path, name="out"):
    return pq.read_table(tmp_path / name / "sample.parquet").to_pylist()


def test_a_sample_of_two_languages_with_its_card(tmp_path):
    data = tmp_path / "data"
    write(data / "Thai" / "train-00000-of-00001.parquet", [sea("th", n) for n in range(30)])
    write(data / "Vietnamese" / "train-00000-of-00001.parquet", [sea("vi", n) for n in range(20)])
    write(data / "Tamil" / "train-00000-of-00001.parquet", [sea("th", 0)])
    card = prepare(data, tmp_path, languages=["th", "vi"], per_language=25)
    rows = rows_of(tmp_path)
    assert Counter(row["language"] for row in rows) == {"th": 25, "vi": 20}
    assert set(rows[0]) == {"id", "language", "messages", "domain", "task", "complexity", "source"}
    assert rows[0]["messages"][0].keys() == {"role", "content"} and rows[0]["domain"] == "Education"
    assert card["languages"]["th"] | {"mix": None} == {
        "asked": 25, "good": 30, "taken": 25, "cells": 1, "joint_mix_moved": 0.0, "mix": None
    }  # fmt: skip
    assert "20 good rows for 25 asked" in card["languages"]["vi"]["note"]
    assert [(file["file"], file["rows"]) for file in card["inputs"]] == [
        ("Thai/train-00000-of-00001.parquet", 30),
        ("Vietnamese/train-00000-of-00001.parquet", 20),
    ]
    on_disk = json.loads((tmp_path / "out" / "sample.card.json").read_text(encoding="utf-8"))
    assert on_disk == {key: value for key, value in card.items() if key != "text"}
    assert on_disk["output"]["sha256"] == hashlib.sha256((tmp_path / "out" / "sample.parquet").read_bytes()).hexdigest()
    assert (
        on_disk["inputs"][0]["sha256"]
        == hashlib.sha256((data / "Thai" / "train-00000-of-00001.parquet").read_bytes()).hexdigest()
    )
    assert "ODC-By" in on_disk["licence"] and on_disk["revision"] is None
    assert "vi: 20 of 20 good rows" in card["text"] and "note: 20 good rows" in card["text"]
    loaded = load_rows(str(tmp_path / "out"), languages=["th", "vi"])
    assert len(loaded.rows) == 45 and not loaded.rejections


def skewed(count):
    shapes = [("A", "x", "1"), ("A", "x", "2"), ("A", "y", "1"), ("B", "x", "1"), ("B", "y", "3")]
    picks = [shapes[min(n % 16, 4)] if n % 16 < 5 else shapes[0] for n in range(count)]
    return [
        sea("th", n, prompt_primary_domain=d, prompt_primary_task=t, prompt_complexity=c)
        for n, (d, t, c) in enumerate(picks)
    ]


def cells(rows):
    return Counter((row["domain"], row["task"], row["complexity"]) for row in rows)


def test_the_joint_mix_is_the_largest_remainder_of_the_good_rows(tmp_path):
    rows = skewed(333)
    before = Counter((r["prompt_primary_domain"], r["prompt_primary_task"], r["prompt_complexity"]) for r in rows)
    spoiled = [row | {"conversations_id": f"bad{n}", "prompt_is_natural": False} for n, row in enumerate(rows[1::16])]
    write(tmp_path / "Thai" / "a.parquet", [*rows, *spoiled])
    card = prepare(tmp_path / "Thai", tmp_path, per_language=50)
    assert cells(rows_of(tmp_path)) == Counter(largest_remainder(before, 50))
    mix = card["languages"]["th"]["mix"]["complexity"]
    assert {value: pair[0] for value, pair in mix.items()} == Counter(r["prompt_complexity"] for r in rows)
    assert sum(pair[1] for pair in mix.values()) == 50
    assert next(iter(mix)) == "1" and "complexity: 1 " in card["text"]
    assert card["left_out"] == {"th": {"not_natural": len(spoiled)}}


def test_the_sample_depends_on_rows_and_seed_not_on_files(tmp_path):
    rows = skewed(200)
    write(tmp_path / "one" / "Thai" / "a.parquet", rows, row_group_size=7)
    for part in range(3):
        write(tmp_path / "three" / "Thai" / f"{part}.parquet", rows[::-1][part::3], row_group_size=50)
    for name, source, seed in (("a", "one", 0), ("b", "three", 0), ("c", "one", 1)):
        prepare(tmp_path / source, tmp_path, name, per_language=40, seed=seed)
    a, b, c = (rows_of(tmp_path, name) for name in "abc")
    assert (
        a == b and (tmp_path / "a" / "sample.parquet").read_bytes() == (tmp_path / "b" / "sample.parquet").read_bytes()
    )
    assert {row["id"] for row in a} != {row["id"] for row in c} and cells(a) == cells(c)
    smaller = prepare(tmp_path / "one", tmp_path, "d", per_language=20)["output"]["rows"]
    assert smaller == 20


def test_every_reason_for_leaving_a_row_out_is_counted(tmp_path):
    rows = [
        sea("th", 0),
        sea("th", 1, prompt_input_quality="Good"),
        sea("th", 2, prompt_is_coherent=False),
        sea("th", 3, prompt_is_natural=None),
        sea("th", 4, source="aisingapore/SEASafeguardMix"),
        sea("th", 5, source="CohereForAI/Global-MMLU-Lite"),
        sea("en", 6, prompt_primary_language="Thai"),
        sea("th", 8, conversations="[{'role': 'user', 'content': '1+1'}, {'role': 'assistant', 'content': '2'}]"),
        sea("th", 0),
        sea("th", 9, prompt_primary_language="English"),
    ]
    write(tmp_path / "Thai" / "a.parquet", rows)
    card = prepare(tmp_path / "Thai", tmp_path)
    assert {row["id"] for row in rows_of(tmp_path)} == {"th0", "th9"}
    assert card["left_out"]["th"] == {
        "quality_not_excellent": 1,
        "not_coherent": 1,
        "not_natural": 1,
        "excluded_source": 2,
        "text_in_another_language": 1,
        "language_unclear": 1,
        "duplicate": 1,
    }
    everything = prepare(tmp_path / "Thai", tmp_path, "all", exclude_sources=[])
    assert everything["output"]["rows"] == 4 and everything["filters"]["excluded_sources"] == []


def test_bad_rows_are_written_with_file_and_row(tmp_path):
    bad = {
        "broken_conversations": "__import__('os').getcwd()",
        "empty_completion": str([{"role": "user", "content": "a"}, {"role": "assistant", "content": ""}]),
        "no_assistant_turn": str(turns("th", 1)[:1]),
        "null": None,
        "tool_turn": str([turns("th", 1)[0], {"role": "tool", "content": "x"}]),
        "control_characters": json.dumps([turns("th", 1)[0], {"role": "assistant", "content": "\x00"}]),
        "wrong_type": "7",
    }
    rows = [sea("th", 0)] + [sea("th", n, conversations=text) for n, text in enumerate(bad.values(), start=1)]
    write(tmp_path / "Thai" / "a.parquet", rows, row_group_size=3)
    with pytest.raises(DataError, match="7 of 8 rows were rejected"):
        prepare(tmp_path / "Thai", tmp_path)
    assert not (tmp_path / "out" / "sample.parquet").exists()
    card = prepare(tmp_path / "Thai", tmp_path, max_rejected_share=1.0)
    written = [
        json.loads(line) for line in (tmp_path / "out" / "sample.rejected.jsonl").read_text("utf-8").splitlines()
    ]
    assert [(line["reason"], line["line"]) for line in written] == [(r, n) for n, r in enumerate(bad, start=2)]
    assert written[0]["file"] == "Thai/a.parquet" and card["rejected"] == dict.fromkeys(bad, 1)


def test_one_id_with_two_contents_keeps_both(tmp_path):
    rows = [sea("th", n, conversations_id="same") for n in range(3)] + [
        sea("th", n, conversations_id=None) for n in (7, 8)
    ]
    write(tmp_path / "Thai" / "a.parquet", rows)
    prepare(tmp_path / "Thai", tmp_path)
    assert {row["id"] for row in rows_of(tmp_path)} == {
        "same",
        "same#2",
        "same#3",
        "Thai/a.parquet:4",
        "Thai/a.parquet:5",
    }


def test_the_language_of_a_file_without_a_name_is_its_texts(tmp_path):
    rows = [sea(language, n) for n in range(4) for language in ("th", "vi", "en")]
    write(tmp_path / "mixed" / "rows.parquet", rows)
    card = prepare(tmp_path / "mixed" / "rows.parquet", tmp_path, languages=["vi", "th"])
    assert Counter(row["language"] for row in rows_of(tmp_path)) == {"vi": 4, "th": 4}
    assert card["left_out"] == {"by text": {"other_language": 4}}


def test_malay_and_indonesian_follow_their_folder(tmp_path):
    write(tmp_path / "Malay" / "a.parquet", [sea("id", 1)])
    assert prepare(tmp_path / "Malay", tmp_path, languages=["ms"])["languages"]["ms"]["taken"] == 1
    write(tmp_path / "Filipino" / "a.parquet", [sea("id", 1)])
    with pytest.raises(DataError, match="text_in_another_language 1"):
        prepare(tmp_path / "Filipino", tmp_path, languages=["tl"])


def test_missing_columns_are_said_and_not_filtered_by(tmp_path):
    rows = [{key: row[key] for key in ("conversations", "source")} for row in (sea("th", n) for n in range(3))]
    write(tmp_path / "Thai" / "a.parquet", rows)
    card = prepare(tmp_path / "Thai", tmp_path)
    assert card["output"]["rows"] == 3 and card["missing_columns"]["prompt_complexity"] == 1
    assert "conversations_id" in card["missing_columns"] and "prompt_is_natural (in 1 files)" in card["text"]
    assert card["languages"]["th"]["mix"]["task"] == {"unknown": [3, 3]}


def test_conversations_as_a_column_of_lists(tmp_path):
    write(tmp_path / "Thai" / "a.parquet", [sea("th", 1) | {"conversations": turns("th", 1)}])
    assert prepare(tmp_path / "Thai", tmp_path)["output"]["rows"] == 1


def test_the_revision_comes_from_the_hubs_cache(tmp_path):
    commit = "a" * 40
    write(tmp_path / "hub" / "snapshots" / commit / "Thai" / "a.parquet", [sea("th", 1)])
    assert prepare(tmp_path / "hub" / "snapshots" / commit, tmp_path)["revision"] == commit
    assert prepare(tmp_path / "hub" / "snapshots" / commit, tmp_path, revision="v2")["revision"] == "v2"


def test_an_earlier_sample_in_the_same_folder_is_not_read(tmp_path):
    write(tmp_path / "Thai" / "a.parquet", [sea("th", n) for n in range(3)])
    for _ in range(2):
        card = prepare_sea_instruct(str(tmp_path), tmp_path, languages=["th"])
    assert card["rows_read"] == 3 and card["output"]["file"] == "train.parquet"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Thai", "train.card.json", "train.parquet"]


def test_wrong_usage(tmp_path):
    path = write(tmp_path / "Thai" / "a.parquet", [sea("th", 1)])
    with pytest.raises(ConfigError, match="at least 1"):
        prepare(path, tmp_path, per_language=0)
    with pytest.raises(ConfigError, match="unknown language 'thai'"):
        prepare(path, tmp_path, languages=["thai"])
    with pytest.raises(ConfigError, match="no Parquet file of vi"):
        prepare(path, tmp_path, languages=["vi"])
    with pytest.raises(ConfigError, match=r"did you mean 'a\.parquet'"):
        prepare(tmp_path / "Thai" / "b.parquet", tmp_path)
    write(tmp_path / "Thai" / "a.parquet", [{"conversation": "x"}])
    with pytest.raises(DataError, match=r"no column `conversations` \(did you mean 'conversation'\?\)"):
        prepare(path, tmp_path)
    (tmp_path / "Thai" / "a.parquet").write_bytes(b"nothing")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        prepare(path, tmp_path)
    (tmp_path / "a.jsonl").write_text("{}")
    with pytest.raises(ConfigError, match="read from Parquet"):
        prepare(tmp_path / "a.jsonl", tmp_path)


def test_conversations_are_read_as_json_or_python():
    want = turns("th", 1)
    assert parse_conversations(json.dumps(want)) == parse_conversations(repr(want)) == parse_conversations(want) == want
    assert parse_conversations(" \n" + repr(want)) == want
    assert parse_conversations("[{'role': 'user', 'content': 'it\\'s \\d'}]")[0]["content"] == "it's \\d"


BOMBS = ["[" * 100_000, "[" + "-" * 100_000 + "1]", "[{'a': " + "(" * 5000, "[1," * 3000, "[" + "not " * 9000 + "1]"]
BOMBS += [
    "[" + "1+" * 50_000 + "1j]",
    "[{[]: 1}]",
    "[f'{1}']",
    "[open('x')]",
    "['\ud800']",
    "[\x00]",
    "[lambda: 1]",
    "",
    "[",
]


@pytest.mark.parametrize("text", BOMBS, ids=range(len(BOMBS)))
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_hostile_conversations_are_refused(text):
    with pytest.raises(RowError) as caught:
        parse_conversations(text)
    assert caught.value.reason == "broken_conversations"


def test_huge_conversations_are_refused_unread():
    with pytest.raises(RowError, match="too_many_characters"):
        parse_conversations("[" + " " * MAX_CHARACTERS + "]")


@given(st.text(st.sampled_from("[]{}()'\":,0a\\- \n"), max_size=60) | st.text(max_size=30))
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_any_text_is_a_value_or_a_row_error(text):
    try:
        parse_conversations(text)
    except RowError as error:
        assert error.reason == "broken_conversations"


def peaks_kib(*sources, output):
    """The peak of one process after each of the sources."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from dudi.data.sea.prepare import prepare_sea_instruct\n"
        "for number, source in enumerate(sys.argv[2:]):\n"
        "    prepare_sea_instruct(source, Path(sys.argv[1]) / str(number), per_language=50, languages=['th'])\n"
        "    print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])\n"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", code, str(output), *map(str, sources)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    return [int(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux's /proc")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    filler = {n: " ".join(hashlib.sha256(f"{n}".encode()).hexdigest() * 32) for n in range(6_000)}
    rows = [
        sea(
            "th",
            n,
            conversations=repr([turns("th", n)[0], {"role": "assistant", "content": TEXT["th"][1] + filler[n]}]),
        )
        for n in range(6_000)
    ]
    small = write(tmp_path / "small" / "Thai" / "a.parquet", rows[:500], use_dictionary=False)
    large = write(tmp_path / "large" / "Thai" / "a.parquet", rows, use_dictionary=False)
    before, after = peaks_kib(small, large, output=tmp_path)
    # Measured: 28 MiB, most of it Arrow's allocator; 113 with a reader that holds the rows.
    assert after - before < 64 * 1024
