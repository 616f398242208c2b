"""`dudi stack prepare`: upstream's layouts and the hub's, fields apart, nothing lost without a word."""

import dataclasses
import json
from pathlib import Path

import datasets
import pytest

from dudi.config.yaml_tree import parse_yaml
from dudi.errors import ConfigError, DataError
from dudi.program.cli import main
from dudi.stacking import prepare as prepare_module
from dudi.stacking.prepare import prepare
from dudi.stacking.reading import read_rows, training_rows
from dudi.stacking.recipe import load_stack_config
from dudi.stacking.rows import Task
from dudi.stacking.set_card import PreparedSet, recipe_part, said, task_words
from dudi.stacking.set_rows import split_in
from dudi.stacking.task_sets import NLI, TASK_SETS, TOPICS, Hub

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def rows_in(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def sib(tmp_path):
    """SIB-200's repository, in small."""
    place = tmp_path / "sib"
    for language in ("eng_Latn", "mya_Mymr", "nqo_Nkoo"):
        for split, count in (("train", 3), ("dev", 1), ("test", 2)):
            lines = [f"{n + 7}\t{TOPICS[n]}\t{language} {split} {n}" for n in range(count)]
            write(place / language / f"{split}.tsv", "\n".join(["index_id\tcategory\ttext", *lines]) + "\n")
    write(place / "eng_Latn" / "labels.txt", "politics\n")
    return place


@pytest.fixture
def belebele(tmp_path):
    row = {
        "link": "https://x/1",
        "question_number": 2,
        "flores_passage": "Sebuah bacaan.",
        "question": "Apa?",
        **{f"mc_answer{n}": f"jawaban {n}" for n in (1, 2, 3, 4)},
        "correct_answer_num": "4",
    }
    for code in ("ind_Latn", "hin_Latn", "eng_Latn"):
        write(tmp_path / "belebele" / f"{code}.jsonl", json.dumps(row | {"dialect": code, "split": "test"}) + "\n")
    return tmp_path / "belebele"


def test_a_tree_of_tsv_files_becomes_a_file_a_split_and_language(sib, tmp_path):
    done = prepare("sib200", tmp_path / "out", place=sib)
    assert rows_in(tmp_path / "out/test/mya_Mymr.jsonl") == [
        {"id": "7", "language": "mya_Mymr", "text": "mya_Mymr test 0", "label": "science/technology"},
        {"id": "8", "language": "mya_Mymr", "text": "mya_Mymr test 1", "label": "travel"},
    ]
    assert [path.name for path in (tmp_path / "out/train").iterdir()] == ["eng_Latn.jsonl"]
    assert done.left_out == {
        "training rows in other languages than English: the task is learned in English alone": 3,
        "nqo_Nkoo: NLLB cannot read it (--languages nqo_Nkoo takes it all the same)": 6,
    }
    card = json.loads((tmp_path / "out/data_card.json").read_text(encoding="utf-8"))
    assert card["rows"]["train"] == {"eng_Latn": 3}
    assert card["labels"]["test"] == {"science/technology": 2, "travel": 2}
    assert set(card["files"]) == {path.relative_to(tmp_path / "out").as_posix() for path in done.folder.glob("*/*")}
    shown = said(done)
    assert "3 train, 2 dev, 4 test; 2 languages" in shown
    assert "left out: nqo_Nkoo: NLLB cannot read it" in shown
    assert "(6 rows)" in shown


@pytest.mark.parametrize("words", [["all"], ["eng_Latn", "mya_Mymr", "nqo_Nkoo"]])
def test_what_nllb_cannot_read_is_taken_from_files_where_it_is_asked_for(sib, tmp_path, words):
    """It was always taken from files, against the documentation, and `eval` stopped at it."""
    done = prepare("sib200", tmp_path / "out", place=sib, languages=words)
    assert (done.counts["dev", "nqo_Nkoo"], done.counts["test", "nqo_Nkoo"]) == (1, 2)
    assert "nqo_Nkoo (N'Ko) is read by no code of NLLB" in said(done)


def test_the_folder_is_read_as_it_is_by_recipes_and_by_eval(sib, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["stack", "prepare", "sib200", "data/sib", "--from", str(sib)]) == 0
    task = Task("classification", TOPICS)
    assert [row.id for row in read_rows("data/sib", task, split="train")] == ["7", "8", "9"]
    assert len(read_rows("data/sib", task, split="test")) == 4
    part = (tmp_path / "data/sib/task.yaml").read_text(encoding="utf-8")
    assert "train: data/sib/train/eng_Latn.jsonl" in part
    assert "eval: data/sib/dev/eng_Latn.jsonl" in part


def test_a_stage_takes_rows_and_labels_from_the_folder(sib, tmp_path, monkeypatch, capsys):
    """Labels had to be typed in; what a recipe says of other rows does not reach these."""
    monkeypatch.chdir(tmp_path)
    prepare("sib200", tmp_path / "data", place=sib)
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "own.yaml").write_text("extends: stack/nllb-llm2vec/mnli\n", encoding="utf-8")
    part = task_words(Path("moved"))
    config = load_stack_config("own.yaml", "finetune", part)
    assert config.task.labels == list(TOPICS)
    assert config.data.train == "moved/train/eng_Latn.jsonl"
    assert config.data.eval == "moved/dev/eng_Latn.jsonl"
    assert (config.data.eval_split, config.data.language, config.data.columns) == (None, None, {})
    rows, own = training_rows(config, Task("classification", tuple(config.task.labels)))
    assert (len(rows), len(own)) == (3, 1)
    assert main(["stack", "finetune", "own.yaml", "--task", "nothing"]) == 2
    assert "--task nothing: holds no set of `dudi stack prepare`" in capsys.readouterr().err


