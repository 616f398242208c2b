"""What the report says about the benchmark and shows of its answers."""

import json

import pytest
from huggingface_hub import ModelCard

from dudi.report import answers, write_model_card
from dudi.report.benchmark import benchmark_sections
from dudi.report.groups import grouped
from dudi.report.results import in_words, result_of
from dudi.report.run_folder import read_run
from report_helpers import HOSTILE, SHARES, SPLITS, answer, leaf, page_of


def broken(**scores):
    """An `evaluation.json` with these scores of its subjects, and nothing else in it."""
    found = [
        {"name": name, "model": "m", "benchmark": {}, "subject": name, "runs": [{"seed": 0, "scores": own}]}
        for name, own in scores.items()
    ]
    return json.dumps({"format": "dudi-evaluation-2", "evaluations": found})


def test_the_benchmark_in_words(make_asked):
    text = page_of(make_asked()).text
    assert (
        "The student learned from the teacher in 2 languages. In this one run it answers 31% of 36 questions exactly; "
        "before (cold start) it answered 18%, guessing gives 9%, the teacher 70%." in text
    )
    assert text.index("At a glance") < text.index("Benchmark") < text.index("Answers before") < text.index("Losses")


@pytest.mark.parametrize(
    ("method", "subjects", "words"),
    [
        ("sft", ("base", "student"), "was trained in 2 languages, without a teacher. In this one run it answers 31%"),
        ("sft", ("base", "student"), "before (base) it answered 0%."),
        ("sft", ("student", "teacher"), "the teacher, which this method does not use, answers 70%."),
        ("sdft", ("student",), "learned from its own moving average in 2 languages. In this one run it answers 31% of"),
        ("mine", ("student",), "was trained in 2 languages. In this one run it answers 31% of 36 questions exactly."),
    ],
)
def test_the_words_claim_nothing_that_the_run_did_not_do(make_asked, method, subjects, words):
    folder = make_asked(method=method, shares={name: SHARES[name] for name in subjects})
    assert words in in_words(result_of(read_run(folder)))


def rows_of(grid):
    return [(line.label, tuple(entry.text for entry in line.entries)) for line in grid.lines]


def test_the_tables_of_a_single_run(make_asked):
    (section,) = benchmark_sections(grouped([read_run(make_asked())]))
    assert section.by_split.columns == (*SPLITS, "all", "in language", "chrF", "bits per byte")
    assert rows_of(section.by_split) == [
        ("guessing", ("9", "8", "7", "9", "–", "–", "–")),
        ("base", ("0", "0", "0", "0", "50", "0.0", "1.00")),
        ("cold start", ("18", "17", "16", "18", "50", "18.0", "0.82")),
        ("dudi student", ("31", "30", "29", "31", "50", "31.0", "0.69")),
        ("teacher", ("70", "69", "68", "70", "50", "70.0", "0.30")),
    ]
    assert [line.kind for line in section.by_split.lines] == ["faint", "", "", "strong", ""]
    assert section.by_language.columns == (*SPLITS, "all", "teacher (all)")
    assert rows_of(section.by_language) == [
        ("Indonesian", ("18 → 31", "17 → 30", "16 → 29", "18 → 31", "70")),
        ("Burmese", ("18 → 31", "17 → 30", "16 → 29", "9 → 16", "35")),
    ]
    assert section.cells == "cold start → dudi student"
    assert section.meanings[1] == ("transfer", "trained in other languages only (12 questions)")


def test_the_page_explains_splits_and_names_what_was_asked(make_asked):
    page = page_of(make_asked())
    for words in (
        "seen : trained in this language, asked in other words (12 questions)",
        "fingerprint (SHA-256, short): 0123456789ab;",
        "greedy, at most 40 new tokens",
        "CLDR 47, Babel 2.18.0",
    ):
        assert words in page.text
    assert page.open == []
    chart = next(svg for svg in page.all("svg") if "Answered exactly" in svg.get("aria-label", ""))
    assert "Burmese: guessing 4%, cold start 9%, dudi student 16%, teacher 35%" in chart["aria-label"]
    assert len([svg for svg in page.all("svg") if svg.get("aria-hidden")]) == 4 + 7  # marks; phases and entropies


def test_a_run_that_asked_nothing_shows_nothing(make):
    folder = make()
    for text in ("", "benchmark: null  # default\n"):
        with (folder / "resolved.yaml").open("a", encoding="utf-8") as file:
            file.write(text)
        text = page_of(folder).text + write_model_card(folder).read_text()
        assert "Benchmark" not in text
        assert "evaluation.json" not in text
        assert "Answers before" not in text
        assert "## Results" not in text


