"""`dudi prepare task` and `dudi prepare parallel`: the rows, what is left out, the balance, the card."""

import json
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dudi.data.overlap import Grams, find_benchmark, grams
from dudi.data.parallel import _spread, prepare_parallel
from dudi.data.sources import load_rows
from dudi.data.task_rows import prepare_task
from dudi.errors import ConfigError, DataError
from task_sets import SIB, write_parquet, write_sets

SHARED = Path(__file__).parents[4] / "shared" / "data"


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def sets(tmp_path):
    return write_sets(tmp_path / "data")


# n-grams


def test_eight_words_or_twenty_characters():
    words = "a b c d e f g h i"
    assert list(grams(words)) == ["a b c d e f g h", "b c d e f g h i"]
    thai = "ภูเขาที่สูงที่สุดอยู่ในเนปาล"
    assert [len(gram) for gram in grams(thai)] == [20] * (len(thai) - 19)
    assert next(grams(thai)) == thai[:20]


def test_case_punctuation_and_zero_width_make_no_difference():
    one, other = "He said: “No, the Market OPENED at noon!” today", "he said no the mar\u200bket opened at noon today"
    assert list(grams(one)) == list(grams(other))


def test_marks_belong_to_words():
    tamil = "தமிழ்நாட்டின் தலைநகரம் சென்னை என்று எல்லோரும் அறிவார்கள் இது ஒரு பெரிய நகரம்"
    assert len(list(grams(tamil))) == len(tamil.split()) - 7
    burmese = "မြန်မာနိုင်ငံ၏ မြို့တော်သည် နေပြည်တော် ဖြစ်ပါသည်"
    assert next(grams(burmese)).startswith("မြန်မာနိုင်ငံ")


def test_short_texts_count_whole_and_labels_do_not():
    assert list(grams("Nobody was hurt today")) == ["nobody was hurt today"]
    assert not list(grams("sports")) and not list(grams("A planet")) and not list(grams("กีฬา"))
    known = Grams()
    known.add("Nobody was hurt today")
    assert known.shares(["nobody, was hurt: TODAY"]) and not known.shares(["Nobody was hurt"])


# tasks


def test_rows_of_a_task(sets, tmp_path):
    result = prepare_task("sib200", tmp_path / "rows.jsonl", languages=["th", "en"], folder=sets)
    rows = lines(result.output)
    assert [row["id"] for row in rows] == [f"dudi_sib200_{code}/train/{n}" for code in ("en", "th") for n in range(3)]
    user, assistant = rows[-1]["messages"]
    assert SIB["th"]["train"][2][0] in user["content"] and assistant["content"] == "การเมือง"
    read = load_rows(str(result.output), languages=["th", "en"])
    assert len(read.rows) == 6 and not read.rejections
    card = json.loads((tmp_path / "rows.card.json").read_text())
    assert card["output"]["rows"] == 6 and card["licence"].startswith("CC BY-SA 4.0")
    assert card["inputs"][0]["file"] == "sib200.parquet" and len(card["inputs"][0]["sha256"]) == 64
    assert card["languages"]["th"] == {"read": 3, "overlap": 0, "written": 3} and card["not_in"] is None


def test_languages_without_a_task_are_said(sets, tmp_path):
    result = prepare_task("sib200", tmp_path / "rows.jsonl", languages=["th", "jv"], folder=sets)
    assert "note: sib200: has no task in jv; there is en, id," in str(result)
    assert len(lines(result.output)) == 3


