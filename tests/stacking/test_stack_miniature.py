"""The stacking miniature: its splits do not leak, its parallel text is parallel, its models work, its demo runs."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import unicodedata
from importlib import resources
from pathlib import Path

import pytest
import torch
from test_study import InThisProcess
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer

from dudi.data.cldr import locales
from dudi.data.cldr.speaker import LANGUAGES, speaker
from dudi.stacking import Source, translate
from dudi.stacking.miniature import english, places
from dudi.stacking.miniature.parallel import FRAMES, pairs
from dudi.stacking.miniature.sentences import Frame, fields_of, say
from dudi.stacking.miniature.tasks import TASKS, asked_rows, country_of, training_rows

MIB = 2**20
MODELS = Path(str(resources.files("dudi.stacking.miniature"))) / "models"
READERS = {"reader": True, "reader-bidirectional": False}
"""Whether each of the LLMs is causal."""


def names(code: str) -> set[str]:
    found = {speaker(language).country(code) for language in LANGUAGES}
    return {name for name in found if name}


def test_every_country_has_a_region() -> None:
    assert set(places.region_of()) == set(locales.countries())
    listed = [code for members in places.table()["regions"].values() for code in members.split()]
    assert len(listed) == len(set(listed))


def test_no_hidden_country_is_named_in_the_parallel_text() -> None:
    shown = {name for code in places.countries(parallel=True) for name in names(code)}
    hidden = {name for code in places.countries(parallel=False) for name in names(code)}
    assert not hidden & shown
    for pair in itertools.islice(pairs(3), 3000):
        for line in (*pair.source.split("\n"), *pair.target.split("\n")):
            bare = line.partition(" ")[2] if line[:1].isdigit() else line
            assert bare not in hidden, f"{bare} is hidden from the translator"


@pytest.mark.parametrize("task", TASKS)
def test_no_test_row_is_about_a_country_of_the_training_rows(task: str) -> None:
    trained = {row.id.split("/")[1] for row in training_rows(task)}
    tested = {row.id.split("/")[1] for row in asked_rows(task, "th")}
    assert trained and tested and not trained & tested
    assert not {row.text for row in training_rows(task)} & {row.text for row in asked_rows(task, "en")}
    assert all(row.language == "en" for row in training_rows(task))


@pytest.mark.parametrize("task", TASKS)
def test_asked_rows_say_the_same_in_every_language(task: str) -> None:
    by_id = {row.id: row for row in asked_rows(task, "en")}
    for language in places.OTHERS:
        rows = asked_rows(task, language)
        assert {places.in_parallel(country_of(row)) for row in rows} == {True, False}
        for row in rows:
            assert row.english == by_id[row.id].text
            assert row.label == by_id[row.id].label


def test_parallel_text_is_filled_alike_on_both_sides() -> None:
    for frame in FRAMES:
        templates = {code: frame.template(speaker(code)) for code in LANGUAGES}
        assert templates["en"]
    fill = {"country": "TH", "currency": "JPY"}
    assert say(Frame("currency", 1, True), fill, "en") == "In Thailand, people use the Japanese yen."
    assert say(Frame("currency", 1, True), fill, "id") == "Di Thailand, orang berbelanja dengan Yen Jepang."
    assert fields_of(Frame("country_options").template(speaker("my")) or "") == {"region", "a", "b", "c", "d"}


def test_parallel_text_holds_no_fact() -> None:
    """Currencies beside countries are drawn: the right one comes as often as chance has it."""
    right = {code: str(speaker("en").currency(currency)) for code, currency in locales.country_currencies().items()}
    found = [pair.target for pair in itertools.islice(pairs(1), 6000) if pair.target.startswith("In ")]
    told = [text for text in found if ", people use the " in text]
    true = [
        text
        for text in told
        if any(f"In {speaker('en').country(c)}, people use the {m}." == text for c, m in right.items())
    ]
    assert len(told) > 20
    assert len(true) <= len(told) * 0.1


def test_the_llm_reads_english_alone_and_every_country() -> None:
    read = " ".join(itertools.islice(english.texts(0), 4000))
    assert not {"THAI", "TAMIL", "MYANMAR"} & {unicodedata.name(letter).split()[0] for letter in read if letter > "~"}
    assert not any(word in read.split() for word in ("adalah", "ngôn", "ang", "ialah"))
    assert sum(str(speaker("en").country(code)) in read for code in locales.countries()) > 190


def test_same_seed_same_text() -> None:
    assert list(itertools.islice(pairs(5), 50)) == list(itertools.islice(pairs(5), 50))
    assert list(itertools.islice(english.texts(5), 50)) == list(itertools.islice(english.texts(5), 50))


STREAMS = """
import hashlib, itertools
from dudi.stacking.miniature import english, parallel, tasks
drawn = [list(itertools.islice(stream, 300)) for stream in (parallel.pairs(5), english.texts(5), english.sentences(5))]
drawn += [tasks.training_rows(task)[:50] for task in tasks.TASKS]
found = hashlib.sha256(repr(drawn).encode()).hexdigest()
"""


@pytest.mark.slow
def test_same_seed_same_text_in_another_process() -> None:
    """Python hashes strings anew in each process: an order that a set gave would be another draw."""
    own: dict[str, str] = {}
    exec(STREAMS, own)
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    words = [sys.executable, "-c", STREAMS + "print(found)"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == own["found"]


def test_shipped_models_are_small_safetensors_with_cards() -> None:
    assert sum(path.stat().st_size for path in MODELS.rglob("*") if path.is_file()) < 20 * MIB
    for name in ("translator", *READERS):
        assert (MODELS / name / "model.safetensors").is_file()
        assert "license: apache-2.0" in (MODELS / name / "README.md").read_text(encoding="utf-8")
        assert not list((MODELS / name).glob("*.bin"))


def test_the_translator_translates() -> None:
    said = [say(Frame("currency"), {"country": "TH"}, language) for language in places.OTHERS]
    found = translate(
        AutoModelForSeq2SeqLM.from_pretrained(MODELS / "translator", dtype=torch.float32),
        Source(AutoTokenizer.from_pretrained(MODELS / "translator")),
        [str(text) for text in said],
        places.OTHERS,
        "en",
        num_beams=2,
        max_new_tokens=24,
    )
    assert found.count("What is the currency of Thailand?") == 7


def test_the_readers_attend_as_they_are_called() -> None:
    said = {name: AutoConfig.from_pretrained(MODELS / name).to_dict().get("is_causal", True) for name in READERS}
    assert said == READERS


def test_the_demo_runs_from_end_to_end(tmp_path, capsys, monkeypatch) -> None:
    from dudi.program.cli import main
    from dudi.study import scheduler

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(scheduler, "_pool", lambda at_once, threads: InThisProcess())
    # Few rows: what is asked and learned is not what is tested here.
    monkeypatch.setattr("dudi.stacking.miniature.rows.asked_rows", lambda *words: asked_rows(*words)[::10])
    monkeypatch.setattr("dudi.stacking.miniature.rows.TEXTS", 400)
    monkeypatch.setattr("dudi.stacking.miniature.rows.BITEXT", 40)
    assert main(["stack", "demo", "--quick"]) == 0
    printed = capsys.readouterr().out
    text = (tmp_path / "runs" / "stack-demo" / "study.md").read_text(encoding="utf-8")
    for system in ("LLM, zero-shot", "translate-test", "encoder alone", "Stage 2 only", "MT-LLM"):
        assert f"\n{system} " in printed and f"| {system} |" in text
    head = next(line for line in printed.splitlines() if line.split()[-1:] == ["overall"])
    assert head.split() == [*places.OTHERS, "en", "overall"]
    assert max(map(len, printed[printed.index("Accuracy") :].splitlines())) <= 90
    for part in ("named", "hidden", "### Macro F1 and time", "### Stage 1, without labels"):
        assert part in text
    assert re.search(r"\| Stage 1, then fine-tuned, MT-LLM \| -?\d+\.\d\d, -?\d\.\d\d \|", text)
    assert re.search(r"\| translate-test \| [\d.]+ \| [\d.]+ \| [\d.]+ \+ [\d.]+ \|", text)


@pytest.mark.slow
def test_the_recipes_of_the_miniature_run_on_the_rows_that_the_demo_writes(tmp_path) -> None:
    from dudi.program.cli import main

    rows = tmp_path / "rows"
    assert main(["stack", "demo", "--rows", str(rows)]) == 0
    few = ["max_steps=2", "per_device_train_batch_size=2", "disable_tqdm=true"]
    aligned = [*few, "start_rows=16", "probe_rows=2"]
    given = [f"data.train={rows}/english.jsonl", f"data.parallel={rows}/region-test.jsonl"]
    assert main(["stack", "align", "stack/mini/align", *given, *aligned, "--output", str(tmp_path / "align")]) == 0
    found = (tmp_path / "align" / "metrics.jsonl").read_text(encoding="utf-8")
    assert all(f"fvu/{language}" in found for language in LANGUAGES)
    given = [f"data.train={rows}/region-train.jsonl", f"start={tmp_path}/align", *few]
    assert main(["stack", "finetune", "stack/mini/region", *given, "--output", str(tmp_path / "region")]) == 0
    assert main(["stack", "finetune", "stack/mini/region-tokens", *given, "--output", str(tmp_path / "tokens")]) == 0
    given = [f"data.train={rows}/english.jsonl", "data.parallel=null", *few, "start_rows=16"]
    bitext = [*given, f"data.bitext={rows}/bitext.jsonl", "--output", str(tmp_path / "bitext")]
    assert main(["stack", "align", "stack/mini/bitext-align", *bitext]) == 0
    assert main(["stack", "align", "stack/mini/causal-align", *given, "--output", str(tmp_path / "causal")]) == 0
    given = [f"data.train={rows}/region-train.jsonl", f"start={tmp_path}/causal", *few]
    assert main(["stack", "finetune", "stack/mini/write", *given, "--output", str(tmp_path / "write")]) == 0
    asked = [f"{rows}/region-test.jsonl", "--column", "answer=label", "--max-rows", "4", "--max-new-tokens", "4"]
    assert main(["stack", "generate", f"{tmp_path}/write", *asked, "--output", str(tmp_path / "written.jsonl")]) == 0
    lines = (tmp_path / "written.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["prompt"] for line in lines] == ["It is in"] * 4 * len(LANGUAGES)  # of each language
