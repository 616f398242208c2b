"""`dudi stack eval`: systems, seeds and languages in one table, every answer kept, rows read as in training."""

import dataclasses
import json
import math
import shlex
import shutil

import pytest
import torch
from huggingface_hub import ModelCard
from stack_helpers import (
    CHOICE,
    FOREIGN,
    TASK,
    TEXTS,
    choice_rows,
    english_rows,
    make_llm,
    make_llm_tokenizer,
    make_mt,
    make_mt5,
    make_nllb_tokenizer,
    make_stack_args,
)
from transformers import PreTrainedTokenizerFast

from dudi.errors import ConfigError
from dudi.evaluation.records import read_evaluations
from dudi.program.cli import main
from dudi.stacking import LoraSettings, Source, StackRow, build_stack, finetune, stored, translate, with_head
from dudi.stacking.evaluation import macro_f1
from dudi.stacking.labelled import LabelledRows, items_of
from dudi.stacking.scores import by_split, scores_of
from dudi.stacking.systems import seed_of
from dudi.stacking.translation import translate_rows

LORA = LoraSettings(r=4)


def tuned(root, parents, kind, seed, task=TASK, rows=None, **keys):
    """A run of a stack, or of an LLM alone, as `dudi stack finetune` leaves it."""
    stack = build_stack(parents[0] if kind == "stack" else None, parents[1], seed=seed)
    source = Source(make_nllb_tokenizer() if kind == "stack" else make_llm_tokenizer())
    model = with_head(stack, task, seed=seed)
    args = make_stack_args(root / "work", seed=seed, max_steps=4, learning_rate=2e-2, **keys)
    finetune(model, source, rows or english_rows(), task, args, LORA)
    stored.save_model(root / "model", model, source.tokenizer, make_llm_tokenizer() if kind == "stack" else None, {})
    (root / "resolved.yaml").write_text(f"seed: {seed}\n", encoding="utf-8")
    return str(root)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("eval")
    make_mt().save_pretrained(root / "mt")
    make_nllb_tokenizer().save_pretrained(root / "mt")
    make_llm().save_pretrained(root / "llm")
    parents = (str(root / "mt"), str(root / "llm"))
    for seed in (1, 2):
        tuned(root / f"stack-{seed}", parents, "stack", seed)
    tuned(root / "teach-1", parents, "llm", 1)
    (root / "rows" / "test").mkdir(parents=True)
    for code, texts in (("eng_Latn", TEXTS), ("ind_Latn", FOREIGN), ("tha_Thai", FOREIGN[::-1])):
        labels = [TASK.labels[row.label] for row in english_rows()]
        rows = [{"id": str(n), "text": text, "label": labels[n], "language": code} for n, text in enumerate(texts)]
        write(root / "rows" / "test" / f"{code}.jsonl", rows)
    return root


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def kept(folder, name):
    return next(one for one in read_evaluations(folder / "evaluation.json") if one.name == name)