def test_rows_that_a_benchmark_shares_are_left_out_and_counted(sets, tmp_path):
    """The planet stands in a passage of Belebele, in both languages."""
    result = prepare_task("sib200", tmp_path / "r.jsonl", languages=["th", "en"], folder=sets, not_in=["belebele"])
    assert {row["id"].rpartition("/")[2] for row in lines(result.output)} == {"1", "2"}
    assert "left out, since they share n-grams with belebele: 2 (en 1, th 1)" in str(result)
    assert result.card["not_in"]["tasks"] == ["dudi_belebele_en", "dudi_belebele_th"]
    with pytest.raises(DataError, match="no good row among 6; 6 share n-grams"):
        everything = [{"lang": "en", "split": "test", "row": 0, "text": text} for text, _ in SIB["en"]["train"]]
        everything += [{"lang": "th", "split": "test", "row": 0, "text": text} for text, _ in SIB["th"]["train"]]
        write_parquet(sets / "ntrex128.parquet", everything)
        prepare_task("sib200", tmp_path / "x.jsonl", languages=["th", "en"], folder=sets, not_in=["ntrex_bits"])
    assert not (tmp_path / "x.jsonl").exists()


def test_so_many_of_each_language_drawn_by_the_seed(sets, tmp_path):
    def drawn(seed):
        made = prepare_task(
            "sib200", tmp_path / f"{seed}.parquet", languages=["th", "en"], folder=sets, per_language=1, seed=seed
        )
        return pq.read_table(made.output)["id"].to_pylist()

    draws = [drawn(seed) for seed in range(6)]
    assert all([one.partition("/")[0] for one in ids] == ["dudi_sib200_en", "dudi_sib200_th"] for ids in draws)
    assert len(set(map(tuple, draws))) > 1 and draws[0] == drawn(0)


def test_documents_that_fit_no_template_are_rejected(sets, tmp_path):
    rows = [{"lang": "th", "split": "train", "row": n, "text": f"ข้อความ {n}", "label": "sports"} for n in range(30)]
    rows[3]["label"] = "cooking"
    write_parquet(sets / "sib200.parquet", rows)
    result = prepare_task("sib200", tmp_path / "r.jsonl", languages=["th"], folder=sets)
    assert result.card["output"]["rows"] == 29 and result.card["rejected"] == {"template_fails": 1}
    (bad,) = lines(tmp_path / "r.rejected.jsonl")
    assert bad["line"] == 4 and "doc_to_target cannot be made" in bad["detail"]


NESTED = {
    "translation": {"en": "A very long sentence of more than eight words is here.", "th": "ภูเขาที่สูงที่สุดอยู่ในเนปาล"},
    "choices": {"label": ["A", "B"], "text": ["The choice that nobody would ever take on any day", "No"]},
    "answers": [{"answer_start": 3, "text": "An answer that is given as text in a list of objects"}],
}


def own_task(folder, name, documents, language=""):
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in documents), encoding="utf-8")
    said = f"\nmetadata: {{language: {language}}}" if language else ""
    task = folder / f"{name}.yaml"
    task.write_text(
        f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {file}}}}}\ntest_split: test{said}\n"
    )
    return str(task)


def test_texts_are_found_however_deep(tmp_path):
    texts = [NESTED["translation"]["en"], NESTED["translation"]["th"], NESTED["choices"]["text"][0]]
    texts.append(NESTED["answers"][0]["text"])
    found = find_benchmark([own_task(tmp_path, "nested", [NESTED])], ["en", "th"], None)
    assert all(found.grams.shares([text]) for text in texts) and not found.notes
    assert found.tasks == ["nested"]  # it says no language, and is held against all


def test_a_benchmark_without_a_language_or_a_long_text_is_said(sets, tmp_path):
    labels = own_task(tmp_path, "labels", [{"text": "No", "label": 1}])
    other = own_task(tmp_path, "other", [{"text": NESTED["translation"]["en"]}], "en")
    output = tmp_path / "r.jsonl"
    result = prepare_task("sib200", output, languages=["th"], folder=sets, not_in=[labels, other])
    assert len(lines(output)) == 3
    assert "note: --not-in: labels has no text of 8 words or 20 characters: nothing was compared" in str(result)
    assert f"note: --not-in: {other} has no task in th: rows in it were compared with nothing of it" in str(result)
    with pytest.raises(ConfigError, match="no shipped task is called so"):
        prepare_task("sib200", output, languages=["th"], folder=sets, not_in=["belebel"])


# parallel text

