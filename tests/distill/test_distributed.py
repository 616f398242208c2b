"""Two gloo processes join unasked, train as one, with the same gradients and losses, and part."""

import atexit
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

if __name__ == "__main__":  # the first one is called last
    atexit.register(lambda: print("open" if dist.is_initialized() else "closed"))

from sharding import ENVIRONMENT, allow_gloo
from transformers import TrainerCallback

from dudi import DudiTrainer
from dudi.errors import ConfigError
from dudi.models.sharding import whole
from dudi.objective.methods import METHODS
from dudi.training.arguments import RunArguments
from helpers import ROWS, make_args, make_model, make_shared_args, make_tokenizer, slow_but
from ranks import run_ranks
from tokenizer_kinds import sentence_piece

COLD = {"cold_start": "sft", "max_steps": 2}
SHARDED = ("sdft", "dudi")
"""With FSDP2 in the quick suite: a moving average, a second model, a reference. `test_sharded.py` has all."""
QUICK = ("sdft", "dudi", "gated")
"""What `make test` takes of the methods; `make test-trust` takes all."""
STEPS = 4
"""`tests/trust/test_invariance.py` takes 50."""
COUNTS = (1, 2, 3, 7, 8)
"""Of rows to evaluate on."""


class Gradients(TrainerCallback):
    """Writes the first step's gradients."""

    def __init__(self, path):
        self.path = path

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        inner = getattr(model, "module", model)
        gradients = {name: whole(parameter.grad) for name, parameter in inner.named_parameters()}
        if state.global_step == 0 and args.process_index == 0:
            torch.save(gradients, self.path)


def train(folder: Path, method: str, processes: int, **keys) -> None:
    """The same optimizer steps of 8 rows, on so many processes."""
    keys = {"max_steps": STEPS, "cold_start": "none", **keys}
    args = make_shared_args(folder, processes, method, **keys, max_new_tokens=6)
    folder.mkdir(parents=True, exist_ok=True)
    student, teacher = make_model(seed=1), make_model(seed=2, hidden_size=48)
    callbacks = [Gradients(folder / "gradients.pt")]
    DudiTrainer(student, teacher, args, ROWS, None, make_tokenizer(), callbacks=callbacks).train()


def train_taught(folder: Path, processes: int, **keys) -> None:
    """The same with two teachers, one of them of other tokens, whose states on the targets are kept."""
    args = make_shared_args(
        folder, processes, "gkd", max_steps=4, cold_start="none", mixing="sum", max_new_tokens=6, **keys
    )
    piece = sentence_piece()
    teachers = {"default": make_model(seed=2, hidden_size=48), "my": make_model(seed=4, vocab_size=len(piece) + 28)}
    tokenizers = {"default": make_tokenizer(), "my": piece}
    folder.mkdir(parents=True, exist_ok=True)
    callbacks = [Gradients(folder / "gradients.pt")]
    DudiTrainer(
        make_model(seed=1),
        None,
        args,
        ROWS,
        processing_class=make_tokenizer(),
        teachers=teachers,
        teacher_processing_class=tokenizers,
        callbacks=callbacks,
    ).train()


def validation_of(folder: Path, rows: list) -> DudiTrainer:
    args = make_args(folder, "sft", per_device_eval_batch_size=2)
    return DudiTrainer(make_model(seed=1), make_model(seed=2), args, ROWS, rows, make_tokenizer())


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory, request):
    """All methods that are asked for in one launch: starting two interpreters costs more than training does."""
    folder = tmp_path_factory.mktemp("two")
    cases = (item.callspec.params for item in request.session.items if item.path == Path(__file__) and "[" in item.name)
    asked = {case["method"] for case in cases if "method" in case}
    names = (name for name in METHODS if name in asked | {*SHARDED})
    (folder / "said.json").write_text(json.dumps(run_ranks(__file__, folder, *names, CUDA_VISIBLE_DEVICES="")))
    return folder


def test_processes_without_an_accelerator_join_unasked(two_processes):
    """Without `use_cpu`: each would else take itself for the whole run."""
    assert [(two_processes / f"rank-{rank}.txt").read_text() for rank in (0, 1)] == ["2 cpu", "2 cpu"]


def test_the_process_group_is_closed_before_the_interpreter_ends(two_processes):
    said = json.loads((two_processes / "said.json").read_text())
    assert [output.split()[-1] for output in said] == ["closed", "closed"]


