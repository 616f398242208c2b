"""The teachers' last hidden states on the targets, kept in a sealed folder: later epochs and runs read them.

The off-policy signal reads the same rows in every epoch. What is kept is what the teacher gave, to the bit, in the
precision in which it gave it; rows are read in their order, as many at a time as in a micro-batch. Read in another
company the same row may differ in its last bit, as matrix products round by their shapes: a run under a cache is the
same run whoever wrote it, and that of no cache where the micro-batches are the same.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from dudi.command import say
from dudi.distill.batch import MicroBatch, Scored
from dudi.distill.passes import judge_all
from dudi.distill.stages.cache import hash_of, locked, seal_stage, stands
from dudi.distill.state import Run
from dudi.distill.step import Step
from dudi.training import checkpoints
from dudi.training.ranks import from_first, together

FILE_BYTES = 2**28
"""States that are held until they are written."""
AT_ONCE = 16
"""Micro-batches for which a teacher is opened once."""


def keep_states(run: Run) -> Callable[[Scored], Tensor | None] | None:
    """The states (T, H_t) of all targets, read where they are kept, else made; None for a run that keeps none.

    Of anything but a target, a rollout or a row of evaluation, they are None.
    """
    place = run.args.teacher_cache
    signal = run.signals.get("off_policy")
    if place is None or run.setup.teachers.main is None or signal is None or not signal.teacher_reads:
        return None
    examples = run.rows.examples
    sequences = [run.collector.gold(example) for example in examples]
    key = _key(run, sequences)
    folder = Path(place) / key
    with locked(run, folder.with_name(f".{folder.name}.lock"), "teacher's states"):
        if not stands(folder, key):
            _make(run, sequences, folder, key)
    rows = {example.row.id: (_name(place), example) for place, example in enumerate(examples)}
    files: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        opened = safe_open(file, framework="pt")
        files |= dict.fromkeys(opened.keys(), opened)

    def states_of(scored: Scored) -> Tensor | None:
        name, example = rows.get(scored.example.row.id, ("", None))
        if scored.kind != "gold" or example is not scored.example:
            return None
        states: Tensor = files[name].get_tensor(name)
        return states

    return states_of


def _key(run: Run, sequences: Sequence[Scored]) -> str:
    """Hash of all that the states depend on: teachers, what they read, precision, company, and what rounds them."""
    args, read = run.args, hashlib.sha256()
    for scored in sequences:
        read.update(f"{scored.teacher}\0".encode())
        for ids in (scored.teacher_prompt, scored.read_by_teacher):
            read.update(len(ids).to_bytes(4, "little") + np.asarray(ids, dtype=np.int32).tobytes())
    members = run.setup.teachers.local  # a served one keeps none (`teacher_setup`)
    hashes = {name: checkpoints.hash_parameters(model) for name, model in members.items()}
    configs = {name: model.config.to_dict() | {"_name_or_path": None} for name, model in members.items()}
    attention = [model.config._attn_implementation for model in members.values()]
    on_cuda = args.device.type == "cuda"
    device = torch.cuda.get_device_name(args.device) if on_cuda else torch.backends.cpu.get_cpu_capability()
    return hash_of(
        {
            "teachers": hashes,
            "configs": configs,
            "attention": attention,
            "read": read.hexdigest(),
            "precision": [run.accelerator.mixed_precision, *(str(model.dtype) for model in members.values())],
            "widened": args.widens_frozen,
            "together": args.per_device_train_batch_size,
            "build": [torch.__version__, args.device.type, device],
        }
    )


def _make(run: Run, sequences: Sequence[Scored], folder: Path, key: str) -> None:
    """Let the teachers read all targets, each rank its micro-batches, and seal what they give."""
    args, parts = run.args, folder.with_name(f".{folder.name}.parts")
    starts = list(range(0, len(sequences), args.per_device_train_batch_size))
    if args.process_index == 0:
        say(f"the teacher reads {len(sequences):,} targets once; its states are kept in {folder}")

    from_first(lambda: shutil.rmtree(parts, ignore_errors=True))
    together(lambda: _write(run, sequences, starts[args.process_index :: args.world_size], parts))

    def fill(partial: Path) -> None:
        for file in sorted(parts.iterdir()):
            file.replace(partial / file.name)
        parts.rmdir()

    seal_stage(run, folder, key, fill)


def _write(run: Run, sequences: Sequence[Scored], starts: Sequence[int], parts: Path) -> None:
    """This rank's files: each holds the states of some rows, by their place."""
    parts.mkdir(parents=True, exist_ok=True)
    stem, held = f"states-{run.args.process_index:03d}", dict[str, Tensor]()
    count = size = 0
    for place, states in _states(run, sequences, starts):
        held[_name(place)] = states
        size += states.nbytes
        if size >= FILE_BYTES:
            checkpoints.save_file(held, parts / f"{stem}-{count:05d}.safetensors")
            held, count, size = {}, count + 1, 0
    if held:
        checkpoints.save_file(held, parts / f"{stem}-{count:05d}.safetensors")


def _states(run: Run, sequences: Sequence[Scored], starts: Sequence[int]) -> Iterator[tuple[int, Tensor]]:
    """The place and the states (T, H_t) of each target in this rank's micro-batches."""
    size, signals = run.args.per_device_train_batch_size, {"off_policy": run.signals["off_policy"]}
    for first in range(0, len(starts), AT_ONCE):
        places = [range(start, min(start + size, len(sequences))) for start in starts[first : first + AT_ONCE]]
        batches = [MicroBatch({"gold": list(sequences[own.start : own.stop])}) for own in places]
        judge_all(run, batches, signals, Step(0, signals, {}))
        for own, batch in zip(places, batches, strict=True):
            for name, judged in batch.judged.items():
                whole = judged.states["gold"]
                if not isinstance(whole, Tensor):
                    raise RuntimeError("a served teacher gives no states")
                chosen = [place for place in own if sequences[place].teacher == name]
                lengths = [len(sequences[place].read_by_teacher) for place in chosen]
                for place, states in zip(chosen, whole.split(lengths), strict=True):
                    yield place, states.to("cpu", copy=True)  # not a part of what was read together


def _name(place: int) -> str:
    return f"{place:08d}"
