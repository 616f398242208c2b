"""A study on tasks of lm_eval: several metrics, a table each, and leads that drawing the questions again must carry."""

import json
import shutil

import pytest
from test_study import BASE, HEAD, InThisProcess, recipe_file

from dudi.comparison.items import answers_by_run, resampled
from dudi.comparison.packed import pack, unpacked
from dudi.errors import ConfigError
from dudi.evaluation.metrics import METRICS
from dudi.evaluation.records import ANSWERS
from dudi.program.cli import main
from dudi.study import results as collected
from dudi.study import scheduler
from dudi.study.grid import read_study
from dudi.study.jobs import job_of
from dudi.study.page import page
from dudi.training.runlog import read_jsonl
from task_sets import write_sets

pytest.importorskip("lm_eval")
ROWS = (
    "metrics: [acc, bits_per_byte]\nviews: [language, task, overall]\nrows:\n"
    "  - {name: SFT, keys: {method: sft, cold_start: sft, learning_rate: 1.0e-3}}\n"
    "  - {name: SFT slowly, keys: {method: sft, cold_start: sft, learning_rate: 1.0e-5}}\n"
)


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    root = tmp_path_factory.mktemp("tasks")
    sets = write_sets(root)
    options = f"{{data: {json.dumps(str(sets))}, apply_chat_template: true}}"
    asked = "name: lm-eval, tasks: [sib200, ntrex_bits_from_en], languages: [th, en], per_split: null"
    base = BASE.replace("{per_split: 1}", f"{{{asked}, options: {options}}}")
    base = base.replace("mini/dudi", recipe_file("mini/dudi"))
    (root / "base.yaml").write_text(base, encoding="utf-8")
    file = root / "tiny.yaml"
    file.write_text(HEAD + ROWS, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "_pool", lambda at_once, threads: InThisProcess())
        assert main(["study", "run", str(file), "--runs", str(root / "runs"), "--output", str(root / "docs")]) == 0
    return root, read_study(file)


def test_each_metric_has_its_tables(studied):
    root, study = studied
    text = (root / "docs" / "study.md").read_text(encoding="utf-8")
    for heading in ("By language: Accuracy in %", "By task: Bits per byte", "Over all questions: Bits per byte"):
        assert f"### {heading}" in text
    assert "those of lm_eval" in text and "`sib200` and `ntrex_bits_from_en`" in text
    found = collected.read(root / "docs" / "study.json")
    own = found[job_of(study, study.rows[0], 1).id, "student"]
    (bits,) = own.values("bits_per_byte", "overall")
    assert f"{bits:.3f}"[:4] in text


def test_a_page_is_written_again_when_nothing_is_left_to_run(studied, capsys):
    root, study = studied
    words = ["study", "run", str(study.file), "--runs", str(root / "runs"), "--output", str(root / "again")]
    assert main(words) == 0
    assert "0 are left" in capsys.readouterr().out
    pages = [(root / name / "study.md").read_text().replace(str(root / name), "DIR") for name in ("again", "docs")]
    assert pages[0] == pages[1]
    assert f"    dudi study report {study.file.name} --output DIR\n" in pages[0]


def test_a_page_of_dashes_is_not_put_over_another_ones(studied, tmp_path, capsys):
    """Where no result is these studies', as when a model of theirs is not here, nothing is written."""
    root, study = studied
    shutil.copytree(root / "docs", tmp_path / "docs")
    other = root / "other.yaml"
    other.write_text(study.file.read_text(encoding="utf-8").replace("1.0e-", "3.0e-"), encoding="utf-8")
    assert main(["study", "report", str(other), "--runs", str(tmp_path), "--output", str(tmp_path / "docs")]) == 2
    assert "holds no result of these studies" in capsys.readouterr().err
    assert (tmp_path / "docs" / "study.md").read_bytes() == (root / "docs" / "study.md").read_bytes()


def test_a_metric_that_nobody_has_costs_its_own_table_alone(studied):
    root, study = studied
    file = root / "more.yaml"
    file.write_text(study.file.read_text().replace("metrics: [acc,", "metrics: [acc, chrf,"), encoding="utf-8")
    assert main(["study", "report", str(file), "--runs", str(root / "runs"), "--output", str(root / "more")]) == 0
    text = (root / "more" / "study.md").read_text(encoding="utf-8")
    assert "No answer was scored by `chrf`; `metrics` can be `acc`" in text and "By task: Bits per byte" in text
    assert "chrF" not in text.replace("`chrf`", "")


