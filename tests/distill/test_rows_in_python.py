"""Rows that are given in Python: unique ids, bad rows told and counted, other datasets where `Trainer` takes them."""

import json
import math
from pathlib import Path

import datasets
import pytest
import torch
from transformers import TrainingArguments

from dudi import DudiConfig, DudiTrainer
from dudi.data.rows import Row
from dudi.data.sources import rows_from_records
from dudi.errors import ConfigError, DataError
from dudi.languages.registry import load_languages
from helpers import ROWS, make_args, make_model, make_tokenizer


def make_trainer(folder, tokenizer, rows=ROWS, method="sft", eval_rows=None, teacher=None, **keys):
    options = {name: keys.pop(name) for name in ("max_rejected_share", "teacher_processing_class") if name in keys}
    teacher = teacher or make_model(seed=2, hidden_size=48)
    return DudiTrainer(
        make_model(seed=1), teacher, make_args(folder, method, **keys), rows, eval_rows, tokenizer, **options
    )


def records(folder, stage=None):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [record for record in lines if stage in (None, record["stage"])]


def row(number, **changes):
    return {
        "id": str(number),
        "language": "id",
        "prompt": f"Soal {number}?",
        "completion": f"Jawab {number}.",
    } | changes


def as_rows(*given):
    return rows_from_records(given, languages=load_languages()).rows


# ---- languages


def test_rows_in_other_languages_than_the_keys_name_are_left_out(tmp_path, tokenizer):
    """They were trained, though a recipe with the same keys leaves them out."""
    with pytest.warns(UserWarning, match=r"in other languages than id, vi are left out: en \d+, ms \d+"):
        trainer = make_trainer(tmp_path, tokenizer, languages=["id", "vi"], eval_rows=ROWS)
    assert {example.row.language for example in trainer.setup.train.examples} == {"id", "vi"}
    assert len(trainer.eval_dataset) == len(ROWS)
    silent = make_trainer(tmp_path / "all", tokenizer)
    assert len(silent.setup.train.examples) == len(ROWS)
    with pytest.raises(DataError, match="no row is left of 1: none is in a language that is trained"):
        make_trainer(tmp_path / "none", tokenizer, [row(1)], languages=["my"])


# ---- ids


@pytest.mark.parametrize("method", ["dudi", "seqkd", "spin"])
def test_two_files_whose_rows_are_numbered_alike(method, tmp_path, tokenizer):
    """One's stored reference, and its teacher's answer, were taken for the other's."""
    first = as_rows(*(row(n) for n in range(4)))
    second = as_rows(*(row(n, prompt=f"Lain {n}?", completion="Lain sekali " * n + ".") for n in range(4)))
    trainer = make_trainer(tmp_path, tokenizer, [*first, *second], method)
    ids = [example.row.id for example in trainer.setup.train.examples]
    assert ids == ["0", "1", "2", "3", "0#2", "1#2", "2#2", "3#2"]
    trainer.train()
    if method == "dudi":
        assert records(tmp_path, "dudi")[0]["loss/sequence"] == pytest.approx(math.log(2), abs=1e-6)
    if method == "seqkd":
        answers = (tmp_path / "stages" / "targets" / "answers" / "answers.jsonl").read_text().splitlines()
        assert len({json.loads(line)["id"] for line in answers}) == 8


def test_the_same_row_twice_is_told(tmp_path, tokenizer):
    rows = as_rows(*(row(n) for n in range(30)))
    with pytest.warns(UserWarning, match="1 duplicate"):
        trainer = make_trainer(tmp_path, tokenizer, [*rows, rows[3]])
    assert len(trainer.setup.train.examples) == 30


def test_rows_and_records_keep_their_order(tmp_path, tokenizer):
    mixed = [row(1), *as_rows(row(2)), row(3)]
    assert isinstance(mixed[1], Row)
    trainer = make_trainer(tmp_path, tokenizer, mixed)
    assert [example.row.id for example in trainer.setup.train.examples] == ["1", "2", "3"]


def test_a_language_without_a_wording_is_trained_where_nothing_is_asked_for_in_words(tmp_path, tokenizer):
    rows = [row(n, language="sw") for n in range(4)]
    trainer = make_trainer(tmp_path, tokenizer, rows, "gkd", languages=["sw"])
    assert {example.row.language for example in trainer.setup.train.examples} == {"sw"}
    with pytest.raises(ConfigError, match=r"languages: unknown language 'sw'.*\n.*DUDI_LANGUAGES_DIR"):
        make_trainer(tmp_path / "dudi", tokenizer, rows, "dudi", languages=["sw"])


def test_a_student_without_a_name_needs_its_tokenizer(tmp_path):
    with pytest.raises(ConfigError, match="processing_class: the student is an object without a name"):
        make_trainer(tmp_path, None)


# ---- bad rows


