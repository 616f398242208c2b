"""What models can be asked: a registry by name, and files of questions. No torch here."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dudi.errors import ConfigError, did_you_mean
from dudi.evaluation.records import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from dudi.data.chat import ChatFormat


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What a student was trained on, as far as a benchmark asks.

    Attributes:
        source: `data.train` of its recipe.
        languages: Its languages.
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
        languages: Only these; None: all.
        tasks: Only these; None: all.
        part: The part, of benchmarks that come in parts.
        per_split: At most this many questions of each language and split.
        language: The language of a file's rows that do not name theirs.
        max_new_tokens: Longest answer; None: the benchmark's own.
        temperature: Of sampling; 0 is greedy.
        top_p: Sample among the likeliest tokens of this probability.
        top_k: Sample among this many of the likeliest tokens.
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
        runs: Scores by seed.
        answers: Lines of `answers.jsonl`, without `benchmark` and `subject`.
        about: Further facts, such as what `guessing` reaches.
    """

    runs: tuple[Run, ...]
    answers: list[dict[str, Any]]
    about: Mapping[str, Any]


class Asked(Protocol):
    """Questions that were chosen and checked, ready for any model."""

    @property
    def benchmark(self) -> Mapping[str, Any]:
        """What is asked and how, for the record: its `name`, a `fingerprint`, the `decoding` ..."""

    @property
    def total(self) -> int:
        """How many questions one seed asks."""

    def check_seeds(self, seeds: Sequence[int]) -> None:
        """Refuse seeds that make no sense.

        Raises:
            ConfigError: with what to do.
        """

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
        """Every question in its words, without a chat template."""

    def ask(
        self, model: PreTrainedModel, chat: ChatFormat, seeds: Sequence[int], done: Callable[[int], None]
    ) -> Outcome:
        """Ask a model everything, once for each seed.

        Args:
            model: Any causal language model, on its device.
            chat: Its chat format.
            seeds: Of the sampling, or the seed of the training as a label.
            done: Told how many more questions are through.
        """


@dataclasses.dataclass(frozen=True, slots=True)
class Benchmark:
    """An entry of the registry.

    Attributes:
        name: As recipes and `--benchmark` say it.
        choose: `module:function`, imported when it is asked for: from a name and `Wanted` to `Asked`. Empty for one
            that asks a server, and no loaded model.
        orders: The order of a table's columns, by what they are: `split`, `competency` ...
        plain: Whether it can ask a model that has no chat template.
        meanings: What each split means, in words for people.
    """

    name: str
    choose: str = ""
    orders: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    meanings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    plain: bool = False


CLDR_QA = Benchmark(
    "cldr-qa-1",
    "dudi.evaluation.cldr_qa:choose",
    {"split": ("seen", "transfer", "unseen")},
    {
        "seen": "trained in this language, asked in other words",
        "transfer": "trained in other languages only",
        "unseen": "trained in no language: only the teacher knows",
    },
)
SEAHELM = Benchmark(
    "seahelm",
    orders={
        "competency": ("nlu", "nlg", "nlr", "safety", "linguistic-diagnostics", "instruction-following", "knowledge")
    },
)
LM_EVAL = Benchmark("lm-eval", "dudi.evaluation.harness.questions:choose", plain=True)
BENCHMARKS = {benchmark.name: benchmark for benchmark in (CLDR_QA, SEAHELM, LM_EVAL)}
DEFAULT = CLDR_QA.name


def find(name: object) -> Benchmark:
    """The entry of a name; one without order or meanings for a file of questions, or for what nobody knows."""
    return BENCHMARKS.get(str(name)) or Benchmark(str(name))


def check_options(names: Sequence[str], options: Mapping[str, Any]) -> None:
    """Refuse options where nobody has a use for them.

    Raises:
        ConfigError: none of the benchmarks takes options.
    """
    if options and LM_EVAL.name not in names:
        raise ConfigError(f"{', '.join(options)}: only the benchmark {LM_EVAL.name} takes options of this kind")


def choose(name: str, wanted: Wanted) -> Asked:
    """The questions of a benchmark or a file, checked before any model is loaded.

    Args:
        name: An entry of the registry, or a file (docs/eval.md).
        wanted: Which ones, and how they are asked.

    Raises:
        ConfigError: no such benchmark or file, or something wanted that it has not.
        DataError: a file without a good question.
    """
    if name not in BENCHMARKS and not Path(name).suffix and not Path(name).exists():
        hint = did_you_mean(name, BENCHMARKS)
        raise ConfigError(f"benchmark: '{name}' is neither {', '.join(BENCHMARKS)} nor a file{hint}")
    chooser = BENCHMARKS[name].choose if name in BENCHMARKS else "dudi.evaluation.question_files:choose"
    if not chooser:
        raise ConfigError(f"benchmark: {name} asks a server: dudi eval MODEL --benchmark {name}")
    module, _, function = chooser.partition(":")
    asked: Asked = getattr(importlib.import_module(module), function)(name, wanted)
    return asked