def test_a_misspelt_metric_is_refused_before_anything_runs(tmp_path):
    (tmp_path / "base.yaml").write_text("{}\n")
    file = tmp_path / "bad.yaml"
    file.write_text(HEAD + ROWS.replace("bits_per_byte", "bits_per_bite"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"there is no 'bits_per_bite' \(did you mean 'bits_per_byte'"):
        read_study(file)
    file.write_text(HEAD + ROWS.replace("[acc, bits_per_byte]", "acc"), encoding="utf-8")
    assert read_study(file).shown == ("acc",)


def test_the_papers_order_is_that_of_better_not_of_more(studied):
    """Where less is better, the one with fewer bits is ahead."""
    root, study = studied
    found = collected.read(root / "docs" / "study.json")
    bits = [
        collected.overall(study.model_copy(update={"metrics": ("bits_per_byte",)}), row, found) for row in study.rows
    ]
    first = 0 if sum(bits[0]) < sum(bits[1]) else 1
    papers = [2.0 if place == first else 1.0 for place in range(2)]
    rows = tuple(row.model_copy(update={"paper": paper}) for row, paper in zip(study.rows, papers, strict=True))
    text = page(
        [study.model_copy(update={"rows": rows, "metrics": ("bits_per_byte",)})], found, findings="", commands=[]
    )
    assert "Pairs that the paper orders: 1. Significantly so here: 0;" in text  # 6 questions carry no lead
    ahead, behind = (study.rows[place].name for place in (first, 1 - first))
    assert f"Open (difference here, eps_min of the one ahead): {ahead} over {behind} (-0." in text


def test_answers_are_kept_in_short_and_say_what_the_long_ones_say(studied):
    root, study = studied
    found = collected.read(root / "docs" / "study.json")
    for row in study.rows:
        job = job_of(study, row, 0)
        lines = [line for line in read_jsonl(root / "runs" / job.id / ANSWERS) if line["subject"] == "student"]
        for packed in found[job.id, "student"].about["answers"]:
            for by, column in (("overall", "overall"), ("language", "th"), ("task", "sib200")):
                whole, short = (
                    answers_by_run(each, packed["metric"], by, column) for each in (lines, unpacked(packed))
                )
                told = [
                    [(own.group, pytest.approx(own.value, abs=1e-3), own.weight) for own in answers]
                    for answers in whole.values()
                ]
                assert [[(own.group, own.value, own.weight) for own in answers] for answers in short.values()] == told
        assert {one["metric"] for one in found[job.id, "student"].about["answers"]} >= {"acc", "bits_per_byte"}


def test_questions_are_drawn_again_for_the_marks(studied):
    root, study = studied
    found = collected.evaluations(study, collected.read(root / "docs" / "study.json"))
    for metric in ("acc", "bits_per_byte"):
        lead = resampled(*found, METRICS[metric], "overall", "overall", confidence=0.95, comparisons=1)
        first, second = (sum(one.values(metric, "overall")) / len(one.runs) * METRICS[metric].better for one in found)
        assert lead is not None and lead.difference == pytest.approx(first - second, abs=1e-3)
        assert lead.runs == (2, 2)


def test_bits_of_the_same_item_are_summed_and_rounded():
    line = {"item": "a", "language": "th", "task": "news", "weights": {"bits_per_byte": 7.0}}
    lines = [line | {"scores": {"bits_per_byte": 1.23456}}, line | {"item": "b", "scores": {"bits_per_byte": 2.0}}]
    packed = pack([{"item": "0", "language": "th", "scores": {"acc": 1.0}}, *lines], "bits_per_byte")
    assert packed["cells"] == [["th", None, True, [8.6419, 14.0], "7", "news", 1]]


def test_answers_that_weigh_alike_still_do():
    """Rows of `cldr-qa-1` are one pool: a language with more questions counts for more."""
    lines = [{"id": str(n), "language": "th" if n else "my", "exact": n > 1} for n in range(4)]
    packed = json.loads(json.dumps(pack(lines, "exact_match")))
    for each in (lines, list(unpacked(packed))):
        (answers,) = answers_by_run(each, "exact_match").values()
        assert [(own.group, own.value, own.weight) for own in answers] == [((), float(n > 1), 1.0) for n in range(4)]


def test_metrics_of_a_stack_are_its_own(tmp_path):
    file = tmp_path / "stack.yaml"
    rows = "rows:\n  - {name: A, stages: [{verb: teach, recipe: x}]}\n"
    file.write_text(f"title: T\nseeds: 1\nasked: rows.jsonl\nmetrics: [acc]\n{rows}", encoding="utf-8")
    with pytest.raises(ConfigError, match="metrics: is of studies of `dudi train`"):
        read_study(file)
