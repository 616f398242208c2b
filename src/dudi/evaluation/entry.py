"""What a benchmark is to all others: its entry in the registry, what is wanted of it, what comes of it. No torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from dudi.errors import ConfigError
from dudi.evaluation.records import SeedScores

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dudi.data.chat import ChatFormat


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a student was trained on, as far as a benchmark asks.

    Attributes:
        source: `data.train` of its recipe.
        tasks: `data.tasks`; None: all that the source has.
        whole: Whether all rows of the source were read.
    """

    source: str
    languages: Sequence[str]
    tasks: Sequence[str] | None = None
    whole: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is wanted of a benchmark; each refuses what it has no use for.

    Attributes:
        languages, tasks: Only these; None: all.
        part: The part, of benchmarks that come in parts.
        per_split: At most this many questions of each language and split.
        language: The language of a file's rows that do not name theirs.
        max_new_tokens: Longest answer; None: the benchmark's own.
        temperature, top_p, top_k: As `dudi.evaluation.generate.Decoding` has them.
        batch_size: Questions that are asked together; answers do not depend on it.
        trained: What the model was trained on, where that is known.
        in_run: Whether a run asks what it has trained: the benchmark must then go with what that was.
        options: What only one benchmark has, by its own names (`num_fewshot` of lm-eval).
    """

    languages: Sequence[str] | None = None
    tasks: Sequence[str] | None = None
    part: str | None = None
    per_split: int | None = None
    language: str | None = None
    max_new_tokens: int | None = None
    temperature: float = 0.0
    top_p: float | None = None
    top_k: int | None = None
    batch_size: int = 64
    trained: Trained | None = None
    in_run: bool = False
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What came of asking one model.

    Attributes:
        answers: Lines of `answers.jsonl`, without `benchmark` and `subject`.
        about: Further facts, such as what `guessing` reaches.
    """

    runs: tuple[SeedScores, ...]
    answers: list[dict[str, Any]]
    about: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Preview:
    """A question as it is sent.

    Attributes:
        name: Of its task.
        prompt: All that the model reads: system turn, examples, chat template.
        reference: What is right.
    """

    name: str
    prompt: str
    reference: str


Reads = TypeVar("Reads", contravariant=True)


class Questions(Protocol[Reads]):
    """Questions that were chosen and checked, as the loop that asks knows them.

    `Reads` is what a model reads them with, beside its weights: a chat format, or the tokenizer of a stack.
    """

    @property
    def benchmark(self) -> Mapping[str, Any]:
        """What is asked and how, for the record: its `name`, a `fingerprint`, the `decoding` ..."""

    @property
    def total(self) -> int:
        """How many questions one seed asks."""

    def check_seeds(self, seeds: Sequence[int]) -> None:
        """Refuse seeds that make no sense.

        Raises:
            ConfigError: none, one named twice, or several where nothing is drawn.
        """

    def ask(self, model: PreTrainedModel, reads: Reads, seeds: Sequence[int], done: Callable[[int], None]) -> Outcome:
        """Ask a model everything, once for each seed, seeds ascending.

        Args:
            model: The model, on its device.
            reads: What it reads with.
            seeds: Of the sampling, or the seed of the training as a label; `check_seeds` has passed them.
            done: Told how many more questions are through.
        """


class Asked(Questions["ChatFormat"], Protocol):
    """Questions of a benchmark, ready for any causal language model with its chat format."""

    def settle(self, file: Path, max_share: float) -> list[str]:
        """Write down what had to be left out, or take away what an earlier attempt left of that.

        Args:
            file: For one line a row that cannot be asked.
            max_share: More bad rows than this are an error.

        Returns:
            What a person should know of it, a line a reason.

        Raises:
            DataError: they are too many.
        """

    def prompts(self) -> Iterator[str]:
        """Every question in its words, without a chat template or examples in front."""

    def previews(self, chat: ChatFormat, seed: int) -> Iterator[Preview]:
        """The first question of each task and language, with the examples that the seed draws."""

    @property
    def configuration(self) -> Mapping[str, Any]:
        """What is asked and how, in full: `benchmark`, and what its tasks say of themselves."""


def check_once_each(seeds: Sequence[int]) -> None:
    """Refuse no seed at all, and one that is named twice.

    Raises:
        ConfigError: with the seeds.
    """
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"give at least one seed, and each once; got {', '.join(map(str, seeds)) or 'none'}")


@dataclasses.dataclass(frozen=True, slots=True)
class Benchmark:
    """An entry of the registry: all that others ask of a benchmark, so that none of them knows it by name.

    Attributes:
        name: As recipes and `--benchmark` say it.
        choose: `module:function`, from its name, or a file's, and what is wanted to its questions. It may bring torch,
            or half a minute of lm_eval, so it is imported when it is asked. Empty for one that asks a server.
        orders: The order of a table's columns, by what they are: `split`, `competency` ...
        meanings: What each split means, in words for people.
        plain: Whether it can ask a model that has no chat template.
        options: What only it takes, by its own names; `limit` among them is then its own to check.
        seed: The seed where nobody names one.
        versions: Keys of the record that decide its questions, and what people call them. Where there is a fingerprint
            it tells whether they made others.
        made: Of what its questions were made, in words that name `versions`.
        how: From `decoding` and whether it is told in full to words; None: it is sampling alone.
        program: Whose tasks and metrics it has, where they are not ours.
    """

    name: str
    choose: str = ""
    orders: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    meanings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    plain: bool = False
    options: tuple[str, ...] = ()
    seed: int = 0
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    made: str = ""
    how: Callable[[Mapping[str, Any], bool], str] | None = None
    program: str = ""

    @property
    def served(self) -> bool:
        """Whether it asks a server."""
        return not self.choose