def test_results_that_the_recipe_asked_for_and_that_are_missing_are_said(make_asked):
    folder = make_asked(without=("evaluation.json", "answers.jsonl"))
    text, card = page_of(folder).text, write_model_card(folder).read_text()
    assert "Not measured: the recipe asks for a benchmark, and evaluation.json is missing or cannot be read." in text
    assert "Not measured: answers.jsonl is missing or empty." in text
    assert "The recipe asks for a benchmark, and evaluation.json is missing or cannot be read." in card


@pytest.mark.parametrize("missing", ["evaluation.json", "answers.jsonl"])
def test_each_half_of_the_benchmark_stands_alone(make_asked, missing):
    text = page_of(make_asked(without=(missing,))).text
    assert f"{missing} is missing" in text
    assert ("question id-1-0" in text) == (missing == "evaluation.json")
    assert ("31% of 36 questions" in text) == (missing == "answers.jsonl")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"format": "dudi-evaluation-2", "evaluations": 3}',
        '{"format": "dudi-evaluation-2", "evaluations": [1]}',
        broken(student={"by_language": []}),
        broken(base={}),
    ],
)
def test_a_broken_result_is_a_missing_one(make_asked, text):
    folder = make_asked()
    (folder / "evaluation.json").write_text(text)
    assert "evaluation.json is missing or cannot be read" in page_of(folder).text


def test_holes_in_a_result_are_dashes(make_asked):
    folder = make_asked()
    holes = {"by_language": {"id": {"exact_match": "much"}}, "overall": {"chrf": None}}
    (folder / "evaluation.json").write_text(broken(student=holes, teacher={}))
    page = page_of(folder)
    assert page.open == []
    assert "In this one run it answers – of the questions exactly." in page.text
    assert "benchmark: –; tasks: –; questions: –" in page.text
    assert "| dudi student | – | – | – | – |" in write_model_card(folder).read_text()


def test_answers_are_chosen_by_the_rule(make_asked):
    run = read_run(make_asked())
    chosen = answers.choose(grouped([run]))
    own = [card for card in chosen.cards if card.language == "id"]
    assert chosen.languages == ("id", "my")
    assert [card.change for card in own] == [
        *[answers.LEARNED] * 3,
        answers.STILL_RIGHT,
        answers.STILL_WRONG,
        answers.LOST,
    ]
    assert {card.split for card in own[:3]} == set(SPLITS)
    assert dict(chosen.counts) == dict.fromkeys(answers.QUOTA, 8)
    assert chosen.total == 32
    backwards = make_asked("b", records=list(reversed(run.answers)))
    again = answers.choose(grouped([read_run(backwards)]))
    assert {card.id for card in again.cards} == {card.id for card in chosen.cards}


def test_free_places_go_to_what_there_is(make_asked):
    wrong = [
        answer(who, f"{split}-{place}", split, exact=False)
        for who in ("base", "student")
        for split in SPLITS
        for place in range(5)
    ]
    chosen = answers.choose(grouped([read_run(make_asked(records=wrong))]))
    assert chosen.before == "base"
    assert [card.change for card in chosen.cards] == [answers.STILL_WRONG] * answers.PER_LANGUAGE
    assert sorted(card.split for card in chosen.cards) == sorted(SPLITS * 2)


def test_answers_show_everybody_with_a_mark_in_words(make_asked):
    records = [
        answer(who, "q", "seen", "my", exact=exact)
        for who, exact in (("base", False), ("cold_start", False), ("student", True), ("teacher", True))
    ]
    page = page_of(make_asked(records=records))
    for words in (
        "seen: wrong before, right after",
        "reference q",
        "base ✗ wrong base says q",
        "cold start ✗ wrong cold_start says q",
        "dudi student ✓ right student says q",
        "teacher ✓ right teacher says q",
        "wrong before, right after 1 right before and after 0",
    ):
        assert words in page.text
    assert {"my"} <= {cell.get("lang") for cell in page.all("dd")}


def test_both_filters_choose_within_their_own_section(make_asked):
    page = page_of(make_asked())
    assert [select["id"] for select in page.all("select")] == ["answers-language", "language"]
    assert [option["value"] for option in page.all("option") if "selected" in option] == ["id"]
    assert len({article["data-language"] for article in page.all("article")}) == 3


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_answers_and_results_stay_text(make_asked, text):
    fields = ("answer", "question", "reference", "language", "split", "id")
    records = [
        answer(who, f"{field}-{place}", "seen", exact=False) | {field: text}
        for place, field in enumerate(fields)
        for who in ("base", "student")
    ]
    asked = dict.fromkeys(("name", "part", "questions", "fingerprint", "cldr_version", "babel_version"), text)
    folder = make_asked(records=records, asked=asked | {"tasks": [text]})
    result = json.loads((folder / "evaluation.json").read_text())
    by_subject = {one["subject"]: one for one in result["evaluations"]}
    result["evaluations"].append(by_subject["base"] | {"subject": text, "name": text})
    by_subject["student"]["runs"][0]["scores"]["by_language"][text] = leaf(0.5, "student")
    by_subject["student"]["about"]["method"] = text
    (folder / "evaluation.json").write_text(json.dumps(result))
    page = page_of(folder)
    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert page.open == []
    assert page.text.count(text) >= 12
    card = write_model_card(folder).read_text()
    assert "<script" not in card
    assert "<img" not in card


