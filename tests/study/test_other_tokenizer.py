"""The laboratory of docs/results/tokenizers.md: a student with another kind of tokenizer, its study, its gains."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dudi.data.chat import chat_format
from dudi.models.load import load_model, load_tokenizer
from dudi.objective.coverage import measure_coverage
from dudi.objective.shared_events import SharedEvents
from dudi.program.cli import main
from dudi.study.grid import read_studies
from dudi.training.checkpoints import hash_parameters

ROOT = Path(__file__).parents[2]
SCRIPTS = ROOT / "scripts"
PACKAGE = "package:dudi/mini/base"


@pytest.fixture(scope="module")
def other_tokenizer():
    """The script, and three tokenizers that it makes of few texts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import other_tokenizer_student
        from mini.corpus import texts

        made = [other_tokenizer_student.make_sentence_piece(texts(seed, 1500)) for seed in (1, 1, 2)]
        yield other_tokenizer_student, made


def test_the_other_tokenizer_is_of_another_kind_and_the_same_each_time(other_tokenizer):
    one, again, another = other_tokenizer[1]
    assert one.backend_tokenizer.to_str() == again.backend_tokenizer.to_str() != another.backend_tokenizer.to_str()
    own, base = chat_format(one, {}, "other"), chat_format(load_tokenizer(PACKAGE), {}, PACKAGE)
    assert len(one) == len(base.tokenizer) == 4096
    for text in ("ကီနာ၊ ၁၂၃", "đồng  Việt Nam\n", "a😀b", "<0x41>"):
        assert own.text(own.answer_ids(text)) == text
    conversation = [{"role": "system", "content": "s"}, {"role": "user", "content": "Mata uang?"}]
    assert own.render(conversation) == base.render(conversation)
    shared = SharedEvents(one, base.tokenizer)
    assert 1000 < len(shared.cells) < 3000
    answers = {"th": [own.answer_ids("เงินบาท")], "en": [own.answer_ids("The yen (¥).")]}
    assert all(line.share > 0.9 for line in measure_coverage(shared, answers).languages)


def test_the_student_with_the_other_tokenizer_reads_what_the_package_s_reads(other_tokenizer, tmp_path, monkeypatch):
    script, (tokenizer, *_) = other_tokenizer
    from mini import pretrain

    shape = pretrain.Shape(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=48, steps=3, batch=8, warmup=1)
    monkeypatch.setattr(pretrain, "POOL", 16)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: None)  # of this process, tests and all
    monkeypatch.setitem(sys.modules["build_mini"].SHAPES, "base", shape)
    monkeypatch.setattr(script, "make_sentence_piece", lambda sample: tokenizer)
    hashes = []
    for name in ("one", "again"):
        monkeypatch.setattr(sys, "argv", ["x", "--output", str(tmp_path / name)])
        script.main()
        hashes.append(hash_parameters(load_model(str(tmp_path / name), dtype=torch.float32)))
    assert hashes[0] == hashes[1]
    training = json.loads((tmp_path / "one" / "training.json").read_text(encoding="utf-8"))
    assert (training["role"], training["samples"], training["seed"]) == ("base", 24, 0)
    assert len(load_tokenizer(str(tmp_path / "one"))) == 4096


def test_the_study_of_the_other_tokenizer_asks_the_same_of_both_students(monkeypatch, tmp_path):
    (study,) = read_studies([ROOT / "recipes" / "study" / "tokenizers" / "1-proof.yaml"])
    rows = {student: [row for row in study.rows if row.name.startswith(student)] for student in ("same", "other")}
    keys = [
        [{**row.keys, "student.model": "", "name": row.name.partition(": ")[2]} for row in own] for own in rows.values()
    ]
    assert keys[0] == keys[1] and study.seeds == 4
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "src" / "dudi" / "mini" / "base", tmp_path / "runs" / "other-tokenizer")
    assert main(["study", "run", str(study.file), "--runs", str(tmp_path / "s"), "--dry-run"]) == 0


def test_gains_across_tokenizers_are_measured_over_the_student_s_own_start(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import other_tokenizer_gains as gains

    facts = [f"fact {number // 2}" for number in range(40)]
    none, half, every = np.zeros(40), np.tile([100.0, 0.0], 20), np.full(40, 100.0)
    right = {("same", "SFT"): {0: none, 1: none}, ("same", "DuDi"): {0: every, 1: every}, ("same", "GKD"): {0: every}}
    right |= {("other", "SFT"): {1: none, 2: none}, ("other", "DuDi"): {0: every, 1: half, 2: half}}
    rows = gains.differences(right, "SFT")
    assert {name: [len(own) for own in both] for name, both in rows.items()} == {"DuDi": [2, 2]}
    same, other = gains.drawn_gains(rows["DuDi"], facts, np.ones(40))
    assert same.shape == (1 + gains.SAMPLES,) and (same == 100).all() and other[0] == 50
    assert gains.cells(same, other)[1:] == ["+50.0 [+50.0, +50.0]", "-50.0 [-50.0, -50.0]", "50 % [50, 50]"]
    assert gains.cells(same - 100, other)[-1] == "–"
    assert gains.drawn_gains(rows["DuDi"], facts, half / 100)[1][0] == 100
