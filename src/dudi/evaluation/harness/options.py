"""How tasks of lm_eval are asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.errors import ConfigError, did_you_mean


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the tasks are asked; names and meanings are those of lm_eval's command line.

    Attributes:
        limit: Only so many questions of each task, or this share of them when below 1: of lm_eval's own tasks the
            first, as there; of shipped ones evenly spaced, since SIB-200 and XNLI are sorted by their labels.
        fewshot_as_multiturn: With a chat template: whether examples are turns of their own.
        gen_kwargs: Of generation, over the tasks' own: `do_sample=true,temperature=0.7`.
        samples: The numbers of the questions that are asked, by a task's name; a task that is not named is asked whole.
        metadata: What tasks are told over their own `metadata`: `max_seq_lengths` of lm_eval's RULER.
        data: A folder of local Parquet files, for tasks that say how they read one.
        batch_size: Requests that are answered together, as long as memory lasts.

    Raises:
        ConfigError: a number out of its range, a value of another kind, or two that contradict each other.
    """

    num_fewshot: int | None = None
    limit: float | None = None
    apply_chat_template: bool = False
    fewshot_as_multiturn: bool = True
    system_instruction: str | None = None
    gen_kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    include_path: tuple[Path, ...] = ()
    data: Path | None = None
    samples: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    batch_size: int = 64

    def __post_init__(self) -> None:
        if self.num_fewshot is not None and self.num_fewshot < 0:
            raise ConfigError(f"--num-fewshot must not be negative, got {self.num_fewshot}")
        if self.limit is not None and self.limit <= 0:
            raise ConfigError(f"--limit must be above 0: a number of questions, or a share below 1; got {self.limit}")
        if not isinstance(self.apply_chat_template, bool):
            raise ConfigError("apply_chat_template: is true or false; of several templates the command line names one")
        if self.samples and self.limit is not None:
            raise ConfigError("--samples and --limit: give one of them")
        for name, numbers in self.samples.items():
            if not isinstance(numbers, list | tuple) or not all(type(number) is int for number in numbers):
                raise ConfigError(f"--samples: {name}: give the numbers of its questions, as in [0, 3]")
        if self.data is not None and not self.data.is_dir():
            raise ConfigError(f"--data {self.data}: no such folder")

    @classmethod
    def of(cls, given: Mapping[str, Any], batch_size: int) -> Options:
        """Options as a command line or a recipe writes them, paths as text.

        Raises:
            ConfigError: an option that there is not, or a value of another kind.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := next((name for name in given if name not in known), None):
            raise ConfigError(f"benchmark.options: unknown option '{unknown}'{did_you_mean(unknown, known)}")
        values = {"batch_size": batch_size, **given}
        try:
            if values.get("data") is not None:
                values["data"] = Path(values["data"])
            if "include_path" in values:
                folders = values["include_path"]
                folders = [folders] if isinstance(folders, str | Path) else folders
                values["include_path"] = tuple(map(Path, folders))
            return cls(**values)
        except TypeError as error:
            raise ConfigError(f"benchmark.options: {error}") from error

    def prompts(self) -> dict[str, Any]:
        """What stands around a question, as lm_eval takes it."""
        return {
            "apply_chat_template": self.apply_chat_template,
            "fewshot_as_multiturn": self.apply_chat_template and self.fewshot_as_multiturn,
            "system_instruction": self.system_instruction,
        }

    def described(self) -> dict[str, Any]:
        """As records keep it: what decides the numbers."""
        told = {"metadata": dict(self.metadata)} if self.metadata else {}  # only then: older records know no such key
        return told | {"num_fewshot": self.num_fewshot, **self.prompts(), "gen_kwargs": dict(self.gen_kwargs)}
