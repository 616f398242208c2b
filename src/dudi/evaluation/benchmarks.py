"""What models can be asked: a registry by name, and files of questions. No torch here."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dudi.errors import ConfigError, did_you_mean
from dudi.evaluation import harness, seahelm
from dudi.evaluation.entry import Asked, Benchmark, Wanted


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
SEAHELM = Benchmark(seahelm.NAME, orders={"competency": tuple(seahelm.COMPETENCIES)})
LM_EVAL = Benchmark(
    harness.NAME,
    "dudi.evaluation.harness.questions:choose",
    plain=True,
    options=(
        *("num_fewshot", "apply_chat_template", "fewshot_as_multiturn", "system_instruction"),
        *("gen_kwargs", "include_path", "data", "samples", "metadata", "limit"),
    ),
    seed=1234,  # that of lm_eval's own command line
    how=_with_examples,
    program="lm_eval",
)
BENCHMARKS = {benchmark.name: benchmark for benchmark in (CLDR_QA, SEAHELM, LM_EVAL)}
DEFAULT = CLDR_QA.name
SERVED = ", ".join(name for name, benchmark in BENCHMARKS.items() if benchmark.served)
"""Those that ask a server, joined."""


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