def results(folder: Path) -> tuple[dict, list[float]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    losses = [record["loss"] for record in records if record["stage"] != "cold_start"]
    return torch.load(folder / "gradients.pt", weights_only=True), losses


@pytest.mark.parametrize("method", slow_but(QUICK, METHODS))
def test_two_processes_train_as_one(method, tmp_path, two_processes):
    train(tmp_path / method, method, processes=1)
    gradients, losses = results(tmp_path / method)
    others, other_losses = results(two_processes / method)
    gap = sum(float((gradients[n].double() - others[n].double()).pow(2).sum()) for n in gradients) ** 0.5
    size = sum(float(gradients[n].double().pow(2).sum()) for n in gradients) ** 0.5
    assert gap / size < 1e-6
    residuals = [second - first for first, second in zip(losses, other_losses, strict=True)]
    assert len(residuals) == STEPS
    assert abs(sum(residuals) / len(residuals)) <= 1e-5
    assert max(map(abs, residuals)) <= 1e-3


def test_two_processes_are_taught_by_two_teachers_as_one(tmp_path, two_processes):
    train_taught(tmp_path / "one", processes=1, teacher_cache=str(tmp_path / "kept"))
    gradients, losses = results(tmp_path / "one")
    others, other_losses = results(two_processes / "taught")
    for name, gradient in gradients.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-4, atol=1e-6)
    assert other_losses == pytest.approx(losses, abs=1e-3)
    files = sorted(file.name for file in (two_processes / "kept").rglob("*.safetensors"))
    assert files == ["states-000-00000.safetensors", "states-001-00000.safetensors"]
    shares = [
        json.loads(line)["teachers"] for line in (two_processes / "taught" / "metrics.jsonl").read_text().splitlines()
    ]
    alone = [json.loads(line)["teachers"] for line in (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()]
    assert shares[0] == alone[0]


def test_a_cold_start_runs_and_is_shared_on_two_processes(tmp_path, two_processes):
    train(tmp_path / "one", "dudi", processes=1, **COLD)
    losses, others = (results(folder)[1] for folder in (tmp_path / "one", two_processes / "cold"))
    assert others == pytest.approx(losses, abs=1e-5)
    lines = (two_processes / "again" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line).get("cached") for line in lines if "cold_start" in line] == [True, True]


@pytest.mark.parametrize("method", SHARDED)
def test_sharded_weights_train_as_whole_ones(method, two_processes):
    (_, whole), (_, sharded) = (results(two_processes / name) for name in (method, f"sharded-{method}"))
    assert sharded == pytest.approx(whole[: len(sharded)], abs=1e-4)
    assert len(sharded) == 2


@pytest.mark.parametrize("count", COUNTS)
def test_two_processes_count_each_row_once(count, tmp_path, two_processes):
    """Samplers repeat rows so that each rank has as many; a repeated one counts nothing."""
    measured = json.loads((two_processes / f"{count}.json").read_text())
    own = validation_of(tmp_path, ROWS[:count]).evaluate()
    for name in ("eval_loss", "eval_bits_per_byte"):
        assert measured[name] == pytest.approx(own[name], rel=1e-6), name


@pytest.mark.parametrize(
    ("key", "value"), [("FSDP_VERSION", "1"), ("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")], ids=str.lower
)
def test_settings_that_would_be_silently_wrong_are_refused(key, value, monkeypatch, tmp_path):
    for name, given in (ENVIRONMENT | {key: value}).items():
        monkeypatch.setenv(name, given)
    allow_gloo(monkeypatch.setattr)
    with pytest.raises(ConfigError, match=f"fsdp_config.{key.lower()}: .* set it to (2|false)"):
        train(tmp_path, "sft", processes=1)


@pytest.mark.parametrize(
    ("stage", "strategy", "message"),
    [(3, "no", "deepspeed_config.zero_stage: .* or stage 2"), (2, "steps", "save_strategy: .* set save_strategy: no")],
)
def test_what_deepspeed_cannot_do_here_is_refused(stage, strategy, message, tmp_path):
    args = make_args(tmp_path, save_strategy=strategy)
    args.deepspeed_plugin = SimpleNamespace(zero_stage=stage)  # accelerate's own needs deepspeed installed
    with pytest.raises(ConfigError, match=message):
        DudiTrainer(make_model(), make_model(), args, ROWS, None, make_tokenizer())


if __name__ == "__main__":
    torch.set_num_threads(1)
    joined = RunArguments(output_dir=sys.argv[1])
    (Path(sys.argv[1]) / f"rank-{joined.process_index}.txt").write_text(f"{joined.world_size} {joined.device.type}")
    for name in sys.argv[2:]:
        train(Path(sys.argv[1]) / name, name, processes=2)
    kept = str(Path(sys.argv[1]) / "kept")
    train_taught(Path(sys.argv[1]) / "taught", processes=2, teacher_cache=kept, teacher_offload="cpu")
    train(Path(sys.argv[1]) / "cold", "dudi", processes=2, **COLD)
    train(Path(sys.argv[1]) / "again", "gkd", processes=2, **COLD)
    for number in COUNTS:
        trainer = validation_of(Path(sys.argv[1]) / f"validation-{number}", ROWS[:number])
        measured = trainer.evaluate()
        if trainer.args.process_index == 0:
            (Path(sys.argv[1]) / f"{number}.json").write_text(json.dumps(measured))
    allow_gloo()
    os.environ |= ENVIRONMENT
    for name in SHARDED:
        train(Path(sys.argv[1]) / f"sharded-{name}", name, processes=2, max_steps=2)