def test_a_set_without_training_rows_is_no_task_of_a_stage(belebele, tmp_path, capsys):
    """The recipe's rows stayed, under the set's labels; and the card named where they did not come from."""
    prepare("belebele", tmp_path / "out", place=belebele)
    assert main(["stack", "teach", "stack/mini/region", "--task", str(tmp_path / "out"), "--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "the set has no train part" in error
    assert "--train FILE" in error
    assert 'data.train="a.jsonl"' not in task_words(tmp_path / "out", ["data.train=a.jsonl"])
    assert json.loads((tmp_path / "out/data_card.json").read_text(encoding="utf-8"))["training"] is None
    readme = (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert "no training rows" in readme
    assert "training rows from" not in readme


def test_files_of_a_set_that_has_a_test_alone_need_not_say_so(belebele, tmp_path):
    """Belebele's archive has no column `split`: every row was refused."""
    for file in belebele.iterdir():
        row = json.loads(file.read_text(encoding="utf-8"))
        del row["split"]
        file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    assert prepare("belebele", tmp_path / "out", place=belebele).counts["test", "ind_Latn"] == 1
    train = tmp_path / "training_set.tsv"
    columns = {"passage": "It rained.", "question": "Was it?", **{f"answer{n}": str(n) for n in (1, 2, 3, 4)}}
    columns |= {"correct_answer_num": "1"}
    write(train, "\t".join(columns) + "\n" + "\t".join(columns.values()) + "\n")
    assert prepare("belebele", tmp_path / "out", place=belebele, train=str(train)).trained == 1


@pytest.mark.parametrize(("word", "code"), [("indonesian", "ind"), ("Toba_Batak", "bbc"), ("Javanese", "jav")])
def test_a_language_by_its_name_gets_a_hint(word, code, tmp_path):
    with pytest.raises(ConfigError, match=f"'{word}' is no language of nusax .did you mean '{code}'"):
        prepare("nusax", tmp_path / "out", place=tmp_path, languages=[word])


def test_a_language_that_the_files_have_not_is_said(belebele, tmp_path):
    told = r"1 .*languages that were not asked for.*; its test is in eng_Latn, hin_Latn, ind_Latn: name some of them"
    with pytest.raises(DataError, match=told.replace("1 ", "3 ")):
        prepare("belebele", tmp_path / "out", place=belebele, languages=["kaz_Cyrl"])


def test_what_is_written_for_a_recipe_reads_back(tmp_path):
    """PyYAML left `1e-5` and `08` without quotes, which are numbers in a recipe."""
    labels = ("no", "1e-5", "08", "a: b # c", "ไม่")
    done = PreparedSet(dataclasses.replace(TASK_SETS["sib200"], labels=labels), tmp_path)
    assert parse_yaml(recipe_part(done), "x").plain() == {"task": done.of.task, "data": {}}
    done.counts["train", "eng_Latn"] = 1
    write(tmp_path / "task.yaml", recipe_part(done))
    train = (tmp_path / "train/eng_Latn.jsonl").as_posix()
    assert parse_yaml(recipe_part(done), "x").plain() == {"task": done.of.task, "data": {"train": train}}
    config = load_stack_config("stack/nllb-llm2vec/mnli", "finetune", [*task_words(tmp_path), "eval_strategy=no"])
    assert (tuple(config.task.labels), config.data.train) == (labels, train)


def test_belebele_keeps_passage_question_and_choices_apart(belebele, tmp_path):
    mix = "\tdataset\tsplit\tpassage\tquestion\tanswer1\tanswer2\tanswer3\tanswer4\tcorrect_answer_num\n"
    mix += '0\tRACE\ttrain\t"A passage,\nof ""two"" lines."\tWhat?\ta\tb\tc\td\t1\n'
    mix += "1\tRACE\tdev\tA passage.\tWhat?\ta\tb\tc\td\t3\n"
    write(tmp_path / "belebele_training_set.tsv", mix)
    done = prepare("belebele", tmp_path / "out", place=belebele, train=str(tmp_path / "belebele_training_set.tsv"))
    assert rows_in(tmp_path / "out/test/ind_Latn.jsonl") == [
        {
            "id": "https://x/1-2",
            "language": "ind_Latn",
            "passage": "Sebuah bacaan.",
            "question": "Apa?",
            "choices": ["jawaban 1", "jawaban 2", "jawaban 3", "jawaban 4"],
            "label": 3,
        }
    ]
    train = rows_in(tmp_path / "out/train/eng_Latn.jsonl")
    assert train[0]["passage"] == 'A passage,\nof "two" lines.'
    assert train[0]["label"] == 0
    assert rows_in(tmp_path / "out/dev/eng_Latn.jsonl")[0]["label"] == 2
    row = read_rows(str(tmp_path / "out/test/hin_Latn.jsonl"), Task("choice"))[0]
    assert (row.text, row.pair, len(row.choices), row.language) == ("Sebuah bacaan.", "Apa?", 4, "hin_Latn")
    assert "hin_Latn is no code of NLLB and is read as hin_Deva (Hindi in Latin letters)" in said(done)
    assert json.loads((tmp_path / "out/data_card.json").read_text())["read_as"] == {"hin_Latn": "hin_Deva"}


def test_the_translated_columns_are_taken_and_languages_have_names(tmp_path):
    lines = "Unnamed: 0,gold_label,sentence1,sentence2,s1_translation,s2_translation\n5,neutral,A,B,Ә,Б\n"
    for folder, code in (("uyghur", "ug"), ("azeri", "az")):
        write(tmp_path / "Data" / folder / f"xnli.test.{code}.csv", lines)
    write(tmp_path / "Data" / "azeri" / "xnli.dev.az.csv", lines)
    prepare("kardesnlu", tmp_path / "out", place=tmp_path / "Data")
    row = {"id": "5", "language": "uig_Cyrl", "premise": "Ә", "hypothesis": "Б", "label": "neutral"}
    assert rows_in(tmp_path / "out/test/uig_Cyrl.jsonl") == [row]
    assert sorted(path.name for path in (tmp_path / "out").glob("*/*.jsonl")) == [
        "azj_Latn.jsonl", "azj_Latn.jsonl", "uig_Cyrl.jsonl",
    ]  # fmt: skip


def test_nusax_by_its_folders(tmp_path):
    for folder in ("english", "madurese"):
        for split in ("train", "valid", "test"):
            write(tmp_path / "in" / folder / f"{split}.csv", "id,text,label\n9,some text,positive\n")
    done = prepare("nusax", tmp_path / "out", place=tmp_path / "in", languages=["mad"])
    assert dict(done.counts) == {
        ("train", "eng_Latn"): 1, ("dev", "eng_Latn"): 1, ("dev", "mad_Latn"): 1, ("test", "mad_Latn"): 1,
    }  # fmt: skip
    assert done.left_out["languages that were not asked for"] == 1


# ---- the hub, whose files are read by `datasets` from a folder of the same layout


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """NLI with a part a language and classes in an order of its own; English training rows in another dataset."""
    names = ["contradiction", "entailment", "neutral"]
    features = datasets.Features(
        {
            "premise": datasets.Value("string"),
            "hypothesis": datasets.Value("string"),
            "label": datasets.ClassLabel(names=names),
        }
    )
    config = []
    for code in ("aym", "gn", "nah", "en"):
        for split in ("validation", "test"):
            data = {"premise": [f"{code} p", "q"], "hypothesis": ["h", "i"], "label": [1, 0]}
            file = tmp_path / "hub" / code / f"{split}.parquet"
            file.parent.mkdir(parents=True, exist_ok=True)
            datasets.Dataset.from_dict(data, features=features).to_parquet(file)
        files = "".join(f"  - split: {s}\n    path: {code}/{s}.parquet\n" for s in ("validation", "test"))
        config.append(f"- config_name: {code}\n  data_files:\n{files}")
    write(tmp_path / "hub" / "README.md", f"---\nconfigs:\n{''.join(config)}---\n")
    place = str(tmp_path / "hub")
    own = {
        "hub": Hub(place, {"dev": "validation", "test": "test"}),
        "train": Hub(place, {"train": "test", "dev": "validation"}, "en"),
    }
    changed = prepare_module.dataclasses.replace(TASK_SETS["americasnli"], **own)
    monkeypatch.setattr(prepare_module, "find_set", lambda name: changed)
    monkeypatch.setattr(
        prepare_module,
        "languages_of",
        lambda name: {c: prepare_module.find_language(c) for c in ("aym", "gn", "nah")},
    )
    return tmp_path


def test_the_hub_s_parts_are_read_and_classes_are_named(hub):
    done = prepare("americasnli", hub / "out")
    assert rows_in(hub / "out/test/ayr_Latn.jsonl") == [
        {"id": "0", "language": "ayr_Latn", "premise": "aym p", "hypothesis": "h", "label": "entailment"},
        {"id": "1", "language": "ayr_Latn", "premise": "q", "hypothesis": "i", "label": "contradiction"},
    ]
    assert sorted({language for _, language in done.counts}) == ["ayr_Latn", "eng_Latn", "grn_Latn"]
    assert (done.counts["train", "eng_Latn"], done.counts["dev", "eng_Latn"]) == (2, 2)
    assert "nah: NLLB cannot read it (--languages nah takes it all the same)" in said(done)


def test_languages_that_are_left_out_come_in_the_order_of_the_set(hub, monkeypatch):
    unread = ("nah", "oto", "tar", "shp", "hch", "bzd", "cni")
    known = {code: prepare_module.find_language(code) for code in ("aym", *unread)}
    monkeypatch.setattr(prepare_module, "languages_of", lambda name: known)
    done = prepare("americasnli", hub / "out")
    assert [why.partition(":")[0] for why in done.left_out] == list(unread)


def test_a_language_that_nllb_cannot_read_is_taken_where_it_is_asked_for(hub):
    done = prepare("americasnli", hub / "out", languages=["nah"], max_train=1)
    assert {language for split, language in done.counts if split == "test"} == {"nah_Latn"}
    assert done.counts["train", "eng_Latn"] == 1
    assert done.left_out == {"training rows beyond --max-train": 1}


# ---- what goes wrong


def test_bad_records_are_kept_with_their_place_and_too_many_stop_it(sib, tmp_path):
    file = sib / "eng_Latn" / "train.tsv"
    good = file.read_text(encoding="utf-8")
    write(file, good + "\n".join(f"{n}\ttravel\tmore {n}" for n in range(100, 200)) + "\n300\tcooking\tx\n")
    done = prepare("sib200", tmp_path / "out", place=sib)
    assert len(done.rejections) == 1
    kept = rows_in(tmp_path / "out/rejected.jsonl")[0]
    assert kept["line"] == 105
    assert "'category' is 'cooking'" in kept["detail"]
    assert json.loads((tmp_path / "out/data_card.json").read_text())["rejected"] == {"unknown_label": 1}
    assert "records that give no row: 1 (unknown_label 1)" in (tmp_path / "out/README.md").read_text(encoding="utf-8")
    assert f"1 unknown_label (as in {file}:105: 'category' is 'cooking'" in said(done)
    before = (tmp_path / "out/train/eng_Latn.jsonl").read_bytes()
    write(file, good + "300\tcooking\tx\n" * 5)
    with pytest.raises(DataError, match=r"5 of 17 rows were rejected.*: unknown_label 5"):
        prepare("sib200", tmp_path / "out", place=sib)
    assert (tmp_path / "out/train/eng_Latn.jsonl").read_bytes() == before
    write(file, good)
    prepare("sib200", tmp_path / "out", place=sib, languages=["my"])
    assert not (tmp_path / "out/rejected.jsonl").exists()
    assert [path.name for path in (tmp_path / "out/test").iterdir()] == ["mya_Mymr.jsonl"]  # none of an earlier call


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["xnle"], 2, "xnli"),
        (["sib200", "--languages", "klingon"], 2, "'klingon' is no language of sib200"),
        (["sib200", "--from", "/no/such"], 2, "/no/such: no such file or folder"),
        (["kardesnlu"], 2, "clone github.com/lksenel/Kardes-NLU"),
    ],
)
def test_wrong_words_are_one_line(words, code, told, tmp_path, capsys):
    assert main(["stack", "prepare", words[0], str(tmp_path / "out"), *words[1:]]) == code
    error = capsys.readouterr().err
    assert told in error
    assert "Traceback" not in error


