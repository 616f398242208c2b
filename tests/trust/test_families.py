"""Every family of transformers that can be made tiny: the trainer's losses and gradient are those of the plain loop.

`dudi/by_hand.py` scores sequence by sequence with the model's own forward: no packing, no groups, no kernels of ours.
"""

import sys
from pathlib import Path

import pytest
import torch

import dudi.by_hand as by_hand
from dudi import DudiTrainer
from dudi.training.runlog import read_jsonl
from helpers import ROWS, make_args, make_model, make_tokenizer

sys.path.append(str(Path(__file__).parents[1] / "rollouts"))

import test_architectures as architectures

LOSSES = ("sequence", "off_policy", "on_policy", "loss", "grad_norm")
NO_CACHE_OF_KEYS = ("falcon_mamba", "mamba")
FAMILIES = [name for name in architectures.FAMILIES if name not in {*architectures.REFUSED, *NO_CACHE_OF_KEYS}]
NO_DROPOUT = (
    *("attention_dropout", "hidden_dropout", "attn_pdrop", "resid_pdrop", "embd_pdrop", "dropout", "layerdrop"),
    *("hidden_dropout_prob", "attention_probs_dropout_prob", "activation_dropout", "resid_dropout", "residual_dropout"),
)


@pytest.fixture(autouse=True)
def shapes(monkeypatch):
    monkeypatch.setattr(
        architectures,
        "SMALL",
        architectures.SMALL
        | dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 512)
        | dict.fromkeys(NO_DROPOUT, 0.0)
        | {"vocab_size": 460},
    )


def models(family):
    student = architectures.tiny(family).train()
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return student, make_model(seed=2, vocab_size=448, hidden_size=48)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_trainer_computes_what_the_plain_loop_computes(family, tmp_path, promise):
    keys = {"max_steps": 2, "cold_start": "none", "gradient_accumulation_steps": 2, "learning_rate": 1e-3}
    keys |= {"lr_scheduler_type": "constant", "weight_decay": 0.0, "max_length": 64, "max_new_tokens": 12}
    args = make_args(tmp_path, "dudi", **keys)
    trainer = DudiTrainer(*models(family), args, ROWS[:16], processing_class=make_tokenizer(), max_rejected_share=0.5)
    steps, collect = [], trainer.run.collector.collect

    def listening(micro_batches, signals, epoch, **more):
        steps.append((epoch, [[example.row for example in examples] for examples in micro_batches]))
        return collect(micro_batches, signals, epoch, **more)

    trainer.run.collector.collect = listening
    trainer.train()
    settings = by_hand.Settings(max_new_tokens=12, max_length=64, learning_rate=1e-3, seed=3)
    run, worst = by_hand.Run(*models(family), make_tokenizer(), settings), 0.0
    for (epoch, batches), record in zip(steps, read_jsonl(tmp_path / "metrics.jsonl"), strict=True):
        written = iter(by_hand.write_samples(run, [row for batch in batches for row in batch], epoch))
        losses = by_hand.optimizer_step(run, [[next(written) for _ in batch] for batch in batches])
        for name in LOSSES:
            theirs = record[name if name in record else f"loss/{name}"]
            worst = max(worst, abs(losses[name] - theirs) / max(1e-3, abs(theirs)))
    promise("families whose losses are the plain loop's", 1, int(worst > 1e-5), "families", f"{family}: {worst:.1e}")
