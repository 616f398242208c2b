"""What a step multiplies, as it is counted from its sequences, beside what torch counts while it runs."""

import json

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from dudi import DudiTrainer
from helpers import ROWS, make_args, make_model, make_tokenizer


def _attention(query, *more, out_shape=None, **options):
    batch, heads, length, width = query
    return 4 * batch * heads * length * length * width


def _attention_back(gradient, query, *more, **options):
    return 2 * _attention(query)


UNCOUNTED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_back,
}
"""A CPU's attention, of which torch's counter knows nothing."""


def counted(folder, method, **keys):
    args = make_args(folder, method, max_steps=1, cold_start="none", **keys)
    student, teacher = make_model(seed=1, hidden_size=64, layers=3), make_model(seed=2, hidden_size=96)
    trainer = DudiTrainer(student, teacher, args, ROWS, processing_class=make_tokenizer())
    with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
        trainer.train()
    (record,) = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    flops = {name.partition("/")[2]: value for name, value in record.items() if name.startswith("flops/")}
    return flops, counter.get_total_flops()


@pytest.mark.parametrize(("method", "phases"), [("sft", {"student"}), ("gkd", {"rollout", "teacher", "student"})])
def test_it_is_what_torch_counts(method, phases, tmp_path):
    flops, total = counted(tmp_path, method)
    assert flops.keys() == phases
    assert sum(flops.values()) == pytest.approx(total, rel=0.05)


def test_a_reference_reads_the_plain_rollouts_and_checkpointing_reads_twice(tmp_path):
    once, _ = counted(tmp_path / "once", "dudi", lmbda=0.5)
    assert once.keys() == {"rollout", "teacher", "reference", "student"}
    twice, _ = counted(tmp_path / "twice", "dudi", lmbda=0.5, gradient_checkpointing=True)
    assert twice["student"] == pytest.approx(once["student"] * 4 / 3)
