"""FSDP2 over gloo: the same steps on one process and spread over several. Run by accelerate's launcher, or imported."""

import json
import os
import sys
from pathlib import Path

import torch
from accelerate import state
from accelerate.utils import DistributedType
from torch.distributed.fsdp import FSDPModule
from transformers import TrainerCallback

from dudi import DudiTrainer
from dudi.models.sharding import whole
from dudi.objective.methods import METHODS
from helpers import ROWS, make_model, make_shared_args, make_tokenizer

ENVIRONMENT = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
"""What `accelerate launch` makes of `recipes/accelerate/fsdp2.yaml`, for a process that runs already."""


def allow_gloo(put=setattr):
    """Accelerate offers FSDP on accelerators only; torch's gloo has the collectives that it needs."""
    own = state.AcceleratorState.__init__

    def init(self, *args, fsdp_plugin=None, **kwargs):
        fresh = not state.AcceleratorState._shared_state
        own(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fresh and fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    put(state.AcceleratorState, "__init__", init)


class Watch(TrainerCallback):
    """Writes the first step's gradients, and what is spread over the ranks."""

    def __init__(self, folder):
        self.folder, self.trainer = folder, None

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        if state.global_step:
            return
        inner = getattr(model, "module", model)
        grads = {name: whole(parameter.grad) for name, parameter in inner.named_parameters()}
        if args.process_index == 0:
            torch.save({name: grad.clone() for name, grad in grads.items()}, self.folder / "gradients.pt")
            teacher = self.trainer.setup.teacher
            spread = {"student": isinstance(inner, FSDPModule), "teacher": isinstance(teacher, FSDPModule)}
            (self.folder / "spread.json").write_text(json.dumps(spread))


def train(folder, method, processes, resume=None, tied=False, **keys):
    """Optimizer steps of 8 rows over so many processes; the final model beside the metrics."""
    keys = {"max_steps": 4, "cold_start": "none", "max_new_tokens": 12, **keys}
    args = make_shared_args(folder, processes, method, **keys)
    folder.mkdir(parents=True, exist_ok=True)
    watch = Watch(folder)
    student = make_model(seed=1, tie_word_embeddings=tied)
    trainer = DudiTrainer(
        student, make_model(seed=2, hidden_size=48), args, ROWS, None, make_tokenizer(), callbacks=[watch]
    )
    watch.trainer = trainer
    trainer.train(None if resume is None else str(resume))
    trainer.save_final(folder / "model", {"step": trainer.state.global_step, "identity": trainer.identity()})


SAVING = {"save_strategy": "steps", "save_steps": 2, "save_total_limit": None}


def everything(root, processes):
    """All methods; a tied head; a cold start; save in the middle."""
    for method in METHODS:
        train(root / method, method, processes, **SAVING)
    train(root / "tied", "dudi", processes, tied=True)
    train(root / "cold", "dudi", processes, cold_start="sft", max_steps=2)


if __name__ == "__main__":
    torch.set_num_threads(1)
    allow_gloo()
    out = Path(sys.argv[1])
    count = int(os.environ["WORLD_SIZE"])
    everything(out, count)
    for name in ("dudi", "sdft", "spin"):  # the reference, the moving average, the opponent
        if os.environ["RANK"] == "0":
            (out / f"{name}-again").mkdir()
            os.symlink(out / name / "stages", out / f"{name}-again" / "stages")
        torch.distributed.barrier()
        train(out / f"{name}-again", name, count, resume=out / name / "checkpoints" / "step-2", **SAVING)
