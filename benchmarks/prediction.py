"""What `dudi plan` says of the very rows that a contestant read."""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from benchmarks.contestants import CONTESTANTS
from benchmarks.sizes import BYTES, Size
from benchmarks.work import adapter_parameters, make_config
from dudi import DudiConfig
from dudi.objective.fused import CPU_BLOCK, CPU_TILE
from dudi.plan import estimate, footprint
from dudi.plan.workload import Lengths

Sequences = Mapping[str, Sequence[Sequence[int]]]


@dataclasses.dataclass(frozen=True, slots=True)
class Predicted:
    """Bytes, without the plan's reserve for a device's context.

    Attributes:
        weights: Of all models.
        held: With gradients and optimizer states.
        rollout: What comes on top while rollouts are written.
        scoring: While teacher and reference read.
        student: At the start of the student's backward pass.
    """

    weights: int
    held: int
    rollout: int
    scoring: int
    student: int

    NOTE: ClassVar[str] = (
        "Both without the interpreter and its libraries (on a GPU: without the device's context), for which the plan "
        "reserves 1 GiB. The plan is given the lengths of the rows that were read: on a CPU their means, since a CPU's "
        "passes are grouped by length, on a GPU the longest of each kind."
    )

    @property
    def total(self) -> int:
        """The peak."""
        return self.held + max(self.rollout, self.scoring, self.student)

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return dataclasses.asdict(self) | {"total": self.total}


def lengths_of(size: Size, sequences: Sequences) -> Lengths:
    """The plan's four lengths, from (student's prompt, completion, teacher's prompt) of every sequence.

    What a verbalizer adds is read off the student's side; the teacher's prompt also holds the ground truth.
    """
    measure = max if size.device == "cuda" else statistics.fmean
    # GKD's rows read the template's prompt alone; DuDi's two rollouts show what the verbalizer adds to it.
    plain = sequences.get("plain") or sequences["verbalized"]
    prompt = round(measure([p for p, _, _ in plain]))
    golds = [c for _, c, _ in sequences.get("gold", ())] or [size.gold]
    wording = round(measure([p for p, _, _ in sequences["verbalized"]])) - prompt
    return Lengths(prompt, round(measure(golds)), size.new, wording)


def predict(name: str, size: Size, sequences: Sequences, options: Mapping[str, Any] | None = None) -> Predicted:
    """The plan of one of our contestants."""
    keys: dict[str, Any] = {**CONTESTANTS[name].options, **(options or {})}
    args = DudiConfig(
        output_dir=tempfile.mkdtemp(prefix="dudi-bench-plan-"),
        cold_start="none",
        max_new_tokens=size.new,
        max_length=2560,
        per_device_train_batch_size=size.batch,
        gradient_accumulation_steps=size.accumulation,
        report_to="none",
        use_cpu=size.device == "cpu",
        **keys,
    )
    plan = estimate(
        make_config(size, size.student),
        make_config(size, size.teacher),
        args,
        rows=None,
        dtype=size.dtype,
        gpus=size.processes,
        lora_parameters=adapter_parameters(size),
        teacher_bytes_per_parameter=BYTES[size.judging],
        lengths=lengths_of(size, sequences),
    )
    work = plan.work
    if size.device == "cpu" and work.kernel == "auto":
        work = dataclasses.replace(work, kernel="fused", tile=CPU_TILE, block=CPU_BLOCK)
    m = footprint.memory(work)
    return Predicted(
        weights=m.student + m.teacher + m.reference,
        held=m.held - m.reserve,
        rollout=m.phases["rollouts"],
        scoring=m.scoring,
        student=m.phases["student"],
    )
