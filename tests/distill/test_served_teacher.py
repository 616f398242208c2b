"""A teacher that a server holds: the loss of one that is here, every method, and servers that fail or refuse."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from test_several_teachers import first_teacher
from test_trainer import Gradients, metrics_of, relative_difference

from completion_server import serving
from dudi import DudiTrainer, ServedTeacher
from dudi.distill import served as served_module
from dudi.distill.passes import judge_all
from dudi.distill.recipe import load_run_config
from dudi.distill.step import Step
from dudi.errors import ConfigError, DudiError, EnvironmentFault
from dudi.objective.methods import METHODS
from dudi.plan.models import plan_run
from dudi.program.cli import main
from dudi.rollouts.completions import KEY, CompletionServer
from helpers import ROWS, make_args, make_model, make_tokenizer
from tokenizer_kinds import sentence_piece

READING = [name for name, method in METHODS.items() if method.teacher == "model"]
QUICK = {"cold_start": "none", "teacher_max_length": 512, "teacher_top_k": 24}
WHOLE = 448
"""Ids of the tests' models: with all of them named the loss is that of a teacher that is here."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer and a config, and no weights."""
    place = tmp_path_factory.mktemp("teacher")
    first_teacher().config.save_pretrained(place)
    make_tokenizer().save_pretrained(place)
    return str(place)


@pytest.fixture
def server():
    with serving(first_teacher()) as (url, served):
        yield url, served


def make_trainer(place, teacher, method="dudi", callbacks=None, student=None, eval_rows=None, **keys):
    several = teacher if isinstance(teacher, dict) else None
    return DudiTrainer(
        student or make_model(seed=1),
        None if several else teacher,
        make_args(place, method, **{**QUICK, **keys}),
        ROWS,
        eval_rows,
        make_tokenizer(),
        callbacks,
        teachers=several,
    )


def of(url, folder, waits=(0.0, 0.0)):
    return ServedTeacher(folder, url, 30.0, waits)


# --- the same loss


PAIRED = {("seqkd", "forward_kl"), ("dudi", "reverse_kl"), ("gated", "jsd")}
GRID = [
    pytest.param(method, kind, marks=[] if (method, kind) in PAIRED else [pytest.mark.slow])
    for method in READING
    for kind in ("forward_kl", "reverse_kl", "jsd")
]


@pytest.mark.parametrize(("method", "divergence"), GRID)
def test_with_every_token_named_it_is_the_teacher_that_is_here(method, divergence, tmp_path, folder, server):
    keys = {"divergence": divergence, "max_steps": 1, "max_grad_norm": 0.0, "mixing": "sum", "targets": "gold"}
    keys |= {"per_device_train_batch_size": 2}
    keys |= {"teacher_weight": 0.7} if method == "gated" else {}
    here, there = Gradients(), Gradients()
    make_trainer(tmp_path / "here", first_teacher(), method, [here], **keys).train()
    make_trainer(tmp_path / "there", of(server[0], folder), method, [there], teacher_top_k=WHOLE, **keys).train()
    assert relative_difference(here.seen, there.seen) < 1e-5
    (one,), (other,) = metrics_of(tmp_path / "here"), metrics_of(tmp_path / "there")
    assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
    for name in [name for name in one if name.startswith(("overlap", "student_entropy", "tokens/"))]:
        assert other[name] == pytest.approx(one[name], rel=1e-5)
    assert "teacher_entropy" not in other and other["teacher/tail"] == 0


@pytest.mark.parametrize("method", [name for name in READING if name != "gated"])
def test_every_method_trains_under_few_tokens(method, tmp_path, folder, server):
    make_trainer(tmp_path, of(server[0], folder), method, teacher_top_k=24, max_steps=2, max_new_tokens=4).train()
    records = metrics_of(tmp_path, method)
    assert len(records) == 2
    for record in records:
        assert 0 < record["teacher/tail"] < 1
        assert record["teacher/requests"] == 1  # all micro-batches and both kinds at once
        assert all(value == value for value in record.values())