def answers_in(folder, name):
    lines = [json.loads(line) for line in (folder / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["subject"] == name]


def test_systems_seeds_and_languages_in_one_table(place, tmp_path, capsys):
    out = tmp_path / "out"
    words = [f"MT-LLM={place}/stack-*", f"LLM={place}/teach-1", f"{place}/rows"]
    assert main(["stack", "eval", *words, "--output", str(out)]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()[:4]] == ["accuracy", "eng_Latn", "ind_Latn", "tha_Thai"]
    assert "mean of 2 without eng_Latn" in shown
    assert "95 % over 8 items and" in shown  # the same id in two languages is one item
    assert ": no lead, since fewer than 10 items carry none (95 %" in shown
    evaluation = kept(out, "MT-LLM")
    assert evaluation.seeds == [1, 2]
    assert evaluation.benchmark["questions"] == 24
    answers = answers_in(out, "MT-LLM")
    assert len(answers) == 48
    for run in evaluation.runs:
        own = [line for line in answers if line["seed"] == run.seed]
        for code in ("eng_Latn", "ind_Latn", "tha_Thai"):
            pairs = [(line["label"], line["answer"]) for line in own if line["language"] == code]
            found = run.scores["by_language"][code]
            assert found["accuracy"] == sum(one == two for one, two in pairs) / 8
            assert found["macro_f1"] == pytest.approx(macro_f1(pairs))
            assert all(line["right"] == (line["label"] == line["answer"]) for line in own)
        others = [run.scores["by_language"][code]["accuracy"] for code in ("ind_Latn", "tha_Thai")]
        assert run.scores["overall"]["accuracy"] == pytest.approx(sum(others) / 2)


def test_rows_without_an_id_are_items_by_their_place_in_each_language(place, tmp_path, capsys):
    """Parallel rows of eight languages counted as eight independent items each, and intervals were too narrow."""
    for code in ("eng_Latn", "ind_Latn", "tha_Thai"):
        lines = (place / "rows" / "test" / f"{code}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [{key: value for key, value in json.loads(line).items() if key != "id"} for line in lines]
        write(tmp_path / f"{code}.test.jsonl", rows)
    words = [f"MT-LLM={place}/stack-*", f"LLM={place}/teach-1", str(tmp_path), "--output", str(tmp_path / "out")]
    assert main(["stack", "eval", *words]) == 0
    shown = capsys.readouterr().out
    assert "rows have no id: the n-th row of each language counts as one item" in shown
    assert "95 % over 8 items and" in shown
    lines = answers_in(tmp_path / "out", "LLM")
    assert [line["item"] for line in lines] == [f"row {n}" for n in range(1, 9)] * 3
    assert lines[8]["id"] == f"ind_Latn/{tmp_path}/ind_Latn.test.jsonl:1"  # as before


def test_items_of_rows():
    rows = [StackRow("a", "en"), StackRow("b", "id"), StackRow("c", "id", id="x"), StackRow("d", "id", item="y")]
    rows += [StackRow("e", "id", id="f.jsonl:4", place="f.jsonl:4"), StackRow("f", "en", id="7", place="f.jsonl:5")]
    assert items_of(rows) == ["row 1", "row 1", "x", "y", "row 4", "7"]


def test_a_folder_of_one_split_is_asked_as_it_is(place, tmp_path):
    """`data/test` was said to hold no test."""
    words = [f"one={place}/stack-1", f"{place}/rows/test", "--output", str(tmp_path), "--max-rows", "2"]
    assert main(["stack", "eval", *words]) == 0
    benchmark = kept(tmp_path, "one").benchmark
    assert (benchmark["split"], benchmark["questions"]) == ("test", 6)


def test_results_stay_beside_each_other_and_compare_reads_them(place, tmp_path, capsys):
    out = ["--output", str(tmp_path)]
    assert main(["stack", "eval", f"one={place}/stack-1", f"{place}/rows", *out]) == 0
    assert "against" not in capsys.readouterr().out
    translated = ["--translate", f"{place}/mt", "--beams", "2", "--max-new-tokens", "4"]
    assert main(["stack", "eval", f"{place}/teach-1", f"{place}/rows", *out, *translated]) == 0
    shown = capsys.readouterr().out
    assert "teach-1, translated" in shown.splitlines()[0]
    assert "one" in shown.splitlines()[0]
    lines = answers_in(tmp_path, "teach-1, translated")
    assert all("read" in line for line in lines if line["language"] != "eng_Latn")
    assert not any("read" in line for line in lines if line["language"] == "eng_Latn")
    assert main(["compare", f"{tmp_path}:one", f"{tmp_path}:teach-1, translated"]) == 0
    assert "Accuracy in %" in capsys.readouterr().out
    # Other rows are another benchmark: they do not mix.
    assert main(["stack", "eval", f"two={place}/stack-1", f"{place}/rows", *out, "--languages", "id"]) == 0
    assert "teach-1" not in capsys.readouterr().out.splitlines()[0]


def test_the_command_that_is_told_next_works(place, tmp_path, capsys):
    """Systems may have other seeds, names that a shell or a place would split, and a folder other rows."""
    out = ["--output", str(tmp_path / "out")]
    rows = place / "rows" / "test" / "ind_Latn.jsonl"
    asked = [
        [f"a: b={place}/stack-1", str(place / "rows")],
        [f"two, seeds={place}/stack-*", f"LLM={place}/teach-1", str(place / "rows")],
        [f"other={place}/stack-1", str(rows)],
    ]
    for words in asked:
        assert main(["stack", "eval", *words, *out]) == 0
        (told,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("next ")]
        _, program, *command = shlex.split(told)
        assert program == "dudi"
        assert main(command) == 0
        assert "Accuracy in %" in capsys.readouterr().out
    assert command[-2:] == ["--benchmark", "ind_Latn"]


def test_what_is_answered_is_not_asked_again(place, tmp_path, capsys):
    """Each call asked everybody anew; what was interrupted after two of three systems began with the first."""
    words = ["stack", "eval", f"one={place}/stack-1", f"{place}/rows", "--output", str(tmp_path)]
    held = f"{tmp_path} holds the answers of one; --force asks again"
    assert main(words) == 0
    first = (tmp_path / "answers.jsonl").read_bytes(), kept(tmp_path, "one")
    assert held not in capsys.readouterr().out
    assert main([*words[:2], f"two={place}/stack-2", *words[2:]]) == 0
    shown = capsys.readouterr()
    assert held in shown.out
    assert "asking: two, 24 questions" in shown.err
    assert "asking: one" not in shown.err
    assert kept(tmp_path, "one") == first[1]
    for more in (["--force"], ["--max-length", "6"]):
        assert main([*words, *more]) == 0
        assert "asking: one" in capsys.readouterr().err
    assert main([*words[:2], f"one={place}/stack-2", *words[3:]]) == 0  # another model under the name
    assert kept(tmp_path, "one").seeds == [2]
    assert main(words) == 0
    lines = [line | {"subject": "one"} for line in answers_in(tmp_path, "one")]
    assert lines == [json.loads(line) for line in first[0].decode().splitlines()]


def test_scores_stand_on_the_card_of_each_run(place, tmp_path, capsys):
    """No card and no report of a stack had scores: they were in the folder of the evaluation alone."""
    runs = [tmp_path / f"run-{seed}" for seed in (1, 2)]
    for seed, run in zip((1, 2), runs, strict=True):
        shutil.copytree(place / f"stack-{seed}", run)
        recipe = f"stage: finetune\nseed: {seed}\nencoder: {{model: mt}}\nllm: {{model: llm}}\n"
        (run / "resolved.yaml").write_text(recipe, encoding="utf-8")
    words = ["stack", "eval", f"MT-LLM={tmp_path}/run-*", f"{place}/rows", "--output", str(tmp_path / "out")]
    assert main([*words, "--card"]) == 0
    assert f"card     {runs[1]}/README.md" in capsys.readouterr().out
    whole = kept(tmp_path / "out", "MT-LLM")
    assert main(words) == 0  # the new card makes no other model of it
    assert "holds the answers of MT-LLM" in capsys.readouterr().out
    for run, scores in zip(runs, whole.runs, strict=True):
        (own,) = read_evaluations(run / "evaluation.json")
        assert (own.name, own.subject, own.seeds) == (run.name, "student", [scores.seed])
        assert own.runs[0].scores == scores.scores
        assert len(answers_in(run, "student")) == 24
        (index,) = ModelCard.load(run / "README.md").data.to_dict()["model-index"]
        first, *by_language = index["results"]
        assert first["metrics"][0] == {
            "type": "accuracy",
            "value": round(scores.scores["overall"]["accuracy"], 6),
            "name": "Accuracy",
        }
        assert [one["dataset"]["config"] for one in by_language] == ["eng_Latn", "ind_Latn", "tha_Thai"]
        page = (run / "report.html").read_text(encoding="utf-8")
        assert f"It answers {100 * scores.scores['overall']['accuracy']:.1f}% of the rows right in mean" in page
    assert main(["compare", f"stack={runs[0]},{runs[1]}"]) == 0  # runs of stacks are joined as students' are
    assert "2 seeds" in capsys.readouterr().out
    assert main(["report", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "What dudi has asked" in page
    assert "Accuracy, by language" in page
    assert "not recorded" not in page and any(text in page for text in FOREIGN)
    assert main([*words[:2], f"{place}/stack-1/model", *words[3:], "--card"]) == 2
    assert "is no run of dudi stack, and has no card" in capsys.readouterr().err
    assert main([*words, "--card", "--translate", f"{place}/mt"]) == 2
    assert "is no model of one run, and has no card" in capsys.readouterr().err


def test_seeds_of_one_system_have_one_task(place, tmp_path, capsys):
    parents = (str(place / "mt"), str(place / "llm"))
    turned = dataclasses.replace(TASK, labels=TASK.labels[::-1])
    run = tuned(tmp_path / "run", parents, "stack", 3, turned)
    words = ["stack", "eval", f"a={place}/stack-1,{run}", f"{place}/rows", "--output", str(tmp_path / "out")]
    assert main(words) == 2
    assert "were tuned on different tasks" in capsys.readouterr().err


def test_rows_are_read_as_long_as_in_training(place, tmp_path, capsys):
    """It was 256 whatever the model was trained with: a classifier was cut without a word, a choice was an error."""
    parents = (str(place / "mt"), str(place / "llm"))
    run = tuned(tmp_path / "run", parents, "stack", 3, max_length=6)
    assert main(["stack", "eval", run, f"{place}/rows", "--output", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    evaluation = kept(tmp_path / "out", "run")
    assert evaluation.about["max_length"] == 6
    assert "rows longer than 6 tokens were shortened: eng_Latn" in shown
    assert main(["stack", "eval", run, f"{place}/rows", "--output", str(tmp_path / "out"), "--max-length", "40"]) == 0
    assert "shortened" not in capsys.readouterr().out


def test_a_language_can_be_mapped_when_it_is_asked(place, tmp_path, capsys):
    """`--code` went to the translator alone: a language not mapped in Stage 1 could not be asked about."""
    rows = [{"text": text, "label": "thing", "language": "xx"} for text in FOREIGN]
    write(tmp_path / "rows.jsonl", rows)
    words = ["stack", "eval", f"{place}/stack-1", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "out")]
    assert main(words) == 3
    assert "'xx' is no source language" in capsys.readouterr().err
    assert main([*words, "--code", "xx=ind_Latn"]) == 0
    write(tmp_path / "rows.jsonl", [row | {"language": "mad"} for row in rows])
    assert main(words) == 0
    assert "note: mad is read as ind_Latn (Madurese, read as Indonesian)" in capsys.readouterr().out


def test_what_is_left_out_or_cut_is_said(place, tmp_path, capsys):
    """Rows without a label went unsaid, and `--max-rows 2` asked English alone."""
    rows = [
        {"text": text, "label": "thing" if n else None, "language": code, "id": n}
        for code, texts in (("eng_Latn", TEXTS), ("nij", FOREIGN))
        for n, text in enumerate(texts)
    ]
    write(tmp_path / "rows.jsonl", rows)
    words = ["stack", "eval", f"{place}/teach-1", str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "out")]
    words += ["--max-rows", "2", "--translate", f"{place}/mt", "--max-new-tokens", "1", "--beams", "1"]
    assert main([*words, "--source-language", "deu_Latn"]) == 0
    shown = capsys.readouterr().out
    assert "rows without a label were left out: eng_Latn 1, nij 1" in shown
    assert "translations that had not ended after 1 tokens were cut (--max-new-tokens): nij 2" in shown
    assert "note: nij is translated as ind_Latn (Ngaju, read as Indonesian)" in shown
    assert "no row is in 'deu_Latn': the mean is over all languages (eng_Latn, nij)" in shown
    asked = [(line["language"], line["item"]) for line in answers_in(tmp_path / "out", "teach-1, translated")]
    assert asked == [("eng_Latn", "1"), ("eng_Latn", "2"), ("nij", "1"), ("nij", "2")]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["a={0}/stack-1,{0}/stack-1", "{0}/rows"], 2, "has seed 1 like another of its runs"),
        (["a={0}/stack-1", "a={0}/stack-2", "{0}/rows"], 2, "two systems are called 'a'"),
        (["a={0}/nothing-*", "{0}/rows"], 2, "no run matches"),
        (["a=", "{0}/rows"], 2, "name a run"),
        (["{0}/stack-1", "{0}/rows", "--languages", "de"], 2, "no row is in 'de'"),
        (["{0}/stack-1", "{0}/rows", "--column", "text=txt"], 3, "'txt' has to be text"),
        (["{0}/stack-1", "{0}/rows", "--column", "pair=txet"], 2, "no row has a column 'txet'"),
        (["{0}/stack-1", "{0}/rows", "--batch-size", "0"], 2, "argument --batch-size: must be at least 1, got 0"),
        (["{0}/stack-1", "{0}/rows", "--beams", "0"], 2, "argument --beams: must be at least 1, got 0"),
        (["{0}/stack-1", "{0}/rows", "--max-rows", "few"], 2, "argument --max-rows: 'few' is no whole number"),
        (["{0}/stack-1", "{0}/rows", "--device", "gpu"], 2, "--device: 'gpu' is no device"),
        (["{0}/stack-1", "{0}/rows", "--device", "cuda:99"], 2, "--device: 'cuda:99' is not here"),
        (["{0}/stack-1", "{0}/rows", "--max-length", "1"], 2, "max_length: 1 has no place for a word"),
        (["{0}/stack-1", "{0}/rows", "--source-language", "xx_Zzzz"], 2, "--source-language: no row is in 'xx_Zzzz'"),
        (["{0}/stack-1", "{0}/rows", "--beams", "5"], 2, "--beams: is of a translation; name a model with --translate"),
        (["{0}/stack-1", "{0}/rows", "--max-new-tokens", "9"], 2, "--max-new-tokens: is of a translation"),
        (
            ["{0}/stack-1", "{0}/rows/test/eng_Latn.jsonl", "--split", "dev"],
            2,
            "split dev: {0}/rows/test/eng_Latn.js",
        ),
        (["{0}/stack-1", "{0}/rows/test", "--split", "dev"], 2, "belongs to the split 'dev', by their names (test)"),
        (["{0}/llm", "{0}/rows"], 2, "holds a LlamaForCausalLM, not a model of dudi stack"),
    ],
)
def test_wrong_words_are_one_line(words, code, told, place, tmp_path, capsys):
    given = [word.format(place) for word in words]
    assert main(["stack", "eval", *given, "--output", str(tmp_path)]) == code
    error = capsys.readouterr().err
    assert told.format(place) in error
    assert "Traceback" not in error


def test_the_mean_leaves_out_what_was_learned_in():
    per = {code: {"n": 10.0, "accuracy": value, "macro_f1": value / 2} for code, value in (("en", 1.0), ("id", 0.5))}
    assert scores_of(per, "eng_Latn")["overall"] == {"accuracy": 0.5, "macro_f1": 0.25, "questions": 10}
    assert scores_of({"en": per["en"]}, "eng_Latn")["overall"]["accuracy"] == 1.0
    assert math.isclose(scores_of(per, "tha_Thai")["overall"]["accuracy"], 0.75)


def test_parts_of_the_rows_are_scored_apart_and_drawn_together():
    """English counts in no part; of each other language the share of a part, then their mean."""
    rows = [
        StackRow("x", language, 0, id=f"{n}", split=split, item=f"{split}-{n // 2}")
        for language, parts in (("eng_Latn", "ab"), ("ind_Latn", "aabb"), ("tha_Thai", "ab"))
        for n, split in enumerate(parts)
    ]
    answers = [0, 0, 0, 1, 1, 1, 0, 0]
    found = by_split(rows, answers, "eng_Latn")["by_split"]
    assert {split: own["accuracy"] for split, own in found.items()} == {"a": 0.75, "b": 0.5}
    assert {split: own["questions"] for split, own in found.items()} == {"a": 3, "b": 3}
    assert by_split([StackRow("x", "ind_Latn", 0)], [0], "eng_Latn") == {}
    asked = LabelledRows(name="rows", rows=rows, task=TASK, split="test", source_language="eng_Latn")
    lines = asked.lines(0, answers)
    assert [(line["split"], line["item"]) for line in lines] == [(row.split, row.item) for row in rows]


# ---- translation


def test_a_passage_its_question_and_its_choices_are_translated_each_alone(monkeypatch):
    """They were one string to a model that was trained on sentences."""
    asked = []

    def note(model, source, texts, languages, target, **options):
        asked.extend(texts)
        return list(texts)

    monkeypatch.setattr("dudi.stacking.translation.translate", note)
    row = StackRow("a passage", "ind_Latn", 0, pair="a question", choices=("one", "two"))
    translate_rows(make_mt(), Source(make_nllb_tokenizer()), [row], "eng_Latn")
    assert asked == ["a passage", "a question", "one", "two"]


def test_texts_that_are_cut_for_translation_are_counted():
    rows = [StackRow(" ".join(FOREIGN), "ind_Latn", 0, id="1"), StackRow(FOREIGN[0], "ind_Latn", 0, id="2")]
    found = translate_rows(make_mt(), Source(make_nllb_tokenizer()), rows, "eng_Latn", max_length=20, max_new_tokens=2)
    assert found.cut == {"ind_Latn": 1}


@pytest.mark.parametrize("by_force", [False, True])
def test_translations_that_had_not_ended_are_counted(monkeypatch, by_force):
    """They stopped at 256 tokens, and were read as if they were whole."""
    model, rows = make_mt(), [StackRow(text, "ind_Latn", 0, id=text) for text in FOREIGN[:3]]
    model.generation_config.forced_eos_token_id = 2 if by_force else None

    def written(**options):
        # A start, which is NLLB's end too; the first ends early, the second with the last token, the third does not.
        last = 2 if by_force else 9
        return torch.tensor([[2, 7, 2, 1, 1], [2, 7, 8, 9, 2], [2, 7, 8, 9, last]])

    monkeypatch.setattr(model, "generate", written)
    found = translate_rows(model, Source(make_nllb_tokenizer()), rows, "eng_Latn", max_new_tokens=4)
    assert found.unfinished == {"ind_Latn": 2 if by_force else 1}  # what ends by force ends anyhow


def with_tokens(*tokens):
    tokenizer = make_llm_tokenizer()
    tokenizer.add_tokens(list(tokens))
    return tokenizer


def test_a_model_that_is_told_its_target_in_front_of_the_text_is_told(monkeypatch):
    """MADLAD reads `<2en>`; without it no target was asked for, and nothing was said."""
    tokenizer = with_tokens("<2en>", "<2id>")
    source = Source(tokenizer)
    assert source.languages == ()
    model = make_mt5()
    model.resize_token_embeddings(len(tokenizer))
    model.config.decoder_start_token_id = 0
    model.generation_config.decoder_start_token_id = 0
    seen = []
    encode = source.encode

    def note(texts, *more, **keys):
        seen.extend(texts)
        return encode(texts, *more, **keys)

    monkeypatch.setattr(source, "encode", note)
    translate(model, source, ["kucing tidur"], ["ind_Latn"], "eng_Latn", max_new_tokens=2, num_beams=1)
    assert seen == ["<2en> kucing tidur"]


def test_a_model_that_cannot_be_told_what_to_write_is_refused():
    source = Source(make_llm_tokenizer())
    assert isinstance(source.tokenizer, PreTrainedTokenizerFast)
    with pytest.raises(ConfigError, match="knows no languages, so that the model cannot be told to write 'eng_Latn'"):
        translate(make_mt5(), source, ["kucing"], ["ind_Latn"], "eng_Latn")


def test_choices_are_asked_about_through_the_command(place, tmp_path, capsys):
    parents = (str(place / "mt"), str(place / "llm"))
    rows = [StackRow(row.text, row.language, row.label, "who", row.choices, id=row.id) for row in choice_rows()]
    run = tuned(tmp_path / "run", parents, "stack", 5, CHOICE, rows, max_length=64)
    records = [
        {"id": row.id, "passage": row.text, "question": row.pair, "choices": list(row.choices), "label": row.label}
        for row in rows
    ]
    write(tmp_path / "rows.jsonl", [record | {"language": "eng_Latn"} for record in records])
    assert main(["stack", "eval", run, str(tmp_path / "rows.jsonl"), "--output", str(tmp_path / "out")]) == 0
    answers = answers_in(tmp_path / "out", "run")
    assert [line["label"] for line in answers] == [row.label for row in rows]
    assert all(line["answer"] in (0, 1, 2) for line in answers)


def test_the_seed_of_a_run_is_its_recipes(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert seed_of(str(tmp_path)) == 0
    for text, seed in (("method: x\n", 0), ("seed: 010\n", 10), ("seed: 3  # default\n", 3)):
        (tmp_path / "resolved.yaml").write_text(text)
        assert seed_of(str(tmp_path)) == seed
    for text, told in (("a: 1\nseed: one\n", ":2: seed: expected a whole number"), ("seed: [\n", ":2: not valid YAML")):
        (tmp_path / "resolved.yaml").write_text(text)
        with pytest.raises(ConfigError, match=r"resolved\.yaml" + told):
            seed_of(str(tmp_path))
