"""A number that is not finite stops the run before the update, on every rank, and says which rows it came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from accelerate.utils import gather_object
from torch import Tensor

from dudi.checkpoints import write_json
from dudi.errors import NumericError
from dudi.signals import Kind

if TYPE_CHECKING:
    from dudi.logged import LoggedTrainer

REPORT = "bad_numbers.json"
SHOWN = 16
"""Most row ids in the message; the file has all."""


def what_is_bad(teacher_states: Mapping[Kind, Tensor]) -> str:
    """Where a loss that is not finite comes from: the teacher, if what it gave was not finite either."""
    if all(bool(torch.isfinite(states).all()) for states in teacher_states.values()):
        return "the loss"
    return "the teacher's output"


def stop_on_bad_numbers(trainer: LoggedTrainer, own: Mapping[str, list[str]]) -> None:
    """Stop if any rank has noted a bad number in this step; ranks that found none would wait for it for ever.

    Args:
        trainer: Its ranks.
        own: What was not finite on this rank, and the ids of the rows that it came from.

    Raises:
        NumericError: on every rank, after the rows' ids were written to `bad_numbers.json`.
    """
    found = torch.tensor([float(len(own))], device=trainer.args.device)
    if not float(trainer.accelerator.reduce(found, "sum")):
        return
    noted: list[tuple[str, list[str]]] = gather_object(list(own.items()))
    causes = [name for name in dict.fromkeys(what for what, _ in noted) if name != "the gradient"] or ["the gradient"]
    rows = list(dict.fromkeys(row for what, ids in noted if what in causes for row in ids))
    what = " and ".join(causes)
    number = trainer.state.global_step + 1
    report = trainer.metrics_log.path.with_name(REPORT)
    if trainer.args.process_index == 0:
        write_json(report, {"stage": trainer.stage, "step": number, "what": what, "rows": rows})
    more = f" and {len(rows) - SHOWN} more in {report}" if len(rows) > SHOWN else ""
    raise NumericError(
        f"step {number}: {what} is not finite; no update was made. Rows: {', '.join(rows[:SHOWN])}{more}"
    )