def test_few_tokens_are_a_lower_bound_that_grows(tmp_path, folder, server):
    found = []
    for k in (16, 64, 256, WHOLE):
        keys = {"max_steps": 1, "targets": "gold", "teacher_top_k": k, "train_sampling_strategy": "sequential"}
        make_trainer(tmp_path / str(k), of(server[0], folder), "seqkd", **keys).train()
        found.append(metrics_of(tmp_path / str(k))[0]["loss"])
    assert found == sorted(found)


def test_the_probe_and_the_answers_are_the_servers(tmp_path, folder, server):
    keys = {"max_steps": 1, "probe_rows": 2, "max_new_tokens": 4, "cold_start": "teacher_sft", "cold_start_epochs": 0.2}
    make_trainer(tmp_path, of(server[0], folder), "gated", **keys).train()
    written = [body for body in server[1].bodies if body.get("return_token_ids")]
    assert {body["temperature"] for body in written} == {0.0, 0.9}
    assert (tmp_path / "stages" / "probe" / "probe.json").is_file()
    assert (tmp_path / "stages" / "cold_start" / "stages" / "targets" / "answers" / "answers.jsonl").is_file()


@pytest.mark.slow
def test_one_of_several_teachers(tmp_path, folder, server):
    teachers = {"default": of(server[0], folder), "my": make_model(seed=7)}
    keys = {"max_steps": 1, "per_device_train_batch_size": 8}
    make_trainer(tmp_path / "served", teachers, teacher_top_k=WHOLE, **keys).train()
    make_trainer(tmp_path / "here", {**teachers, "default": first_teacher()}, **keys).train()
    (one,), (other,) = metrics_of(tmp_path / "served"), metrics_of(tmp_path / "here")
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
    assert one["teachers"] == other["teachers"]
    assert "teacher_entropy" in one["languages"]["my"] and "teacher_entropy" not in one["languages"]["id"]


def test_a_tokenizer_of_its_own_is_refused_where_tokens_are_compared(tmp_path, server):
    piece = sentence_piece()
    folder = tmp_path / "piece"
    make_model(vocab_size=len(piece) + 28).config.save_pretrained(folder)
    piece.save_pretrained(folder)
    with pytest.raises(ConfigError, match="a server names teacher_top_k tokens"):
        make_trainer(tmp_path / "run", of(server[0], str(folder)))


def test_answers_of_a_teacher_with_a_tokenizer_of_its_own_are_learnt_as_text(tmp_path):
    piece = sentence_piece()
    folder, size = tmp_path / "piece", len(piece) + 28
    make_model(vocab_size=size).config.save_pretrained(folder)
    piece.save_pretrained(folder)
    with serving(make_model(seed=2, vocab_size=size)) as (url, _):
        keys = {"off_policy_loss": "cross_entropy", "max_steps": 1, "max_new_tokens": 4}
        make_trainer(tmp_path / "run", of(url, str(folder)), "seqkd", **keys).train()


# --- requests


def test_requests_are_as_few_as_their_limits_allow(tmp_path, folder, server, monkeypatch):
    trainer = make_trainer(tmp_path, of(server[0], folder), "seqkd", targets="gold")
    trainer.prepare()
    batches = trainer.run.collector.collect([trainer.setup.train.examples[:8]], trainer.signals, 0).batches
    lengths = [len(s.teacher_prompt) + len(s.completion) for s in batches[0].sequences["gold"]]
    found = []
    for limit, prompts in ((10**6, 512), (max(lengths), 512), (1, 512), (10**6, 3)):
        monkeypatch.setattr(served_module, "REQUEST_TOKENS", limit)
        monkeypatch.setattr(served_module, "REQUEST_PROMPTS", prompts)
        server[1].bodies.clear()
        judge_all(trainer.run, batches, trainer.signals, Step(1, trainer.signals, {}))
        found.append((len(server[1].bodies), batches[0].judged[""].states["gold"]))
        sizes = [sum(map(len, body["prompt"])) for body in server[1].bodies]
        assert sum(sizes) == sum(lengths) and all(size <= max(limit, max(lengths)) for size in sizes)
    counts = [count for count, _ in found]
    assert (counts[0], counts[2:]) == (1, [8, 3])
    for _, top in found:
        assert torch.equal(top.ids, found[0][1].ids)
        torch.testing.assert_close(top.log_probs, found[0][1].log_probs)


