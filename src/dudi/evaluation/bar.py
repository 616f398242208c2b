"""The progress bar of an evaluation."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bar(total: int) -> Progress:
    """Nothing but the bar, on standard error; without a terminal, nothing at all."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal or total == 0,
    )