def test_a_folder_with_other_files_is_left_alone(sib, tmp_path):
    write(tmp_path / "out" / "mine.txt", "x")
    with pytest.raises(ConfigError, match="holds other files"):
        prepare("sib200", tmp_path / "out", place=sib)


def test_rows_without_a_split_or_without_a_test_are_refused(tmp_path):
    write(tmp_path / "eng_Latn.jsonl", '{"text": "a", "label": "travel"}\n')
    with pytest.raises(DataError, match="no_split 1"):
        prepare("sib200", tmp_path / "out", place=tmp_path / "eng_Latn.jsonl")
    write(tmp_path / "eng_Latn.jsonl", '{"text": "a", "label": "travel", "split": "train"}\n')
    with pytest.raises(DataError, match="no row of a test"):
        prepare("sib200", tmp_path / "out", place=tmp_path / "eng_Latn.jsonl")


@pytest.mark.parametrize(
    ("columns", "reason", "told"),
    [
        ({"lang": "klingon"}, "unknown_language", "'lang' is 'klingon'"),
        ({"language": "eng_Latm"}, "unknown_language", "(did you mean 'eng_Latn'?)"),
        ({"dialect": 5}, "unknown_language", "'dialect' is '5'"),
        ({"split": "tset"}, "unknown_split", "(did you mean 'test'?)"),
        ({"split": 1}, "unknown_split", "none of train, training, dev"),
    ],
)
def test_a_column_that_nobody_knows_is_not_passed_over_for_the_file_s_name(columns, reason, told, tmp_path):
    """A row in Klingon was English, and a row of a `tset` was of the test."""
    good = {"text": "a", "label": "travel", "lang": None, "split": ""}
    lines = [json.dumps(good)] * 99 + [json.dumps(good | columns)]
    write(tmp_path / "in" / "test" / "eng_Latn.jsonl", "\n".join(lines) + "\n")
    done = prepare("sib200", tmp_path / "out", place=tmp_path / "in")
    assert dict(done.counts) == {("test", "eng_Latn"): 99}
    assert done.rejections.counts == {reason: 1}
    kept = rows_in(tmp_path / "out/rejected.jsonl")[0]
    assert kept["line"] == 100
    assert told in kept["detail"]