def test_it_is_asked_again_and_then_goes_on(tmp_path, folder, server):
    whole = make_trainer(tmp_path / "whole", of(server[0], folder), max_steps=2)
    whole.train()
    trainer = make_trainer(tmp_path / "again", of(server[0], folder), max_steps=2)
    server[1].failures += [503, "cut"]
    trainer.train()
    assert not server[1].failures
    assert all(map(torch.equal, whole.model.parameters(), trainer.model.parameters()))


@pytest.mark.parametrize("steps", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_server_that_dies_costs_nothing_of_what_was_trained(steps, tmp_path, folder, server):
    """In the middle of an epoch (of four steps) and between two; with dropout, which the saved generators decide."""

    def trainer(place, **keys):
        student = make_model(seed=1, dropout=0.1)
        return make_trainer(place, of(server[0], folder), student=student, max_steps=steps + 2, **keys)

    whole = trainer(tmp_path / "whole")
    whole.train()
    server[1].left = 1 + steps  # with the question of the start
    dying = trainer(tmp_path / "run")
    saved = tmp_path / "run" / "checkpoints" / f"step-{steps}"
    with pytest.raises(EnvironmentFault, match=f"does not answer .* 3 times in a row; is it up.; {saved} is saved"):
        dying.train()
    assert len(metrics_of(tmp_path / "run")) == steps
    server[1].left = None
    again = trainer(tmp_path / "run")
    again.train(resume_from_checkpoint=True)
    assert len(metrics_of(tmp_path / "run")) == steps + 2
    assert all(map(torch.equal, whole.model.parameters(), again.model.parameters()))


def test_an_evaluation_that_the_server_misses_saves_too(tmp_path, folder, server):
    keys = {"targets": "gold", "max_steps": 4, "eval_strategy": "steps", "eval_steps": 2}
    trainer = make_trainer(tmp_path, of(server[0], folder), "seqkd", eval_rows=ROWS[:8], **keys)
    server[1].left = 2
    with pytest.raises(EnvironmentFault, match="step-2 is saved"):
        trainer.train()
    assert (tmp_path / "checkpoints" / "step-2").is_dir()


def test_before_the_first_step_there_is_nothing_to_save(tmp_path, folder, server):
    trainer = make_trainer(tmp_path, of(server[0], folder))
    server[1].left = 0
    with pytest.raises(EnvironmentFault, match=r"is it up\?$"):
        trainer.train()


# --- refused


def test_what_vllm_takes_by_default_is_too_little(tmp_path, folder):
    with serving(first_teacher(), max_logprobs=20) as (url, served):
        with pytest.raises(ConfigError, match="start it with --max-logprobs as large as teacher_top_k"):
            make_trainer(tmp_path, of(url, folder))
        assert not served.bodies  # a refusal is not asked about again
        make_trainer(tmp_path, of(url, folder), teacher_top_k=20)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"kd_temperature": 2.0}, "kd_temperature: a served teacher's tail is known at temperature 1 alone"),
        ({"teacher_offload": "cpu"}, "teacher_offload: a served teacher has no weights here"),
        ({"teacher_cache": "kept"}, "teacher_cache: keeps a teacher's states"),
        ({"teacher_top_k": 447}, "teacher_top_k: 447 of the 448 ids"),
        ({"teacher_top_k": 8}, "teacher_top_k: overlap_k needs 16 at least"),
        ({"teacher_max_length": 5000}, r"after a prompt of teacher_max_length \(5,000\) makes some of 5,009"),
    ],
)
def test_keys_that_need_more_than_a_server_gives(keys, said, tmp_path, folder, server):
    with pytest.raises(ConfigError, match=said):
        make_trainer(tmp_path, of(server[0], folder), **keys)


