"""What a person sees while a run is under way: a bar in a terminal, quiet lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

TOKENS = ("tokens/off_policy", "tokens/on_policy")
"""What a step's loss is a mean over: of few tokens it swings."""
SECONDS_BETWEEN_LINES = 10.0
"""Where there is no terminal, a line appears this often, and for the first and the last step."""


class RunProgress(TrainerCallback):
    """Loss, tokens per second and time left, or nothing where it is to be quiet."""

    def __init__(self, stage: str, quiet: bool) -> None:
        self.stage, self.quiet = stage, quiet
        self.bar: Progress | None = None
        self.task: Any = None
        self.started, self.first_step, self.printed = 0.0, 0, 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started, self.first_step = time.perf_counter(), state.global_step
        console = Console(stderr=True)
        if self.quiet or not state.is_world_process_zero or not console.is_terminal:
            return
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self.bar.start()
        self.task = self.bar.add_task(self.stage, total=state.max_steps, completed=state.global_step, note="")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs or self.quiet or not state.is_world_process_zero:
            return
        note = f"loss {logs['loss']:.4g}"
        if trained := [f"{logs[key]:,.0f}" for key in TOKENS if key in logs]:
            note += f" on {' + '.join(trained)} tokens"
        if "tokens_per_second" in logs:
            note += f"  {logs['tokens_per_second']:.0f} tok/s"
        if self.bar is not None:
            self.bar.update(self.task, note=note)
            return
        now = time.perf_counter()
        if now - self.printed < SECONDS_BETWEEN_LINES and state.global_step not in (1, state.max_steps):
            return
        self.printed = now
        done = max(1, state.global_step - self.first_step)
        left = (now - self.started) / done * (state.max_steps - state.global_step)
        self.say(f"{self.stage} {state.global_step}/{state.max_steps}  {note}  {_clock(left)} left")

    def say(self, text: str, style: str | None = None) -> None:
        """Tell a person something, above the bar."""
        if self.bar is not None:
            self.bar.console.print(text, style=style, markup=False, highlight=False)
            return
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