# --- tasks with metrics of their own


def test_tasks_of_lm_eval_stand_with_their_own_metrics(make):
    """A run that was asked tasks: a table of tasks and one of languages, in the page and in the card."""
    folder = make(more="benchmark:\n  name: lm-eval  # recipe\n")
    found = []
    for subject, acc in (("base", 0.25), ("student", 0.4), ("teacher", 0.75)):
        topic = {"questions": 20, "acc": acc, "acc_norm": acc, "stderr": {"acc": 0.03}}
        news = {"questions": 10, "bits_per_byte": 2.0 - acc, "stderr": {"bits_per_byte": 0.01}}
        scores = {
            "overall": topic | news,
            "by_language": {"th": topic | news, "id": topic},
            "by_task": {"sib200": topic, "ntrex_bits": news},
            "by_language_and_task": {"th": {"sib200": topic, "ntrex_bits": news}, "id": {"sib200": topic}},
        }
        benchmark = {"name": "lm-eval", "tasks": ["dudi_sib200_th 1.0"], "decoding": {"num_fewshot": 2}}
        benchmark |= {"version": "0.4.13", "limit": 20}
        runs = [{"seed": 0, "scores": scores}]
        found.append({"name": subject, "model": "m", "benchmark": benchmark, "subject": subject, "runs": runs})
    content = json.dumps({"format": "dudi-evaluation-2", "evaluations": found})
    (folder / "evaluation.json").write_text(content, encoding="utf-8")
    (section,) = benchmark_sections(grouped([read_run(folder)]))
    assert rows_of(section.by_split) == [
        ("sib200: acc, %", ("25.0 ±3.0", "40.0 ±3.0", "75.0 ±3.0")),
        ("ntrex_bits: bits per byte", ("1.750 ±0.010", "1.600 ±0.010", "1.250 ±0.010")),
    ]
    assert section.by_language is not None and not section.exact
    assert [label for label, _ in rows_of(section.by_language)] == [
        *("Thai: acc, %", "Indonesian: acc, %", "all: acc, %"),
        *("Thai: acc_norm, %", "Indonesian: acc_norm, %", "all: acc_norm, %"),
        *("Thai: bits per byte", "all: bits per byte"),
    ]
    page = page_of(folder).text
    assert "Accuracy in %, mean of tasks: 40.0; base 25.0; teacher 75.0." in page and "answered exactly" not in page
    assert "2 examples, chat template off" in page and "±: the standard error over questions, of one seed" in page
    assert "limit of each task: 20" in page and "versions: lm_eval 0.4.13" in page
    file = write_model_card(folder)
    card = file.read_text(encoding="utf-8")
    scores = ModelCard.load(file).data.eval_results
    told = [(one.dataset_name, one.dataset_config, one.metric_type, one.metric_value) for one in scores]
    assert told[:3] == [("sib200", None, "acc", 0.4), ("sib200", None, "acc_norm", 0.4), ("sib200", "id", "acc", 0.4)]
    assert told[-1] == ("ntrex_bits", "th", "bits_per_byte", 1.6) and len(told) == 8
    assert "| sib200: acc, % | 25.0 ±3.0 | 40.0 ±3.0 | 75.0 ±3.0 |" in card and "Questions answered exactly" not in card


def test_hostile_tasks_are_dashes(make):
    folder = make(more="benchmark:\n  name: lm-eval  # recipe\n")
    scores = {
        "overall": {"acc": "many"},
        "by_language": {"th": {"acc": None}},
        "by_task": {"<b>": {"acc": 0.5}, "x": 3},
        "by_language_and_task": {"th": {"<b>": {"acc": 0.5}}},
    }
    own = {"name": "s", "model": "m", "benchmark": {"name": "lm-eval"}, "subject": "student"}
    content = {"format": "dudi-evaluation-2", "evaluations": [own | {"runs": [{"seed": 0, "scores": scores}]}]}
    (folder / "evaluation.json").write_text(json.dumps(content), encoding="utf-8")
    page = page_of(folder)
    assert not page.all("b") or "<b>" in page.text