def test_a_model_that_the_server_does_not_have(tmp_path, folder, server):
    served = server[1]
    assert make_trainer(tmp_path, of(server[0], folder)).describe()["teacher"] == "served as teacher"
    served.name = "other"
    assert make_trainer(tmp_path, of(server[0], folder)).describe()["teacher"] == "served as other"


def test_a_run_is_not_gone_on_with_under_another_model(tmp_path, folder, server):
    keys = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    make_trainer(tmp_path, of(server[0], folder), **keys).train()
    make_trainer(tmp_path, of(server[0], folder), **keys).check_resume(tmp_path / "checkpoints" / "step-1")
    server[1].name = "other"
    for other, said in (
        ({}, "served as teacher -> served as other"),
        ({"teacher_top_k": 32}, "teacher_top_k: 24 -> 32"),
    ):
        with pytest.raises(ConfigError, match=said):
            make_trainer(tmp_path, of(server[0], folder), **keys, **other).check_resume(
                tmp_path / "checkpoints" / "step-1"
            )


def logits_instead(answer):
    for choice in answer["choices"]:
        for place in choice["prompt_logprobs"][1:]:
            for one in place.values():
                one["logprob"] += 30
    return answer


def without_labels(answer):
    for choice in answer["choices"]:
        choice["prompt_logprobs"][1:] = [dict(list(place.items())[1:]) for place in choice["prompt_logprobs"][1:]]
    return answer


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (logits_instead, "no log-probabilities of temperature 1"),
        (without_labels, "does not name the prompt's own tokens"),
        (lambda answer: {"choices": [{"index": 0}]}, "prompt_logprobs of 0 tokens for a prompt of 2"),
        (lambda answer: {"choices": []}, "0 answers to 1 prompts"),
        (lambda answer: {"choices": "no"}, "its answer has no `choices`"),
        (lambda answer: {"error": "out of memory"}, "no `choices`: .*out of memory"),
        (lambda answer: [], "its answer has no `choices`"),
        (lambda answer: {"choices": [{"index": 0, "prompt_logprobs": [None, [1, 2]]}]}, "of another form"),
        (lambda answer: {"choices": [{"index": 0, "prompt_logprobs": [None, {"a": {"logprob": 0}}]}]}, "another form"),
    ],
)
def test_a_server_that_answers_something_else(spoil, said, tmp_path, folder, server):
    server[1].spoil = spoil
    with pytest.raises(EnvironmentFault, match=said):
        make_trainer(tmp_path, of(server[0], folder))


