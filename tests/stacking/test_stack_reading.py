"""How rows become tokens: every field is read, too long rows lose passage and are counted, codes are understood."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
    make_nllb_tokenizer,
    make_stack_args,
)
from transformers import MBart50Tokenizer

from dudi.errors import ConfigError, DataError
from dudi.stacking import Source, StackRow, Task, build_stack, evaluate, finetune, rows_from_records, with_head
from dudi.stacking.probing import probe
from dudi.stacking.reading import read_rows
from dudi.stacking.tokens import SHORTENED
from dudi.training.runlog import read_jsonl


@pytest.fixture(scope="module")
def source():
    return Source(make_nllb_tokenizer())


@pytest.fixture(scope="module")
def llm_source():
    return Source(make_llm_tokenizer())


def words_of(source, ids):
    return source.tokenizer.decode(ids["input_ids"], skip_special_tokens=True)


# ---- fields


@pytest.mark.parametrize(
    ("record", "text", "pair"),
    [
        ({"premise": "a b", "hypothesis": "c", "label": 1}, "a b", "c"),
        ({"passage": "a b", "question": "c", "choices": ["x", "y"], "label": 1}, "a b", "c"),
        ({"text": "a b", "pair": "c", "label": 1}, "a b", "c"),
        ({"text": "a b", "label": 1}, "a b", None),
    ],
)
def test_rows_are_read_by_the_names_that_data_sets_use(record, text, pair):
    task = CHOICE if "choices" in record else TASK
    row = rows_from_records([record | {"lang": "ind_Latn", "row": 7}], task)[0]
    assert (row.text, row.pair, row.label, row.language, row.id) == (text, pair, 1, "ind_Latn", "7")


def test_of_two_columns_none_is_guessed():
    record = {"text": "a", "premise": "b", "language": "eng_Latn", "label": 0}
    with pytest.raises(DataError, match="rows:1: has both 'text' and 'premise'"):
        rows_from_records([record], TASK)
    assert rows_from_records([record], TASK, columns={"text": "premise"})[0].text == "b"
    assert rows_from_records([{"text": "a", "language": "eng_Latn", "question": 3}])[0].pair is None


def test_a_column_that_was_named_and_that_no_row_has_is_an_error(tmp_path):
    """`pair: hypotesis` trained NLI without hypotheses, and said nothing."""
    nli = {"premise": "a b", "hypothesis": "c", "label": 1, "lang": "ind_Latn"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(nli) + "\n", encoding="utf-8")
    for read in (
        lambda columns: rows_from_records([nli], TASK, columns=columns),
        lambda columns: read_rows(str(tmp_path / "rows.jsonl"), TASK, columns=columns),
    ):
        with pytest.raises(ConfigError, match=r"no row has a column 'hypotesis', .*did you mean 'hypothesis'"):
            read({"pair": "hypotesis"})
        with pytest.raises(DataError, match=r"'premisse' has to be text.*did you mean 'premise'"):
            read({"text": "premisse"})
        assert read({"pair": "hypothesis"})[0].pair == "c"
    # Single rows may lack it, and a column for another task than this one is not looked for.
    found = rows_from_records([nli, {"premise": "d", "label": 0}], TASK, language="en", columns={"pair": "hypothesis"})
    assert [row.pair for row in found] == ["c", None]
    assert rows_from_records([nli], columns={"pair": "nonsense"})[0].pair is None


def test_the_question_of_a_choice_is_read_by_every_source(source, llm_source):
    """A `pair` beside choices was left out without a word: models answered without the question."""
    rows = [StackRow("the cat sleeps", "eng_Latn", 0, pair="who swims", choices=("a dog", "the cat"))]
    for each in (source, llm_source):
        ids = each.encode_rows(rows)[0]
        assert "the cat sleeps who swims" in words_of(each, ids)
        assert SHORTENED not in ids


# ---- rows that are too long


@pytest.mark.parametrize("most", [60, 40, 30, 24, 20])
def test_a_long_row_loses_passage_and_keeps_question_and_choices(source, most):
    row = StackRow(" ".join(TEXTS * 3), "eng_Latn", 0, pair="who swims", choices=("a dog", "the cat", "rice"))
    ids = source.encode_rows([row], max_length=most)[0]
    assert len(ids["input_ids"]) <= most
    assert len(ids["input_ids"]) >= most - 3  # no more than a word is given away
    text = words_of(source, ids)
    assert text.startswith("the cat")
    assert "who swims" in text
    for choice, (start, end) in zip(row.choices, ids["choice_spans"], strict=True):
        assert source.tokenizer.decode(ids["input_ids"][start:end]).strip() == choice
    assert ids[SHORTENED] == [True]


def test_when_no_passage_is_left_the_question_goes_and_then_the_ends_of_choices(source):
    row = StackRow("the cat", "eng_Latn", 0, pair="who swims", choices=(" ".join(TEXTS), "rice with fish"))
    for most in range(9, 30):
        ids = source.encode_rows([row], max_length=most)[0]
        assert len(ids["input_ids"]) <= most
        assert all(start < end for start, end in ids["choice_spans"])
    with pytest.raises(ConfigError, match="max_length 4 has no place for 2 choices"):
        source.encode_rows([row], max_length=4)


letters = st.text(st.sampled_from("ab ကခ🙂é\u200b日"), min_size=1, max_size=40).filter(str.strip)


@settings(max_examples=60, deadline=None)
@given(letters, st.none() | letters, st.lists(letters, min_size=2, max_size=4), st.integers(24, 60))
def test_any_row_with_choices_fits_and_each_choice_has_a_token(text, pair, choices, most):
    for source in (Source(make_nllb_tokenizer()), Source(make_llm_tokenizer())):
        ids = source.encode_rows([StackRow(text, "eng_Latn", 0, pair, tuple(choices))], max_length=most)[0]
        assert len(ids["input_ids"]) <= most
        assert all(0 <= start < end <= len(ids["input_ids"]) for start, end in ids["choice_spans"])


def test_a_long_text_and_a_long_pair_are_cut_and_counted(source):
    long = " ".join(TEXTS)
    cut, whole = source.encode([long, TEXTS[0]], ["eng_Latn"] * 2, max_length=12)
    assert (len(cut["input_ids"]), SHORTENED in cut, SHORTENED in whole) == (12, True, False)
    assert cut["input_ids"][-1] == source.tokenizer.eos_token_id
    pair = source.encode([long], ["eng_Latn"], ["a dog"], max_length=20)[0]
    assert words_of(source, pair).endswith("a dog")
    assert len(source.encode([long], ["eng_Latn"], max_length=12, offsets=True)[0]["offset_mapping"]) == 12


def test_training_and_evaluation_go_on_over_long_rows_and_count_them(source, tmp_path):
    """A choice that did not fit ended the run in the middle."""
    rows = [StackRow(" ".join(TEXTS), "eng_Latn", row.label, "who", row.choices, id=row.id) for row in choice_rows()]
    model = with_head(build_stack(make_mt(), make_llm()), CHOICE)
    finetune(model, source, [*rows[:2], *choice_rows()[2:]], CHOICE, make_stack_args(tmp_path, max_length=40))
    lines = read_jsonl(tmp_path / "metrics.jsonl")
    assert sum(line["rows/shortened"] for line in lines) == 2
    assert sum(line["rows/read"] for line in lines) == 8
    assert model.config.max_row_length == 40
    found = evaluate(model, source, rows, max_length=40)
    assert found.shortened == {"eng_Latn": 8}
    assert evaluate(model, source, choice_rows(), max_length=64).shortened == {}


# ---- codes


def test_texts_that_the_probe_reads_without_their_end_are_counted(source, llm_source):
    rows = [StackRow(" ".join(FOREIGN), "ind_Latn", english="a"), StackRow("aku", "ind_Latn", english=" ".join(TEXTS))]
    rows += [StackRow("a cat", "eng_Latn", english="a cat")]
    found = probe(build_stack(make_mt(), make_llm()), source, llm_source, rows, max_length=8)
    assert {code: values["shortened"] for code, values in found.items()} == {"ind_Latn": 2, "eng_Latn": 0}


def test_rows_may_name_their_language_as_their_data_set_does(source):
    first = {}
    for code in ("id", "ind", "ind_Latn", "id_ID"):
        first[code] = source.batch(FOREIGN[:1], [code])["input_ids"].tolist()
    assert len({json.dumps(ids) for ids in first.values()}) == 1
    assert source.tokenizer.convert_ids_to_tokens(first["id"][0][0]) == "ind_Latn"
    assert source.stand_ins == {}


def test_what_stands_in_for_a_language_is_noted(source):
    assert source.check("mad") == "ind_Latn"
    assert source.stand_ins == {"mad": "ind_Latn (Madurese, read as Indonesian)"}
    with pytest.raises(ConfigError, match="'nah' is no source language"):
        source.check("nah")
    with pytest.raises(ConfigError, match="'el' is no source language"):
        source.check("el")


def test_another_tokenizer_s_codes_are_found_too():
    """mBART calls Indonesian `id_ID`; rows in NLLB's codes, or in two letters, are read by it as they are."""
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -1.0), ("a", -2.0), ("b", -2.0)]
    source = Source(MBart50Tokenizer(vocab=vocab))
    assert source.check("ind_Latn") == source.check("id") == "id_ID"
    assert source.check("mya_Mymr") == "my_MM"
    ids = source.encode(["a b"], ["mya_Mymr"])[0]["input_ids"]
    assert source.tokenizer.convert_ids_to_tokens(ids[0]) == "my_MM"
    with pytest.raises(ConfigError, match="'ell_Grek' is no source language"):
        source.check("ell_Grek")


# ---- pairs


def test_the_texts_of_a_pair_are_kept_apart(llm_source, source):
    """`noon.She stayed.`: GPT-2's and Qwen's tokenizers put nothing between the two."""
    assert llm_source.glues
    assert not source.glues
    assert words_of(llm_source, llm_source.encode(["noon"], [""], ["she"])[0]) == "noon\nshe"
    glued = Source(make_llm_tokenizer(), separator="")
    assert words_of(glued, glued.encode(["noon"], [""], ["she"])[0]) == "noonshe"


def test_the_separator_goes_with_the_model(llm_source, tmp_path):
    task = Task("classification", TASK.labels, separator=" | ")
    model = with_head(build_stack(None, make_llm()), task)
    rows = [StackRow(row.text, row.language, row.label, pair="she", id=row.id) for row in english_rows()]
    own = Source(make_llm_tokenizer())
    finetune(model, own, rows, task, make_stack_args(tmp_path))
    assert (own.separator, model.config.separator) == (" | ", " | ")