EN = ["The first sentence.", "A second one.", "And the third.", "Number four is here."]
OF = {
    "th": ["ประโยคแรก", "ประโยคที่สอง", "ประโยคที่สาม", "ประโยคที่สี่"],
    "id": ["Kalimat pertama.", "Kalimat kedua."],
    "vi": ["Câu thứ nhất.", "Câu thứ hai.", "Câu thứ ba.", "Câu thứ tư."],
}


def directions(rows):
    return Counter(row["id"].rpartition("/")[2] for row in rows)


def long_file(path):
    texts = {"en": EN, **OF}
    rows = [
        {"lang": code, "split": "all", "row": n, "text": text}
        for code, own in texts.items()
        for n, text in enumerate(own)
    ]
    return write_parquet(path, rows)


def test_both_directions_worded_in_the_language_of_the_prompt(tmp_path):
    result = prepare_parallel(long_file(tmp_path / "news.parquet"), tmp_path / "rows.jsonl", targets=["th"])
    rows = {row["id"]: row for row in lines(result.output)}
    there, back = rows["news/1/en-th"], rows["news/1/th-en"]
    assert (there["language"], back["language"]) == ("th", "en")
    assert there["messages"][0]["content"] == "Translate into Thai.\n\nEnglish: A second one.\nThai:"
    assert there["messages"][1]["content"] == "ประโยคที่สอง"
    assert back["messages"][0]["content"] == "แปลเป็นภาษาอังกฤษ\n\nภาษาไทย: ประโยคที่สอง\nภาษาอังกฤษ:"
    assert len(load_rows(str(result.output), languages=["th", "en"]).rows) == 8
    one_way = prepare_parallel(long_file(tmp_path / "news.parquet"), tmp_path / "o.jsonl", targets=["th"], both=False)
    assert directions(lines(one_way.output)) == {"en-th": 4}


def test_balanced_by_the_language_that_is_written(tmp_path):
    """Indonesian has two texts: so two rows in each language, those in English from as many languages as can be."""
    result = prepare_parallel(long_file(tmp_path / "news.parquet"), tmp_path / "rows.jsonl")
    assert Counter(row["language"] for row in lines(result.output)) == {"th": 2, "id": 2, "vi": 2, "en": 2}
    assert result.card["parallel"]["to"] == ["th", "id", "vi"] and result.card["rows_read"] == 20
    more = prepare_parallel(long_file(tmp_path / "news.parquet"), tmp_path / "m.jsonl", per_language=3)
    assert Counter(row["language"] for row in lines(more.output)) == {"th": 3, "id": 2, "vi": 3, "en": 3}
    assert all(directions(lines(more.output))[f"{code}-en"] == 1 for code in ("th", "id", "vi"))
    all_of_it = prepare_parallel(long_file(tmp_path / "news.parquet"), tmp_path / "a.jsonl", balance=False)
    assert len(lines(all_of_it.output)) == 20


def test_even_shares():
    groups = {("en", "th"): 10, ("en", "id"): 2, ("en", "vi"): 10}
    assert _spread(groups, 12) == {("en", "id"): 2, ("en", "th"): 5, ("en", "vi"): 5}
    assert sum(_spread(groups, 30).values()) == 22 and sum(_spread(groups, 7).values()) == 7


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_a_column_for_each_language(tmp_path, suffix):
    rows = [{"id": f"s{n}", "en": en, "th": th} for n, (en, th) in enumerate(zip(EN, OF["th"], strict=True))]
    path = tmp_path / f"wide{suffix}"
    if suffix == ".parquet":
        write_parquet(path, rows)
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        mark = {".csv": ",", ".tsv": "\t"}[suffix]
        path.write_text(
            "\n".join(mark.join(one) for one in [tuple(rows[0]), *(row.values() for row in rows)]), encoding="utf-8"
        )
    result = prepare_parallel(path, tmp_path / "rows.jsonl")
    assert {row["id"] for row in lines(result.output)} >= {"wide/s0/en-th", "wide/s3/th-en"}
    assert len(lines(result.output)) == 8