def test_the_columns_win_over_the_names_of_files_and_folders(tmp_path):
    row = {"text": "a", "label": "positive", "lang": "Indonesian", "split": "valid"}
    write(tmp_path / "in" / "test" / "eng.jsonl", json.dumps(row) + "\n" + '{"text": "b", "label": "neutral"}\n')
    done = prepare("nusax", tmp_path / "out", place=tmp_path / "in")
    assert dict(done.counts) == {("dev", "ind_Latn"): 1, ("test", "eng_Latn"): 1}


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("xnli.dev.az.csv", "dev"),
        ("javanese/valid.csv", "dev"),
        ("sample_test", "test"),
        ("test/id.jsonl", "test"),
        ("en.train.jsonl", "train"),
        ("latest.csv", None),
        ("trained.jsonl", None),
    ],
)
def test_the_split_in_a_name(name, split):
    assert split_in(name) == split


@pytest.mark.skipif(not SHARED.is_dir(), reason="the collected real data are not here")
@pytest.mark.parametrize(
    ("name", "file", "counts"),
    [
        ("sib200", "sib200", (701, 792, 1632)),
        ("nusax", "nusax_senti", (500, 200, 800)),
        ("belebele", "belebele", (0, 0, 3186)),
    ],
)
def test_real_rows(name, file, counts, tmp_path):
    done = prepare(name, tmp_path / "out", place=SHARED / f"{file}.parquet")
    found = tuple(
        sum(n for (split, _), n in done.counts.items() if split == wanted) for wanted in ("train", "dev", "test")
    )
    assert found == counts
    assert not done.rejections
    task = Task("choice") if name == "belebele" else Task("classification", TASK_SETS[name].labels)
    assert len(read_rows(str(tmp_path / "out"), task, split="test")) == counts[2]


def test_every_set_has_what_a_task_needs():
    for each in TASK_SETS.values():
        assert bool(each.labels) != bool(each.choices)
        assert each.labels in ((), NLI, TOPICS, ("negative", "neutral", "positive"))
        assert each.train is not None and set(each.train.splits) >= {"train", "dev"}
