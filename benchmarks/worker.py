"""One contestant in a process of its own: it builds, warms up, and takes a step whenever it is told to."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
import traceback
from typing import Any

import torch
from transformers import Trainer, TrainerCallback
from transformers.utils import logging

from benchmarks.clocks import Memory, PhaseClock, watch, watch_optimizer, weight_bytes
from benchmarks.contestants import CONTESTANTS, Parts, make_parts
from benchmarks.sizes import SIZES
from benchmarks.work import make_rows, make_tokenizer


class Gate(TrainerCallback):
    """Waits for the word before each step after the first, and reports how long it took."""

    def __init__(self, trainer: Any, clock: PhaseClock, parts: Parts, memory: Memory, ours: bool) -> None:
        self.trainer, self.clock, self.parts, self.memory, self.ours = trainer, clock, parts, memory, ours
        self.begun = 0.0
        self.cpu = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """The optimizer is there now."""
        watch_optimizer(self.trainer, self.clock)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step is over: say what it took, then wait."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        end = time.perf_counter()
        if state.global_step > 1:
            weights = all_models(self.trainer, self.parts)
            say(
                {
                    "seconds": end - self.begun,
                    "cpu_seconds": time.process_time() - self.cpu,
                    "phases": self.own_phases(end) if self.ours else self.clock.read(),
                    "above": self.memory.peak_above(weights),
                    "weights": weights,
                    "reserved": torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0,
                    "sequences": self.sequences() if self.ours else {},
                }
            )
        else:
            say({"ready": True})
        sys.stdin.readline()
        self.clock.restart()
        self.begun, self.cpu = time.perf_counter(), time.process_time()

    def own_phases(self, end: float) -> dict[str, float]:
        """Ours keeps an account itself; only the optimizer is watched from outside."""
        phases = {**self.trainer.step.seconds, "optimizer": self.clock.read()["optimizer"]}
        return {**phases, "other": end - self.begun - sum(phases.values())}

    def sequences(self) -> dict[str, list[tuple[int, int, int]]]:
        """Lengths of everything that the step read, for its floor."""
        found: dict[str, list[tuple[int, int, int]]] = {}
        for batch in self.trainer.step.collected.batches:
            for kind, scored in batch.sequences.items():
                lengths = [(len(s.prompt), len(s.completion), len(s.teacher_prompt)) for s in scored]
                found.setdefault(kind, []).extend(lengths)
        return found


def say(message: dict[str, Any]) -> None:
    """One line to the conductor."""
    sys.__stdout__.write(json.dumps(message) + "\n")
    sys.__stdout__.flush()


def all_models(trainer: Trainer, parts: Parts) -> int:
    """Bytes of the weights that the method itself asks for: student, teacher, moving average, reference."""
    from dudi.models.frozen import FrozenModel, MovingAverage

    held: list[Any] = [parts.student, parts.teacher]
    holder = getattr(trainer, "run", trainer)  # ours keeps its second models in its run
    for name in ("teacher", "teacher_model", "reference"):
        policy = getattr(holder, name, None)
        policy = policy.policy if isinstance(policy, MovingAverage) else policy
        held.append(policy.module if isinstance(policy, FrozenModel) else policy)
    return weight_bytes(*(m for m in held if isinstance(m, torch.nn.Module)))


def main() -> None:
    """Build the contestant that the command line names, and train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contestant", choices=CONTESTANTS)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--changes", type=json.loads, default={}, help="fields of the size, as JSON")
    parser.add_argument("--options", type=json.loads, default={}, help="beside the contestant's own, as JSON")
    asked = parser.parse_args()
    sys.stdout = sys.stderr
    logging.set_verbosity_error()
    import_everything()
    size, contestant = dataclasses.replace(SIZES[asked.size], **asked.changes), CONTESTANTS[asked.contestant]
    if size.threads is not None:
        torch.set_num_threads(size.threads)
    if size.memory_limit is not None and size.device == "cuda":
        torch.cuda.set_per_process_memory_fraction(size.memory_limit / torch.cuda.get_device_properties(0).total_memory)
    memory, tokenizer, rows = Memory(), make_tokenizer(size), make_rows(size)
    memory.before_models()
    parts = make_parts(asked.contestant, size, tokenizer, rows, asked.options)
    trainer = contestant.build(parts)
    judge = None if contestant.ours else trainer.teacher_model
    clock = watch(trainer, judge, contestant.ours)
    trainer.add_callback(Gate(trainer, clock, parts, memory, contestant.ours))
    try:
        trainer.train()
    except Exception:
        say({"failed": traceback.format_exc()})
        raise
    say({"done": True})


def import_everything() -> None:
    """What any contestant imports stands before the first measure of memory."""
    import trl
    from trl.experimental import gkd, sdft

    import dudi.distill.trainer

    _ = dudi.distill.trainer, trl.DistillationTrainer, gkd.GKDTrainer, sdft.SDFTTrainer


if __name__ == "__main__":
    main()
