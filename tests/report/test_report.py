"""The report's page, from run directories that are whole, partial, hostile or broken."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dudi.errors import ConfigError, EnvironmentFault
from dudi.report import write_report
from dudi.report.run_folder import read_run, read_runs
from dudi.report.samples import PER_LANGUAGE
from report_helpers import HOSTILE, TEXTS, Page, metrics, page_of, sample

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
    drawings = [svg for svg in page.all("svg") if "aria-hidden" not in svg]
    assert len(drawings) == 16
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in drawings)
    assert any("Overlap ratio of the top 8. run: from" in svg["aria-label"] for svg in drawings)
    assert len(page.all("title")) > 15


def test_settings_say_where_they_came_from(make):
    text = page_of(make()).text
    assert "student.model Qwen/Qwen2.5-0.5B base file recipes/base.yaml:3" in text
    assert "run_name 'a # b' command line" in text
    assert "dudi train dudi --output 'a folder/run'" in text
    assert "All 9 keys" in text


def test_several_runs_are_overlaid_with_a_legend(make, tmp_path):
    target = tmp_path / "deep" / "all.html"
    page = page_of(make("one"), make("two", method="gkd"), output=target)
    assert target.exists()
    labels = [svg.get("aria-label", "") for svg in page.all("svg")]
    assert sum("one: from" in label and "two: from" in label for label in labels) >= 10
    assert "Report of 2 runs" in page.text
    assert page.text.count("dudi gkd") >= 5


def test_a_command_that_nobody_wrote_down_is_said(make):
    assert "Not recorded: the command." in page_of(make(command=None)).text


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


def test_resolved_yaml_is_read_as_recipes_are(make):
    run = read_run(make(more="weight_decay: 1e-5  # default\ndated: 2024-01-01  # default\n"))
    assert (run.value("weight_decay"), run.value("dated")) == (1e-5, "2024-01-01")
    assert "resolved.yaml" in read_run(make("twice", more="seed: 1\nseed: 2\n")).missing


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
    with pytest.raises(EnvironmentFault, match=r"cannot write .*report\.html"):
        write_report([make()], tmp_path / "file" / "report.html")


# --- what people and models wrote


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_samples_stay_text(make, text):
    fields = ("rollout", "prompt", "gold", "language", "target_language", "detected_language", "kind", "id", "stage")
    page = page_of(make(samples=[sample(**{field: text}) for field in fields]))
    assert len(page.all("script")) == 1
    assert page.all("img") == []
    assert page.open == []
    assert page.text.count(text) >= len(fields)


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
    marked = {attributes.get("lang") for attributes in page.all("pre")}
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
        "seed",
    ]
    assert run.path == Path(run.path)