def test_a_column_called_id_is_a_key_or_indonesian(tmp_path):
    rows = [{"id": text, "en": en} for text, en in zip(OF["id"], EN, strict=False)]
    result = prepare_parallel(write_parquet(tmp_path / "two.parquet", rows), tmp_path / "rows.jsonl")
    assert directions(lines(result.output)) == {"en-id": 2, "id-en": 2}


def test_the_source_beside_the_text(tmp_path):
    rows = [{"lang": "ta", "split": "all", "row": 1, "en": "It rains.", "text": "மழை பெய்கிறது."}]
    rows += [{"lang": "ms", "split": "all", "row": 1, "en": "He sleeps.", "text": "Dia tidur."}]
    result = prepare_parallel(write_parquet(tmp_path / "pairs.parquet", rows), tmp_path / "rows.jsonl")
    found = directions(lines(result.output))
    assert (found["en-ta"], found["en-ms"], found["ta-en"] + found["ms-en"]) == (1, 1, 1)  # one row in each language


def test_rows_without_a_language_or_a_text_are_rejected_and_counted(tmp_path):
    rows = [{"lang": code, "row": n, "text": f"{code} {n}"} for code in ("en", "th") for n in range(40)]
    rows += [{"row": 1, "text": "nobody knows"}, {"lang": "th", "row": 2}, {"lang": "en", "row": 3, "text": None}]
    rows += [{"lang": 7, "row": 3, "text": "x"}]
    for name, given in (("last", rows), ("first", rows[-4:] + rows[:-4])):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
        result = prepare_parallel(path, tmp_path / f"{name}-rows.jsonl")
        assert result.card["rejected"] == {"missing_key": 2, "null": 1, "wrong_type": 1}
        assert result.card["output"]["rows"] == 80
        bad = lines(tmp_path / f"{name}-rows.rejected.jsonl")
        assert {one["detail"] for one in bad} >= {"has no `lang`", "has no `text`", "`text` is null"}


def test_languages_that_a_file_does_not_have_are_said(tmp_path):
    path = long_file(tmp_path / "news.parquet")
    result = prepare_parallel(path, tmp_path / "rows.jsonl", targets=["th", "ta"])
    assert "note: news.parquet: has no text in ta; there is en, th, id, vi" in str(result)
    assert result.card["parallel"]["to"] == ["th"]
    with pytest.raises(ConfigError, match="has no text in ta, my; there is en, th, id, vi"):
        prepare_parallel(path, tmp_path / "x.jsonl", targets=["ta", "my"])
    with pytest.raises(ConfigError, match="has no text in 'my'; there is en"):
        prepare_parallel(path, tmp_path / "x.jsonl", source="my")


def test_texts_with_one_side_alone_are_counted(tmp_path):
    rows = [{"lang": "en", "row": n, "text": text} for n, text in enumerate(EN)]
    rows += [{"lang": "th", "row": n + 2, "text": text} for n, text in enumerate(OF["th"])]
    rows += [{"lang": "fr", "row": 0, "text": "Bonjour."}]
    result = prepare_parallel(write_parquet(tmp_path / "long.parquet", rows), tmp_path / "l.jsonl")
    assert result.card["one_side_alone"] == {"th": 2} and directions(lines(result.output))["en-th"] == 2
    assert "languages that are not known are left out: fr 1" in str(result) and "are left out: th 2" in str(result)
    wide = [{"en": "One.", "th": "หนึ่ง", "id": None}, {"en": None, "th": "สอง", "id": "Dua."}]
    path = write_parquet(tmp_path / "wide.parquet", [*wide, {"en": "Three.", "th": None, "id": "Tiga kali."}])
    result = prepare_parallel(path, tmp_path / "w.jsonl", targets=["th"])
    assert result.card["one_side_alone"] == {"th": 2} and len(lines(result.output)) == 2
    apart = [{"lang": "en", "row": 0, "text": "One."}, {"lang": "th", "row": 1, "text": "สอง"}]
    with pytest.raises(DataError, match=r"no good row among 0; apart.parquet: texts without one in en .* th 1"):
        prepare_parallel(write_parquet(tmp_path / "apart.parquet", apart), tmp_path / "x.jsonl")


