"""Files of questions: what is read, what is refused and why, and what a fingerprint sees."""

from __future__ import annotations

import json

import pytest

from dudi.data.cldr import LANGUAGES
from dudi.data.cldr.benchmark import questions
from dudi.data.records import Located
from dudi.data.rows import RowError
from dudi.errors import ConfigError, DataError
from dudi.evaluation.benchmarks import choose
from dudi.evaluation.cldr_qa import fingerprint as built_in_fingerprint
from dudi.evaluation.entry import Trained, Wanted
from dudi.evaluation.question_files import chosen, fingerprint, parse_question, read_questions

GOOD = [
    {
        "id": "a",
        "language": "th",
        "prompt": "สกุลเงินของไทยคืออะไร",
        "references": ["บาท", "บาทไทย", "บาท"],
        "split": "easy",
    },
    {"id": "b", "language": "my", "question": "မြန်မာငွေ", "answer": "ကျပ်", "task": "money"},
    {"id": 7, "language": "id", "prompt": "Mata uang?", "completion": "Rupiah", "split": "hard", "task": "money"},
    {
        "language": "en",
        "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Whose money is the kyat?"}],
        "completion": [{"role": "assistant", "content": "Myanmar"}],
    },
    {"language": "jv", "prompt": "Apa?", "reference": "Iya"},
]
BAD = {
    "not_an_object": [1],
    "missing_key": {"language": "th", "prompt": "x"},
    "two_formats": {"language": "th", "prompt": "x", "answer": "y", "reference": "z"},
    "null": {"language": "th", "prompt": None, "answer": "y"},
    "wrong_type": {"language": "th", "prompt": "x", "answer": 5},
    "empty_completion": {"language": "th", "prompt": "x", "references": []},
    "empty_prompt": {"language": "th", "prompt": " ", "answer": "y"},
    "missing_language": {"prompt": "x", "answer": "y"},
    "unknown_language": {"language": "no code", "prompt": "x", "answer": "y"},
    "bad_label": {"language": "th", "prompt": "x", "answer": "y", "split": "two\nlines"},
    "last_turn_not_user": {"language": "th", "prompt": [{"role": "assistant", "content": "x"}], "answer": "y"},
}


def written(folder, rows, name="some.jsonl"):
    path = folder / name
    lines = (row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def good(tmp_path):
    return written(tmp_path, GOOD)


def from_file(path, languages=None, tasks=None):
    return choose(str(path), Wanted(languages=languages, tasks=tasks))


def parsed(record, language=None):
    return parse_question(Located("f.jsonl", 1, record), language)


def test_what_is_read(good):
    items, total, rejections = read_questions(good)
    assert (total, len(rejections)) == (5, 0)
    thai, burmese, indonesian, english, javanese = items
    assert (thai.row.id, thai.row.language, thai.split, thai.task) == ("a", "th", "easy", "")
    assert (thai.row.completion, thai.alternatives) == ("บาท", ("บาทไทย",))  # the same one twice is one
    assert thai.row.prompt == ({"role": "user", "content": GOOD[0]["prompt"]},)
    assert (burmese.row.prompt[0]["content"], burmese.references, burmese.task) == ("မြန်မာငွေ", ("ကျပ်",), "money")
    assert (indonesian.row.id, indonesian.split) == ("7", "hard")
    assert [turn["role"] for turn in english.row.prompt] == ["system", "user"]
    assert english.row.completion == "Myanmar"
    assert english.row.id == "some.jsonl:4"
    assert javanese.row.language == "jv"  # not one of dudi's, and still a language
    assert all(item.guess is None for item in items)


@pytest.mark.parametrize("reason", BAD)
def test_why_a_row_is_refused(reason):
    with pytest.raises(RowError) as caught:
        parsed(BAD[reason])
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"language": "th", "prompt": "x", "references": "y"}, "wrong_type"),
        ({"language": "th", "prompt": "x", "references": ["y", 3]}, "wrong_type"),
        ({"language": "th", "prompt": "x", "references": ["y", " "]}, "empty_completion"),
        ({"language": "th", "prompt": "x", "question": "z", "answer": "y"}, "two_formats"),
        ({"language": "th", "prompt": "x", "answer": "y", "task": 3}, "wrong_type"),
    ],
)
def test_further_refusals(record, reason):
    with pytest.raises(RowError) as caught:
        parsed(record)
    assert caught.value.reason == reason


def test_a_language_for_rows_without_one():
    record = {"prompt": "x", "answer": "y"}
    assert parsed(record, "th").row.language == "th"
    with pytest.raises(RowError, match="language_conflict"):
        parsed(record | {"language": "my"}, "th")


