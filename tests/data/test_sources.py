"""Sources of every kind, with the place of each bad row."""

import json
import os
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dudi.data.cldr import cldr_rows
from dudi.data.locate import held_out, own_split
from dudi.data.rejections import Rejections
from dudi.data.sources import fingerprint, load_rows, rows_from_records
from dudi.errors import ConfigError, DataError, EnvironmentFault
from dudi.files import atomic_file
from dudi.stacking.reading import read_rows as stack_rows

CODES = ["id", "vi", "th", "en"]


def record(number, **changes):
    return {"id": f"r{number}", "language": "id", "prompt": f"Soal {number}?", "completion": "Ya."} | changes


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records), encoding="utf-8")
    return path


def write_parquet(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records), path)
    return path


def load(source, **options):
    return load_rows(str(source), languages=CODES, **options)


def places(row_set):
    return [(Path(found.file).name, found.line, found.reason) for found in row_set.rejections.items()]


def test_jsonl_with_a_bom_blank_lines_and_crlf(tmp_path):
    lines = [json.dumps(record(1)), "", json.dumps(record(2))]
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    loaded = load(path)
    assert [row.id for row in loaded.rows] == ["r1", "r2"]
    assert loaded.total == 2 and not loaded.rejections


def test_bad_lines_are_rejected_with_their_place(tmp_path):
    path = tmp_path / "a.jsonl"
    deep = b"[" * 100_000
    bad = [b'{"prompt": "a', b'\xff\xfe{"prompt": 1}', b"[1, 2]", b"1" * 5000, deep, b'{"prompt": "\\ud800"}', b"NaN"]
    path.write_bytes(b"\n".join([json.dumps(record(0)).encode(), *bad, json.dumps(record(1)).encode()]))
    loaded = load(path)
    assert [row.id for row in loaded.rows] == ["r0", "r1"]
    assert places(loaded) == [
        ("a.jsonl", 2, "broken_json"),
        ("a.jsonl", 3, "invalid_utf8"),
        ("a.jsonl", 4, "not_an_object"),
        ("a.jsonl", 5, "broken_json"),
        ("a.jsonl", 6, "broken_json"),
        ("a.jsonl", 7, "missing_key"),
        ("a.jsonl", 8, "not_an_object"),
    ]
    written = loaded.rejections.write(tmp_path / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert all(len(json.loads(line)["excerpt"]) <= 200 for line in written)


def test_a_line_that_is_too_long_costs_one_row(tmp_path, monkeypatch):
    monkeypatch.setattr("dudi.data.records.MAX_LINE_BYTES", 200)
    path = write_lines(tmp_path / "a.jsonl", [record(1), record(2, completion="x" * 900), record(3)])
    loaded = load(path)
    assert [row.id for row in loaded.rows] == ["r1", "r3"]
    assert places(loaded) == [("a.jsonl", 2, "line_too_long")]


def test_a_json_array_and_a_broken_one(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([record(1), record(2)]), encoding="utf-8")
    assert len(load(path).rows) == 2
    path.write_text('[{"prompt": 1},\n oops]', encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json, line 2: broken JSON"):
        load(path)
    path.write_bytes(b'["\xff"]')
    with pytest.raises(DataError, match="byte 2 is not UTF-8"):
        load(path)


def test_parquet(tmp_path):
    rows = [record(1), record(2, completion=None), record(3)]
    loaded = load(write_parquet(tmp_path / "a.parquet", rows))
    assert [row.id for row in loaded.rows] == ["r1", "r3"]
    assert places(loaded) == [("a.parquet", 2, "null")]


def test_parquet_with_text_that_is_not_utf8(tmp_path):
    broken = pa.Array.from_buffers(pa.string(), 3, pa.array([b"Ya.", b"\xff\xfe.", b"Ok."], pa.binary()).buffers())
    rows = [record(1), record(2), record(3)]
    table = pa.Table.from_pylist(rows).set_column(3, "completion", broken)
    pq.write_table(table, tmp_path / "a.parquet")
    loaded = load(tmp_path / "a.parquet")
    assert [row.completion for row in loaded.rows] == ["Ya.", "Ok."]
    assert places(loaded) == [("a.parquet", 2, "invalid_utf8")]


def test_a_damaged_parquet_file(tmp_path):
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1 this is no Parquet PAR1")
    with pytest.raises(DataError, match=r"a\.parquet: not a readable Parquet file"):
        load(path)
    whole = write_parquet(tmp_path / "b.parquet", [record(n, completion="x" * 50 + str(n)) for n in range(500)])
    data = bytearray(whole.read_bytes())
    data[8:400] = b"\xff" * 392
    whole.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"b\.parquet"):
        load(whole)


def test_a_saved_dataset_and_a_saved_dict(tmp_path):
    dataset = datasets.Dataset.from_list([record(1), record(2, completion="")])
    dataset.save_to_disk(tmp_path / "one")
    loaded = load(tmp_path / "one")
    assert [row.id for row in loaded.rows] == ["r1"] and places(loaded) == [("one", 2, "empty_completion")]
    datasets.DatasetDict({"train": dataset, "test": dataset}).save_to_disk(tmp_path / "two")
    assert len(load(tmp_path / "two", split="test").rows) == 1
    with pytest.raises(ConfigError, match=r"no split 'tests' \(did you mean 'test'\?\)"):
        load(tmp_path / "two", split="tests")
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(DataError, match="saved dataset"):
        load(tmp_path / "one")


def test_a_dataset_in_memory_and_a_list_are_the_same():
    rows = [record(1), record(2, messages=None), record(3, prompt=None)]
    from_list = rows_from_records(rows, languages=CODES)
    from_dataset = rows_from_records(datasets.Dataset.from_list(rows), languages=CODES, name="mine")
    assert from_list.rows == from_dataset.rows and from_list.fingerprint == from_dataset.fingerprint
    assert places(from_dataset) == [("mine", 3, "null")]


def test_folders_and_globs(tmp_path):
    write_lines(tmp_path / "b.jsonl", [record(2)])
    write_parquet(tmp_path / "sub" / "a.parquet", [record(3)])
    write_lines(tmp_path / "a.jsonl", [record(1)])
    write_lines(tmp_path / "rejected.jsonl", [record(98)])
    write_lines(tmp_path / ".hidden" / "c.jsonl", [record(99)])
    (tmp_path / "data_card.json").write_text("{}")
    assert [row.id for row in load(tmp_path).rows] == ["r1", "r2", "r3"]
    assert [row.id for row in load(tmp_path / "?.jsonl").rows] == ["r1", "r2"]
    with pytest.raises(ConfigError, match="no file matches"):
        load(tmp_path / "*.json_lines")


def test_a_folder_with_splits(tmp_path):
    write_lines(tmp_path / "train-00000.jsonl", [record(1)])
    write_lines(tmp_path / "test-00000.jsonl", [record(2)])
    write_lines(tmp_path / "validation" / "x.jsonl", [record(3)])
    write_lines(tmp_path / "trainers.jsonl", [record(4)])
    loaded = load(tmp_path)
    assert [row.id for row in loaded.rows] == ["r1", "r4"]
    assert "2 of 4 files are read" in loaded.notes[0] and "test-00000.jsonl, x.jsonl" in loaded.notes[0]
    assert [row.id for row in load(tmp_path, split="validation").rows] == ["r3"]
    assert [row.id for row in load(tmp_path, split="dev").rows] == ["r3"]
    with pytest.raises(ConfigError, match=r"none of its 4 data files belongs to the split 'eval'.*\(test, train, vali"):
        load(tmp_path, split="eval")


HELD_OUT = [
    *(
        "val.jsonl",
        "th.test.jsonl",
        "th_test.jsonl",
        "Test.jsonl",
        "testing.jsonl",
        "TEST-00000-of-00002.parquet.jsonl",
    ),
    *("my-dev.jsonl", "devSet.jsonl", "testset.jsonl", "flores_devtest.jsonl", "Dev/th.jsonl", "a/Valid/b/th.jsonl"),
    *("eval_th.jsonl", "th heldout.jsonl", "train_dev.jsonl", "thTest2.jsonl", "validation.v2.jsonl"),
]


@pytest.mark.parametrize("name", HELD_OUT)
def test_held_out_rows_of_a_folder_or_a_glob_are_not_trained_on(tmp_path, name):
    write_lines(tmp_path / "th.jsonl", [record(1)])
    write_lines(tmp_path / name, [record(2)])
    for source in (tmp_path, tmp_path / "**" / "*.jsonl"):
        loaded = load(source)
        assert [row.id for row in loaded.rows] == ["r1"]
        assert "1 of 2 files are read" in loaded.notes[0] and Path(name).name in loaded.notes[0]
    assert [row.text for row in stack_rows(str(tmp_path), columns={"text": "prompt"})] == ["Soal 1?"]
    assert [row.id for row in load(tmp_path / name).rows] == ["r2"]  # who names a file means it


@pytest.mark.parametrize(
    "name", ["latest.jsonl", "contest.jsonl", "validated.jsonl", "evaluator.jsonl", "train/a.jsonl"]
)
def test_words_that_are_no_split(tmp_path, name):
    write_lines(tmp_path / "th.jsonl", [record(1)])
    write_lines(tmp_path / name, [record(2)])
    assert len(load(tmp_path).rows) == 2 and load(tmp_path).notes == ()


@pytest.mark.parametrize("name", ["b.csv", "B.TSV", "sub/c.jsonl.gz", "c.parquet.zst", "d.json", "e.arrow", "f.txt"])
def test_files_of_a_folder_that_may_hold_rows_and_are_not_read_are_said(tmp_path, name):
    write_lines(tmp_path / "a.jsonl", [record(1)])
    write_lines(tmp_path / "th.test.jsonl", [record(2)])
    assert "not read" not in load(tmp_path).notes[0]
    write_lines(tmp_path / name, [record(3)])
    loaded = load(tmp_path)
    assert [row.id for row in loaded.rows] == ["r1"]
    assert "1 of 3 files are read" in loaded.notes[0] and f"1 of other kinds ({Path(name).name};" in loaded.notes[0]


def test_cards_and_texts_of_a_folder_are_no_rows_that_are_left_out(tmp_path):
    write_lines(tmp_path / "a.jsonl", [record(1)])
    for name in ("a.card.json", "data_card.json", "a.rejected.jsonl", "README.md", "LICENSE", ".cache/x.json"):
        write_lines(tmp_path / name, [{}])
    assert load(tmp_path).notes == ()


def test_a_glob_of_one_split_says_which(tmp_path):
    for name in ("en.test.jsonl", "th.test.jsonl", "th.train.jsonl"):
        write_lines(tmp_path / "test" / name, [record(name)])
    assert len(load(tmp_path / "test" / "*.test.jsonl").rows) == 2
    assert len(load(tmp_path / "test").rows) == 1  # the folder that is named does not make its files a split


def test_a_folder_that_is_named_by_a_split_holds_that_split_alone(tmp_path):
    """`data.train=data/test` trained on the test, and `dudi stack eval RUN data/test` found no test in it."""
    for name in ("train/a.jsonl", "dev/a.jsonl", "test/a.jsonl", "other/a.jsonl"):
        write_lines(tmp_path / name, [record(name)])
    assert len(load(tmp_path / "test", split="test").rows) == len(load(tmp_path / "dev", split="validation").rows) == 1
    with pytest.raises(
        ConfigError, match=r"none of its 1 data files belongs to the split 'train', by their names .test"
    ):
        load(tmp_path / "test")
    assert [len(load(tmp_path / name).rows) for name in ("train", "other", "test/*.jsonl", "test/a.jsonl")] == [1] * 4
    assert [own_split(str(tmp_path / name)) for name in ("test", "dev/", "other", "test/a.jsonl")] == [
        "test", "dev", None, None,
    ]  # fmt: skip


def test_rows_for_evaluation_are_no_rows_to_train_on(tmp_path):
    """`data.eval` of a folder with all splits read its rows to train on; so did `data.eval_split` of one file."""
    for name in ("train/a.jsonl", "dev/a.jsonl", "other/a.jsonl"):
        write_lines(tmp_path / name, [record(name)])
    folder, file = str(tmp_path), str(tmp_path / "train" / "a.jsonl")
    assert held_out(file, None, None) is None
    assert held_out(file, f"{folder}/dev", None) == (f"{folder}/dev", "validation")
    assert held_out(file, f"{folder}/other", None) == (f"{folder}/other", "train")
    assert held_out(file, file, None) == (file, "train")
    assert held_out(folder, None, "dev") == (folder, "dev")
    assert held_out("org/name", None, "validation") == ("org/name", "validation")
    with pytest.raises(ConfigError, match=r"holds the splits train, validation; name one with data.eval_split"):
        held_out(file, folder, None)
    with pytest.raises(ConfigError, match=r"data.eval_split: .*a.jsonl is one file, and has no split 'validation'"):
        held_out(file, None, "validation")
    assert held_out("org/name", "org/other", None) == ("org/other", "train")
    with pytest.raises(ConfigError, match=r"data.eval: org/name is what is trained on; name another split"):
        held_out("org/name", "org/name", None)


def test_a_saved_dataset_that_is_evaluated_on_says_its_split(tmp_path):
    """Without `data.eval_split` the split `train` of a `DatasetDict` was read, whatever else it held."""
    rows = datasets.Dataset.from_list([record(1)])
    for name, splits in (("both", ("train", "validation")), ("one", ("validation",))):
        datasets.DatasetDict(dict.fromkeys(splits, rows)).save_to_disk(tmp_path / name)
    rows.save_to_disk(tmp_path / "alone")
    assert held_out("x.jsonl", str(tmp_path / "one"), None) == (str(tmp_path / "one"), "validation")
    assert held_out("x.jsonl", str(tmp_path / "alone"), None) == (str(tmp_path / "alone"), "train")
    with pytest.raises(ConfigError, match=r"both holds the splits train, validation; name one with data.eval_split"):
        held_out("x.jsonl", str(tmp_path / "both"), None)
    (tmp_path / "one" / "dataset_dict.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="one: cannot be read as a saved dataset"):
        held_out("x.jsonl", str(tmp_path / "one"), None)


def test_rows_in_other_languages_are_left_out_and_counted(tmp_path):
    codes = ["id", "vi", "id", "th", "vi"]
    path = write_lines(tmp_path / "a.jsonl", [record(n, language=code) for n, code in enumerate(codes)])
    loaded = load(path, only=["id"], max_rows=2)
    assert [row.id for row in loaded.rows] == ["r0", "r2"] and loaded.total == 2 and not loaded.rejections
    assert loaded.left_out == {"vi": 1} and "other languages than id are left out: vi 1" in loaded.notes[0]


def test_max_rows_stops_reading(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [record(1), record(2, prompt=""), record(3), record(4)])
    loaded = load(path, max_rows=2)
    assert [row.id for row in loaded.rows] == ["r1", "r3"] and loaded.total == 3
    assert load(path, max_rows=0).total == 0


def test_duplicate_ids():
    rows = [
        record(1),
        record(1),
        record(1, completion="Tidak."),
        record(1, completion="Mungkin."),
        record(2, id="r1#2"),
    ]
    loaded = rows_from_records(rows, languages=CODES)
    assert [row.id for row in loaded.rows] == ["r1", "r1#2", "r1#3", "r1#2#2"]
    assert [row.completion for row in loaded.rows[:3]] == ["Ya.", "Tidak.", "Mungkin."]
    assert places(loaded) == [("dataset", 2, "duplicate")]


def test_rows_without_ids_are_named_by_their_place(tmp_path):
    rows = [{k: v for k, v in record(n).items() if k != "id"} for n in range(2)]
    path = write_lines(tmp_path / "a.jsonl", rows)
    assert [row.id for row in load(path).rows] == ["a.jsonl:1", "a.jsonl:2"]


def test_a_fixed_language_and_another_column(tmp_path):
    rows = [{"prompt": "Soal?", "completion": "Ya.", "lang": "id"}]
    path = write_lines(tmp_path / "a.jsonl", rows)
    assert places(load(path)) == [("a.jsonl", 1, "missing_language")]
    assert load(path, language="vi").rows[0].language == "vi"
    assert load(path, language_column="lang").rows[0].language == "id"
    with pytest.raises(ConfigError, match=r"language: 'vn' is not one of .* \(did you mean 'vi'\?\)"):
        load(path, language="vn")


def test_the_fingerprint_tells_content_and_order():
    one, two = (rows_from_records([record(n)], languages=CODES).rows[0] for n in (1, 2))
    assert len({fingerprint([one, two]), fingerprint([two, one]), fingerprint([one]), fingerprint([])}) == 4
    assert fingerprint([one, two]) == fingerprint([one, two])


def test_given_rejections_are_used():
    rejections = Rejections()
    loaded = rows_from_records([record(1, prompt="")], languages=CODES, rejections=rejections)
    assert loaded.rejections is rejections and len(rejections) == 1


def test_a_record_that_no_json_can_show_is_still_counted():
    circular = []
    circular.append(circular)
    strange = [{"prompt": circular}, {"prompt": 10**5000}, {1: object(), "id": b"x"}, object()]
    loaded = rows_from_records(strange, languages=CODES)
    assert loaded.total == len(loaded.rejections) == 4


def test_cldr_is_built_in():
    loaded = load("cldr", rows_per_language=3, seed=1)
    assert loaded.rows == cldr_rows(CODES, 3, 1)
    assert loaded.total == len(loaded.rows) and {row.language for row in loaded.rows} == set(CODES)
    assert load("cldr", rows_per_language=3, max_rows=2).total == 2
    with pytest.raises(ConfigError, match="cldr: comes with training rows alone, and has no split 'validation'"):
        load("cldr", split="validation")


def test_paths_that_do_not_exist(tmp_path, monkeypatch):
    write_lines(tmp_path / "data" / "train.jsonl", [record(1)])
    with pytest.raises(ConfigError, match=r"trian\.jsonl: no such file or folder \(did you mean 'train\.jsonl'\?\)"):
        load(tmp_path / "data" / "trian.jsonl")
    with pytest.raises(ConfigError, match=r"the folder .*nowhere does not exist"):
        load(tmp_path / "nowhere" / "a.jsonl")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no such file or folder"):  # `data` is a folder here: not a name on the hub
        load("data/train")
    with pytest.raises(ConfigError, match="no such file or folder"):
        load("cdlr")
    with pytest.raises(ConfigError, match="is empty"):
        load(" ")


def test_other_files_are_refused_with_advice(tmp_path):
    for name, advice in (("a.csv", "dudi prepare convert"), ("a.txt", "JSONL or Parquet")):
        (tmp_path / name).write_text("prompt,completion\n")
        with pytest.raises(ConfigError, match=advice):
            load(tmp_path / name)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no data files in it"):
        load(tmp_path / "empty")


def test_an_empty_file_has_no_rows(tmp_path):
    (tmp_path / "a.jsonl").write_text("")
    loaded = load(tmp_path / "a.jsonl")
    assert loaded.rows == [] and loaded.total == 0


def test_the_hub_out_of_reach_is_an_environment_fault(tmp_path):
    code = (
        "from dudi.data.sources import load_rows\n"
        "from dudi.errors import EnvironmentFault\n"
        "try:\n    load_rows('nobody/nothing:config', languages=['id'])\n"
        "except EnvironmentFault as error:\n    print(error)\n"
    )
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("nobody/nothing: no such folder here, and not in the hub's cache")
    assert len(done.stdout.splitlines()) == 1


def test_atomic_files_leave_the_old_one_when_the_block_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    with pytest.raises(EnvironmentFault, match="cannot write"), atomic_file(tmp_path / "a.txt" / "b"):
        pass
