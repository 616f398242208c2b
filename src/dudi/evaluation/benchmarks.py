"""What models can be asked: a registry by name, and files of questions. No torch here."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping, Sequence
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
    """An entry of the registry: all that others ask of a benchmark, so that none of them knows it by name.

    Attributes:
        name: As recipes and `--benchmark` say it.
        choose: `module:function`, imported when it is asked for: from a name and `Wanted` to `Asked`. Empty for one
            that asks a server, and no loaded model.
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


def _with_examples(decoding: Mapping[str, Any], full: bool) -> str:
    """`2 examples, chat template`; in full also that there is no template."""
    shots, template = decoding.get("num_fewshot"), bool(decoding.get("apply_chat_template"))
    examples = "examples as the tasks have them" if shots is None else f"{shots} examples"
    if full:
        return f"{examples}, chat template {'on' if template else 'off'}"
    return f"{examples}, chat template" if template else examples


CLDR_QA = Benchmark(
    "cldr-qa-1",
    "dudi.evaluation.cldr_qa:choose",
    orders={"split": ("seen", "transfer", "unseen")},
    meanings={
        "seen": "trained in this language, asked in other words",
        "transfer": "trained in other languages only",
        "unseen": "trained in no language: only the teacher knows",
    },
    versions={"cldr_version": "CLDR", "babel_version": "Babel"},
    made="babel {babel_version} (CLDR {cldr_version})",
)
SEAHELM = Benchmark(
    "seahelm",
    orders={
        "competency": ("nlu", "nlg", "nlr", "safety", "linguistic-diagnostics", "instruction-following", "knowledge")
    },
)
LM_EVAL = Benchmark(
    "lm-eval",
    "dudi.evaluation.harness.questions:choose",
    plain=True,
    options=(
        *("num_fewshot", "apply_chat_template", "fewshot_as_multiturn", "system_instruction"),
        *("gen_kwargs", "include_path", "data", "limit"),
    ),
    seed=1234,  # that of lm_eval's own command line
    how=_with_examples,
    program="lm_eval",
)
BENCHMARKS = {benchmark.name: benchmark for benchmark in (CLDR_QA, SEAHELM, LM_EVAL)}
DEFAULT = CLDR_QA.name


def find(name: object) -> Benchmark:
    """The entry of a name; that of a file of questions for any other."""
    return BENCHMARKS.get(str(name)) or Benchmark(str(name), "dudi.evaluation.question_files:choose")


def takers_of(option: str) -> str:
    """The names of the benchmarks that take an option, joined."""
    return ", ".join(one.name for one in BENCHMARKS.values() if option in one.options)


def check_options(names: Sequence[str], options: Mapping[str, Any]) -> None:
    """Refuse options where nobody has a use for them.

    Raises:
        ConfigError: none of the benchmarks takes options.
    """
    if options and not any(find(name).options for name in names):
        takers = ", ".join(one.name for one in BENCHMARKS.values() if one.options)
        raise ConfigError(f"{', '.join(options)}: only the benchmark {takers} takes options of this kind")


def check_name(name: str) -> None:
    """Refuse what is neither a benchmark's name nor a file's, before anything is read.

    Raises:
        ConfigError: with the name that may be meant.
    """
    if name not in BENCHMARKS and not Path(name).suffix and (Path(name).is_dir() or not Path(name).exists()):
        hint = did_you_mean(name, BENCHMARKS)
        raise ConfigError(f"benchmark: '{name}' is neither {', '.join(BENCHMARKS)} nor a file{hint}")


def choose(name: str, wanted: Wanted) -> Asked:
    """The questions of a benchmark or a file, checked before any model is loaded.

    Args:
        name: An entry of the registry, or a file (docs/eval.md).
        wanted: Which ones, and how they are asked.

    Raises:
        ConfigError: no such benchmark or file, or something wanted that it has not.
        DataError: a file without a good question.
    """
    check_name(name)
    if find(name).served:
        raise ConfigError(f"benchmark: {name} asks a server: dudi eval MODEL --benchmark {name}")
    module, _, function = find(name).choose.partition(":")
    asked: Asked = getattr(importlib.import_module(module), function)(name, wanted)
    return asked
