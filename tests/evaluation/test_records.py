"""`evaluation.json`: what is written is what is read, also of the first format; what is broken is named."""

import dataclasses
import json

import pytest

from dudi.errors import ConfigError, DataError
from dudi.evaluation.records import (
    Evaluation,
    SeedScores,
    keep_evaluations,
    read_evaluations,
    write_evaluations,
)


def one(name="dudi", benchmark="q", subject="", seeds=(0, 1), **about):
    runs = tuple(
        SeedScores(seed, {"overall": {"exact_match": 0.5 + seed}, "by_language": {"th": {}}}) for seed in seeds
    )
    return Evaluation(name, f"runs/{name}", {"name": benchmark}, runs, about, subject)


def test_what_is_written_is_what_is_read(tmp_path):
    some = [one(), one("teacher", subject="teacher", parameters=3)]
    assert read_evaluations(write_evaluations(some, tmp_path / "deep" / "e.json")) == some
    file = write_evaluations(some, tmp_path / "lines.json", a_line_each=True)
    assert read_evaluations(file) == some
    assert len(file.read_text(encoding="utf-8").splitlines()) == 4


def test_the_first_format_is_read(tmp_path):
    old = dataclasses.asdict(one()) | {"format": "dudi-evaluation-1"}
    old.pop("subject")
    old["runs"] = old["runs"][::-1]
    (tmp_path / "e.json").write_text(json.dumps(old), encoding="utf-8")
    assert read_evaluations(tmp_path / "e.json") == [one()]


def test_values_keys_and_guessing():
    own = one(guessing={"overall": {"exact_match": 0.1}})
    assert own.values("exact_match", "overall") == [0.5, 1.5]
    assert own.values("exact_match", "by_language", "th") == own.values("chrf", "nowhere", "th") == []
    assert own.keys("language") == ["th"] and own.keys("split") == []
    assert own.guessing().values("exact_match", "overall") == [0.1, 0.1]
    assert one().guessing() is None


def test_one_takes_the_place_of_its_like_and_of_nobody_else(tmp_path):
    lines = [{"benchmark": name, "subject": who, "answer": name} for name in "qr" for who in ("dudi", "gkd")]
    keep_evaluations([one(benchmark=name, name=who) for name in "qr" for who in ("dudi", "gkd")], lines, tmp_path)
    new = [{"benchmark": "q", "subject": "dudi", "answer": "new"}]
    keep_evaluations([one(seeds=(7,))], new, tmp_path)
    found = read_evaluations(tmp_path / "evaluation.json")
    assert [(e.benchmark["name"], e.name, e.seeds) for e in found] == [
        ("q", "gkd", [0, 1]),
        ("r", "dudi", [0, 1]),
        ("r", "gkd", [0, 1]),
        ("q", "dudi", [7]),
    ]
    kept = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert kept == [*lines[1:], *new]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"name": 3}, "name is not a line"),
        ({"name": " "}, "name is not a line"),
        ({"name": "a\x1b[2J"}, "name is not a line"),
        ({"benchmark": []}, "benchmark is not a mapping"),
        ({"about": 1}, "about is not a mapping"),
        ({"runs": []}, "no whole number as its seed"),
        ({"runs": [{"seed": "a", "scores": {}}]}, "no whole number as its seed"),
        ({"runs": [{"seed": True, "scores": {}}]}, "no whole number as its seed"),
        ({"runs": [{"seed": 0, "scores": 1}]}, "scores is not a mapping"),
        ({"runs": [{"seed": 0}]}, "is not a whole evaluation"),
        ({"runs": 3}, "is not a whole evaluation"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_broken_is_named(tmp_path, wrong, told):
    content = {"format": "dudi-evaluation-2", "evaluations": [dataclasses.asdict(one()) | wrong]}
    (tmp_path / "e.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=rf"e\.json: .*{told}"):
        read_evaluations(tmp_path / "e.json")


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "x"}', '{"format": "dudi-evaluation-2"}', "[" * 100_000])
def test_files_that_are_none(tmp_path, text):
    (tmp_path / "e.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=r"e\.json"):
        read_evaluations(tmp_path / "e.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_evaluations(tmp_path / "none.json")