@pytest.mark.parametrize(
    ("code", "headers", "said"),
    [
        (200, {"Content-Type": "text/html; charset=utf-8"}, "answers /v1/models with text/html"),
        (302, {"Location": "https://example.com/login"}, r"refuses \(302\).*points to https://example.com/login"),
        (200, {"Content-Type": "application/json"}, "its answer has no `data`"),
    ],
)
def test_a_server_of_something_else(code, headers, said, folder):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(b"[]")

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        teacher = ServedTeacher(folder, f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(DudiError, match=said):
            teacher.check(4, 100, reads_tokens=True)
        server.shutdown()


@pytest.mark.parametrize(
    "url", ["127.0.0.1:8001", "ftp://127.0.0.1", "http://", "http://me:secret@127.0.0.1:1", "http://127.0.0.1:1/?a=b"]
)
def test_addresses(url, folder):
    with pytest.raises(ConfigError, match=r"teacher\.server: ") as caught:
        ServedTeacher(folder, url)
    assert "secret" not in str(caught.value)


def test_a_key_comes_from_the_environment_and_is_in_no_message(tmp_path, folder, monkeypatch):
    with serving(first_teacher(), key="s3cret") as (url, _):
        monkeypatch.delenv(KEY, raising=False)
        with pytest.raises(ConfigError, match=f"refuses \\(401\\): .*{KEY}"):
            make_trainer(tmp_path, of(url, folder))
        monkeypatch.setenv(KEY, "wrong-key")
        with pytest.raises(ConfigError) as caught:
            make_trainer(tmp_path, of(url, folder))
        assert "wrong-key" not in str(caught.value)
        monkeypatch.setenv(KEY, "s3cret")
        make_trainer(tmp_path, of(url, folder))


def test_a_proxy_is_not_asked_for_this_machine(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert CompletionServer(server[0] + "/v1/", 30).models()[0]["id"] == "teacher"


# --- recipes


def recipe_words(url, folder, tmp_path):
    return [f"teacher.model={folder}", f"teacher.server={url}", f"--output={tmp_path / 'run'}"]


MINI = ["mini/dudi", "teacher_max_length=400", "max_steps=1", "cold_start=none", "languages=[id, my]", "use_cpu=true"]
MINI += ["data.tasks=[currency]", "data.rows_per_language=66", "benchmark=null", "max_new_tokens=8"]


@pytest.fixture(scope="module")
def mini():
    from dudi.models.load import load_model

    with serving(load_model("package:dudi/mini/teacher"), name="mini", longest=512) as (url, served):
        yield url, served


def test_a_recipe_trains_under_a_server(mini, tmp_path, capsys):
    words = [*MINI, *recipe_words(mini[0], "package:dudi/mini/teacher", tmp_path)]
    assert main(["train", *words]) == 0
    assert "the teacher is served as mini at http://127.0.0.1" in capsys.readouterr().out
    assert mini[0] not in (tmp_path / "run" / "identity.json").read_text()
    assert metrics_of(tmp_path / "run")[-1]["teacher/requests"] >= 1


def test_a_dry_run_asks_the_server(mini, tmp_path, capsys):
    words = [*MINI, *recipe_words(mini[0], "package:dudi/mini/teacher", tmp_path)]
    assert main(["train", *words, "--dry-run"]) == 0
    assert f"the teacher is served as mini at {mini[0]}" in capsys.readouterr().out
    assert main(["plan", *words[:-1]]) == 0
    assert "teacher" in capsys.readouterr().out


def test_a_plan_counts_nothing_of_a_served_teacher():
    words = [*MINI, "teacher=package:dudi/mini/teacher"]
    here = plan_run(load_run_config(words[0], words[1:]), gpu="T4")
    there = plan_run(load_run_config(words[0], [*words[1:], "teacher.server=http://127.0.0.1:9"]), gpu="T4")
    assert (there.memory.teacher, there.flops["teacher"], there.seconds["teacher"]) == (0, 0, 0)
    assert here.memory.teacher > 0 and here.flops["teacher"] > 0 and there.flops["student"] == here.flops["student"]


def test_a_dry_run_without_a_server_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("dudi.rollouts.completions.time.sleep", lambda seconds: None)
    words = [*MINI, *recipe_words("http://127.0.0.1:9", "package:dudi/mini/teacher", tmp_path), "--dry-run"]
    assert main(["train", *words]) == 1
    assert "teacher.server: http://127.0.0.1:9 does not answer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("teacher.quantization={load_in_4bit: true}", "teacher.quantization: is the server's affair"),
        ("teacher.device=cpu", "teacher.device: is the server's affair"),
        ("teacher.model=null", "teacher.model is missing"),
        ("teacher.server_timeout=0", "teacher.server_timeout"),
    ],
)
def test_a_recipe_that_says_what_cannot_be(word, said, tmp_path, capsys):
    words = [*MINI, *recipe_words("http://127.0.0.1:9", "package:dudi/mini/teacher", tmp_path), word]
    assert main(["train", *words]) == 2
    assert said in capsys.readouterr().err


def test_top_k_without_a_server_is_refused(tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("student: a\nteacher: b\ndata: {train: cldr}\nteacher_top_k: 5\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"r\.yaml:4: teacher_top_k: no teacher has a `server`"):
        load_run_config(str(recipe))