def test_bad_rows_are_counted_and_the_others_kept(tmp_path):
    rows = [*GOOD, *BAD.values(), '{"broken', GOOD[0], GOOD[0] | {"prompt": "another"}]
    items, total, rejections = read_questions(written(tmp_path, rows))
    assert (total, len(items), len(rejections)) == (len(rows), 6, len(BAD) + 2)
    assert rejections.counts == dict.fromkeys([*BAD, "broken_json", "duplicate"], 1)
    assert items[-1].row.id == "a#2"
    assert rejections.items()[0].line == 6
    asked = from_file(tmp_path / "some.jsonl")
    with pytest.raises(DataError, match="13 of 19 rows were rejected"):
        asked.rejections.check_share(asked.rows, 0.05)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("q.json", json.dumps([{"id": "1", "language": "th", "question": "x?", "answer": "y"}])),
        ("q.csv", "id,language,question,answer\n1,th,x?,y\n"),
        ("q.tsv", "id\tlanguage\tprompt\treference\n1\tth\tx?\ty\n"),
        ("q.csv", "id,language,prompt,references\n1,th,x?,y\n"),
        ("q.csv", 'id,language,prompt,references\n1,th,x?,"[""y""]"\n'),
        ("q.ndjson", '{"id": "1", "language": "th", "prompt": "x?", "reference": "y"}\n'),
    ],
)
def test_other_kinds_of_file(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    ((item,), total, _) = read_questions(tmp_path / name)
    assert (total, item.row.id, item.row.language, item.references) == (1, "1", "th", ("y",))
    assert item.row.prompt[0]["content"] == "x?"


def test_references_in_a_cell(tmp_path):
    """One text, or several as a JSON list; a text that begins with a bracket is one."""
    text = 'language,prompt,references\nth,a?,"[""y"", ""z""]"\nth,b?,[sic] y\nth,c?,"[""y"", 3]"\nth,d?,[]\n'
    (tmp_path / "q.csv").write_text(text, encoding="utf-8")
    items, total, rejections = read_questions(tmp_path / "q.csv")
    assert [item.references for item in items] == [("y", "z"), ("[sic] y",)]
    assert (total, rejections.counts) == (4, {"wrong_type": 1, "empty_completion": 1})


def test_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"id": "1", "language": "th", "prompt": "x?", "references": ["y", "z"]}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    ((item,), _, _) = read_questions(tmp_path / "q.parquet")
    assert item.references == ("y", "z")


def test_files_that_are_none(tmp_path, good):
    with pytest.raises(ConfigError, match=r"no such file of questions \(did you mean 'some.jsonl'\?\)"):
        read_questions(tmp_path / "same.jsonl")
    (tmp_path / "x.xlsx").write_text("x")
    with pytest.raises(ConfigError, match=r"cannot read '.xlsx' files"):
        read_questions(tmp_path / "x.xlsx")
    with pytest.raises(DataError, match=r"no good question in 2 rows: missing_key 1, null 1"):
        from_file(written(tmp_path, [BAD["missing_key"], BAD["null"]], "bad.jsonl"))
    with pytest.raises(DataError, match=r"no good question in 0 rows \("):
        from_file(written(tmp_path, [], "empty.jsonl"))
    (tmp_path / "x.csv").write_text("id,language,text\n")
    with pytest.raises(ConfigError, match="no column 'prompt'"):
        read_questions(tmp_path / "x.csv")


def test_some_of_a_file(good):
    assert [item.row.language for item in from_file(good, ["my", "th"]).items] == ["th", "my"]
    assert [item.row.id for item in from_file(good, tasks=["money"]).items] == ["b", "7"]
    with pytest.raises(ConfigError, match=r"no question has the language 'vi'.*; there are th, my, id, en, jv"):
        from_file(good, ["vi"])
    with pytest.raises(ConfigError, match=r"no question has the task 'mony' \(did you mean 'money'\?\)"):
        from_file(good, tasks=["mony"])
    with pytest.raises(ConfigError, match="name fewer of both"):
        from_file(good, ["th"], ["money"])


def test_per_split_takes_the_first_of_each_language_and_split(tmp_path):
    rows = [
        {"id": f"{code}-{split}-{n}", "language": code, "prompt": f"{n}?", "answer": "y", "split": split}
        for n in range(3)
        for code in ("th", "en")
        for split in ("s", "t")
    ]
    items, _, _ = read_questions(written(tmp_path, rows))
    assert [item.row.id for item in chosen(items, Wanted(per_split=1))] == ["th-s-0", "th-t-0", "en-s-0", "en-t-0"]
    assert len(chosen(items, Wanted(languages=["en"], per_split=2))) == 4


def test_what_is_written_down(good):
    asked = from_file(good)
    assert asked.benchmark == {
        "decoding": {"max_new_tokens": 256, "temperature": 0.0},
        "name": "some",
        "questions": 5,
        "languages": ["th", "my", "id", "en", "jv"],
        "tasks": ["money"],
        "fingerprint": fingerprint(asked.items),
    }
    assert set(LANGUAGES) <= set(asked.candidates)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "z"},
        {"language": "lo"},
        {"prompt": "?"},
        {"references": ["บาท"]},
        {"references": ["บาทไทย", "บาท"]},
        {"split": "hard"},
        {"task": "money"},
        {"prompt": [{"role": "system", "content": ""}, {"role": "user", "content": GOOD[0]["prompt"]}]},
    ],
    ids=str,
)
def test_the_fingerprint_sees_every_change(change):
    items = [parsed(row) for row in GOOD]
    other = [parsed(GOOD[0] | change), *items[1:]]
    assert fingerprint(items) == fingerprint([parsed(row) for row in GOOD])
    assert len({fingerprint(items), fingerprint(other), fingerprint(items[::-1]), fingerprint(items[1:])}) == 4


def test_the_built_in_questions():
    trained = Trained(source="cldr-qa-1", languages=["th"])
    few = Wanted(languages=["en"], tasks=["currency"], part="validation", per_split=2, trained=trained)
    asked = choose("cldr-qa-1", few)
    own = questions(["en"], ["currency"], part="validation", per_split=2, trained=["th"])
    assert [item.row for item in asked.items] == [question.row for question in own]
    assert {item.split for item in asked.items} == {"transfer", "unseen"}
    assert asked.benchmark["fingerprint"] == built_in_fingerprint(own)
    assert asked.benchmark["part"] == "validation"
    assert asked.candidates == list(LANGUAGES)
    with pytest.raises(ConfigError, match="no question is left"):
        choose("cldr-qa-1", Wanted(languages=["en"], tasks=["names"], per_split=0))
    with pytest.raises(ConfigError, match="no part 'tests'"):
        choose("cldr-qa-1", Wanted(languages=["en"], tasks=["currency"], part="tests"))
