"""`pivot: en`: the teacher sees the example in English too, where the row has a parallel one."""

import pytest
from test_trainer import make_trainer, metrics_of

from dudi.data.built_in import SOURCES
from dudi.data.rows import parse_row
from dudi.distill.verbalizer import Verbalizer, pivots_of
from dudi.errors import ConfigError, DataError
from dudi.program.cli import main
from helpers import ROWS, make_args

LANGUAGES = ["id", "my", "th"]
PARALLEL = [{**row, "parallel": row["id"].partition("-")[2]} for row in ROWS]


@pytest.fixture(scope="module")
def rows():
    return {row["id"]: parse_row(row, fallback_id="") for row in PARALLEL}


@pytest.fixture
def verbalizer(rows):
    made = Verbalizer("cross_lingual", LANGUAGES, seed=0, pivot="en")
    made.pivots = pivots_of(rows.values(), "en")
    return made


def test_the_teacher_alone_sees_it(verbalizer, rows):
    plain = Verbalizer("cross_lingual", LANGUAGES, seed=0).verbalize(rows["my-1"])
    said = verbalizer.verbalize(rows["my-1"])
    english = rows["en-1"]
    shown = f"\n\nအင်္ဂလိပ်ဘာသာ:\n{english.prompt[-1]['content']}\n{english.completion}\n"
    z = said.teacher_messages[-1]["content"]
    assert shown in z and z.replace(shown, "\n") == plain.teacher_messages[-1]["content"]
    assert said.student_messages == plain.student_messages and said.target_language == plain.target_language
    assert verbalizer.verbalize(rows["my-1"], with_pivot=False) == plain


@pytest.mark.parametrize("mode", ["english", "multilingual", "cross_lingual", "mix"])
def test_every_mode_with_an_example_shows_it(mode, rows):
    verbalizer = Verbalizer(mode, LANGUAGES, seed=0, pivot="en")
    verbalizer.pivots = pivots_of(rows.values(), "en")
    assert rows["en-2"].completion in verbalizer.verbalize(rows["th-2"]).teacher_messages[-1]["content"]


def test_a_row_in_english_or_without_a_parallel_one_is_as_ever(verbalizer, rows):
    alone = parse_row({**ROWS[0], "id": "x"}, fallback_id="")
    for row in (rows["en-1"], alone, parse_row({**ROWS[0], "parallel": "other"}, fallback_id="")):
        assert verbalizer.pivot_of(row) is None
        assert verbalizer.verbalize(row) == Verbalizer("cross_lingual", LANGUAGES, seed=0).verbalize(row)


def test_somebody_elses_column_says_nothing():
    assert parse_row({**ROWS[0], "parallel": 7}, fallback_id="").parallel is None


def test_the_built_in_facts_are_parallel():
    rows = SOURCES["cldr-qa-1"].rows(["id", "en", "my"], ["currency"], 80, 0)
    found = pivots_of(rows, "en")
    with_one = [row for row in rows if row.language != "en" and row.parallel in found]
    assert with_one
    for row in with_one:
        assert row.parallel == found[row.parallel].parallel and row.parallel.startswith("currency")


def test_a_run_shows_it_and_counts(tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, "dudi", PARALLEL, tokenizer, pivot="en", cold_start="none")
    assert "pivot: 28 of 28 rows in other languages have a parallel one in en" in trainer.setup.notes
    trainer.train()
    assert 0 < metrics_of(tmp_path)[0]["verbalizer/with_pivot"] <= 8


def test_what_is_too_long_loses_it_before_the_example(tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, "dudi", PARALLEL, tokenizer, pivot="en", cold_start="none")
    example = next(one for one in trainer.setup.train.examples if one.row.id == "my-1")
    collector, lengths = trainer.run.collector, []
    for keys in ({}, {"with_pivot": False}, {"with_answer": False, "with_pivot": False}):
        said = trainer.setup.verbalizer.verbalize(example.row, **keys)
        lengths.append(len(trainer.setup.teacher_format.prompt_ids(said.teacher_messages)))
    assert lengths == sorted(lengths, reverse=True)
    for limit, expected, counts in (
        (lengths[0], 0, (1, 0)),
        (lengths[0] - 1, 1, (0, 0)),
        (lengths[1] - 1, 2, (0, 1)),
    ):
        collector.args.teacher_max_length = limit
        collected = collector.collect([[example]], trainer.signals, 0)
        assert len(collected.batches[0].sequences["verbalized"][0].teacher_prompt) == lengths[expected]
        assert (collected.with_pivot, collected.without_example) == counts


def test_other_parallel_rows_are_another_run(tmp_path, tokenizer):
    keys = {"pivot": "en", "cold_start": "none", "save_strategy": "steps", "save_steps": 1}
    make_trainer(tmp_path, "dudi", PARALLEL, tokenizer, **keys).train()
    moved = [
        {**row, "parallel": str(3 - int(row["parallel"])) if row["language"] == "en" else row["parallel"]}
        for row in PARALLEL
    ]
    with pytest.raises(ConfigError, match="pivots"):
        make_trainer(tmp_path, "dudi", moved, tokenizer, **keys).train(
            resume_from_checkpoint=str(tmp_path / "checkpoints" / "step-1")
        )


def test_what_is_refused(tmp_path, tokenizer):
    with pytest.raises(ConfigError, match="pivot: needs a verbalizer"):
        make_args(tmp_path, "dudi", pivot="en", verbalizer="none")
    with pytest.raises(DataError, match="pivot: no row has a parallel one in 'en'"):
        make_trainer(tmp_path, "dudi", ROWS, tokenizer, pivot="en")
    with pytest.raises(ConfigError, match=r"pivot: .*xx"):
        make_trainer(tmp_path, "dudi", PARALLEL, tokenizer, pivot="xx")


def test_a_dry_run_shows_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["pivot=en", "languages=[id, my, en]", "data.tasks=[currency]", "data.rows_per_language=80", "use_cpu=true"]
    assert main(["train", "mini/dudi", *words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "rows in other languages have a parallel one in en" in said
    assert "bahasa Inggris:" in said