def test_too_many_bad_rows_stop_a_run(tmp_path, tokenizer):
    rows = [*ROWS[:4], *(row(n, language="xx") for n in range(28))]
    with pytest.warns(UserWarning, match="28 unknown_language"), pytest.raises(DataError) as caught:
        make_trainer(tmp_path, tokenizer, rows, "dudi")
    assert "28 of 32 rows were rejected" in str(caught.value)
    assert len((tmp_path / "rejected.jsonl").read_text().splitlines()) == 28
    with pytest.warns(UserWarning, match="28 unknown_language"):
        trainer = make_trainer(tmp_path, tokenizer, rows, "dudi", max_rejected_share=0.9)
    assert len(trainer.setup.train.examples) == 4


BAD = {
    "no language": ({"language": None}, "missing_language", "no `language`"),
    "another language": ({"language": "fr"}, "unknown_language", "'fr' is not one of"),
    "a column of text": ({"prompt": None, "completion": None, "text": "x"}, "null", "`prompt` is null"),
    "content in parts": (
        {"prompt": [{"role": "user", "content": [{"type": "text", "text": "?"}]}]},
        "wrong_type",
        "content",
    ),
    "a turn of a tool": (
        {"messages": [{"role": "tool", "content": "1"}], "prompt": None, "completion": None},
        "tool_turn",
        "calls or answers a tool",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_rows_that_are_all_bad_say_why(case, tmp_path, tokenizer):
    changes, reason, detail = BAD[case]
    with pytest.raises(DataError) as caught, pytest.warns(UserWarning):
        make_trainer(tmp_path, tokenizer, [row(n, **changes) for n in range(8)], "dudi")
    for text in ("train_dataset: no row is left of 8", reason, detail):
        assert text in str(caught.value)
    kept = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [one["reason"] for one in kept] == [reason] * 8


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([], "train_dataset: the dataset has no rows"),
        ("rows.jsonl", "train_dataset: 'rows.jsonl' is a name"),
        (Path("rows.jsonl"), "train_dataset: 'rows.jsonl' is a name"),
        (datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)), r"several datasets \(train\); give one of them"),
        ((r for r in ROWS), "train_dataset: streaming datasets are not supported"),
    ],
    ids=["empty", "name", "path", "dict", "stream"],
)
def test_what_is_no_list_of_rows_is_refused(dataset, message, tmp_path, tokenizer):
    with pytest.raises((ConfigError, DataError), match=message):
        make_trainer(tmp_path, tokenizer, dataset)


@pytest.mark.parametrize("method", ["sft", "dft", "spin", "seqkd", "gkd"])
def test_a_method_without_a_verbalizer_asks_for_no_language(method, tmp_path, tokenizer):
    rows = [{"prompt": r["prompt"], "completion": r["completion"]} for r in ROWS[:4]]
    rows += [row(n, language="fr", prompt="Quelle est la capitale ?", completion="Paris, bien sûr.") for n in range(4)]
    trainer = make_trainer(tmp_path, tokenizer, rows, method)
    assert [e.row.language for e in trainer.setup.train.examples] == ["und"] * 4 + ["fr"] * 4
    trainer.train()
    for record in records(tmp_path, method):
        assert math.isfinite(record["loss"])
        assert "rollout/wrong_language_rate" not in record  # nothing is right or wrong where nobody can tell
    assert trainer.evaluate(rows)["eval_loss"] > 0


def test_a_token_that_the_teacher_lacks_costs_its_row(tmp_path):
    tokenizer = make_tokenizer()
    theirs = make_tokenizer()
    for n in range(40):
        tokenizer.add_tokens(f"<new-{n}>")
    rows = [*(row(n) for n in range(40)), row("bad", completion="Ini <new-39>.")]
    teacher = make_model(seed=2, hidden_size=48, vocab_size=440)
    student = make_model(seed=1, vocab_size=480)
    args = make_args(tmp_path, "gkd")
    with pytest.warns(UserWarning, match="1 token_beyond_the_teacher"):
        trainer = DudiTrainer(student, teacher, args, rows, None, tokenizer, teacher_processing_class=theirs)
    assert "bad" not in [example.row.id for example in trainer.setup.train.examples]
    assert "<new-39>" in (tmp_path / "rejected.jsonl").read_text()
    trainer.train()


# ---- other datasets


def test_evaluate_takes_other_rows(tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, tokenizer, ROWS[:16], eval_rows=ROWS[:8])
    own = trainer.evaluate()
    assert trainer.evaluate(ROWS[:8])["eval_loss"] == own["eval_loss"]
    assert trainer.evaluate(datasets.Dataset.from_list(ROWS[:8]))["eval_loss"] == own["eval_loss"]
    other = trainer.evaluate(ROWS[8:16], metric_key_prefix="other")
    assert other["other_loss"] != own["eval_loss"]
    predicted = trainer.predict(ROWS[8:16])
    assert predicted.metrics["test_loss"] == other["other_loss"]
    assert predicted.predictions is None and predicted.label_ids is None
    trainer.eval_dataset = ROWS[8:16]
    assert trainer.evaluate()["eval_loss"] == other["other_loss"]
    with pytest.raises(DataError, match="eval_dataset: no row is left of 1: 1 missing_key"):
        trainer.evaluate([{"prompt": "?"}])
    with pytest.warns(UserWarning, match="1 missing_key"):
        trainer.evaluate([*ROWS, {"prompt": "?"}])
    assert (tmp_path / "rejected-eval_dataset.jsonl").is_file() and not (tmp_path / "rejected.jsonl").exists()