@pytest.mark.parametrize("name", ["{}", "sentence_{}"])
def test_columns_in_the_words_of_flores(tmp_path, name):
    rows = [
        {"id": n, name.format("eng_Latn"): en, name.format("tha_Thai"): th, name.format("fil_Latn"): f"{en} po"}
        for n, (en, th) in enumerate(zip(EN, OF["th"], strict=True), start=1)
    ]
    result = prepare_parallel(write_parquet(tmp_path / "f.parquet", rows), tmp_path / "rows.jsonl", balance=False)
    assert directions(lines(result.output)) == {"en-th": 4, "th-en": 4, "en-tl": 4, "tl-en": 4}
    assert lines(result.output)[0]["id"] == "f/1/en-th"
    long = [{"lang": code, "row": n, "text": f"{code} {n}"} for code in ("eng_Latn", "ind_Latn") for n in range(3)]
    result = prepare_parallel(write_parquet(tmp_path / "g.parquet", long), tmp_path / "g.jsonl")
    assert directions(lines(result.output)) == {"en-id": 3, "id-en": 3}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_column_of_translations(tmp_path, suffix):
    texts = enumerate(zip(EN, OF["id"], strict=False))
    rows = [{"id": f"s{n}", "translation": {"en": en, "id": own}} for n, (en, own) in texts]
    path = tmp_path / f"wmt{suffix}"
    if suffix == ".parquet":
        write_parquet(path, rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    result = prepare_parallel(path, tmp_path / "rows.jsonl")
    assert {row["id"] for row in lines(result.output)} == {f"wmt/s{n}/{d}" for n in (0, 1) for d in ("en-id", "id-en")}


def test_texts_that_are_no_translation_are_rejected(tmp_path):
    texts = [("Run ls.", "Run ls."), *zip(EN * 6, [f"{text} {n}" for n, text in enumerate(OF["vi"] * 6)], strict=True)]
    path = write_parquet(tmp_path / "help.parquet", [{"en": en, "vi": vi} for en, vi in texts])
    result = prepare_parallel(path, tmp_path / "rows.jsonl")
    assert (
        result.card["rejected"] == {"not_translated": 1}
        and "Run ls. | Run ls." in (tmp_path / "rows.rejected.jsonl").read_text()
    )


def test_either_side_can_be_in_a_benchmark(sets, tmp_path):
    planet = "Scientists found a new planet that lies far outside of our own solar system."
    path = write_parquet(tmp_path / "p.parquet", [{"en": planet, "th": "ข้อความสั้น"}, {"en": EN[0], "th": OF["th"][0]}])
    result = prepare_parallel(path, tmp_path / "rows.jsonl", not_in=["belebele"], folder=sets)
    assert directions(lines(result.output)) == {"en-th": 1, "th-en": 1}
    assert "belebele: 2 (en 1, th 1)" in str(result)


def test_what_parallel_refuses(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        prepare_parallel(tmp_path / "no.parquet", tmp_path / "r.jsonl")
    path = write_parquet(tmp_path / "odd.parquet", [{"a": "x", "b": "y"}])
    with pytest.raises(ConfigError, match="its columns are a, b; expected"):
        prepare_parallel(path, tmp_path / "r.jsonl")
    with pytest.raises(ConfigError, match="unknown language 'xx'"):
        prepare_parallel(path, tmp_path / "r.jsonl", targets=["xx"])
    with pytest.raises(DataError, match="no rows of the split test"):
        prepare_parallel(long_file(tmp_path / "l.parquet"), tmp_path / "r.jsonl", split="test")


def test_sib_and_belebele_do_share_sentences(tmp_path):
    """What the sets' own page says: 599 of the 701 training sentences in English stand in a passage."""
    if not SHARED.is_dir():
        pytest.skip("no folder of real data beside the checkout")
    result = prepare_task("sib200", tmp_path / "r.jsonl", languages=["en"], folder=SHARED, not_in=["belebele"])
    assert 550 <= result.card["languages"]["en"]["overlap"] <= 650
