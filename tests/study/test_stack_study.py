"""Studies of stacks: what a file may say, what is trained once, and one small study from start to end."""

import dataclasses
import hashlib
import json
import re
import shlex
import shutil
import threading
from pathlib import Path

import pytest
from filelock import FileLock
from stack_helpers import (
    FOREIGN,
    LABELS,
    TASK,
    TEXTS,
    english_rows,
    make_llm,
    make_llm_tokenizer,
    make_mt,
    make_nllb_tokenizer,
)
from test_study import InThisProcess

from dudi.comparison.bootstrap import lead
from dudi.comparison.items import answers_by_run
from dudi.comparison.packed import pack, unpacked
from dudi.errors import ConfigError
from dudi.evaluation.records import Evaluation, SeedScores, read_evaluations
from dudi.program.cli import main
from dudi.program.stack import stack_verb
from dudi.stacking.planning import plan_stage
from dudi.stacking.rows import fingerprint
from dudi.study import results as collected
from dudi.study import scheduler
from dudi.study.grid import AskedRows, read_studies, read_study
from dudi.study.identity import files_of
from dudi.study.jobs import every_job, job_of
from dudi.study.page import page
from dudi.study.worker import train_and_ask

VERBS = ("align", "teach", "distill")
ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "recipes" / "study" / "stack" / "1-miniature.yaml"
RECIPE = """
encoder: {root}/mt
llm: {root}/llm
start: {root}/nowhere
task: {{labels: [animal, thing, person]}}
data: {{train: {root}/train.jsonl, language: eng_Latn}}
lora: {{r: 4}}
max_steps: 2
per_device_train_batch_size: 4
learning_rate: 2.0e-2
max_length: 64
start_rows: 8
use_cpu: true
"""
STUDY = """
title: Stacks
asked: {asked}
seeds: 2
views: [language, split]
rows:
  - name: LLM
    stages: [&teach {{verb: teach, recipe: own.yaml}}]
  - name: translate-test
    stages: [*teach]
    translate: {root}/mt
  - name: MT-LLM
    stages:
      - {{verb: align, recipe: own.yaml, keys: {{start: null}}}}
      - *teach
      - {{verb: distill, recipe: own.yaml, after: {{start: align, teacher: teach}}}}
"""


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """An encoder with its decoder, an LLM, English rows to learn from, and rows in three languages to ask."""
    root = tmp_path_factory.mktemp("parents")
    make_mt().save_pretrained(root / "mt")
    make_nllb_tokenizer().save_pretrained(root / "mt")
    make_llm().save_pretrained(root / "llm")
    make_llm_tokenizer().save_pretrained(root / "llm")
    labels = [TASK.labels[label] for label in LABELS]
    write(root / "train.jsonl", [{"text": text, "label": label} for text, label in zip(TEXTS, labels, strict=True)])
    asked = [
        {
            "id": str(n),
            "text": text,
            "label": labels[n],
            "language": code,
            "split": ("a", "b")[n % 2],
            "item": f"i{n // 2}",
        }
        for code, texts in (("eng_Latn", TEXTS), ("ind_Latn", FOREIGN), ("tha_Thai", FOREIGN[::-1]))
        for n, text in enumerate(texts)
    ]
    write(root / "test.jsonl", asked)
    return root


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def study_file(parents, tmp_path):
    def make(text=None, asked=None):
        (tmp_path / "own.yaml").write_text(RECIPE.format(root=parents), encoding="utf-8")
        asked = asked or f"{{rows: {parents}/test.jsonl, beams: 2, max_new_tokens: 4}}"
        file = tmp_path / "stacks.yaml"
        file.write_text(text or STUDY.format(root=parents, asked=asked), encoding="utf-8")
        return file

    return make


def test_how_a_translation_is_made_is_told_to_rows_that_read_one(study_file):
    """`dudi stack eval` refuses the options of a translation where there is none."""
    study = read_study(study_file())
    for row in study.rows:
        asked = job_of(study, row, 0).asking(Path("runs"))
        assert ("--beams" in asked) == ("--max-new-tokens" in asked) == ("--translate" in asked)
        assert ("--translate" in asked) == (row.translate is not None)
    whole = AskedRows(rows="x", beams=2, target="eng_Latn", max_length=5, languages=("id", "th"))
    assert whole.words(translated=False) == ("x", "--languages", "id", "th", "--max-length", "5")