def test_the_bad_rows_of_several_datasets_are_in_one_file(tmp_path, tokenizer):
    trainer = make_trainer(tmp_path, tokenizer, ROWS[:16], max_rejected_share=0.5)
    with pytest.warns(UserWarning, match="2 missing_key"):
        trainer.eval_dataset = {"a": [*ROWS[:8], {"prompt": "?"}], "b": [*ROWS[8:16], {"prompt": "!"}]}
    text = (tmp_path / "rejected-eval_dataset.jsonl").read_text(encoding="utf-8")
    files = [record["file"] for record in map(json.loads, text.splitlines())]
    assert files == ["eval_dataset['a']", "eval_dataset['b']"]


@pytest.mark.parametrize("kind", [dict, datasets.DatasetDict])
def test_evaluation_sets_may_have_names(kind, tmp_path, tokenizer):
    sets = {"id": ROWS[:16:8], "vi": ROWS[1:16:8]}
    if kind is datasets.DatasetDict:
        sets = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in sets.items()})
    trainer = make_trainer(tmp_path, tokenizer, eval_rows=sets, eval_strategy="steps", eval_steps=1)
    trainer.train()
    lines = [json.loads(line) for line in (tmp_path / "eval.jsonl").read_text().splitlines()]
    assert {key for line in lines for key in line if key.endswith("_loss")} == {"eval_id_loss", "eval_vi_loss"}
    assert trainer.evaluate()["eval_id_loss"] == trainer.evaluate(ROWS[:16:8])["eval_loss"]
    assert trainer.evaluate(sets)["eval_vi_loss"] == trainer.evaluate("vi")["eval_loss"]


def test_the_training_rows_can_be_swapped(tmp_path, tokenizer):
    swapped = make_trainer(tmp_path / "a", tokenizer, ROWS[:8], "dudi")
    before = swapped.identity()
    swapped.train_dataset = ROWS[8:24]
    assert swapped.identity() != before
    swapped.train()
    plain = make_trainer(tmp_path / "b", tokenizer, ROWS[8:24], "dudi")
    plain.train()
    assert [r["loss"] for r in records(tmp_path / "a")] == [r["loss"] for r in records(tmp_path / "b")]
    own, other = swapped.model.state_dict(), plain.model.state_dict()
    assert all(torch.equal(own[name], other[name]) for name in own)


# ---- what other trainers take


def test_names_may_be_paths(tmp_path, tokenizer):
    for name, model in (("student", make_model(seed=1)), ("teacher", make_model(seed=2, hidden_size=48))):
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    args = make_args(tmp_path / "run", "gkd")
    trainer = DudiTrainer(tmp_path / "student", tmp_path / "teacher", args, ROWS)
    trainer.train()
    assert len(records(tmp_path / "run", "gkd")) == 2


def test_training_arguments_become_a_config(tmp_path, tokenizer):
    given = TrainingArguments(
        str(tmp_path), max_steps=1, learning_rate=5e-5, per_device_train_batch_size=2, use_cpu=True, save_strategy="no"
    )
    trainer = DudiTrainer(make_model(seed=1), make_model(seed=2), given, ROWS, None, tokenizer)
    assert type(trainer.args) is DudiConfig
    assert (trainer.args.learning_rate, trainer.args.gradient_accumulation_steps) == (5e-5, 1)
    assert not trainer.args.remove_unused_columns
    trainer.train()
    assert len(records(tmp_path, "dudi")) == 1


@pytest.mark.parametrize(
    "name",
    ["compute_metrics", "preprocess_logits_for_metrics", "data_collator", "formatting_func", "model_init", "tokenizer"],
)
def test_what_would_have_no_effect_is_refused_by_its_name(name, tmp_path, tokenizer):
    args = make_args(tmp_path, "sft")
    with pytest.raises(ConfigError, match=f"^{name}: is not taken"):
        DudiTrainer(make_model(seed=1), None, args, ROWS, None, **({"processing_class": tokenizer} | {name: object()}))
    DudiTrainer(make_model(seed=1), None, args, ROWS, None, tokenizer, **{name: None})
    with pytest.raises(TypeError, match="unexpected keyword argument 'modle'"):
        DudiTrainer(make_model(seed=1), None, args, ROWS, None, tokenizer, modle=1)


def test_the_arguments_of_another_trainer_are_refused(tmp_path, tokenizer):
    from trl import SFTConfig

    with pytest.raises(ConfigError, match="a SFTConfig belongs to another trainer"):
        DudiTrainer(make_model(seed=1), None, SFTConfig(str(tmp_path), use_cpu=True), ROWS, None, tokenizer)
