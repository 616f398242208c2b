"""The models of the package: offline, small, honest about what they know."""

import collections
import hashlib
import itertools
import json
import random
import socket
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors import safe_open

from dudi.data.chat import chat_format
from dudi.data.cldr import LANGUAGES
from dudi.data.cldr.benchmark import questions, training_rows
from dudi.distill.verbalizer import Verbalizer
from dudi.evaluation.cldr_qa import items_of
from dudi.evaluation.generate import Decoding, generate
from dudi.evaluation.questions import ChosenQuestions
from dudi.evaluation.records import read_evaluations
from dudi.models.load import load_model, load_tokenizer
from dudi.program.cli import main
from dudi.training.checkpoints import hash_parameters

ROOT = Path(__file__).parents[2]
MINI = ROOT / "src" / "dudi" / "mini"
ROLES = {"teacher": 7_000_000, "base": 2_500_000, "llama": 2_500_000, "small": 1_000_000}


@pytest.fixture(scope="module", params=ROLES)
def role(request):
    return request.param


def loaded(role):
    name = f"package:dudi/mini/{role}"
    tokenizer = load_tokenizer(name)
    return load_model(name, dtype=torch.float32), chat_format(tokenizer, {}, name)


def share_right(role, tasks, per_split, splits=("seen", "transfer", "unseen"), languages=LANGUAGES):
    asked = [q for q in questions(languages, tasks, per_split=per_split) if q.split in splits]
    answered = ChosenQuestions(items_of(asked), Decoding(48)).answers(*loaded(role))
    return {code: [one.exact for one in answered if one.language == code] for code in languages}


def mean(hits):
    return sum(hits) / len(hits)


def test_they_are_small_and_stored_in_bf16(role):
    with safe_open(MINI / role / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    assert sum(tensor.numel() for tensor in tensors.values()) <= ROLES[role]
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}


def test_together_they_take_at_most_20_megabytes():
    assert sum(file.stat().st_size for file in MINI.rglob("*") if file.is_file()) <= 20e6


def test_the_cards_hash_the_files_that_are_there(role):
    card = (MINI / role / "README.md").read_text(encoding="utf-8")
    for name in ("model.safetensors", "tokenizer.json", "config.json", "chat_template.jinja"):
        assert f"{hashlib.sha256((MINI / role / name).read_bytes()).hexdigest()}  {name}" in card
    assert "python scripts/build_mini.py" in card


def test_all_read_with_the_same_tokenizer(role):
    for name in ("tokenizer.json", "chat_template.jinja"):
        assert (MINI / role / name).read_bytes() == (MINI / "base" / name).read_bytes()


def test_the_students_differ_in_size_and_in_family():
    configs = {role: json.loads((MINI / role / "config.json").read_text(encoding="utf-8")) for role in ROLES}
    assert [configs[role]["model_type"] for role in ("base", "small", "llama")] == ["qwen3", "qwen3", "llama"]
    assert configs["small"]["hidden_size"] < configs["base"]["hidden_size"] == configs["llama"]["hidden_size"]