# ---- the file


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("[{verb: aligne, recipe: own.yaml}]", ":6: rows.0.stages.0.verb: Input should be 'adapt', 'align', 'teach'"),
        ("[{verb: teach, recipe: own.yaml,\n      after: {start: align}}]", ":7: row 'A': stage 'teach': after.start"),
        ("[{verb: teach, recipe: own.yaml, after: {start: align}}]", "there is no earlier stage 'align'"),
        (
            "[{verb: teach,\n      recip: own.yaml}]",
            ":7: rows.0.stages.0.recip: Extra inputs are not permitted (did you",
        ),
        (
            "[{verb: teach, recipe: own.yaml}, {verb: distill, recipe: own.yaml, after: {teacher: teech}}]",
            "no earlier stage 'teech' (did you mean 'teach'?)",
        ),
        (
            "[{verb: teach, recipe: own.yaml},\n      {verb: teach, recipe: own.yaml}]",
            ":7: row 'A': two stages are called 'teach'",
        ),
        ("[{verb: align, recipe: own.yaml}]", ":6: row 'A': its last stage, 'align', has no head to ask"),
        ("[{verb: teach, recipe: own.yaml}]\n    keys: {seed: 1}", ":7: row 'A': has both keys and stages"),
        ("[]", ":5: row 'A': is no stack"),
    ],
)
def test_wrong_stages_are_one_line_with_the_file(study_file, rows, told):
    file = study_file(f"title: T\nasked: rows.jsonl\nseeds: 1\nrows:\n  - name: A\n    stages: {rows}\n")
    with pytest.raises(ConfigError, match=re.escape(told)) as error:
        read_study(file)
    assert str(file) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        ("", "asked: ROWS"),
        ("asked: rows.jsonl\ncost: true\n", ":3: cost: is of studies of `dudi train`"),
        ("asked: rows.jsonl\nrecipe: own.yaml\n", ":3: recipe: is of studies of `dudi train`"),
        (
            "asked: {rows: rows.jsonl, beems: 3}\n",
            ":2: asked.beems: Extra inputs are not permitted (did you mean 'beams'?)",
        ),
    ],
)
def test_a_head_that_does_not_fit_is_one_line_with_the_file(study_file, head, told):
    file = study_file(f"title: T\n{head}seeds: 1\nrows: [{{name: A, stages: [{{verb: teach, recipe: own.yaml}}]}}]\n")
    with pytest.raises(ConfigError, match=re.escape(told)) as error:
        read_study(file)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("stage", "told"),
    [
        ("{verb: teach, recipe: own.yaml, keys: {lerning_rate: 1}}", ":4: unknown key 'lerning_rate' (did you mean"),
        ("{verb: teach, recipe: own.yaml, keys: {lerning_rate: 1}}", "did you mean 'learning_rate'?"),
        ("{verb: teach, recipe: stack/mini/regoin}", "did you mean 'stack/mini/region'?"),
        ("{verb: teach, recipe: stack/mini/regoin}", ":4: row 'A': stage 'teach': stack/mini/regoin"),
        ("{verb: teach, recipe: own.yaml, task: nowhere}", "holds no set of `dudi stack prepare`"),
        (
            "{verb: teach, recipe: own.yaml, keys: {data: nowhere.jsonl}}",
            ":4: row 'A': data.train: nowhere.jsonl: no such",
        ),
        ("{verb: teach, recipe: own.yaml}", ":2: asked: gone.jsonl: no such file or folder"),
    ],
)
def test_a_dry_run_finds_what_a_stage_would_not(study_file, tmp_path, capsys, stage, told):
    file = study_file(f"title: T\nasked: gone.jsonl\nseeds: 1\nrows: [{{name: A, stages: [{stage}]}}]\n")
    words = ["study", "run", str(file), "--dry-run", "--runs", str(tmp_path / "r"), "--output", str(tmp_path)]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert told in error and str(file) in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (
            "translate: {root}/mt",
            "translate: {root}/gone",
            ":11: row 'translate-test': translate: {root}/gone: no such",
        ),
        (
            "recipe: own.yaml}}]",
            "recipe: own.yaml, keys: {{llm: {root}/gone}}}}]",
            "stage 'teach': llm.model: {root}/gone",
        ),
        ("{{start: null}}", "{{start: {root}/gone}}", "row 'MT-LLM': stage 'align': start.model: {root}/gone: no such"),
    ],
)
def test_a_dry_run_looks_for_every_model(study_file, parents, tmp_path, capsys, before, after, told):
    """A translator that is not there was found when everything was trained."""
    assert before in STUDY
    text = STUDY.replace(before, after).format(root=parents, asked=f"{parents}/test.jsonl")
    words = ["study", "run", str(study_file(text)), "--dry-run", "--runs", str(tmp_path / "r")]
    assert main([*words, "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert told.format(root=parents) in error and f"{tmp_path}/stacks.yaml:" in error


def test_a_model_on_the_hub_that_cannot_be_looked_for_is_said(study_file, parents, tmp_path, capsys):
    """Dry runs work without a network."""
    text = STUDY.replace("translate: {root}/mt", "translate: nobody/nowhere")
    file = study_file(text.format(root=parents, asked=f"{parents}/test.jsonl"))
    words = ["study", "run", str(file), "--runs", str(tmp_path / "r"), "--output", str(tmp_path / "o")]
    assert main([*words, "--dry-run"]) == 0
    assert "note: nobody/nowhere: " in capsys.readouterr().out


def test_a_dry_run_says_what_each_stage_takes(study_file, tmp_path, capsys):
    """Of a stage that goes on from another one too, whose model is not there yet."""
    file = study_file()
    assert main(["study", "run", str(file), "--dry-run", "--runs", str(tmp_path), "--output", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    lines = {line.split(":")[0]: line.split() for line in shown.splitlines() if line.split(":")[0] in VERBS}
    assert [line[-4:-1] for line in lines.values()] == [["2", "2", "8"]] * 3  # seeds, steps and rows
    assert float(lines["align"][-1]) > 0
    assert "teach: LLM and 2 more" in shown and "distill: MT-LLM " in shown
    for verb, line in lines.items():
        (stage,) = {one for job in every_job([read_study(file)], 1) for one in job.stages if one.verb == verb}
        if verb != "distill":
            plan = plan_stage(stage.config(), rows=8)
            assert float(line[-1]) == pytest.approx(2 * plan.step_flops / 1e12, rel=0.05)


# ---- what is trained once


def test_the_shipped_study_has_six_rows_of_six_stages():
    study = read_study(SHIPPED)
    jobs = every_job([study], seeds=1)
    assert [job.like for job in jobs] == [
        "teach",
        "teach",
        "finetune",
        "teach, distill",
        "align, finetune",
        "align, teach, distill",
    ]
    assert len({stage.id for job in jobs for stage in job.stages}) == 6


def test_rows_share_what_is_the_same_and_nothing_else(study_file):
    study = read_study(study_file())
    llm, translated, stacked = (job_of(study, row, 0) for row in study.rows)
    assert llm.stages == translated.stages == stacked.stages[1:2]
    assert llm.id != translated.id
    other = job_of(study, study.rows[2], 1)
    assert [stage.key for stage in other.stages] == [stage.key for stage in stacked.stages]
    assert not {stage.id for stage in other.stages} & {stage.id for stage in stacked.stages}


def test_words_are_for_every_stage_that_reads_them(study_file):
    """A row's own keys stand above them, a stage's name makes a word its own, and what nobody reads is no word."""
    file = study_file()
    (told,) = read_studies([file], ["learning_rate=1e-3", "bitext_share=0.3", "align.max_steps=1"])
    by_verb = {stage.verb: stage for row in told.rows for stage in job_of(told, row, 0).stages}
    before = {stage.verb: stage for row in read_study(file).rows for stage in job_of(read_study(file), row, 0).stages}
    assert by_verb["align"].words == ("learning_rate=1e-3", "bitext_share=0.3", "max_steps=1", "start=null")
    assert by_verb["teach"].words == by_verb["distill"].words == ("learning_rate=1e-3",)
    assert all(by_verb[verb].key != before[verb].key for verb in before)
    (wrong,) = read_studies([file], ["learning_rat=1e-3"])
    with pytest.raises(ConfigError, match="command line: unknown key 'learning_rat'"):
        job_of(wrong, wrong.rows[0], 0)


def test_a_word_for_one_verb_stands_above_one_for_all_wherever_it_is_written(study_file):
    file = study_file()
    for words in (
        ["learning_rate=1e-3", "align.learning_rate=1e-4"],
        ["align.learning_rate=1e-4", "learning_rate=1e-3"],
    ):
        (told,) = read_studies([file], words)
        by_verb = {stage.verb: stage.words for row in told.rows for stage in job_of(told, row, 0).stages}
        assert by_verb["align"] == ("learning_rate=1e-3", "learning_rate=1e-4", "start=null")
        assert by_verb["teach"] == by_verb["distill"] == ("learning_rate=1e-3",)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("mask_share=0.5", "command line: mask_share: no row of these studies reads it: it belongs to adapt"),
        ("adapt.max_steps=1", "command line: adapt.max_steps: no row of these studies reads it"),
        ("align.mask_share=0.5", "mask_share: align does not read it: it belongs to adapt"),
    ],
)
def test_words_that_nobody_reads_are_refused(study_file, capsys, word, told):
    """They used to stand in the page's command, as if the numbers were theirs."""
    assert main(["study", "run", str(study_file()), word, "--dry-run"]) == 2
    assert told in capsys.readouterr().err


def test_the_table_for_a_pair_of_ones_own_takes_it_as_words(tmp_path, monkeypatch, capsys):
    """Of the three commands of recipes/study/stack/own/table.yaml the second; the page's command has the words."""
    monkeypatch.chdir(tmp_path)
    for language, text in {"eng_Latn": "the cat", "ind_Latn": "kucing"}.items():
        for part in ("train", "dev", "test"):
            if part != "train" or language == "eng_Latn":
                file = tmp_path / "data" / "task" / part / f"{language}.jsonl"
                file.parent.mkdir(parents=True, exist_ok=True)
                row = {"id": "1", "text": text, "label": "animal", "language": language}
                file.write_text(json.dumps(row) + "\n", encoding="utf-8")
    rows = "{train: data/task/train/*.jsonl, eval: data/task/dev/eng_Latn.jsonl}"
    recipe = f"task: {{kind: classification, labels: [animal, thing]}}\ndata: {rows}\n"
    (tmp_path / "data" / "task" / "task.yaml").write_text(recipe, encoding="utf-8")
    table = "recipes/study/stack/own/table.yaml"  # as a shipped recipe's, wherever one is
    models = "package:dudi/stacking/miniature/models"
    write(tmp_path / "english.jsonl", [{"text": "The sun is warm."}])
    words = [f"encoder={models}/translator", f"llm={models}/reader", "align.data.train=english.jsonl"]
    assert main(["study", "run", table, *words, "--seeds", "1", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "7 scores from 7 jobs" in shown
    assert "align: Stage 1, then fine-tuned and 1 more" in shown
    assert "note: facebook/nllb-200-distilled-600M: " in shown  # not here, and no network
    # A key that a stage needs and nobody gives was found by the runs, one after the other.
    for missing, told in (
        (words[1:], "row 'encoder alone': stage 'finetune': encoder.model: name the encoder"),
        (words[:1], "row 'LLM, zero-shot': stage 'teach': llm.model: name the language model"),
    ):
        assert main(["study", "run", table, *missing, "--seeds", "1", "--dry-run"]) == 2
        error = capsys.readouterr().err
        assert told in error
        assert "table.yaml:" in error
    assert main(["stack", "align", "stack/mini/align", "encoder=null", "--dry-run"]) == 2
    assert "encoder.model: name the encoder" in capsys.readouterr().err
    assert main(["study", "report", table, *words, "--output", "own"]) == 0
    command = f"dudi study run recipes/study/stack/own/table.yaml {shlex.join(words)} --output own"
    assert command in (tmp_path / "own" / "study.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "keys", "changed"),
    [
        (0, {"start": None, "learning_rate": 0.1}, [0, 2]),  # what was learned from it is another, too
        (1, {"learning_rate": 0.1}, [1, 2]),
        (2, {"learning_rate": 0.1}, [2]),
        (1, {"start": "elsewhere", "encoder": "elsewhere"}, []),  # the LLM alone is taught
        (1, {"logging_steps": 5}, []),
        (1, {"warmup_steps": 0.01}, []),  # the default
    ],
)
def test_a_stage_is_what_it_reads_and_what_came_before(study_file, place, keys, changed):
    study = read_study(study_file())
    row = study.rows[2]
    stages = list(row.stages)
    stages[place] = stages[place].model_copy(update={"keys": keys})
    before = [stage.key for stage in job_of(study, row, 0).stages]
    after = [stage.key for stage in job_of(study, row.model_copy(update={"stages": tuple(stages)}), 0).stages]
    assert [n for n in range(3) if before[n] != after[n]] == changed


def test_other_rows_are_asked_anew_of_the_same_stages(study_file, parents, tmp_path):
    own = tmp_path / "asked.jsonl"
    ids = []
    for text in (parents / "test.jsonl").read_text(encoding="utf-8"), (parents / "train.jsonl").read_text("utf-8"):
        own.write_text(text, encoding="utf-8")
        files_of.cache_clear()  # each is a new start of the program
        study = read_study(study_file(asked=str(own)))
        ids.append(job_of(study, study.rows[0], 0))
    assert ids[0].id != ids[1].id and ids[0].stages == ids[1].stages


# ---- runs


@pytest.fixture(scope="module")
def done(parents, tmp_path_factory):
    """A study that has been run, in this process, and what it said."""
    root = tmp_path_factory.mktemp("study")
    (root / "own.yaml").write_text(RECIPE.format(root=parents), encoding="utf-8")
    file = root / "stacks.yaml"
    asked = f"{{rows: {parents}/test.jsonl, beams: 2, max_new_tokens: 4}}"
    file.write_text(STUDY.format(root=parents, asked=asked), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler, "_pool", lambda at_once, threads: InThisProcess())
        assert main(words(file, root)) == 0
    return file, root


def words(file, root):
    return ["study", "run", str(file), "--runs", str(root / "runs"), "--output", str(root / "docs")]


def trainings(root):
    """The lines of all logs that say that a stage is trained."""
    logs = (root / "runs").glob("stack-*/seed-*/log.txt")
    return [line for log in logs for line in log.read_text("utf-8").splitlines() if line.startswith("dudi stack ")]


def test_a_small_study_from_start_to_end(done, capsys):
    file, root = done
    study = read_study(file)
    jobs = every_job([study])
    assert len(jobs) == 6 and len(trainings(root)) == 6  # teach, align and distill, twice
    results = collected.read(root / "docs" / "study.json")
    assert str(root) not in (root / "docs" / "study.json").read_text(encoding="utf-8")
    for job in jobs:
        own = results[job.id, "student"]
        (asked,) = read_evaluations(root / "runs" / job.id / "evaluation.json")
        assert own.values("accuracy", "overall") == asked.values("accuracy", "overall")
        assert [run.seed for run in own.runs] == [job.seed]
        assert own.about["training"]["cpu"] > 0 and own.about["seconds"] > 0
        assert set(own.keys("split")) == {"a", "b"}
        assert not (root / "runs" / job.stages[0].id / "checkpoints").exists()
    text = (root / "docs" / "study.md").read_text(encoding="utf-8")
    assert "Accuracy in %; mean of 2 seeds; test" in text and "Macro F1 in %" in text
    assert "eng_Latn" in text and "| a | b |" in text
    row = next(line for line in text.splitlines() if line.startswith("| MT-LLM"))
    values = [
        100 * value
        for job in jobs
        if len(job.stages) == 3
        for value in results[job.id, "student"].values("accuracy", "overall")
    ]
    assert f"{sum(values) / 2:.1f} ±" in row
    assert main([*words(file, root), "--dry-run"]) == 0
    assert "6 are done, 0 are left" in capsys.readouterr().out


def test_translate_test_is_asked_in_translation(done):
    file, root = done
    study = read_study(file)
    lines = (root / "runs" / job_of(study, study.rows[1], 0).id / "answers.jsonl").read_text("utf-8").splitlines()
    assert {"read" in json.loads(line) for line in lines if json.loads(line)["language"] != "eng_Latn"} == {True}


def test_the_page_is_the_same_without_the_runs(done, tmp_path):
    """What a bootstrap over items needs is in `study.json`, too."""
    file, root = done
    shutil.copytree(root / "docs", tmp_path / "docs")
    assert main(["study", "report", str(file), "--runs", str(tmp_path / "no"), "--output", str(tmp_path / "docs")]) == 0
    for name in ("study.md", "study.json"):
        own, first = ((place / "docs" / name).read_text().replace(str(place), "ROOT") for place in (tmp_path, root))
        assert own == first


def test_a_study_that_was_stopped_trains_what_is_missing(done, tmp_path, monkeypatch, capsys):
    file, root = done
    monkeypatch.setattr(scheduler, "_pool", lambda at_once, threads: InThisProcess())
    shutil.copytree(root / "runs", tmp_path / "runs")
    study = read_study(file)
    job = job_of(study, study.rows[2], 1)
    _, teach, distill = job.stages
    shutil.rmtree(tmp_path / "runs" / job.id)
    shutil.rmtree(tmp_path / "runs" / distill.id / "model")
    assert main([*words(file, tmp_path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "5 are done, 1 are left" in said and "3 stages, each trained once; 2 are done" in said
    assert main([*words(file, tmp_path), "--print"]) == 0
    lines = [shlex.split(line)[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == ["distill", "eval"]
    assert main(words(file, tmp_path)) == 0
    (line,) = (line for line in trainings(tmp_path) if line not in trainings(root))
    assert line.startswith("dudi stack distill") and f"teacher={tmp_path / 'runs' / teach.id} " in line
    first, again = (read_evaluations(at / "runs" / job.id / "evaluation.json")[0].runs for at in (root, tmp_path))
    assert again == first


def test_the_lines_for_a_shell_give_what_the_study_gives(study_file, tmp_path, capsys, done):
    file = study_file()
    command = [*words(file, tmp_path), "--seeds", "1"]
    assert main([*command, "--print"]) == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert [line[2] for line in lines] == ["teach", "eval", "eval", "align", "distill", "eval"]
    assert not (tmp_path / "runs").exists()
    for line in lines:
        assert main(line[1:]) == 0
    capsys.readouterr()
    assert main([*command, "--dry-run"]) == 0
    assert "3 are done, 0 are left" in capsys.readouterr().out
    study = read_study(file)
    for row in study.rows:
        job = job_of(study, row, 0)
        one, other = (read_evaluations(at / "runs" / job.id / "evaluation.json")[0] for at in (tmp_path, done[1]))
        assert one.runs == other.runs


def test_a_row_waits_for_the_one_that_trains_its_stage(done, tmp_path):
    file, root = done
    study = read_study(file)
    job = job_of(study, study.rows[0], 0)
    (stage,) = job.stages
    (tmp_path / stage.id).parent.mkdir(parents=True)
    waiting = threading.Thread(target=train_and_ask, args=(job, tmp_path, stack_verb), kwargs={"keep_models": False})
    with FileLock(tmp_path / f"{stage.id}.lock"):
        waiting.start()
        waiting.join(timeout=1.0)
        assert waiting.is_alive() and not (tmp_path / stage.id).exists()
        shutil.copytree(root / "runs" / stage.id, tmp_path / stage.id)
    waiting.join(timeout=120.0)
    assert (tmp_path / job.id / "evaluation.json").is_file()
    trained = [(at / stage.id / "metrics.jsonl").stat().st_mtime_ns for at in (root / "runs", tmp_path)]
    assert trained[0] == trained[1]  # it was taken as it was


# ---- answers


def test_packed_answers_resample_as_the_file_does(done):
    file, root = done
    study = read_study(file)
    sides = [[job_of(study, row, seed) for seed in (0, 1)] for row in study.rows[1:]]
    for by, column in (("overall", "overall"), ("language", "ind_Latn"), ("split", "b")):
        found = []
        for packed in (False, True):
            own = [[run(root, job, by, column, packed) for job in jobs] for jobs in sides]
            found.append(lead(own[0], own[1], samples=500))
        assert found[0] == found[1]
        assert found[0].items == 4


def run(root, job, by, column, packed):
    text = (root / "runs" / job.id / "answers.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    if packed:
        lines = list(unpacked(json.loads(json.dumps(pack(lines, "accuracy")))))
    (answers,) = answers_by_run(lines, "accuracy", by, column).values()
    return answers


@pytest.mark.parametrize(("items", "marked"), [(4, False), (12, False), (400, True)])
def test_a_lead_of_few_items_is_none_whatever_the_seeds_say(study_file, tmp_path, items, marked):
    """All four seeds of one row lie above all of the other, always by the same questions."""
    text = STUDY.format(root=tmp_path, asked="rows.jsonl").replace("seeds: 2", "seeds: 4")
    study = read_study(study_file(text))
    benchmark = {"name": "rows", "questions": items, "languages": ["ind_Latn"], "source_language": "eng_Latn"}
    benchmark |= {"fingerprint": "f" * 64}
    found = {}
    for row, wrong in ((study.rows[0], 1), (study.rows[2], 2)):  # of every four questions
        rights = [float(n % 4 >= wrong) for n in range(items)]
        lines = [{"item": n, "language": "ind_Latn", "scores": {"accuracy": own}} for n, own in enumerate(rights)]
        scores = {"accuracy": 1 - wrong / 4, "macro_f1": 0.5, "questions": items}
        for seed in range(4):
            job = job_of(study, row, seed)
            about = {"job": job.id, "versions": {"torch": "2", "transformers": "5"}, "answers": pack(lines, "accuracy")}
            runs = (SeedScores(seed, {"overall": scores, "by_language": {"ind_Latn": scores}}),)
            found[job.id, "student"] = Evaluation(job.like, "", benchmark, runs, about, "student")
    collected.write(found, tmp_path / "study.json")
    shown = page([study], collected.read(tmp_path / "study.json"), findings="", commands=[])
    row = next(line for line in shown.splitlines() if line.startswith("| LLM"))
    assert "75.0 ± 0.0" in row and ("◇" in row) is marked
    assert ("other questions could turn LLM against MT-LLM" in shown) is (items == 12)
    assert ("fewer than 10 items carry none: LLM against MT-LLM" in shown) is (items == 4)
    assert "By split" not in shown  # these rows have no parts


@pytest.mark.parametrize("count", [35, 36])
def test_an_item_of_many_rows_is_packed_too(count):
    one = {"item": "a", "language": "en", "scores": {"accuracy": 1.0}}
    packed = pack([one] * count + [one | {"item": "b", "scores": {"accuracy": 0.0}}], "accuracy")
    assert packed["cells"] == [["en", None, True, *(("z0", "z1") if count == 35 else ([36, 0], [36, 1]))]]
    (answers,) = answers_by_run(unpacked(packed), "accuracy").values()
    assert [(own.item, own.value, own.weight) for own in answers] == [(0, count, count), (1, 0.0, 1)]


def test_rows_without_parts_are_the_rows_that_they_were():
    """Teachers' vectors and evaluations are known by their rows' fingerprint: those of earlier versions stay valid."""
    digest = hashlib.sha256()
    for row in english_rows():
        old = {
            key: value
            for key, value in dataclasses.asdict(row).items()
            if key not in ("answer", "split", "item", "place")
        }
        digest.update(json.dumps(old, ensure_ascii=False, sort_keys=True).encode() + b"\n")
    assert fingerprint(english_rows()) == digest.hexdigest()
    assert fingerprint([dataclasses.replace(row, split="a") for row in english_rows()]) != digest.hexdigest()
