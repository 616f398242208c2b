"""What a step multiplies, as it is counted from its sequences, beside what torch counts while it runs."""

import json

import pytest
from torch.utils.flop_counter import FlopCounterMode

from dudi import DudiTrainer
from helpers import ROWS, make_args, make_model, make_tokenizer


def counted(folder, method, **keys):
    args = make_args(folder, method, max_steps=1, cold_start="none", **keys)
    student, teacher = make_model(seed=1, hidden_size=64, layers=3), make_model(seed=2, hidden_size=96)
    trainer = DudiTrainer(student, teacher, args, ROWS, processing_class=make_tokenizer())
    with FlopCounterMode(display=False) as counter:
        trainer.train()
    (record,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    flops = {name.partition("/")[2]: value for name, value in record.items() if name.startswith("flops/")}
    return flops, counter.get_total_flops()


@pytest.mark.parametrize(("method", "phases"), [("sft", {"student"}), ("gkd", {"rollout", "teacher", "student"})])
def test_it_is_what_torch_counts(method, phases, tmp_path):
    flops, total = counted(tmp_path, method)
    assert flops.keys() == phases
    assert sum(flops.values()) == pytest.approx(total, rel=0.1)


def test_a_reference_reads_the_plain_rollouts_and_checkpointing_reads_twice(tmp_path):
    once, _ = counted(tmp_path / "once", "dudi", lmbda=0.5)
    assert once.keys() == {"rollout", "teacher", "reference", "student"}
    twice, _ = counted(tmp_path / "twice", "dudi", lmbda=0.5, gradient_checkpointing=True)
    assert twice["student"] == pytest.approx(once["student"] * 4 / 3)
