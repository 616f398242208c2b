"""The words of `dudi eval`: what they are, and what they mean."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dudi.errors import ConfigError, did_you_mean
from dudi.evaluation.evaluate import BATCH_SIZE

if TYPE_CHECKING:
    from dudi.evaluation.asking import Decoding
    from dudi.evaluation.question_files import Asked
    from dudi.evaluation.source import Source

BUILT_IN, SEAHELM = "cldr-qa-1", "seahelm"
FOLDER = Path("evals")
MAX_NEW_TOKENS, MAX_NEW_TOKENS_OF_FILES = 64, 256


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The words of `dudi eval`."""
    parser.conflict_handler = "resolve"  # an option that SEA-HELM's words have too is defined here
    add = parser.add_argument
    add("model", metavar="MODEL", help="a model's folder, a hub name, package:NAME, or the folder of a run")
    add("--benchmark", default=BUILT_IN, metavar="NAME|FILE", help=f"{BUILT_IN} (default), {SEAHELM}, or a file")
    groups = [parser.add_argument_group(title) for title in ("what is asked", "how it answers", "the model")]
    if (seahelm := seahelm_command()) is not None:
        seahelm.add_arguments(parser)
    add("--name", help="what tables call the model (default: from its folder)")
    add("--output", type=Path, metavar="DIR", help=f"where the results go (default: {FOLDER}/NAME)")
    add("--force", action="store_true", help="replace another evaluation that is there")
    for group, fill in zip(groups, (_asked_arguments, _answering_arguments, _model_arguments), strict=True):
        fill(group)


def _asked_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--part", metavar="test|validation", help=f"of {BUILT_IN} (default: test)")
    add("--languages", nargs="+", metavar="CODE", help="only these languages")
    add("--tasks", nargs="+", metavar="TASK", help="only these tasks")
    add("--per-split", type=int, metavar="N", help="at most N questions of each language and split")
    add("--language", metavar="CODE", help="the language of a file's rows that do not name theirs")
    add("--max-rejected-share", type=float, default=0.05, metavar="X", help="stop at more bad rows (default: 0.05)")


def _answering_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--temperature", type=float, metavar="T", help=f"of sampling (default: 0, greedy; {SEAHELM}: the model's own)")
    add("--top-p", type=float, metavar="P", help="sample among the likeliest tokens of this probability")
    add("--top-k", type=int, metavar="K", help="sample among the K likeliest tokens")
    add("--max-new-tokens", type=int, metavar="N", help="longest answer (default: 64; of files 256)")
    add("--seeds", type=int, metavar="N", help="the seeds 0 to N - 1")
    add("--seed", type=int, nargs="+", metavar="SEED", help="these seeds (default: 0)")
    add("--batch-size", type=int, default=BATCH_SIZE, metavar="N", help=f"questions at a time (default: {BATCH_SIZE})")


def _model_arguments(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--revision", help="commit, tag or branch on the hub")
    add("--dtype", default="auto", metavar="auto|float32|...", help="precision of the weights (default: the device's)")
    add("--device", default="auto", help="auto, cpu, cuda:1 ... (default: auto)")
    add("--chat-template", type=Path, metavar="FILE", help="a jinja file instead of the model's own template")
    add("--trust-remote-code", action="store_true", help="run code that the model's repository brings")


def seahelm_command() -> Any:
    """The module that drives SEA-HELM, with `add_arguments` and `run` of its own; None where it is not installed."""
    name = "dudi.program.seahelm"
    try:
        return importlib.import_module(name) if importlib.util.find_spec(name) is not None else None
    except ModuleNotFoundError:
        return None


def questions_of(given: argparse.Namespace, source: Source) -> Asked:
    """The questions that a command line asks for.

    Raises:
        ConfigError: an unknown benchmark, part, task or language.
        DataError: a file without a good question.
    """
    from dudi.evaluation.question_files import built_in, from_file

    languages, tasks = _words(given.languages), _words(given.tasks)
    if given.benchmark == BUILT_IN:
        if given.language is not None:
            raise ConfigError(f"--language is for the rows of a file; {BUILT_IN} takes --languages")
        trained = source.languages
        return built_in(
            languages or trained,
            tasks or source.tasks,
            part=given.part or "test",
            per_split=given.per_split,
            trained=trained,
        )
    path = Path(given.benchmark)
    if not path.suffix and not path.exists():
        hint = did_you_mean(given.benchmark, (BUILT_IN, SEAHELM))
        raise ConfigError(f"--benchmark: '{given.benchmark}' is neither {BUILT_IN}, {SEAHELM} nor a file{hint}")
    if given.part is not None:
        raise ConfigError(f"--part is for {BUILT_IN}; choose from a file with --tasks and --languages")
    return from_file(path, languages, tasks, per_split=given.per_split, language=given.language)


def source_of(given: argparse.Namespace) -> Source:
    """The model, with the options that say how it is loaded.

    Raises:
        ConfigError: an unknown precision, or a run without a model.
    """
    from dudi.evaluation import source as sources

    if given.dtype not in sources.DTYPES:
        hint = did_you_mean(given.dtype, sources.DTYPES)
        raise ConfigError(f"--dtype: '{given.dtype}' is not one of {', '.join(sources.DTYPES)}{hint}")
    keys = ("revision", "dtype", "device", "chat_template", "trust_remote_code")
    source = sources.source_of(given.model, **{key: getattr(given, key) for key in keys})
    return source if given.name is None else dataclasses.replace(source, name=given.name)


def decoding_of(given: argparse.Namespace) -> Decoding:
    """How answers are decoded; files get longer answers than the built-in benchmark.

    Raises:
        ConfigError: a number out of its range.
    """
    from dudi.evaluation.asking import Decoding

    longest = given.max_new_tokens
    if longest is None:
        longest = MAX_NEW_TOKENS if given.benchmark == BUILT_IN else MAX_NEW_TOKENS_OF_FILES
    return Decoding(longest, given.temperature or 0.0, given.top_p, given.top_k)


def seeds_of(given: argparse.Namespace) -> list[int]:
    """The seeds, ascending."""
    return list(range(given.seeds)) if given.seeds is not None else sorted(given.seed or [0])


def check_numbers(given: argparse.Namespace) -> None:
    """Refuse numbers that make no sense.

    Raises:
        ConfigError: with the option's name.
    """
    if given.seeds is not None and given.seed is not None:
        raise ConfigError("--seeds and --seed: give one of them")
    for name in ("seeds", "per_split", "batch_size", "max_new_tokens", "top_k"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if not 0 <= given.max_rejected_share <= 1:
        raise ConfigError(f"--max-rejected-share must be between 0 and 1, got {given.max_rejected_share}")


def _words(given: Iterable[str] | None) -> list[str] | None:
    """`--languages id th`, `--languages id,th`: the words."""
    return [word for words in given for word in words.split(",") if word] if given else None
