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
from dudi.stacking.reading import read_rows, training_rows
from dudi.stacking.recipe import load_stack_config
from dudi.stacking.rows import fingerprint
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
    # Single rows may have none, and a column for another task than this one is not looked for.
    single = {"premise": "d", "hypothesis": None, "label": 0}
    found = rows_from_records([nli, single], TASK, language="en", columns={"pair": "hypothesis"})
    assert [row.pair for row in found] == ["c", None]
    assert rows_from_records([nli], columns={"pair": "nonsense"})[0].pair is None


def test_a_column_may_be_named_by_any_of_its_names():
    """The documentation calls them premise and hypothesis, and `data.columns` knew `text` and `pair` alone."""
    record = {"s1": "a", "s2": "b", "y": 2, "code": "ind_Latn", "answer": "c"}
    columns = {"premise": "s1", "hypothesis": "s2", "label": "y", "lang": "code"}
    row = rows_from_records([record], TASK, columns=columns)[0]
    assert (row.text, row.pair, row.label, row.language) == ("a", "b", 2, "ind_Latn")
    written = rows_from_records([record], Task("generation"), columns={"passage": "s1", "answer": "s2", "lang": "code"})
    assert written[0].answer == "b"
    with pytest.raises(ConfigError, match="'premise' is another name of 'text', which is named, too"):
        rows_from_records([record], TASK, columns={"text": "s1", "premise": "s2"})
    with pytest.raises(ConfigError, match="did you mean 'hypothesis'"):
        rows_from_records([record], TASK, columns={"hypotesis": "s1"})


def write_rows(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


NLI = {"id": "1", "premise": "a", "hypothesis": "b", "label": "thing", "lang": "eng_Latn"}
WITHOUT_LABEL = {key: value for key, value in NLI.items() if key != "label"}
WITHOUT_PAIR = {key: value for key, value in NLI.items() if key != "hypothesis"}


def test_a_second_text_that_other_rows_have_is_missed(tmp_path):
    """NLI was learned from premises alone where a row had no hypothesis."""
    file = write_rows(tmp_path / "rows.jsonl", NLI, WITHOUT_PAIR)
    with pytest.raises(DataError, match=f"{file}:2: no 'hypothesis', which {file}:1 has"):
        read_rows(file, TASK)
    with pytest.raises(DataError, match="rows:2: has a 'hypothesis', which rows:1 has not"):
        rows_from_records([WITHOUT_PAIR, NLI], TASK)
    for rows in ([WITHOUT_PAIR] * 2, [NLI, NLI | {"hypothesis": None}]):
        assert [row.pair for row in rows_from_records(rows, TASK)][1] is None
    assert [row.text for row in rows_from_records([NLI, WITHOUT_PAIR])] == ["a", "a"]  # texts alone


@pytest.mark.parametrize(("kind", "column"), [("classification", "label"), ("generation", "answer")])
def test_a_number_beside_choices_is_not_taken_for_a_class(kind, column):
    """Rows of multiple choice were classified, each by the number of its choice."""
    task = Task(kind, ("yes", "no"))
    record = {"passage": "a", "question": "b", "choices": ["no", "yes"], "language": "eng_Latn"}
    with pytest.raises(DataError, match="rows:1: has 'choices', and a number may be that of a choice"):
        rows_from_records([record | {column: 0}], task)
    row = rows_from_records([record | {column: "no"}], task)[0]
    assert (row.label, row.answer) == ((1, None) if kind == "classification" else (None, "no"))


def test_rows_to_learn_from_are_refused_where_they_are_read(tmp_path):
    """A dry run passed, and the error named an id and no file."""
    file = write_rows(tmp_path / "rows.jsonl", NLI, WITHOUT_LABEL)
    good = write_rows(tmp_path / "good.jsonl", NLI, NLI)
    words = ["task.labels=[animal, thing, person]", "llm=none", "encoder=none"]
    for stage, rows, held_out in (("teach", file, good), ("finetune", good, file), ("distill", good, file)):
        config = load_stack_config("stack/mini/region", stage, [*words, f"data.train={rows}", f"data.eval={held_out}"])
        with pytest.raises(DataError, match=f"{file}:2: no label"):
            training_rows(config, TASK)
    # Stage 2 learns vectors: its rows to train on need no label; nor do rows that are asked.
    config = load_stack_config("stack/mini/region", "distill", [*words, f"data.train={file}"])
    assert [row.label for row in training_rows(config, TASK)[0]] == [1, None]
    assert [row.label for row in read_rows(file, TASK)] == [1, None]


@pytest.mark.parametrize("label", [-1, 3, None])
def test_a_label_that_is_none_is_refused_in_python_too(source, tmp_path, label):
    rows = [StackRow("a", "eng_Latn", 0, id="one"), StackRow("b", "eng_Latn", label, id="two")]
    said = "two: no label" if label is None else f"two: label {label} is not a number from 0 to 2"
    with pytest.raises(DataError, match=said):
        finetune(with_head(build_stack(make_mt(), make_llm()), TASK), source, rows, TASK, make_stack_args(tmp_path))


def test_a_row_s_place_is_no_part_of_what_it_is(tmp_path):
    """Rows that have been moved are the same rows: their fingerprint is what runs are held against."""
    first, second = (read_rows(write_rows(tmp_path / name, NLI), TASK)[0] for name in ("a.jsonl", "b.jsonl"))
    assert first == second == StackRow("a", "eng_Latn", 1, "b", id="1")
    assert (first.name, second.name) == (f"{tmp_path}/a.jsonl:1", f"{tmp_path}/b.jsonl:1")
    assert fingerprint([first]) == fingerprint([second]) == fingerprint([StackRow("a", "eng_Latn", 1, "b", id="1")])
    assert fingerprint([first]) == "7e9ab83db668121d9abee7734b5a7f99b7ce2b8ec58191a96745bbf93021d449"


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


def test_a_language_that_is_known_and_not_read_gets_no_hint_by_its_letters(source):
    """For `fr` the nearest code was `mya_Mymr`."""
    with pytest.raises(
        ConfigError, match=r"'fr' is no source language .* which has no fra_Latn: it has eng_Latn, ind_Latn"
    ):
        source.check("fr")
    with pytest.raises(ConfigError, match=r"'kaz_Latn' is no source language .*\(did you mean 'kaz_Cyrl'"):
        source.check("kaz_Latn")


def test_all_languages_that_cannot_be_read_are_said_with_their_places(source, tmp_path):
    """The first one was named, by the id of a row, and the next one at the next call."""
    records = [NLI | {"lang": code} for code in ("eng_Latn", "nqo_Nkoo", "nqo_Nkoo", "fr", "id", "kaz_Latn")]
    file = write_rows(tmp_path / "rows.jsonl", *records)
    with pytest.raises(DataError) as caught:
        source.check_rows(read_rows(file, TASK))
    first, second = str(caught.value).splitlines()
    assert first.startswith(f"{file}:2: language: 'nqo_Nkoo' is no source language")
    assert second == f"neither is 'fr' ({file}:4), 'kaz_Latn' ({file}:6)"


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