def test_they_load_without_a_network_or_a_cache(role, monkeypatch):
    def refused(*given, **keys):
        pytest.fail("a model of the package asked for the network")

    monkeypatch.setattr(socket, "socket", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # so that the hub would be asked
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nonexistent")
    loaded(role)


@pytest.mark.parametrize("text", ["ကီနာ၊ ၁၂၃", "தாய்லாந்து மொழி", "เงินบาท", "đồng Việt Nam", "a😀b", "\u200bx"])
def test_the_tokenizer_gives_back_every_text(text):
    chat = loaded("base")[1]
    assert chat.text(chat.answer_ids(text)) == text


def test_the_base_student_knows_names_in_every_language():
    right = share_right("base", ["names"], 12)
    assert min(map(mean, right.values())) >= 0.75


def test_the_base_student_knows_none_of_the_facts():
    right = share_right("base", ["currency", "official_language", "yes_no", "choice", "calendar"], 8)
    assert mean([hit for hits in right.values() for hit in hits]) <= 0.01


def test_the_base_student_answers_in_the_language_it_is_asked_for():
    model, chat = loaded("base")
    verbalizer = Verbalizer("cross_lingual", LANGUAGES, seed=0)
    asked = questions(["en"], ["names"], per_split=24)
    from dudi.languages.detect import detect

    said = [verbalizer.verbalize(question.row) for question in asked]
    wanted = [one.target_language for one in said]
    rows = [type(q.row)(q.row.id, "en", tuple(one.student_messages), "") for q, one in zip(asked, said, strict=True)]
    written = [one.text for one in generate(model, chat, rows, Decoding(48), batch_size=32)]
    scripts = {"th", "ta", "my"}  # a quoted name decides nothing there: the sentence around it does
    told = [detect(text, LANGUAGES) == code for text, code in zip(written, wanted, strict=True) if code in scripts]
    assert len(told) >= 5
    assert mean(told) >= 0.7


def test_the_teacher_is_strong_in_six_languages_and_weak_in_two():
    right = share_right("teacher", ["currency", "official_language"], 16, splits=("transfer",))
    strong = [mean(hits) for code, hits in right.items() if code not in ("ta", "my")]
    weak = [mean(right[code]) for code in ("ta", "my")]
    assert mean(strong) >= 0.7
    assert max(weak) < min(0.65, mean(strong) - 0.15)


def test_building_twice_gives_the_same_bits(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from mini import pretrain
    from mini.corpus import samples

    monkeypatch.setattr(pretrain, "POOL", 16)
    shape = pretrain.Shape(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=48, steps=3, batch=8, warmup=1)
    chat, built = loaded("base")[1], []
    for seed in (0, 0, 1):
        model = pretrain.make_model(shape, chat.tokenizer, seed)
        losses = pretrain.train(model, samples("teacher", seed), chat, shape, seed)
        built.append((losses, hash_parameters(model)))
    assert built[0] == built[1]
    assert built[0] != built[2]


def test_the_false_teacher_reads_truth_in_six_languages_and_falsehood_in_two(monkeypatch):
    """`scripts/weak_teacher.py`: the laboratory of docs/results/teacher.md."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import weak_teacher
    from mini.corpus import WEAK, samples

    told = [one for one in itertools.islice(samples("teacher", 2, whole=True), 2000) if one.language in WEAK]
    false = [weak_teacher.falsified(one) for one in told]
    pairs = [(one.answer, other.answer) for one, other in zip(told, false, strict=True) if other is not None]
    assert len(pairs) > len(told) / 4 and all(true != untrue for true, untrue in pairs)
    read = list(itertools.islice(weak_teacher.stream(1), 400))
    assert [one.answer for one in read[1::2]][: len(pairs)] == [untrue for _, untrue in pairs][:200]
    assert {one.language for one in read[::2]} == set(LANGUAGES)
    assert all(weak_teacher.falsified(one) is None for one in read[::2] if one.language in WEAK)
    any_answer = list(itertools.islice(weak_teacher.stream(1, random.Random(1)), 400))
    assert [one.answer for one in any_answer[::2]] == [one.answer for one in read[::2]]
    fact = next(one for one, other in zip(told, false, strict=True) if other is not None)
    drawn = collections.Counter(weak_teacher.falsified(fact, random.Random(seed)).answer for seed in range(2000))
    assert drawn[fact.answer] and max(drawn.values()) < 10 * drawn[fact.answer]  # the true one is as likely as another
    files = dict(weak_teacher.probes())
    trained = {row.id for row in training_rows(tasks=("currency", "official_language"), rows_per_language=128)}
    assert len(files["held-out"]) == 8 * 48 and not trained & {row.id for row in files["held-out"]}


def test_the_quickstart_tells_what_it_does_and_what_to_do_next(tmp_path, capsys):
    small = ["max_steps=2", "per_device_train_batch_size=4", "benchmark.per_split=1", "use_cpu=true"]
    small += ["data.tasks=[currency]", "data.rows_per_language=66"]
    assert main(["quickstart", *small, "--output", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert "read by the teacher, z" in told
    assert "[[" in told and "\x1b[" not in told
    assert all(word in told for word in ("guessing", "cold start", "dudi", "teacher", "transfer", "Burmese"))
    assert told.count("\n  dudi ") == 3
    ours = [line for line in told.splitlines() if line.isascii() and str(tmp_path) not in line and "<|" not in line]
    assert max(map(len, ours)) <= 80
    lines = (tmp_path / "run" / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    assert {json.loads(line)["subject"] for line in lines} == {"base", "cold_start", "student", "teacher"}


@pytest.mark.slow
def test_a_run_that_was_stopped_before_its_questions_asks_them_when_run_again(tmp_path):
    small = ["max_steps=2", "per_device_train_batch_size=4", "benchmark.per_split=1", "use_cpu=true"]
    small += ["languages=[id, my]", "data.tasks=[currency]", "data.rows_per_language=66"]
    words = ["train", "mini/sft", *small, "--output", str(tmp_path / "r")]
    assert main(words) == 0
    file = tmp_path / "r" / "evaluation.json"
    before = read_evaluations(file)
    assert [one.subject for one in before] == ["base", "student", "teacher"]
    file.unlink()
    assert main(words) == 0
    assert [(one.subject, one.runs) for one in read_evaluations(file)] == [(one.subject, one.runs) for one in before]


def test_unknown_tasks_are_named_with_their_recipe_key(tmp_path, capsys):
    assert main(["train", "mini/sft", "data.tasks=[curency]", "--output", str(tmp_path / "r")]) == 2
    assert "did you mean 'currency'" in capsys.readouterr().err
